"""Sentences about unexpected exceptions, for the log: nothing of what the client sent stands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from recsys.errors import first_line
from recsys.storage.addresses import masked

_SHORT: Final = 4  # characters; shorter values are masked as whole words only, as "1" is a part of much else
_LONGEST: Final = 200  # characters of a message


def failure(error: Exception, given: Any) -> str:
    """Return type and first line of an exception, without secrets and without the values of a request.

    Parameters
    ----------
    given
        The request as plain values: its keys may be told, its texts and numbers not.

    >>> failure(KeyError("ann"), {"user": "ann", "k": 3})
    "KeyError: '***'"
    """
    kind, message = type(error).__name__, str(error)
    values = sorted({form for value in _values(given) for form in _forms(value)}, key=len, reverse=True)
    if values:
        message = re.sub("|".join(map(_pattern, values)), "***", message)
    line = masked(first_line(Exception(message)))[:_LONGEST] if message.strip() else ""
    return f"{kind}: {line}" if line else kind


def _values(given: Any) -> Iterator[str]:
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, (list, tuple)):
        for one in given:
            yield from _values(one)
    elif given is not None and not isinstance(given, bool):
        yield str(given)


def _forms(value: str) -> Iterator[str]:
    """The value, and as a message quotes it."""
    yield from (form for form in (value, repr(value)[1:-1]) if form.strip())


def _pattern(value: str) -> str:
    found = re.escape(value)
    return found if len(value) >= _SHORT else rf"(?<!\w){found}(?!\w)"
