"""A group of processes on a Ray cluster that work on one thing together and talk by torch.distributed (gloo).

Actors, and not Ray Train: that begins again after any error, also one of the work itself, and keeps checkpoints and
records of its own beside ours. A group is placed as a whole or not at all. Where one of its processes or machines is
lost, the others end with an error of their connection; then all begin again, and the work goes on from what it wrote.

Processes meet at a port of the first one's machine, and connect to each other on the addresses by which Ray knows
their machines.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

import psutil
import ray
from ray.exceptions import RayError, RayTaskError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from recsys.compute.base import Lost, Tell
from recsys.errors import RecsysError

_ROOM: Final = 120.0  # (seconds) that a cluster may take to have room, as when a machine comes in place of a lost one
_POLL: Final = 0.5  # (seconds) between two looks at what the first process tells
_GRACE: Final = 60.0  # (seconds) after the first error in which the others' errors and lost machines are heard of
_WAIT: Final = timedelta(days=7)  # for each other; that one is lost, Ray says


class LostError(Exception):
    """A process or a machine of the group is no more."""


def run_group(work: Callable[[Tell], None], count: int, cores: int, told: Callable[[Any], None]) -> None:
    """Run `work` in so many processes, of so many cores each; see `Engine.together`.

    Raises
    ------
    LostError
        One was lost; nothing of the group is left.
    RecsysError
        The cluster has no room.
    Exception
        What the work of one of them raises comes through as it is.
    """
    room = placement_group([{"CPU": float(cores)}] * count, strategy="SPREAD")
    members: list[Any] = []
    try:
        if not room.wait(_ROOM):
            raise RecsysError(
                f"The Ray cluster has had no room for compute.training_processes = {count} of compute.cores = {cores} "
                f"in {_ROOM:g} seconds; add a machine and run it again: training goes on from its last checkpoint."
            )
        members += [_actor(room, place).remote() for place in range(count)]
        _wait(members, _begin(members, work), told)
    finally:
        for member in members:
            with contextlib.suppress(RayError):
                ray.kill(member)
        with contextlib.suppress(RayError):
            remove_placement_group(room)


def _actor(room: PlacementGroup, place: int) -> Any:
    strategy = PlacementGroupSchedulingStrategy(placement_group=room, placement_group_bundle_index=place)
    cores = room.bundle_specs[place]["CPU"]
    # two threads: one works, and one says what it told meanwhile
    options = {"num_cpus": cores, "max_concurrency": 2, "max_restarts": 0, "scheduling_strategy": strategy}
    return ray.remote(**options)(_Member)


def _begin(members: list[Any], work: Callable[[Tell], None]) -> list[Any]:
    """Let the processes meet and begin; returns what they end with."""
    addresses = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes()}
    try:
        hosts = [addresses[name] for name in ray.get([member.machine.remote() for member in members])]
        port = ray.get(members[0].open.remote(hosts[0]))
    except (RayError, KeyError) as error:
        raise LostError(str(error)) from error
    given = [ray.put(work)]
    return [
        member.work.remote(rank, len(members), (hosts[0], port), hosts[rank], given)
        for rank, member in enumerate(members)
    ]


def _wait(members: list[Any], ends: list[Any], told: Callable[[Any], None]) -> None:
    """Wait for all to end, or for what ended one of them."""
    heard = 0
    while True:
        done, pending = ray.wait(ends, num_returns=len(ends), timeout=_POLL)
        with contextlib.suppress(RayError):
            news = ray.get(members[0].told.remote(heard), timeout=_GRACE)
            heard += len(news)
            for one in news:
                told(one)
        errors = [error for end in done if (error := _error(end)) is not None]
        if errors:
            until = time.monotonic() + _GRACE
            while pending and not any(map(_own, errors)) and time.monotonic() < until:
                done, pending = ray.wait(pending, num_returns=len(pending), timeout=_POLL)
                errors += [error for end in done if (error := _error(end)) is not None]
            own = next(filter(_own, errors), None)
            if own is not None:
                raise own
            raise LostError(str(errors[0])) from errors[0]
        if not pending:
            return


def _error(end: Any) -> BaseException | None:
    try:
        ray.get(end)
    except RayTaskError as error:
        cause: BaseException | None = error.cause
        return cause if isinstance(cause, Exception) else error
    except RayError as error:
        return error
    return None


def _own(error: BaseException) -> bool:
    """Return whether the work itself failed."""
    return not isinstance(error, Lost) and (isinstance(error, RayTaskError) or not isinstance(error, RayError))


class _Member:
    """A process of a group."""

    def __init__(self) -> None:
        self._told: list[Any] = []
        self._store: Any = None

    def machine(self) -> str:
        """Return Ray's name of the machine."""
        return str(ray.get_runtime_context().get_node_id())

    def open(self, host: str) -> int:
        """Open the port where all meet."""
        import torch.distributed as dist

        # its own address alone, where torch would listen on all
        with socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET) as listening:
            port = int(listening.getsockname()[1])
            self._store = dist.TCPStore(
                host, port, is_master=True, wait_for_workers=False, timeout=_WAIT, master_listen_fd=listening.detach()
            )
        return port

    def told(self, heard: int) -> list[Any]:
        """Return what the work has told beyond what was heard."""
        return self._told[heard:]

    def work(self, rank: int, count: int, meeting: tuple[str, int], host: str, given: list[Any]) -> None:
        """Join the group, and work."""
        import torch.distributed as dist

        if name := _interface(host):  # gloo would take the one that the machine's name resolves to
            os.environ["GLOO_SOCKET_IFNAME"] = name
        store = self._store or dist.TCPStore(*meeting, is_master=False, timeout=_WAIT)
        try:
            dist.init_process_group("gloo", store=store, rank=rank, world_size=count, timeout=_WAIT)
        except RuntimeError as error:
            raise Lost(str(error)) from error
        try:
            ray.get(given[0])(self._told.append if rank == 0 else lambda _: None)
            try:
                dist.barrier()  # nobody goes before all have what they wait for
            except RuntimeError as error:
                raise Lost(str(error)) from error
        finally:
            dist.destroy_process_group()


def _interface(address: str) -> str:
    """Name of the network interface that has an address."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(one.address.partition("%")[0] == address for one in addresses):
            return name
    return ""
