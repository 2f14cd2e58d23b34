"""Shares of what users consume and of what they are recommended, by the values of each categorical attribute."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import polars as pl

SHOWN: Final = 12  # values of an attribute, the most consumed ones; the others are one share
MOST_ATTRIBUTES: Final = 6
MOST_VALUES: Final = 5_000  # an attribute with more is no category, but a name


def category_shares(
    attributes: pl.DataFrame, consumed: np.ndarray, recommended: np.ndarray
) -> dict[str, list[dict[str, Any]]]:
    """Return by attribute a row for each of its most consumed values: `value`, `consumed`, `recommended`.

    An item with several values counts for each of them in equal parts. Items without one count under `value` None, all
    further values together under "(others)". Both columns sum to 1, or to 0 where nothing was counted.

    Parameters
    ----------
    attributes
        V rows: the declared attributes; columns of text or of lists of text are categorical.
    consumed, recommended
        int64 [V + 1]: how often each item, by code, was a target and stood in a list.
    """
    counts = pl.DataFrame({"consumed": consumed[1:], "recommended": recommended[1:]}).cast(pl.Float64)
    found: dict[str, list[dict[str, Any]]] = {}
    for name, kind in attributes.schema.items():
        if kind not in (pl.String, pl.List(pl.String)) or len(found) == MOST_ATTRIBUTES:
            continue
        rows = _by_value(attributes[name], counts)
        if 1 < len(rows) <= MOST_VALUES:
            found[name] = _most(rows)
    return found


def _by_value(values: pl.Series, counts: pl.DataFrame) -> pl.DataFrame:
    """Return a row for each value, the most consumed first: value (null: none), and the shares."""
    lists = values if values.dtype == pl.List else values.to_frame().select(pl.concat_list(pl.all())).to_series()
    lists = lists.fill_null([]).list.drop_nulls().list.unique().alias("value")
    size = lists.list.len().clip(1).cast(pl.Float64)
    frame = counts.select(pl.all() / size).hstack([lists]).explode("value", empty_as_null=True, keep_nulls=True)
    summed = frame.group_by("value").agg(pl.col("consumed", "recommended").sum())
    shares = [
        pl.when(pl.col(name).sum() > 0).then(pl.col(name) / pl.col(name).sum()).otherwise(0.0)
        for name in ("consumed", "recommended")
    ]
    return summed.with_columns(
        *(share.alias(name) for share, name in zip(shares, ("consumed", "recommended"), strict=True))
    ).sort(["consumed", "recommended", "value"], descending=[True, True, False])


def _most(rows: pl.DataFrame) -> list[dict[str, Any]]:
    shown: list[dict[str, Any]] = rows.head(SHOWN).to_dicts()
    others = rows.slice(SHOWN)
    if len(others):
        shown.append(
            {
                "value": "(others)",
                "consumed": float(others["consumed"].sum()),
                "recommended": float(others["recommended"].sum()),
            }
        )
    return shown
