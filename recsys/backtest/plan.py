"""Plan of the nights that a backtest replays: from the log's first and last event, in UTC, at midnight by default.

A night knows the events before its moment, and is measured by those of the window that follows, up to the next night.
All times are microseconds since the epoch.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from recsys.data.splits import moment
from recsys.errors import InputError

DAY: Final = 86_400_000_000
WEEK: Final = 7 * DAY
HOUR: Final = DAY // 24
_UNITS: Final = {"h": HOUR, "d": DAY, "w": WEEK}
_TESTED: Final = 3  # weekly windows take at most one part in so many of the log; otherwise they are days


@dataclass(frozen=True, kw_only=True)
class Night:
    """A past night: what happened before `at` is known, what happened from then on and before `until` is asked for."""

    number: int  # from 1
    at: int
    until: int

    @property
    def label(self) -> str:
        """The night's moment as people write it: the date, with the hour where it is not midnight."""
        text = moment(self.at)
        return text[:10] if self.at % DAY == 0 else text[:16]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The nights, oldest first.

    Attributes
    ----------
    every
        Length of a window.
    why
        A sentence on what decided the length.
    """

    nights: tuple[Night, ...]
    every: int
    why: str


def parse_every(text: str) -> int:
    """Return the length of a window in microseconds.

    Raises
    ------
    InputError
        It is not a number of hours, days or weeks.

    >>> parse_every("7d") == parse_every("1w")
    True
    """
    found = re.fullmatch(r"\s*(\d+)\s*([hdw])\s*", text)
    if found is None or int(found[1]) == 0:
        raise InputError(f"--every {text} is not a length of time; write hours, days or weeks: 12h, 1d, 7d, 2w.")
    return int(found[1]) * _UNITS[found[2]]


def parse_until(text: str) -> int:
    """Return a date, or a moment, in microseconds; one without a zone is in UTC.

    Raises
    ------
    InputError
        It is neither.
    """
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--until {text} is not a date; write 2026-11-28, or 2026-11-28T06:00Z.") from None
    return round((when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp() * 1_000_000)


def plan_nights(first: int, last: int, *, nights: int, every: int | None = None, until: int | None = None) -> Plan:
    """Place the nights so that the last window ends at `until`.

    Parameters
    ----------
    first, last
        Times of the log's first and last event.
    every
        Length of a window; None: a week where all windows together are at most a third of the log, else a day.
    until
        None: the end of the last event's day.

    Raises
    ------
    InputError
        The log is too short for these nights.
    """
    end = until if until is not None else -(-(last + 1) // DAY) * DAY
    span = f"the log runs from {moment(first)[:10]} to {moment(last)[:10]}"
    if end <= first:
        raise InputError(f"--until {moment(end)} lies before every event: {span}.")
    why = f"each window is {duration(every)} long, as --every says" if every is not None else ""
    if every is None:
        every = WEEK if _TESTED * nights * WEEK <= end - first else DAY
        third = "at most" if every == WEEK else "more than"
        why = (
            f"each window is {duration(every)} long, because {nights} weeks are {third} a third of the "
            f"{(end - first) // DAY:,} days of the log"
        )
    if every >= end - first:
        raise InputError(f"--every {duration(every)} is as long as the whole log: {span}; choose a shorter window.")
    if end - nights * every <= first:
        fitting = (end - first - 1) // every
        raise InputError(
            f"{nights} nights with windows of {duration(every)} reach back to {moment(end - nights * every)[:10]}, and "
            f"{span}; ask for at most --nights {fitting}, fewer where a night shall know much, or a shorter --every."
        )
    starts = [end - (nights - number) * every for number in range(nights)]
    return Plan(
        nights=tuple(Night(number=n, at=at, until=at + every) for n, at in enumerate(starts, 1)), every=every, why=why
    )


def duration(length: int) -> str:
    """A length of time as `--every` takes it.

    >>> duration(7 * DAY), duration(12 * HOUR)
    ('7d', '12h')
    """
    return f"{length // DAY}d" if length % DAY == 0 else f"{length // HOUR}h"


def labels(nights: Sequence[Night]) -> str:
    """The nights' moments in words, at most three of them.

    >>> labels([Night(number=1, at=0, until=1)])
    '1970-01-01'
    """
    shown = ", ".join(night.label for night in nights[:3])
    return shown + (f" and {len(nights) - 3} more" if len(nights) > 3 else "")
