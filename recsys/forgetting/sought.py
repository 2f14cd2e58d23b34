"""Users, items and events that somebody wants forgotten, and whether rows or texts name one of them.

An id that looks like one (`user-17`, an address, a UUID) is recognised in every text. One that could be any word or
number (`ann`, `17`) is only looked for in fields and columns that hold ids.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any, Final

import polars as pl

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, TIMESTAMP, USER_ID, USERS

_NUMBER: Final = re.compile(r"[-+]?\d+(\.\d+)?")
_MIN_LENGTH: Final = 4  # of an id that is recognised in every text
_DATE: Final = re.compile(r"(?<!\d)(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?))?")
_EPOCH: Final = re.compile(r"(?<![\w.-])(\d{9,10}|\d{12,13}|\d{15,16})(?![\w-])")
_UNITS: Final = ((11, 1), (14, 1_000), (17, 1_000_000))  # most digits, and units in a second


@dataclass(frozen=True, kw_only=True)
class Sought:
    """Users, items and events to forget.

    Attributes
    ----------
    users, items
        Ids as text.
    before
        Events before this moment, with a zone; None: none for their time.
    """

    users: frozenset[str] = frozenset()
    items: frozenset[str] = frozenset()
    before: datetime | None = None

    @cached_property
    def spelled(self) -> tuple[str, ...]:
        """Ids that are recognised in every text, in all spellings of JSON and HTML, ascending."""
        ids = [one for one in self.users | self.items if is_recognisable(one)]
        return tuple(sorted({text for one in ids for text in (one, json.dumps(one)[1:-1], html.escape(one))}))

    def rows(self, table: str) -> pl.Expr:
        """Return whether a row of one of the warehouse's tables with ids goes; users and items by their own columns."""
        tests = []
        if self.users and table != ITEMS:
            tests.append(is_one(USER_ID, self.users))
        if self.items and table != USERS:
            tests.append(is_one(ITEM_ID, self.items))
        if self.before is not None and table == INTERACTIONS:
            tests.append((pl.col(TIMESTAMP) < self.before).fill_null(False))
        return pl.any_horizontal(tests) if tests else pl.lit(False)

    def columns(self, schema: Mapping[str, Any], user: str | None, item: str | None) -> pl.Expr:
        """Return whether a row of a copy in other names goes.

        Parameters
        ----------
        schema
            Columns of the copy; ids of a list of items, or of numbered columns, count each.
        user, item
            Their names in the copy; None: it has none.
        """
        tests = []
        if self.users and user in schema:
            tests.append(is_one(str(user), self.users))
        if self.items and item is not None:
            numbered = re.compile(rf"{re.escape(item)}(_\d+)?")
            tests += [
                is_one(name, self.items, of_list=isinstance(kind, pl.List))
                for name, kind in schema.items()
                if numbered.fullmatch(name)
            ]
        return pl.any_horizontal(tests) if tests else pl.lit(False)

    def named_in(self, text: str) -> bool:
        """Return whether a text names an id that is recognised in every text."""
        return stand_alone(text, self.spelled)


def is_one(column: str, ids: Iterable[str], *, of_list: bool = False) -> pl.Expr:
    """Return whether a column's id, or one of a column of lists, is among ids."""
    known = pl.Series(sorted(ids), dtype=pl.String).implode()
    if of_list:
        return pl.col(column).list.eval(pl.element().cast(pl.String).is_in(known)).list.any().fill_null(False)
    return pl.col(column).cast(pl.String).is_in(known).fill_null(False)


def is_recognisable(one: str) -> bool:
    """Return whether an id can be told from other words.

    >>> [is_recognisable(one) for one in ("user-17", "ann@example.org", "ann", "17", "1234567890")]
    [True, True, False, False, False]
    """
    return len(one) >= _MIN_LENGTH and not one.isalpha() and _NUMBER.fullmatch(one) is None


def is_before(line: str, moment: datetime) -> bool:
    """Return whether all times that can be read in a line, at least one, are before a moment.

    >>> is_before("ann,1,2019-05-01,oops", datetime(2020, 1, 1, tzinfo=UTC))
    True
    >>> is_before("ann,1,oops", datetime(2020, 1, 1, tzinfo=UTC))
    False
    """
    times = list(_times(line))
    return bool(times) and max(times) < moment


def _times(line: str) -> Iterator[datetime]:
    for day, clock in _DATE.findall(line):
        try:
            yield datetime.fromisoformat(f"{day}T{clock}" if clock else day).replace(tzinfo=UTC)
        except ValueError:
            continue
    for digits in _EPOCH.findall(line):
        units = next(units for most, units in _UNITS if len(digits) < most)
        yield datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(digits) / units)


def stand_alone(text: str, wanted: Sequence[str]) -> bool:
    """Return whether one of some texts stands in another without a letter or digit beside it; one pass for all."""
    if not wanted or not text:
        return False
    whole, patterns = pl.Series([text]).str, pl.Series(wanted).implode()
    if not whole.contains_any(patterns).item():
        return False
    content = text.encode()
    places = whole.find_many(patterns, overlapping=True).item().to_list()  # in bytes
    found = whole.extract_many(patterns, overlapping=True).item().to_list()
    for begin, one in zip(places, found, strict=True):
        end = begin + len(one.encode())
        before = content[max(0, begin - 4) : begin].decode(errors="ignore")[-1:]
        after = content[end : end + 4].decode(errors="ignore")[:1]
        if not (before.isalnum() or after.isalnum()):
            return True
    return False
