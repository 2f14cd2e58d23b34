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

_NEAR: Final = timedelta(hours=26)  # the farthest that two time zones are apart
_MOST: Final = 0.9  # share of the pairs of user and item that may be in the table at nearly the same time
_FEWEST: Final = 20  # rows; fewer prove nothing


def check_doubles(held: pl.LazyFrame, rows: pl.DataFrame) -> list[str]:
    """Warnings about rows of a log with time, none of which is in the table.

    Raises
    ------
    InputError
        The table holds the same rows without an event (view, buy, ...), or with one where these have none.
    """
    if rows.is_empty():
        return []
    first, last = rows[TIMESTAMP].min(), rows[TIMESTAMP].max()
    near = held.filter(pl.col(TIMESTAMP).is_between(pl.lit(first) - _NEAR, pl.lit(last) + _NEAR))
    keys = [USER_ID, ITEM_ID, TIMESTAMP]
    blank = pl.col(EVENT) == ""
    for ours, theirs, said in ((~blank, blank, "without an event"), (blank, ~blank, "with an event")):
        same = rows.lazy().filter(ours).join(near.filter(theirs).select(keys), on=keys, how="semi")
        count = same.select(pl.len()).collect(engine="streaming").item()
        if count > _MOST * len(rows):
            raise InputError(
                f"{count} of {len(rows)} rows of the log are in the table at the same moment, but {said} there: "
                "reading them would double the log; give the log's event column as before, or read the log anew with "
                "`recsys ingest CONFIG --rebuild`."
            )
    if len(rows) < _FEWEST:
        return []
    pairs = [USER_ID, ITEM_ID]
    known = rows.lazy().join(near.select(pairs), on=pairs, how="semi")
    count = known.select(pl.len()).collect(engine="streaming").item()
    if count <= _MOST * len(rows):
        return []
    return [
        f"{count} of {len(rows)} new events are of a user and an item that the table holds within 26 hours of them, "
        "and none is in the table at its own time. If the source now writes its times in another zone or precision, "
        "the log is in twice: read it anew with `recsys ingest CONFIG --rebuild`."
    ]
