"""A table of one row an id from rows that repeat it, each attribute by what most of them say."""

from __future__ import annotations

from typing import Final

import polars as pl

_PLACE: Final = "__place"
_TIMES: Final = "__times"


def most_frequent(rows: pl.DataFrame, key: str) -> pl.DataFrame:
    """One row an id, in the order of first appearance: of each attribute its most frequent value, of equals the last.

    An attribute that no row of an id has is null; each attribute is decided for itself.
    """
    found = rows.select(pl.col(key).unique(maintain_order=True))
    for name in (column for column in rows.columns if column != key):
        values = (
            rows.lazy()
            .select(key, name, pl.int_range(pl.len()).alias(_PLACE))
            .filter(pl.col(name).is_not_null())
            .group_by(key, name)
            .agg(pl.len().alias(_TIMES), pl.col(_PLACE).max())
            .sort(_TIMES, _PLACE)
            .unique(key, keep="last", maintain_order=True)
            .select(key, name)
            .collect(engine="streaming")
        )
        found = found.join(values, on=key, how="left", maintain_order="left")
    return found
