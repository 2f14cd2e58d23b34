"""Small acts on files that must not be half done: hashes, waiting for the disk, JSON, left-overs of kills, errors."""

from __future__ import annotations

import contextlib
import errno
import glob
import hashlib
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from recsys.errors import RecsysError

WRITING: Final = ".writing-"  # part of the name of everything that is not finished
ABANDONED_AFTER: Final = 86_400  # seconds; what is unfinished and older was left by a killed process


_REFUSALS: Final = tuple(
    os.strerror(number)
    for number in (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EFBIG, errno.EIO)
)


def refusal(error: BaseException) -> str | None:
    """The system's words for why a disk did not take something, such as "No space left on device".

    Libraries that write from C or Rust put them somewhere into errors of their own; None for an error of another kind.
    """
    if isinstance(error, OSError) and error.strerror in _REFUSALS:
        return error.strerror
    text = str(error)
    return next((words for words in _REFUSALS if words in text), None)


def is_full(error: BaseException) -> bool:
    """Return whether a disk, or a user's share of it, has no room for what was written."""
    return refusal(error) in (os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT))


@contextlib.contextmanager
def writing(what: str, advice: str = "") -> Iterator[None]:
    """Turn a disk's refusal, in whatever error it comes, into one sentence that names what was written.

    Parameters
    ----------
    what
        Subject of the sentence, with the path.
    advice
        What to do about it, after the reason.

    Raises
    ------
    RecsysError
        The disk refused; its cause is the error.
    """
    try:
        yield
    except RecsysError:
        raise
    except Exception as error:
        reason = refusal(error) or (error.strerror if isinstance(error, OSError) else None)
        if reason is None:
            raise
        raise RecsysError(f"{what} cannot be written: {reason}{f'; {advice}' if advice else ''}.") from error


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synchronise(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any], *, sort: bool = False) -> None:
    """Write indented JSON; equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=sort, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


@contextlib.contextmanager
def file_aside(path: Path) -> Iterator[Path]:
    """Yield a path beside `path`; when the block ends, the file written there replaces `path` in one step.

    A kill, or an error inside the block, leaves `path` as it was. The file is on disk before it counts.
    """
    remove_abandoned(path.parent, path.name)
    aside = _aside(path.parent, path.name)
    try:
        yield aside
        synchronise(aside)
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    synchronise(path.parent)


@contextlib.contextmanager
def folder_aside(parent: Path, name: str) -> Iterator[Path]:
    """Yield a new, empty folder in `parent`, whose name shows that it is not finished; see `move_into_place`.

    Whatever of it is there at the end of the block is removed, and so is what killed processes left in `parent`.
    """
    parent.mkdir(parents=True, exist_ok=True)
    remove_abandoned(parent)
    aside = _aside(parent, name)
    aside.mkdir()
    try:
        yield aside
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def move_into_place(aside: Path, target: Path) -> None:
    """Rename a finished folder to `target` beside it, all of its files on disk; a folder that is there stays."""
    for path in aside.rglob("*"):
        synchronise(path)
    synchronise(aside)
    try:
        aside.rename(target)
    except OSError:
        if not target.is_dir():  # otherwise another process has just written the same
            raise
    synchronise(target.parent)


def remove_folder(path: Path) -> None:
    """Delete a folder; a kill leaves all of it, or what `remove_abandoned` deletes. A full disk has room for that."""
    aside = _aside(path.parent, path.name)
    path.rename(aside)
    shutil.rmtree(aside)


def remove_abandoned(parent: Path, name: str | None = None) -> None:
    """Delete what killed processes left unfinished in `parent` more than a day ago; `name` is that of the finished."""
    for path in parent.glob(f".{'*' if name is None else glob.escape(name)}{WRITING}*"):
        with contextlib.suppress(OSError):  # another process was faster
            if time.time() - path.stat().st_mtime > ABANDONED_AFTER:
                shutil.rmtree(path) if path.is_dir() else path.unlink()


def _aside(parent: Path, name: str) -> Path:
    return parent / f".{name}{WRITING}{uuid.uuid4().hex[:12]}"
