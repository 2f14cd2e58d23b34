"""Failures of disks, tables and stores, which one part of a clean-up may meet while the others go on."""

from __future__ import annotations

from typing import Final

import polars as pl
from deltalake.exceptions import DeltaError
from pyarrow import ArrowException

from recsys.errors import RecsysError, first_line, is_panic
from recsys.storage.addresses import masked

_FAILURES: Final = (RecsysError, OSError, DeltaError, ArrowException, pl.exceptions.PolarsError)


def is_failure(error: BaseException) -> bool:
    """Return whether a disk, a table or a store failed; any other error is a bug or the end of the process."""
    return isinstance(error, _FAILURES) or is_panic(error)


def sentence(error: BaseException) -> str:
    """Return what failed in one sentence, without secrets and without its full stop.

    >>> sentence(FileNotFoundError(2, "No such file or directory", "a.json"))
    'a.json: No such file or directory'
    """
    if isinstance(error, RecsysError):
        text = str(error)
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    else:
        text = first_line(error)
    return masked(text).rstrip(".")
