"""A Ray cluster of three machines, which are processes on loopback; its files lie in a folder that goes with it."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

MACHINES = 3
LOOPBACK = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # loopback instead of the address that others reach
    "RAY_AUTH_MODE": "disabled",  # no token in the home folder
    "RAY_memory_monitor_refresh_ms": "0",  # the memory is that of the whole machine, which others use
    "RAY_worker_niceness": "0",  # beside the other processes of the tests they would hardly be run
}


class Machines:
    """A head, whose machine the test's process is on, and two others.

    Attributes
    ----------
    address
        Of the head.
    """

    def __init__(self, cluster: Any, options: dict[str, Any]) -> None:
        self._cluster, self._options = cluster, options
        self.address = str(cluster.address)

    @property
    def count(self) -> int:
        return 1 + len(self._cluster.worker_nodes)

    def kill_one(self) -> None:
        """Kill all processes of a machine that is not the head."""
        self._cluster.remove_node(next(iter(self._cluster.worker_nodes)), allow_graceful=False)

    def kill_a_member(self) -> None:
        """Kill all processes of a machine that is not the head and has a process of a group."""
        from ray.util import placement_group_table

        groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
        busy = {machine for group in groups for machine in group["bundles_to_node_id"].values()}
        machine = next(one for one in self._cluster.worker_nodes if one.node_id in busy)
        self._cluster.remove_node(machine, allow_graceful=False)

    def replace(self) -> None:
        """Start a machine in place of a killed one."""
        if self.count < MACHINES:
            self._cluster.add_node(**self._options)


@contextlib.contextmanager
def three_machines() -> Iterator[Machines]:
    """Start the cluster with a core for each machine; nothing of it is left afterwards."""
    pytest.importorskip("ray", reason="needs the extra `ray`")
    before = {name: os.environ.get(name) for name in (*LOOPBACK, "PYTHONPATH")}
    os.environ.update(LOOPBACK)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[3]), before["PYTHONPATH"] or ""])
    import ray
    from ray._private import ray_constants
    from ray.cluster_utils import Cluster

    ray_constants.ENABLE_RAY_CLUSTER = False  # what the variable says, for a test before which Ray was imported
    # a short path: those of Ray's sockets are long, and no system takes more than about a hundred characters
    folder = tempfile.mkdtemp(prefix="ray-", dir="/tmp")
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)  # where the cluster's class writes an address to
    options: dict[str, Any] = {"num_cpus": 1, "node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000}
    options |= {"temp_dir": folder, "include_dashboard": False}
    cluster = Cluster(shutdown_at_exit=True)
    try:
        for _ in range(MACHINES):
            cluster.add_node(**options)
        yield Machines(cluster, options)
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})
