"""New rows of the log and those of the weeks before, counted at two versions of the interactions table.

The rows that came since a version are the counts of today minus the counts of then, so no row has to be found.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import numpy as np
import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, TIMESTAMP, USER_ID, WITHDRAWAL
from recsys.gate.check import Check, skipped
from recsys.gate.drift import check_drift, popularity_bins
from recsys.gate.rows import NIGHTS
from recsys.storage.warehouse import scan, table_path

WEEKS: Final = timedelta(days=28)  # the rows before the new ones that these are compared with
CATEGORIES: Final = 9  # most frequent values that have a bin of their own; the others share one
HOURS: Final = 4  # a bin of the day: a shift by one hour, as by summer time, is no drift
DAY: Final = timedelta(hours=23)
WEEK: Final = timedelta(days=7)
PAUSE: Final = timedelta(days=3)  # without an event: longer than a shop's usual closing days
_SIZES: Final = (1, 2, 4, 8, 16)  # events of a user on a day: the lower ends of the bins


@dataclass(frozen=True, kw_only=True)
class NewRows:
    """The log before the new rows, and with them.

    Attributes
    ----------
    before, now
        Events, lazily, at the two versions; withdrawals are left out.
    newest
        Time of the newest event before.
    """

    before: pl.LazyFrame
    now: pl.LazyFrame
    newest: datetime | None
    rows: int
    users: int  # with an event after the newest one before
    span: timedelta  # from the newest event before, or after a pause from the first new one, to the newest one now


def volumes(root: str, nights: Sequence[int], version: int) -> tuple[int | None, list[int]]:
    """Return the rows that came to the log since the newest night before, and those of the nights before it.

    Parameters
    ----------
    nights
        Versions of the log that they worked on. Those whose files are gone are left out; where the newest is, nobody
        knows what came since.
    version
        Of the night that asks.
    """
    known = sorted(set(nights))[-NIGHTS - 1 :]
    counts = [_rows_at(root, number) for number in [*known, version]]
    came = [now - then for then, now in itertools.pairwise(counts) if now is not None and then is not None]
    if counts[-2] is None or counts[-1] is None:
        return None, [rows for rows in came if rows > 0]
    return max(0, came[-1]), [rows for rows in came[:-1] if rows > 0]


def _rows_at(root: str, version: int) -> int | None:
    """Rows of the log at a version; None: it is gone."""
    try:
        actions = DeltaTable(table_path(root, INTERACTIONS), version=version).get_add_actions(flatten=True)
        return int(pl.DataFrame(actions)["num_records"].sum())
    except (DeltaError, pl.exceptions.PolarsError):
        return None


def added_rows(root: str, version: int) -> list[int]:
    """Return the rows that each of the newest versions up to this one added, oldest first, without the first version's.

    Versions whose files are gone, or that took rows away, are left out.
    """
    found = {number: _rows_at(root, number) for number in range(max(0, version - NIGHTS - 1), version + 1)}
    counts = {number: rows for number, rows in found.items() if rows is not None}
    return [
        rows - counts[number - 1]
        for number, rows in counts.items()
        if number - 1 in counts and rows > counts[number - 1]
    ]


def events(root: str, version: int) -> pl.LazyFrame:
    """Return the events of the log at a version, lazily; withdrawals are left out."""
    return scan(root, INTERACTIONS, version).filter(pl.col(EVENT) != WITHDRAWAL)


def newest_event(log: pl.LazyFrame) -> datetime | None:
    """Return the time of the newest event; None for a log without time."""
    found: datetime | None = log.select(pl.col(TIMESTAMP).max()).collect(engine="streaming").item()
    return found


def new_rows(root: str, before: int, now: int) -> NewRows:
    """Return the rows that came between two versions of the log."""
    then, today = events(root, before), events(root, now)
    newest = newest_event(then)
    counted = [log.select(pl.len()).collect(engine="streaming").item() for log in (then, today)]
    users, begin, end = 0, newest, newest
    if newest is not None:
        later = today.filter(pl.col(TIMESTAMP) > newest)
        time = pl.col(TIMESTAMP)
        users, begin, end = (
            later.select(pl.col(USER_ID).n_unique(), time.min().alias("begin"), time.max().alias("end"))
            .collect(engine="streaming")
            .row(0)
        )
        if begin is not None and begin - newest <= PAUSE:
            begin = newest
    span = timedelta(0) if begin is None or end is None else end - begin
    return NewRows(before=then, now=today, newest=newest, rows=counted[1] - counted[0], users=users, span=span)


def drift_checks(new: NewRows, categories: pl.DataFrame | None, limit: float | None) -> Iterator[Check]:
    """Yield a check for each distribution: items, categories, events, hours, weekdays, events of a user on a day.

    Parameters
    ----------
    categories
        `item_id` and a column of text for each categorical attribute; None: there are none.
    """
    if limit is None or new.newest is None or new.rows <= 0:
        why = "The log has no time." if new.newest is None else "There are no new rows."
        yield skipped("drift", "Switched off." if limit is None else why, limit)
        return
    oldest: datetime = new.before.select(pl.col(TIMESTAMP).min()).collect(engine="streaming").item()
    start = new.newest - min(WEEKS, (new.newest - oldest) / 2)  # the rows before it say how popular items are
    recent = pl.col(TIMESTAMP) > start
    users_before = int(new.before.filter(recent).select(pl.col(USER_ID).n_unique()).collect(engine="streaming").item())

    def check(name: str, labels: list[str], before: np.ndarray, now: np.ndarray) -> Check:
        return check_drift(name, labels, before, now, users_before=users_before, users_now=new.users, limit=limit)

    def counts(keys: pl.Expr) -> pl.DataFrame:
        """Key, events before, new events; both of the same window's begin, so that older rows drop out."""
        parts = [
            log.filter(recent)
            .group_by(keys.alias("key"))
            .agg(pl.len().cast(pl.Int64).alias(name))
            .collect(engine="streaming")
            for name, log in (("before", new.before), ("now", new.now))
        ]
        joined = parts[0].join(parts[1], on="key", how="full", coalesce=True, nulls_equal=True)
        return joined.with_columns(pl.col("before").fill_null(0), pl.col("now").fill_null(0)).with_columns(
            (pl.col("now") - pl.col("before")).clip(0).alias("new")
        )

    items = counts(pl.col(ITEM_ID)).sort("key")  # items that are equally popular part by their order
    older = new.before.filter(~recent).group_by(pl.col(ITEM_ID).alias("key")).agg(pl.len().alias("older"))
    by_item = items.join(older.collect(engine="streaming"), on="key", how="left", maintain_order="left").with_columns(
        pl.col("older").fill_null(0)
    )
    bins = popularity_bins(by_item["older"].to_numpy().astype(np.float64))
    before, now = (np.bincount(bins, by_item[name].to_numpy(), minlength=11) for name in ("before", "new"))
    labels = ["the most popular items", *(f"items of popularity decile {n}" for n in range(2, 11)), "recent items"]
    yield check("items", labels, before, now)
    if categories is not None:
        for name in categories.columns[1:]:
            valued = items.join(categories.select(pl.col(ITEM_ID).alias("key"), name), on="key", how="left")
            yield check(name, *_most_frequent(valued[name], valued["before"], valued["new"]))
    kinds = counts(pl.col(EVENT))
    if len(kinds) > 1:
        yield check("events", *_most_frequent(kinds["key"], kinds["before"], kinds["new"]))
    if new.span >= DAY:
        hours = counts(pl.col(TIMESTAMP).dt.hour() // HOURS)
        labels = [f"{HOURS * n} to {HOURS * (n + 1)} h" for n in range(24 // HOURS)]
        yield check("hours", labels, *_dense(hours, 24 // HOURS))
    else:
        yield skipped("drift of hours", "The new rows are of less than a day.", limit)
    if new.span >= WEEK:
        days = counts(pl.col(TIMESTAMP).dt.weekday() - 1)
        names = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"]
        yield check("weekdays", names, *_dense(days, 7))
    else:
        yield skipped("drift of weekdays", "The new rows are of less than a week.", limit)
    days_of = pl.struct(pl.col(USER_ID), pl.col(TIMESTAMP).dt.date())
    active = counts(days_of)
    sizes = [
        np.bincount(np.searchsorted(_SIZES, part[part > 0], side="right") - 1, minlength=len(_SIZES))
        for part in (active["before"].to_numpy(), active["new"].to_numpy())
    ]
    named = ["1 event", "2 and 3 events", "4 to 7 events", "8 to 15 events", "16 events or more"]
    yield check("events of a user on a day", named, *(part.astype(np.float64) for part in sizes))


def _dense(counted: pl.DataFrame, bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return both counts by key from 0 to `bins`."""
    known = counted.drop_nulls("key")
    keys = known["key"].to_numpy().astype(np.int64)
    before, now = (np.bincount(keys, known[name].to_numpy(), minlength=bins) for name in ("before", "new"))
    return before, now


def _most_frequent(keys: pl.Series, before: pl.Series, now: pl.Series) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return labels and both counts: the most frequent values of the rows before, and one bin for all others."""
    summed = (
        pl.DataFrame({"key": keys.cast(pl.String).fill_null("none"), "before": before, "new": now})
        .group_by("key")
        .agg(pl.col("before", "new").sum())
        .sort("before", "key", descending=[True, False])
    )
    top, rest = summed.head(CATEGORIES), summed.slice(CATEGORIES)
    labels = [repr(key) for key in top["key"]]
    names = ("before", "new")
    columns = [top[name].to_numpy().astype(np.float64) for name in names]
    if len(rest):
        labels.append("all others")
        columns = [
            np.append(part, float(rest[name].sum())) for part, name in zip(columns, ("before", "new"), strict=True)
        ]
    return labels, columns[0], columns[1]


def usual_volume(root: str, version: int, rows: int) -> Sequence[int]:
    """Return the rows that the nights before this one added; this one's own commit, if it made one, is left out."""
    found = added_rows(root, version)
    return found[:-1] if rows and found else found
