"""Users who are to stay out: their ids as salted hashes in a small table of the warehouse.

A log is append-only and its source may still hold a forgotten user, so every reading leaves these users out. Only
hashes are kept, so the list itself does not name them.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import polars as pl

from recsys.columns import DIGEST, FORGOTTEN, FORGOTTEN_AT, RAW, SALT, USER_ID
from recsys.data import warehouse

_TOKEN: Final = re.compile(r"[^\s,;:|\"'(){}\[\]=]+")  # what can be an id within a rejected line


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
        """Rejected rows whose line names none of them as a word of its own."""
        kept = [not any(word in self for word in _TOKEN.findall(raw)) for raw in rejected[RAW]]
        return rejected.filter(pl.Series(kept, dtype=pl.Boolean))


def read_forgotten(root: str) -> Forgotten | None:
    """The warehouse's list; None where nobody is forgotten."""
    if warehouse.latest_version(root, FORGOTTEN) is None:
        return None
    rows = warehouse.scan(root, FORGOTTEN).collect()
    return Forgotten(salt=rows[SALT][0], digests=frozenset(rows[DIGEST]))


def add_forgotten(root: str, users: Sequence[str], now: datetime) -> Forgotten:
    """Put users on the list."""
    held = read_forgotten(root)
    salt = held.salt if held else secrets.token_hex(16)
    new = sorted({_digest(salt, user) for user in users} - (held.digests if held else frozenset()))
    if new:
        rows = pl.DataFrame({SALT: salt, DIGEST: new, FORGOTTEN_AT: now}, schema=dict(warehouse.SCHEMAS[FORGOTTEN]))
        warehouse.append(root, FORGOTTEN, rows, expected=warehouse.latest_version(root, FORGOTTEN))
    return Forgotten(salt=salt, digests=(held.digests if held else frozenset()) | set(new))


def names_one(lines: Iterable[str], users: Collection[str]) -> list[bool]:
    """Whether each line names one of the users as a word of its own."""
    alternatives = "|".join(re.escape(user) for user in sorted(users, key=len, reverse=True))
    pattern = re.compile(rf"(?<![\w.-])(?:{alternatives})(?![\w-]|\.\w)")
    return [pattern.search(line) is not None for line in lines]


def _digest(salt: str, user: str) -> str:
    return hashlib.sha256(f"{salt}{user}".encode()).hexdigest()
