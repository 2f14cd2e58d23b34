"""Memory that this process holds, and that it can still take of the machine."""

from __future__ import annotations

import contextlib
import os
import resource
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

GIB: Final = 2**30


def free_memory() -> int | None:
    """Bytes that a training can still take: of the accelerator if there is one, else as `free_on_processor`."""
    import torch  # here: steps that neither train nor encode do without it

    return int(torch.cuda.mem_get_info()[0]) if torch.cuda.is_available() else free_on_processor()


def free_on_processor(root: Path = Path("/")) -> int | None:
    """Bytes that this process can still take: the machine's, or less where its container or its own limits say so.

    None where nothing says so. Systems without /proc tell the machine's memory and not what of it is free.
    """
    meminfo = dict(line.split(":", 1) for line in _read(root / "proc/meminfo").splitlines())
    found = [1024 * int(meminfo["MemAvailable"].split()[0])] if "MemAvailable" in meminfo else []
    if not found and root == Path("/"):
        found = _physical()
    for folder, limit, used in _groups(root):
        allowed, taken = _read(folder / limit).strip(), _read(folder / used).strip()
        if allowed.isdecimal() and taken.isdecimal():
            statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
            returnable = int(statistics.get("inactive_file", 0))  # pages of files, counted as used
            found.append(max(0, int(allowed) - int(taken) + returnable))
    # what `ulimit -v` and `ulimit -d` set
    for limit, taken in (("Max address space", "VmSize"), ("Max data size", "VmData")):
        rows = [line for line in _read(root / "proc/self/limits").splitlines() if line.startswith(limit)]
        if rows and (allowed := rows[0].removeprefix(limit).split()[0]).isdecimal():
            found.append(max(0, int(allowed) - _status(taken, root)))
    return min(found, default=None)


def held_by_process(root: Path = Path("/")) -> int:
    """Bytes that this process holds; where the system does not tell, what it held at most."""
    found = _status("VmRSS", root)
    if found:
        return found
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


@dataclass(eq=False)
class Peak:
    """The most bytes that this process held so far, by samples."""

    most: int = 0

    def look(self) -> int:
        """Take a sample; returns the most so far."""
        self.most = max(self.most, held_by_process())
        return self.most


@contextlib.contextmanager
def peak_memory(seconds: float = 0.2) -> Iterator[Peak]:
    """Yield what follows the memory of this process while the block runs, by a sample every so many seconds."""
    peak, ended = Peak(), threading.Event()

    def follow() -> None:
        while not ended.wait(seconds):
            peak.look()

    peak.look()
    thread = threading.Thread(target=follow, name="peak-memory", daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()
        peak.look()


def _groups(root: Path) -> Iterator[tuple[Path, str, str]]:
    """Folders of the process's control groups, its own and those around it, with the names of limit and use."""
    top = root / "sys/fs/cgroup"
    for line in ["0::/", "0:memory:/", *_read(root / "proc/self/cgroup").splitlines()]:
        _, controllers, path = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        base = top / "memory" if controllers else top
        names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if controllers else ("memory.max", "memory.current")
        own = base / path.lstrip("/")
        for folder in (own, *own.parents):
            if folder.is_relative_to(base):
                yield folder, *names


def _physical() -> list[int]:
    try:
        return [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):
        return []


def _status(key: str, root: Path) -> int:
    """Bytes of an entry of the process's status; 0 where it is not told."""
    lines = dict(line.split(":", 1) for line in _read(root / "proc/self/status").splitlines() if ":" in line)
    return 1024 * int(lines[key].split()[0]) if key in lines else 0


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
