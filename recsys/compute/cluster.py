"""The Ray cluster that this process works with: found, connected to, and its machines looked at before the work."""

from __future__ import annotations

import contextlib
import importlib.metadata
import socket
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import ray
from ray.exceptions import GetTimeoutError, RayError, TaskUnschedulableError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from recsys.errors import InputError, first_line
from recsys.runs import code_version
from recsys.storage.remote import is_url

_SECONDS: Final = 5.0  # that a head may take to answer
_PATIENCE: Final = 120.0  # (seconds) that a machine may take to start a process and to look around
# in whose versions results can differ
_LIBRARIES: Final = ("numpy", "polars", "torch", "transformers", "tokenizers", "sentence-transformers", "faiss-cpu")
_INSPECTED: set[tuple[str, str, int]] = set()  # (cluster, warehouse, machines)


def connect(address: str) -> None:
    """Connect this process to a cluster; one that it is connected to already is kept.

    Raises
    ------
    InputError
        There is none at this address, or it runs another version of Ray or of Python.
    """
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
    if address == "local":
        options |= {"include_dashboard": False}
    elif address != "auto":
        _reach(address)
    try:
        ray.init(address=address, **options)
    except ConnectionError as error:
        advice = "start one with `ray start --head` on this machine, or write its address" if address == "auto" else ""
        raise InputError(
            f"No Ray cluster answers at compute.address = {address!r} ({first_line(error)}); "
            f'{advice or "look whether it runs there"}, or set compute.engine = "local".'
        ) from None
    except ValueError as error:
        if "ray[client]" not in str(error):
            raise
        raise InputError(
            f'compute.address = {address!r} needs the client of Ray; run `pip install "ray[client]"`, or run this on a '
            "machine of the cluster."
        ) from None
    except (RuntimeError, ImportError) as error:
        if "ersion" in str(error):
            raise InputError(
                f"The Ray cluster at compute.address = {address!r} is not like this process "
                f"({' '.join(str(error).split())}); install the same versions of Python and Ray on all machines."
            ) from None
        raise InputError(f"The Ray cluster at compute.address = {address!r} refuses ({first_line(error)}).") from error


def inspect(warehouse: str, cores: int) -> None:
    """Look at every machine of the connected cluster, once for the machines that there are now.

    Raises
    ------
    InputError
        No machine has enough cores for a task. Or one has another version of this program or of a library, does not
        answer, or does not see the warehouse.
    """
    machines = {node["NodeID"]: node for node in ray.nodes() if node["Alive"]}
    most = max((int(node["Resources"].get("CPU", 0)) for node in machines.values()), default=0)
    if most < cores:
        raise InputError(
            f"compute.cores = {cores} is more than any machine of the Ray cluster has, which is {most}; lower it."
        )
    workers = [name for name, node in machines.items() if node["Resources"].get("CPU", 0) >= cores]
    key = (ray.get_runtime_context().gcs_address, warehouse, hash(tuple(sorted(workers))))
    if key in _INSPECTED:
        return
    with _mark(warehouse) as mark:
        mine = _mine()
        pinned = {
            name: ray.remote(num_cpus=0, max_retries=1)(_facts)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(name, soft=False))
            .remote(mark)
            for name in workers
        }
        for name, reference in pinned.items():
            if (other := _answer(reference, machines[name])) is not None:
                _compare(mine, other, machines[name], warehouse)
    _INSPECTED.add(key)


def has_room(processes: int, cores: int) -> None:
    """Refuse more processes at once than the connected cluster has room for.

    Raises
    ------
    InputError
        Says how many it has room for.
    """
    room = sum(int(node["Resources"].get("CPU", 0)) // cores for node in ray.nodes() if node["Alive"])
    if room < processes:
        raise InputError(
            f"compute.training_processes = {processes} of compute.cores = {cores} are more than the Ray cluster has "
            f"room for, which is {room}; lower one of them, or add machines."
        )


def _answer(reference: Any, machine: dict[str, Any]) -> dict[str, Any] | None:
    """The facts of a machine; None: it has left the cluster meanwhile, so no task goes there."""
    where = _called(machine)
    try:
        return dict(ray.get(reference, timeout=_PATIENCE))
    except GetTimeoutError:
        raise InputError(
            f"{where} has not started a process in {_PATIENCE:g} seconds; look at it, or take it out of the cluster."
        ) from None
    except RayError as error:
        lives = any(node["Alive"] for node in ray.nodes() if node["NodeID"] == machine["NodeID"])
        if isinstance(error, TaskUnschedulableError) or not lives:
            return None
        missing = "recsys" in str(error) and "No module named" in str(error)
        said = "recsys is not installed there" if missing else first_line(getattr(error, "cause", None) or error)
        raise InputError(f"{where} cannot work for this program ({said}); install the same recsys on it.") from error


def _compare(mine: dict[str, Any], other: dict[str, Any], machine: dict[str, Any], warehouse: str) -> None:
    """Refuse a machine whose results could differ, or that lacks the data."""
    for name, version in mine["versions"].items():
        if other["versions"][name] != version:
            raise InputError(
                f"{_called(machine)} has {name} {other['versions'][name]}, and this process {version}; install the "
                "same version on all machines."
            )
    if not other["sees"]:
        raise InputError(
            f"{_called(machine)} does not see the warehouse {warehouse}; put it on a file system that all machines "
            "mount under this path, or into an object store."
        )


def _called(machine: dict[str, Any]) -> str:
    return f"The machine {machine['NodeManagerHostname']} ({machine['NodeManagerAddress']}) of the Ray cluster"


def _mine() -> dict[str, Any]:
    return _facts(None)


def _facts(mark: str | None) -> dict[str, Any]:
    """Facts that have to be the same on all machines, and whether this one sees a file."""
    versions = {"Python": ".".join(map(str, sys.version_info[:3])), "recsys": code_version()[:12]}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = "none"
    return {"versions": versions, "sees": mark is None or Path(mark).is_file()}


@contextlib.contextmanager
def _mark(warehouse: str) -> Iterator[str | None]:
    """Lay a file into a local warehouse for as long as the machines look; None: a store, which is nowhere's own."""
    if is_url(warehouse):
        yield None
        return
    folder = Path(warehouse).absolute()
    path = folder / f".seen-{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.touch()
    except OSError as error:
        raise InputError(f"The warehouse {warehouse} cannot be written: {error.strerror}.") from None
    try:
        yield str(path)
    finally:
        path.unlink(missing_ok=True)


def _reach(address: str) -> None:
    """Refuse an address where nothing listens, which Ray would wait for a long time."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=_SECONDS):
            pass
    except (OSError, OverflowError) as error:
        raise InputError(
            f"Nothing answers at compute.address = {address!r} ({getattr(error, 'strerror', None) or error}); "
            'start the cluster there, or set compute.engine = "local".'
        ) from None
