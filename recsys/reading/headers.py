"""Headers that give each name a type, as RecBole's atomic files do: `user_id:token`, `rating:float`.

The names without types are used. A configuration that names a typed column keeps the header as it is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import polars as pl

from recsys.settings import SourceSettings

_TYPED: Final = re.compile(r"(.+):(token|token_seq|float|float_seq)")


def header_types(header: Sequence[str]) -> dict[str, str]:
    """Types by plain name, of the columns that have one; none where two columns would get one name.

    >>> header_types(["user_id:token", "class:token_seq", "note"])
    {'user_id': 'token', 'class': 'token_seq'}
    """
    found = {name: _TYPED.fullmatch(name) for name in header}
    plain = [match.group(1) if match else name for name, match in found.items()]
    if len(set(plain)) < len(header):
        return {}
    return {match.group(1): match.group(2) for match in found.values() if match}


def without_types(
    frame: pl.LazyFrame, header: Sequence[str], settings: SourceSettings
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """The frame and its header under plain names, unless the settings name a typed column."""
    types = header_types(header)
    typed = {f"{name}:{kind}": name for name, kind in types.items()}
    if not typed or typed.keys() & set(_words(settings.model_dump())):
        return frame, tuple(header)
    return frame.rename(typed), tuple(typed.get(name, name) for name in header)


def _words(value: Any) -> Iterator[str]:
    """Every string in a tree of settings, keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (key, *_words(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _words(inner)
