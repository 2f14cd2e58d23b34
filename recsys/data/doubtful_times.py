"""Warnings on times that were read without an error and are hardly the log's own."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import polars as pl

from recsys.reading.plausible import doubt
from recsys.reading.readers import Rows, reading
from recsys.reading.sniff import looks_numeric
from recsys.settings import InteractionSettings

_PROBED: Final = 1000  # values that tell whether a column holds numbers


def time_warnings(
    settings: InteractionSettings, rows: Rows, column: str | None, moments: pl.Series, now: datetime
) -> tuple[str, ...]:
    """Sentences on a log's times.

    Parameters
    ----------
    rows, column
        The first file, and its column of times; None: the log has none.
    moments
        Times of all accepted rows.
    """
    if column is None:
        return ()
    counts = not settings.time_formats and _holds_numbers(rows, column)
    told = doubt(moments, now, counts=counts, unit=settings.time_unit)
    return () if told is None else (f"The log's times look wrong: {told}.",)


def _holds_numbers(rows: Rows, column: str) -> bool:
    """Whether a column's first values are numbers, or are written as such."""
    with reading(rows.file):
        values = rows.frame.select(column).drop_nulls().head(_PROBED).collect(engine="streaming")[column]
    return looks_numeric(values)
