"""Processes that work with a warehouse, so that the next one can clear away what a killed one left.

A process holds a file in `<state folder>/processes` locked while it lives, however it ends. While it is registered,
all of its temporary files lie in one folder, `recsys-<name>` in the system's place for them. A file that can be locked
belongs to a process that is gone: its folder is deleted and its child processes, such as Prefect's temporary server,
are ended. Folders of living processes are never touched.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from recsys.runs import state_folder
from recsys.storage.locks import locks

_VARIABLE: Final = "RECSYS_PROCESS"  # by which a child process is known after its parent has gone
_FOLDER: Final = "processes"
_CURRENT: ContextVar[tuple[Path, str] | None] = ContextVar("process", default=None)


@contextlib.contextmanager
def registered(warehouse: str) -> Iterator[str | None]:
    """Register this process for the length of the block; yields its name, inside of another block the same one.

    Yields None, and changes nothing, where the folder of run states, or that of temporary files, cannot be written.
    """
    folder = state_folder(warehouse) / _FOLDER
    current = _CURRENT.get()
    if current is not None and current[0] == folder:
        yield current[1]
        return
    name = uuid.uuid4().hex[:16]
    before = tempfile.tempdir
    aside = folder / f".{name}.new"
    with contextlib.ExitStack() as stack:
        try:
            scratch = Path(tempfile.gettempdir()) / f"recsys-{name}"  # a full disk has no place for such
            folder.mkdir(parents=True, exist_ok=True)
            file = stack.enter_context(aside.open("wb", buffering=0))  # a buffer would fail a second time at the end
            locks(file)  # before it has its name: unlocked it would be one of the dead
            file.write(json.dumps({"scratch": str(scratch)}).encode())
            aside.rename(folder / name)
            scratch.mkdir(mode=0o700)
        except OSError:
            with contextlib.suppress(OSError):
                aside.unlink(missing_ok=True)
            yield None
            return
        token = _CURRENT.set((folder, name))
        tempfile.tempdir, os.environ[_VARIABLE] = str(scratch), name
        try:
            yield name
        finally:
            tempfile.tempdir = before
            os.environ.pop(_VARIABLE, None)
            _CURRENT.reset(token)
            shutil.rmtree(scratch, ignore_errors=True)
            (folder / name).unlink(missing_ok=True)


def gone(warehouse: str) -> Iterator[str]:
    """Names of the processes that were killed; each one's left-overs are cleared, and it is forgotten afterwards."""
    folder = state_folder(warehouse) / _FOLDER
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        try:
            file = path.open("r+", encoding="utf-8")
        except OSError:
            continue
        with file:
            try:
                ended = locks(file)
            except OSError:
                ended = False
            if not ended:  # it lives, or another process is clearing up
                continue
            name = path.name.removeprefix(".").removesuffix(".new")
            with contextlib.suppress(ValueError, KeyError, TypeError):
                scratch = Path(json.loads(file.read())["scratch"])
                if scratch.name == f"recsys-{name}":
                    shutil.rmtree(scratch, ignore_errors=True)
            _end_children(name)
            yield name
            path.unlink(missing_ok=True)


def _end_children(name: str) -> None:
    """End what a process has started and left; where the system has no /proc, nothing is found."""
    mark = f"{_VARIABLE}={name}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # gone, or somebody else's
            if mark in (process / "environ").read_bytes().split(b"\0") and process.name != str(os.getpid()):
                os.kill(int(process.name), signal.SIGTERM)
