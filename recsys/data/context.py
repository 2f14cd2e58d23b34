"""Context of an event, besides its user and its item; computed here alone, for training and serving alike.

Every value is of the event itself or of what lies before it in its user's history, so nothing of the future is told.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, TIMESTAMP, USER_ID, WEIGHT
from recsys.errors import InputError

HOUR: Final = "hour"  # 0 to 23, UTC
WEEKDAY: Final = "weekday"  # 1 (Monday) to 7, UTC
GAP: Final = "gap"  # bucket of the seconds since the user's event before; null at the first one
_OF_TIME: Final = (HOUR, WEEKDAY, GAP)
_SECOND: Final = 1_000_000  # microseconds


def need_context(names: Collection[str], known: Mapping[str, bool]) -> None:
    """Return whether a log has what the names need.

    Parameters
    ----------
    known
        For `timestamp`, `event` and `weight`: every event has a time, some event has a kind, some has a weight.

    Raises
    ------
    InputError
        It has not.
    """
    for name in names:
        if name in _OF_TIME and not known[TIMESTAMP]:
            raise _lacking(name, "times", TIMESTAMP)
    if EVENT in names and not known[EVENT]:
        raise _lacking(EVENT, "kinds of events", EVENT)
    if WEIGHT in names and not known[WEIGHT]:
        raise _lacking(WEIGHT, "weights", WEIGHT)


def context_of(frame: pl.DataFrame, names: Collection[str]) -> pl.DataFrame:
    """The named context of every event; what a name needs and is not told of an event is null.

    Parameters
    ----------
    frame
        The log, sorted by (user, time, place): `user_id`, `timestamp`, and `event` and `weight` where they are named.
    names
        Out of "event", "hour", "weekday", "gap", "weight"; at least one.

    Returns
    -------
    DataFrame
        A row an event, a column a name: integers for what is of time, String for the event, Float64 for the weight.
    """
    time = pl.col(TIMESTAMP)
    columns = {
        EVENT: pl.when(pl.col(EVENT) != "").then(pl.col(EVENT)),
        HOUR: time.dt.hour().cast(pl.Int64),
        WEEKDAY: time.dt.weekday().cast(pl.Int64),
        GAP: time.dt.epoch("us").diff().over(USER_ID),
        WEIGHT: pl.col(WEIGHT),
    }
    found = frame.select(columns[name].alias(name) for name in names)
    return found.with_columns(gap_buckets(found[GAP])) if GAP in names else found


def gap_buckets(microseconds: pl.Series) -> pl.Series:
    """Bucket of a time between two events: 0 below a second, k from 2^(k - 1) to below 2^k seconds; null stays.

    Doubling, so that minutes and months are told apart alike, and fixed, so that no data decide the edges.
    """
    seconds = np.maximum(microseconds.fill_null(0).to_numpy() // _SECOND, 0)
    buckets = np.frexp(seconds.astype(np.float64))[1].astype(np.int64)
    return pl.DataFrame({"bucket": buckets, "given": microseconds}).select(
        pl.when(pl.col("given").is_not_null()).then(pl.col("bucket")).alias(microseconds.name)
    )[microseconds.name]


def _lacking(name: str, what: str, column: str) -> InputError:
    return InputError(
        f"model.context names {name!r} and the log has no {what}; name their column in interactions.columns.{column}, "
        f"or take {name!r} out of model.context."
    )
