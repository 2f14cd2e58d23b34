"""Users, items and times that are to stay out: ids as salted hashes in a small table of the warehouse.

A log is append-only and its source may still hold a forgotten user, so every reading leaves these users out. Only
hashes are kept, so the list itself does not name them. An item's hash is of its id behind a mark, so that it is not
taken for a user's. A moment before which no event is read is a row of the table, too, in plain words.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Set
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys.columns import (
    DIGEST,
    FORGOTTEN,
    FORGOTTEN_AT,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    RAW,
    SALT,
    TABLE,
    TIMESTAMP,
    USER_ID,
)
from recsys.forgetting.sought import Sought, is_before
from recsys.storage import warehouse

# what can be an id within a rejected line
_TOKEN: Final = re.compile(r"[^\s,;:|\"'(){}\[\]=]+")
_BEGIN: Final = re.compile(r"(?<![\w.-])")  # places where an id may begin, and
_END: Final = re.compile(r"(?![\w-]|\.\w)")  # where it may end
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')  # of JSON
_SEPARATORS: Final = ",;\t|"
_WHOLE: Final = re.compile(r"(-?)\+?0*(\d+)(?:\.0*)?")  # other spellings of an integer
_ITEM: Final = "\0item\0"  # before an item's id, when it is hashed
_BEFORE: Final = "before "  # in a hash's place: no event before the moment (ISO 8601) is read


@dataclass(frozen=True, kw_only=True, slots=True)
class Forgotten:
    """The list: one salt, and a hash of each id's text."""

    salt: str
    digests: frozenset[str]

    def __contains__(self, user: Any) -> bool:
        return _digest(self.salt, str(user)) in self.digests

    def has_item(self, item: Any) -> bool:
        """Return whether an item is on the list."""
        return _digest(self.salt, _ITEM + str(item)) in self.digests

    @property
    def before(self) -> datetime | None:
        """The moment before which no event is read; None: there is none."""
        moments = [datetime.fromisoformat(one[len(_BEFORE) :]) for one in self.digests if one.startswith(_BEFORE)]
        return max(moments, default=None)

    def hashes(self, sought: Sought) -> list[str]:
        """Return what the list holds, or would hold, of what is sought."""
        users = [_digest(self.salt, user) for user in sorted(sought.users)]
        items = [_digest(self.salt, _ITEM + item) for item in sorted(sought.items)]
        floor = [] if sought.before is None else [f"{_BEFORE}{sought.before.isoformat()}"]
        return [*users, *items, *floor]

    def among(self, users: pl.Series) -> pl.Series:
        """The distinct ids that are on the list."""
        return _those(users, self.__contains__)

    def gone(self, rows: pl.LazyFrame) -> pl.Expr | None:
        """Return whether a row is to stay out, as an expression; None: none of these rows is."""
        columns, tests = rows.collect_schema().names(), []
        for column, one in ((USER_ID, self.__contains__), (ITEM_ID, self.has_item)):
            if column in columns:
                theirs = _those(rows.select(pl.col(column).unique()).collect(engine="streaming")[column], one)
                if len(theirs):
                    tests.append(pl.col(column).is_in(theirs.implode()).fill_null(False))
        if self.before is not None and TIMESTAMP in columns:
            tests.append((pl.col(TIMESTAMP) < self.before).fill_null(False))
        return pl.any_horizontal(tests) if tests else None

    def without(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Rows that are not to stay out."""
        gone = self.gone(rows.lazy())
        return rows if gone is None else rows.filter(~gone)

    def without_lines(self, table: str, rejected: pl.DataFrame) -> pl.DataFrame:
        """Rejected rows of a table that are not to stay out; where the user cannot be read, by the line's words."""
        theirs = _of(rejected, self.__contains__, lambda raw: any(word in self for word in _words(raw)))
        rejected = rejected.filter(~theirs)
        if table in (INTERACTIONS, ITEMS):
            rejected = rejected.filter(~_lines(rejected, lambda raw: any(self.has_item(word) for word in _words(raw))))
        if table == INTERACTIONS and (before := self.before) is not None:
            rejected = rejected.filter(~_lines(rejected, lambda raw: is_before(raw, before)))
        return rejected


def read_forgotten(root: str) -> Forgotten | None:
    """The warehouse's list; None where nobody is forgotten."""
    if warehouse.latest_version(root, FORGOTTEN) is None:
        return None
    rows = warehouse.scan(root, FORGOTTEN).collect()
    return Forgotten(salt=rows[SALT][0], digests=frozenset(rows[DIGEST]))


def forgotten_since(root: str | Path, moment: str) -> bool:
    """Return whether users of a warehouse were forgotten at or after a moment (ISO 8601, to the second)."""
    if warehouse.latest_version(root, FORGOTTEN) is None:
        return False
    newest = warehouse.scan(root, FORGOTTEN).select(pl.col(FORGOTTEN_AT).max()).collect().item()
    return bool(newest >= datetime.fromisoformat(moment))


def add_forgotten(root: str, sought: Sought, now: datetime) -> Forgotten:
    """Put what is sought on the list."""
    held = read_forgotten(root) or Forgotten(salt=secrets.token_hex(16), digests=frozenset())
    new = sorted(set(held.hashes(sought)) - held.digests)
    if new:
        rows = pl.DataFrame(
            {SALT: held.salt, DIGEST: new, FORGOTTEN_AT: now}, schema=dict(warehouse.SCHEMAS[FORGOTTEN])
        )
        warehouse.append(root, FORGOTTEN, rows, expected=warehouse.latest_version(root, FORGOTTEN))
    return Forgotten(salt=held.salt, digests=held.digests | set(new))


def without_lines_of(sought: Sought, rejected: pl.DataFrame) -> pl.DataFrame:
    """Rejected rows without what is sought; where the user cannot be read, by the line's words."""
    if sought.users:
        named = _naming(sought.users)
        rejected = rejected.filter(~_of(rejected, sought.users.__contains__, named))
    if sought.items:
        of_items = pl.Series(rejected[TABLE].is_in([INTERACTIONS, ITEMS]))
        rejected = rejected.filter(~(_lines(rejected, _naming(sought.items)) & of_items))
    if sought.before is not None:
        before = sought.before
        of_log = rejected[TABLE] == INTERACTIONS
        rejected = rejected.filter(~(_lines(rejected, lambda raw: is_before(raw, before)) & of_log))
    return rejected


def _naming(ids: Collection[str]) -> Callable[[str], bool]:
    """Return what says whether a line names one of the ids."""
    longest = max(map(len, ids), default=0)
    return lambda raw: any(True for _ in _named(raw, ids, longest))


def named_of(rejected: pl.DataFrame, ids: Set[str], *, users: bool) -> set[str]:
    """Those of many ids that rejected rows are of, or, their user unknown, that their lines name."""
    whose = rejected[USER_ID] if users and USER_ID in rejected.columns else [None] * len(rejected)
    rows = rejected.select(TABLE, RAW).iter_rows()
    found, longest = set[str](), max(map(len, ids), default=0)
    for (table, raw), user in zip(rows, whose, strict=True):
        if user is not None:
            found |= {user} & ids
        elif users or table in (INTERACTIONS, ITEMS):
            found |= set(_named(raw, ids, longest))
    return found


def _named(raw: str, ids: Collection[str], longest: int) -> Iterator[str]:
    """Yield the ids that stand alone in a line, or are a field of it; as fast for many ids as for one."""
    ends = [place.start() for place in _END.finditer(raw)]
    for place in _BEGIN.finditer(raw):
        begin = place.start()
        for end in ends[bisect_right(ends, begin) : bisect_right(ends, begin + longest)]:
            if raw[begin:end] in ids:
                yield raw[begin:end]
    yield from (word for word in _words(raw) if word in ids)


def _those(ids: pl.Series, one: Callable[[Any], bool]) -> pl.Series:
    distinct = ids.unique()
    return distinct.filter(pl.Series([id_ is not None and one(id_) for id_ in distinct], dtype=pl.Boolean))


def _lines(rejected: pl.DataFrame, named: Callable[[str], bool]) -> pl.Series:
    return pl.Series([named(raw) for raw in rejected[RAW]], dtype=pl.Boolean)


def _of(rejected: pl.DataFrame, one: Callable[[str], bool], named: Callable[[str], bool]) -> pl.Series:
    """Return whether each rejected row is of a user for whom `one` holds, or, its id unknown, its line is `named`."""
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
