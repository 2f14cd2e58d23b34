"""Locks on files, which the operating system drops when their holder ends, however it ends."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from filelock import lock_descriptor


class Held(Exception):
    """Another process, or another block of this one, holds the lock; the message is its process number, if known."""


def locks(file: IO[Any], *, wait: bool = False) -> bool:
    """Lock an open file until it is closed; False where another holds it, and `wait` does not wait for that one."""
    return bool(lock_descriptor(file.fileno(), blocking=wait))


def shares(file: IO[Any]) -> bool:
    """Keep others from locking an open file until it is closed, as others may, too; False where one has locked it.

    Systems without such locks refuse to remove a file that is open, which is what this one is for.
    """
    try:
        import fcntl
    except ImportError:
        return True
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_held(path: Path) -> bool:
    """Return whether another process, or another block of this one, holds a lock file at this moment."""
    try:
        with path.open("r+", encoding="utf-8") as file:
            return not locks(file)
    except OSError:
        return False


@contextlib.contextmanager
def lock_file(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a file that is there to be locked; it stays, and names its holder's process number.

    Raises
    ------
    Held
        Another holds it, and nobody waits.
    OSError
        The file cannot be opened for writing.
    """
    with path.open("a+", encoding="utf-8") as file:
        if not locks(file, wait=wait):
            file.seek(0)
            raise Held(file.read().strip())
        with contextlib.suppress(OSError):  # the number is a courtesy: a full disk is told by what needs it
            os.ftruncate(file.fileno(), 0)
            os.pwrite(file.fileno(), str(os.getpid()).encode(), 0)
        yield
