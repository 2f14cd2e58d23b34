"""Errors a user can act on. Each message is one sentence: what, which value, where, what to do."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager


class RecsysError(Exception):
    """The job failed for a reason that is not the user's input; the command exits with 1."""


class InputError(RecsysError):
    """The input data or the configuration is wrong; the command exits with 2 and nothing is published."""


def first_line(error: BaseException) -> str:
    """Return a library's message as it goes into one of our sentences; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".: ")


def is_panic(error: BaseException) -> bool:
    """Return whether an error is a panic of polars or deltalake, which no `except Exception` catches.

    Each of the two libraries has a class of its own by this name.
    """
    return type(error).__name__ == "PanicException"


@contextmanager
def no_panic(message: str, kind: type[RecsysError] = RecsysError) -> Iterator[None]:
    """Raise `kind` instead of a panic, with the message (without a full stop) and what the first panic said.

    >>> with no_panic("log.parquet is damaged"):
    ...     pass
    """
    try:
        yield
    except BaseException as error:
        if not is_panic(error):
            raise
        inner = re.search(r'"([^"\\]+)', str(error).rpartition("JoinError::Panic(")[2])  # a thread's, told by others
        raise kind(f"{message}: {inner[1] if inner else first_line(error)}.") from None
