"""Events of the log over its span: how many a day, or in longer steps where the span is long."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import polars as pl

from recsys.columns import EVENT, INTERACTIONS, TIMESTAMP, WITHDRAWAL
from recsys.storage.warehouse import scan

STEPS: Final = (1, 7, 28, 91, 364)  # days
MOST: Final = 366  # steps, above which the next longer step is taken


def volume(root: str, version: int) -> dict[str, Any]:
    """Count the events of a version of the log; withdrawals are none.

    Returns
    -------
    dict
        `events` counts by step, oldest first, `days` of a step, `start` the first step's first day (ISO 8601, UTC),
        `first` and `last` the days of the first and of the last event, `undated` events without a time. A log without
        time has empty `events`, and None for the days.
    """
    log = scan(root, INTERACTIONS, version).filter(pl.col(EVENT) != WITHDRAWAL)
    counted = log.group_by(pl.col(TIMESTAMP).dt.date().alias("day")).len().collect(engine="streaming")
    dated = counted.drop_nulls("day").sort("day")
    undated = int(counted["len"].sum()) - int(dated["len"].sum())
    if dated.is_empty():
        return {"events": [], "days": 1, "start": None, "first": None, "last": None, "undated": undated}
    first, last = dated["day"][0], dated["day"][-1]
    span = (last - first).days + 1
    days = next((step for step in STEPS if span <= step * MOST), STEPS[-1])
    # counted back from the last event: the newest step is a whole one, the oldest may be shorter
    steps = -(-span // days)
    place = (steps - 1) - (pl.lit(last) - pl.col("day")).dt.total_days() // days
    events = [0] * steps
    for step, count in dated.group_by(place.alias("step")).agg(pl.col("len").sum()).iter_rows():
        events[step] = int(count)
    return {
        "events": events,
        "days": days,
        "start": (last - timedelta(days=days * steps - 1)).isoformat(),
        "first": first.isoformat(),
        "last": last.isoformat(),
        "undated": undated,
    }
