"""Signs that a reading would put the same log into the table a second time, because its source now writes it otherwise.

The reading rules did not change, so the source must have: a new event column, another precision or zone of its times.
Both show only where no row of the reading is in the table as it is.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID
from recsys.errors import InputError
from recsys.ingestion.overlap import in_same_period
from recsys.ingestion.staged import LOG_KEY, StagedLog

_NEAR: Final = timedelta(hours=26)  # the farthest that two time zones are apart
_MOST: Final = 0.9  # share of the pairs of user and item that may be in the table at nearly the same time
_LOOKED_AT: Final = 2_000_000  # rows at most
_FEWEST: Final = 20  # rows; fewer prove nothing


def check_doubles(held: pl.LazyFrame, log: StagedLog) -> list[str]:
    """Warnings about a log with time, none of whose rows is in the table; of a long one some users are looked at.

    Raises
    ------
    InputError
        The table holds the same rows without an event (view, buy, ...), or with one where these have none.
    """
    if not len(log):
        return []
    near, new = in_same_period(held, log, _NEAR), log.frame()
    parts = -(-len(log) // _LOOKED_AT)
    if parts > 1:
        chosen = pl.col(USER_ID).hash(1) % parts == 0
        near, new = near.filter(chosen), new.filter(chosen)
    rows = new.select(*LOG_KEY).unique().collect(engine="streaming")
    said = " that were looked at" if parts > 1 else ""
    keys = [USER_ID, ITEM_ID, TIMESTAMP]
    blank = pl.col(EVENT) == ""
    for ours, theirs, how in ((~blank, blank, "without an event"), (blank, ~blank, "with an event")):
        count = _found(rows.lazy().filter(ours), near.filter(theirs), keys)
        if count > _MOST * len(rows):
            raise InputError(
                f"{count} of {len(rows)} rows of the log{said} are in the table at the same moment, but {how} there: "
                "reading them would double the log; give the log's event column as before, or read the log anew with "
                "`recsys ingest CONFIG --rebuild`."
            )
    if len(rows) < _FEWEST:
        return []
    count = _found(rows.lazy(), near, [USER_ID, ITEM_ID])
    if count <= _MOST * len(rows):
        return []
    return [
        f"{count} of {len(rows)} new events{said} are of a user and an item that the table holds within 26 hours of "
        "them, and none is in the table at its own time. If the source now writes its times in another zone or "
        "precision, the log is in twice: read it anew with `recsys ingest CONFIG --rebuild`."
    ]


def _found(rows: pl.LazyFrame, held: pl.LazyFrame, keys: list[str]) -> int:
    same = rows.join(held.select(keys), on=keys, how="semi")
    return int(same.select(pl.len()).collect(engine="streaming").item())
