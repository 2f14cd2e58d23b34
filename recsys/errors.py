"""Errors a user can act on. Each message is one sentence: what, which value, where, what to do."""

from __future__ import annotations


class RecsysError(Exception):
    """The job failed for a reason that is not the user's input; the command exits with 1."""


class InputError(RecsysError):
    """The input data or the configuration is wrong; the command exits with 2 and nothing is published."""


def first_line(error: Exception) -> str:
    """What a library's error says, as it goes into one of our sentences; its kind where it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".: ")
