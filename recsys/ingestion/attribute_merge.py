"""Items or users after a reading: the newest row of an id wins, and what a newer file leaves out stays.

Items say whether the newest reading lists them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import polars as pl

from recsys.columns import ITEMS, LISTED
from recsys.ingestion.change import Change, tells_more
from recsys.ingestion.most_frequent import most_frequent
from recsys.storage import warehouse


def merge_attributes(
    root: str,
    table: str,
    key: str,
    good: pl.DataFrame,
    record: dict[str, Any],
    several: Literal["last", "most-frequent"] = "last",
    *,
    rebuild: bool = False,
    partial: bool = False,
) -> Change:
    """Items or users after a reading: the newest row of an id wins, ids that are not in the reading stay.

    Within the reading `several` says which row that is, see `AttributedSettings`. A column whose type changed between
    two readings takes the wider one (number, list of strings, string). Items get LISTED: whether this reading, the
    newest one, holds them.

    Parameters
    ----------
    record, rebuild
        As in `merge_interactions`.
    partial
        The reading holds new and changed rows alone: items that it lacks stay listed.
    """
    rows = good.unique(key, keep="last", maintain_order=True) if several == "last" else most_frequent(good, key)
    if table == ITEMS:
        rows = rows.with_columns(pl.lit(True).alias(LISTED))
    expected = warehouse.latest_version(root, table)
    unknown = tells_more(root, table, record)
    listed_before, delisted = None, 0
    if expected is None or rebuild:
        merged, added = rows.sort(key), len(rows)
    else:
        held = warehouse.scan(root, table, expected).collect(engine="streaming")
        gone = held.join(rows, on=key, how="anti")
        if table == ITEMS:
            listed = pl.col(LISTED) if LISTED in held.columns else pl.lit(True)
            listed_before = held.select(listed).sum().item()
            if partial:
                gone = gone.with_columns(listed.alias(LISTED))
            else:
                delisted = gone.select(listed).sum().item()
                gone = gone.with_columns(pl.lit(False).alias(LISTED))
        merged = concat_alike([gone, rows]).sort(key)
        before, after = _alike(*(frame.drop(LISTED, strict=False) for frame in (held, merged)))
        before = pl.concat([after.clear(), before], how="diagonal")
        added = int((~after.hash_rows().is_in(before.hash_rows().implode())).sum())
    listed_now = merged.select(LISTED).sum().item() if table == ITEMS else None
    relisted = (listed_before, delisted) != (listed_now, 0) and table == ITEMS
    return Change(
        table=table,
        frames=(lambda: iter([merged])) if added or relisted or rebuild or unknown else None,
        mode="overwrite",
        expected=expected,
        added=added,
        duplicates=len(good) - len(rows),
        listed=listed_now,
        delisted=delisted,
        warnings=_shrunk(listed_now, listed_before or 0) if listed_now is not None else [],
        metadata=record,
    )


def _shrunk(listed: int, before: int) -> list[str]:
    if listed * 2 >= before:
        return []
    return [
        f"The catalogue lists {listed} items and listed {before} before; only those that it lists now are recommended. "
        'If it brings new items alone, set retrieve.items = "all".'
    ]


def concat_alike(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames under each other; a column that one lacks is null there. Types as in `merge_attributes`."""
    merged = frames[0]
    for frame in frames[1:]:
        merged = pl.concat(_alike(merged, frame), how="diagonal")
    return merged


def _alike(left: pl.DataFrame, right: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two frames whose common columns have one type."""
    for name in left.columns:
        if name not in right.columns or left.schema[name] == right.schema[name]:
            continue
        types = {left.schema[name], right.schema[name]}
        if all(dtype.is_numeric() for dtype in types):
            left, right = (frame.with_columns(pl.col(name).cast(pl.Float64)) for frame in (left, right))
        elif any(isinstance(dtype, pl.List) for dtype in types):
            left, right = (_as_list(frame, name) for frame in (left, right))
        else:
            left, right = (frame.with_columns(pl.col(name).cast(pl.String)) for frame in (left, right))
    return left, right


def _as_list(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    if isinstance(frame.schema[name], pl.List):
        return frame
    return frame.with_columns(pl.when(pl.col(name).is_not_null()).then(pl.concat_list(pl.col(name).cast(pl.String))))
