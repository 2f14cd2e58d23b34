"""Lines of one order: rows of one file of a log that say the same event and are weighed together."""

from __future__ import annotations

from typing import Final

import polars as pl

from recsys.columns import WEIGHT
from recsys.ingestion.overlap import repeated, rows_of
from recsys.ingestion.staged import LOG_KEY, StagedFile, rewritten
from recsys.reading.reasons import FILE_LINE

_SUM: Final = "__sum"


def with_sums(file: StagedFile) -> StagedFile:
    """A file of a log with time, each row with the weight of all rows of it that say the same event.

    The sum is taken a file, so that a file that is read again, or lies beside a longer version of it, adds nothing.
    """
    keys = repeated(file.frame(), file.count)
    if not len(keys):
        return file
    parts = (summed(rows) for rows in rows_of(keys, file.frame(), FILE_LINE))
    sums = pl.concat([rows.select(FILE_LINE, pl.col(WEIGHT).alias(_SUM)) for rows in parts]).lazy()
    both = pl.scan_parquet(file.path, glob=False).join(sums, on=FILE_LINE, how="left", maintain_order="left")
    return rewritten(file, both.with_columns(pl.coalesce(_SUM, WEIGHT).alias(WEIGHT)).drop(_SUM), "summed")


def summed(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of one file, each with the sum of the weights of those that say the same event.

    Equal rows count once: an invoice that stands twice, as where two exports overlap, was bought once.
    """
    once = pl.when(pl.struct(*LOG_KEY, WEIGHT).is_first_distinct()).then(WEIGHT)
    alike = once.count().over(LOG_KEY) > 1
    total = once.sum().over(LOG_KEY).round(9)  # 0.1 + 0.2 - 0.3 leaves nothing
    return rows.with_columns(pl.when(alike).then(total).otherwise(WEIGHT).alias(WEIGHT))
