"""Rows of a reading that may say what another row of it, or of the table, says: found by the hashes of their keys.

Hashes of a part of their range are sorted at a time, so memory does not grow with the log. Few rows of most readings
share a hash with another one; those are handed on in parts to be compared as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT
from recsys.ingestion.staged import KEY, PLACE, StagedLog, key_of

MOST_HASHES: Final = 32_000_000  # sorted at once, of 8 bytes each
MOST_KEYS: Final = 2_000_000  # whose rows are compared at once
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOST_PERIODS: Final = 20
_RANGE: Final = 1 << 64


def in_same_period(held: pl.LazyFrame, log: StagedLog, margin: timedelta = timedelta(0)) -> pl.LazyFrame:
    """The table's rows that can say the same as one of a log with time: those of the periods of its files."""
    spans = sorted((file.first, file.last) for file in log.files if file.first is not None and file.last is not None)
    if not spans:
        return held.filter(pl.lit(False))
    ranges = [pl.col(TIMESTAMP).is_between(_at(first) - margin, _at(last) + margin) for first, last in _joined(spans)]
    return held.filter(pl.any_horizontal(ranges))


def _at(moment: int) -> datetime:
    return _EPOCH + timedelta(microseconds=moment)


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that overlap as one, ascending; where many are left, one over all of them."""
    joined = spans[:1]
    for first, last in spans[1:]:
        if first <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(last, joined[-1][1]))
        else:
            joined.append((first, last))
    return joined if len(joined) <= _MOST_PERIODS else [(joined[0][0], joined[-1][1])]


def shared_keys(log: StagedLog, held: pl.LazyFrame | None) -> np.ndarray:
    """uint64 [n], ascending: hashes of keys of a log that another row of it, or one of the table, has, too.

    Of a log without time only those of the table count: there a repeat is a repeat.

    Parameters
    ----------
    held
        The rows of the table that can say the same (`keyed`).
    """
    if held is None:
        return repeated(log.frame(), len(log)) if log.timed else np.zeros(0, dtype=np.uint64)
    rows = len(log) + int(held.select(pl.len()).collect(engine="streaming").item())

    def both(low: int, high: int) -> np.ndarray:
        parts = [_hashes(frame, low, high) for frame in (log.frame(), held)]
        return np.concatenate(parts if log.timed else [np.unique(part) for part in parts])

    return _twice(both, rows)


def repeated(frame: pl.LazyFrame, rows: int) -> np.ndarray:
    """uint64 [n], ascending: hashes that more than one row of a frame with KEY has."""
    return _twice(lambda low, high: _hashes(frame, low, high), rows)


def _twice(hashes: Callable[[int, int], np.ndarray], rows: int) -> np.ndarray:
    """The hashes that come twice, looked for in one part of their range after another."""
    passes = max(1, -(-rows // MOST_HASHES))
    found = []
    for number in range(passes):
        part = hashes(_RANGE * number // passes, _RANGE * (number + 1) // passes - 1)
        part.sort()
        found.append(np.unique(part[1:][part[1:] == part[:-1]]))
    return np.concatenate(found)


def keyed(held: pl.LazyFrame, timed: bool) -> pl.LazyFrame:
    """The table's rows with their KEY."""
    return held.select(USER_ID, ITEM_ID, TIMESTAMP, EVENT, WEIGHT, POSITION, key_of(timed))


def _hashes(frame: pl.LazyFrame, low: int, high: int) -> np.ndarray:
    inside = frame if high - low == _RANGE - 1 else frame.filter(_within(low, high))
    return inside.select(KEY).collect(engine="streaming")[KEY].to_numpy().copy()


def _within(low: int, high: int) -> pl.Expr:
    return pl.col(KEY).is_between(pl.lit(low, dtype=pl.UInt64), pl.lit(high, dtype=pl.UInt64))


def rows_of(keys: np.ndarray, frame: pl.LazyFrame, order: str) -> Iterator[pl.DataFrame]:
    """The rows that have these hashes, in parts by hash; each part in the order of the column `order`."""
    for begin in range(0, len(keys), MOST_KEYS):
        part = keys[begin : begin + MOST_KEYS]
        near = frame.filter(_within(int(part[0]), int(part[-1])))
        yield near.join(pl.LazyFrame({KEY: part}), on=KEY, how="semi").collect(engine="streaming").sort(order)


def pairs_of(
    keys: np.ndarray, log: StagedLog, held: pl.LazyFrame | None
) -> Iterator[tuple[pl.DataFrame, pl.DataFrame | None]]:
    """Rows of the reading by PLACE, and rows of the table by POSITION, with these hashes, in parts by hash."""
    mine = rows_of(keys, log.frame(), PLACE)
    if held is None:
        yield from ((rows, None) for rows in mine)
    else:
        yield from zip(mine, rows_of(keys, held, POSITION), strict=True)
