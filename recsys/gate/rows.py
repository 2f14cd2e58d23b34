"""Checks of the rows that a night has read: rejected rows, their number, the age of the newest one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from statistics import median
from typing import Any, Final

from recsys.gate.check import Check, at_most, skipped, unless_off

NIGHTS: Final = 14  # before this one, whose median is the usual volume: two weeks hold every weekday twice
FEWEST_NIGHTS: Final = 7  # from which their spread is known
SPREADS: Final = 8.0  # standard deviations of the logarithm, robustly measured
NORMAL: Final = 1.4826  # standard deviation of a normal distribution, in median absolute deviations
BEYOND: Final = 4.0  # (times) the largest of these nights, or a share of the smallest: as much has happened before
UNUSUAL: Final = 0.75  # of the smallest of these nights, or of the largest: what lies beyond is told, and passes
FEWEST_ROWS: Final = 20  # new rows, from which a share says something


def check_rejected(
    table: str, ingested: Mapping[str, Any], before: Mapping[str, Any] | None, limit: float | None
) -> Check:
    """Compare the share of rejected rows with its limit, among the rows that are new.

    Parameters
    ----------
    ingested, before
        Reports of this night's ingest, and of the finished night's before it. Where the files of that night are read
        again and hold more rows now, the new rows are what came in between; else they are all rows, as they are where
        a reading began at a watermark.
    """
    name = f"rejected rows of {table}"

    def make(most: float) -> Check:
        read, rejected = ingested["rows_read"].get(table, 0), ingested["rows_rejected"].get(table, 0)
        which = "rows"
        if ingested.get("begins", {}).get(table):
            which = "new rows"
        elif (
            before is not None
            and not before.get("begins", {}).get(table)
            and set(before["digests"]) <= set(ingested["digests"])
        ):
            read_then, rejected_then = before["rows_read"].get(table, 0), before["rows_rejected"].get(table, 0)
            if read_then < read:
                read, rejected = read - read_then, max(0, rejected - rejected_then)
                which = "new rows"
            elif read_then == read:
                return skipped(name, "There are no new rows.", most)
        if read < FEWEST_ROWS:
            return skipped(name, f"{read} rows are too few for a share.", most)
        share = rejected / read
        return at_most(name, share, most, f"{share:.1%} of {read:,} {which} of {table} were rejected.")

    return unless_off(name, limit, make)


def check_volume(rows: int, earlier: Sequence[int], least: float | None, most: float | None) -> Check:
    """Compare the number of new rows with the median of the nights before.

    The limits widen where these nights differ much, to a multiple of the largest and a share of the smallest: a log of
    few users, each with hundreds of rows on one day, has nights of 5 rows beside nights of 2,000.

    Parameters
    ----------
    rows
        That this night added to the log.
    earlier
        The same of the nights before that added some, without the first one, which read all of the past.
    """
    name = "new rows"
    if least is None and most is None:
        return unless_off(name, None, lambda _: skipped(name, ""))
    if not rows:
        return skipped(name, "The log has no new rows; gate.max_age_hours finds a log that stands still.")
    earlier = earlier[-NIGHTS:]
    if len(earlier) < FEWEST_NIGHTS:
        return skipped(name, f"Nights before this one that brought rows: {len(earlier)}; {FEWEST_NIGHTS} are needed.")
    usual = median(earlier)
    value = rows / usual
    spread = math.exp(SPREADS * NORMAL * median(abs(math.log(one / usual)) for one in earlier))
    least = None if least is None else min(least, 1 / spread, min(earlier) / usual / BEYOND)
    most = None if most is None else max(most, spread, max(earlier) / usual * BEYOND)
    sentence = f"{rows:,} new rows, where the last {len(earlier)} nights had {usual:,.0f} (median)."
    if least is not None and value < least:
        return Check(name=name, status="failed", value=value, limit=least, sentence=sentence)
    found = Check(name=name, status="passed", value=value, limit=least, sentence=sentence)
    if most is not None:
        found = at_most(name, value, most, sentence)
    if not found.failed and not UNUSUAL * min(earlier) <= rows <= max(earlier) / UNUSUAL:
        than = "fewer" if value < 1 else "more"
        said = f"{sentence.rstrip('.')}; far {than} than any of these nights, and within the limits."
        return replace(found, sentence=said, unusual=True)
    return found


def check_age(newest: datetime | None, as_of: datetime, limit: float | None) -> Check:
    """Compare the age of the newest event, in hours at the moment `as_of`, with its limit."""
    name = "newest event"

    def make(most: float) -> Check:
        if newest is None:
            return skipped(name, "The log has no time.", most)
        hours = (as_of - newest).total_seconds() / 3600
        return at_most(name, hours, most, f"The newest event is of {newest:%Y-%m-%d %H:%M}, {hours:,.0f} hours ago.")

    return unless_off(name, limit, make)
