"""Warnings on times that were read without an error and are hardly the log's own."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime
from typing import Final

import polars as pl

from recsys.columns import TIMESTAMP
from recsys.ingestion.staged import StagedLog
from recsys.reading.column_names import means
from recsys.reading.plausible import EARLIEST, doubt
from recsys.reading.readers import Rows, reading
from recsys.reading.sniff import looks_numeric
from recsys.settings import InteractionSettings

_PROBED: Final = 1000  # values that tell whether a column holds numbers


def time_warnings(
    settings: InteractionSettings,
    rows: Rows,
    column: str | None,
    log: StagedLog,
    now: datetime,
    read: Collection[str] = (),
) -> tuple[str, ...]:
    """Sentences on a log's times.

    Parameters
    ----------
    rows, column
        The first file, and its column of times; None: the log has none.
    log
        The accepted rows of all files.
    read
        The file's columns that hold something else of ours.
    """
    if column is None:
        others = [name for name in rows.columns if name not in read and means(name) == TIMESTAMP]
        if not others:
            return ()
        sentence = (
            f"The log has no column 'timestamp', so its events stand in the order of the file; if {others[0]!r} holds "
            f'their times, set interactions.columns = {{ timestamp = "{others[0]}" }} and read it anew (--rebuild).'
        )
        return (sentence,)
    counts = not settings.time_formats and _holds_numbers(rows, column)
    told = doubt(_telling(log), now, counts=counts, unit=settings.time_unit, times=len(log))
    return () if told is None else (f"The log's times look wrong: {told}.",)


def _telling(log: StagedLog) -> pl.Series:
    """The times that speak against the others: the early ones, or, where there are none, the first and the last."""
    moment = pl.Datetime("us", "UTC")
    if log.first is None or log.last is None:
        return pl.Series([], dtype=moment)
    ends = pl.Series([log.first, log.last], dtype=pl.Int64).cast(moment)
    if not (ends < EARLIEST).any():
        return ends
    times = (file.frame().select(TIMESTAMP).filter(pl.col(TIMESTAMP) < EARLIEST) for file in log.files)
    return pl.concat([part.collect(engine="streaming")[TIMESTAMP] for part in times])


def _holds_numbers(rows: Rows, column: str) -> bool:
    """Return whether a column's first values are numbers, or are written as such."""
    with reading(rows.file):
        values = rows.frame.select(column).drop_nulls().head(_PROBED).collect(engine="streaming")[column]
    return looks_numeric(values)
