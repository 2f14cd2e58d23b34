"""Users who are to stay out: their ids as salted hashes in a small table of the warehouse.

A log is append-only and its source may still hold a forgotten user, so every reading leaves these users out. Only
hashes are kept, so the list itself does not name them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.columns import DIGEST, FORGOTTEN, FORGOTTEN_AT, RAW, SALT, USER_ID
from recsys.storage import warehouse

# what can be an id within a rejected line
_TOKEN: Final = re.compile(r"[^\s,;:|\"'(){}\[\]=]+")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')  # of JSON
_SEPARATORS: Final = ",;\t|"
_WHOLE: Final = re.compile(r"(-?)\+?0*(\d+)(?:\.0*)?")  # other spellings of an integer


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgotten:
    """The list: one salt, and a hash of each id's text."""

    salt: str
    digests: frozenset[str]

    def __contains__(self, user: Any) -> bool:
        return _digest(self.salt, str(user)) in self.digests

    def among(self, users: pl.Series) -> pl.Series:
        """The distinct ids that are on the list."""
        distinct = users.unique()
        return distinct.filter(pl.Series([user in self for user in distinct], dtype=pl.Boolean))

    def without(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows of other users."""
        theirs = self.among(rows[USER_ID])
        return rows if theirs.is_empty() else rows.filter(~pl.col(USER_ID).is_in(theirs.implode()))

    def without_lines(self, rejected: pl.DataFrame) -> pl.DataFrame:
        """Rejected rows of other users; where the id cannot be read, those whose line names none of them."""
        return rejected.filter(~_of(rejected, self.__contains__, lambda raw: any(word in self for word in _words(raw))))


def read_forgotten(root: str) -> Forgotten | None:
    """The warehouse's list; None where nobody is forgotten."""
    if warehouse.latest_version(root, FORGOTTEN) is None:
        return None
    rows = warehouse.scan(root, FORGOTTEN).collect()
    return Forgotten(salt=rows[SALT][0], digests=frozenset(rows[DIGEST]))


def forgotten_since(root: str | Path, moment: str) -> bool:
    """Whether users of a warehouse were forgotten at or after a moment (ISO 8601, to the second)."""
    if warehouse.latest_version(root, FORGOTTEN) is None:
        return False
    newest = warehouse.scan(root, FORGOTTEN).select(pl.col(FORGOTTEN_AT).max()).collect().item()
    return bool(newest >= datetime.fromisoformat(moment))


def add_forgotten(root: str, users: Sequence[str], now: datetime) -> Forgotten:
    """Put users on the list."""
    held = read_forgotten(root)
    salt = held.salt if held else secrets.token_hex(16)
    new = sorted({_digest(salt, user) for user in users} - (held.digests if held else frozenset()))
    if new:
        rows = pl.DataFrame({SALT: salt, DIGEST: new, FORGOTTEN_AT: now}, schema=dict(warehouse.SCHEMAS[FORGOTTEN]))
        warehouse.append(root, FORGOTTEN, rows, expected=warehouse.latest_version(root, FORGOTTEN))
    return Forgotten(salt=salt, digests=(held.digests if held else frozenset()) | set(new))


def without_lines_of(users: Collection[str], rejected: pl.DataFrame) -> pl.DataFrame:
    """Rejected rows of other users; where the id cannot be read, those whose line names none of them."""
    alternatives = "|".join(re.escape(user) for user in sorted(users, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.-])(?:{alternatives})(?![\w-]|\.\w)")

    def names_one(raw: str) -> bool:
        return pattern.search(raw) is not None or any(word in users for word in _words(raw))

    return rejected.filter(~_of(rejected, users.__contains__, names_one))


def _of(rejected: pl.DataFrame, one: Callable[[str], bool], named: Callable[[str], bool]) -> pl.Series:
    """Whether each rejected row is of a user for whom `one` holds, or, its id unknown, its line is `named`."""
    ids = rejected[USER_ID] if USER_ID in rejected.columns else [None] * len(rejected)  # older tables lack it
    rows = zip(ids, rejected[RAW], strict=True)
    return pl.Series([named(raw) if user is None else one(user) for user, raw in rows], dtype=pl.Boolean)


def _words(raw: str) -> Iterator[str]:
    """The texts within a rejected line that can be an id."""
    words = _TOKEN.findall(raw)
    for separator in _SEPARATORS:
        words += [part.strip().removeprefix('"').removesuffix('"').replace('""', '"') for part in raw.split(separator)]
    for text in _STRING.findall(raw):
        with contextlib.suppress(ValueError):
            words.append(json.loads(text))
    for word in words:
        yield word
        if whole := _WHOLE.fullmatch(word):
            yield whole[1] + whole[2]


def _digest(salt: str, user: str) -> str:
    return hashlib.sha256(f"{salt}{user}".encode()).hexdigest()
