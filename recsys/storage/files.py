"""Small acts on files that must not be half done: hashes, waiting for the disk, JSON, left-overs of kills, errors."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from recsys.errors import RecsysError

WRITING: Final = ".writing-"  # part of the name of every folder that is not finished
ABANDONED_AFTER: Final = 86_400  # seconds; older unfinished folders were left by a killed process


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


def remove_abandoned(parent: Path) -> None:
    """Delete unfinished folders that a killed process left in `parent` more than a day ago."""
    for folder in parent.glob(f".*{WRITING}*"):
        if time.time() - folder.stat().st_mtime > ABANDONED_AFTER:
            shutil.rmtree(folder, ignore_errors=True)
