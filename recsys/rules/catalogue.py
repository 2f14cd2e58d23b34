"""What rules read of a catalogue: conditions that items meet, values that they have, moments, and lists of ids.

Shapes: V items (arrays by code have V + 1 rows, row 0 is no item), R rows, g values of an item.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID
from recsys.data.conditions import any_met
from recsys.data.contracts import columns_said, id_text
from recsys.errors import InputError
from recsys.reading.id_lists import read_ids
from recsys.reading.times import TIME, with_time
from recsys.rules.base import Shop
from recsys.settings import Condition
from recsys.settings.id_list import IdListSettings

DAY: pl.Expr = pl.duration(days=1)


def need_column(rule: str, column: str, shop: Shop) -> None:
    """Refuse a column that the catalogue does not have.

    Raises
    ------
    InputError
        Names the rule, the column, and the nearest one.
    """
    if column not in shop.catalogue.columns:
        raise InputError(
            f"rules.{rule} looks at the column {column!r}, which {shop.called} does not have; "
            f"{columns_said(column, shop.catalogue.columns)}"
        )


def meeting(rule: str, conditions: Sequence[Condition], shop: Shop) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return which items meet all conditions, bool [V + 1], and a remark on each condition that none meets."""
    for condition in conditions:
        need_column(rule, condition.column, shop)
    each = [rows_meeting(shop.catalogue, condition) for condition in conditions]
    met = np.concatenate([[False], np.logical_and.reduce(each)])
    remarks = tuple(
        f"No item meets a condition of rules.{rule} ({condition}){_nearest_value(shop.catalogue, condition)}."
        for condition, rows in zip(conditions, each, strict=True)
        if not rows.any()
    )
    return met, remarks


def rows_meeting(frame: pl.DataFrame, condition: Condition) -> np.ndarray:
    """Return which rows meet a condition, bool [R]; of a row with several values, one must."""
    column = condition.column
    dtype = frame.schema[column]
    if dtype != pl.List:
        return frame.select(any_met([condition], frame.schema)).to_series().to_numpy().astype(bool)
    flat = frame.select(pl.int_range(pl.len()).alias("__row"), pl.col(column)).explode(column)
    met = flat.filter(any_met([condition], flat.schema))["__row"].to_numpy()
    found = np.zeros(len(frame), dtype=bool)
    found[met] = True
    return found


def _nearest_value(frame: pl.DataFrame, condition: Condition) -> str:
    if condition.one_of is None:
        return ""
    column = frame[condition.column]
    flat = column.explode() if column.dtype == pl.List else column
    known = flat.to_frame().select(id_text(flat.name, flat.dtype)).to_series().drop_nulls().unique().sort()
    spelt = {str(value).casefold(): value for value in known.head(10_000).to_list()}
    near = difflib.get_close_matches(str(condition.one_of[0]).casefold(), spelt, n=1, cutoff=0.0)
    return f"; the nearest value is {spelt[near[0]]!r}" if near else "; the column has no value"


def values_of(rule: str, column: str, separator: str | None, shop: Shop) -> tuple[np.ndarray, dict[str, int]]:
    """Return the values of each item in a column, as numbers.

    Parameters
    ----------
    separator
        Splits one text into several values.

    Returns
    -------
    values, numbers
        int32 [V + 1, g], distinct ones first, then the number of values where there are fewer than g; g is at least 1.
        The number of each value, from 0.

    Raises
    ------
    InputError
        There is no such column, or it holds objects.
    """
    need_column(rule, column, shop)
    dtype = shop.catalogue.schema[column]
    rows = shop.catalogue.select(pl.int_range(1, pl.len() + 1).alias("code"), pl.col(column).alias("value"))
    rows = rows.explode("value") if dtype == pl.List else rows
    rows = rows.select("code", id_text("value", rows.schema["value"]))
    if separator is not None:
        rows = rows.with_columns(pl.col("value").str.split(separator)).explode("value")
    rows = rows.with_columns(pl.col("value").str.strip_chars()).filter(pl.col("value") != "")
    rows = rows.unique(maintain_order=True)
    names = rows["value"].unique().sort().to_list()
    numbers = {name: place for place, name in enumerate(names)}
    place = pl.int_range(pl.len()).over("code")
    rows = rows.with_columns(place.alias("place"), pl.col("value").replace_strict(numbers, return_dtype=pl.Int32))
    values = np.full(
        (shop.size + 1, max(1, int(rows["place"].to_numpy().max(initial=0)) + 1)), len(numbers), dtype=np.int32
    )
    values[rows["code"].to_numpy(), rows["place"].to_numpy()] = rows["value"].to_numpy()
    return values, numbers


def moments(rule: str, column: str, shop: Shop, *, end: bool) -> pl.Series:
    """Return a column's moments, Datetime("us", "UTC") [V]; null where an item has none.

    Parameters
    ----------
    end
        A day without a time of day means its end, not its beginning.

    Raises
    ------
    InputError
        There is no such column, or a value is no time.
    """
    need_column(rule, column, shop)
    frame = shop.catalogue.select(pl.col(column).alias("given"))
    found = with_time(frame.lazy(), "given", "auto", shop.timezone or "UTC").collect()
    text = pl.col("given").cast(pl.String).str.strip_chars()
    given = pl.col("given").is_not_null() & (text != "")
    bad = found.filter(given & pl.col(TIME).is_null())
    if len(bad):
        raise InputError(
            f"rules.{rule} reads times in the column {column!r} of {shop.called}, and {bad['given'][0]!r} is none; "
            "write them as 2024-03-31 or 2024-03-31T08:00:00Z."
        )
    whole_day = (text.str.len_chars() == 10) & text.str.contains("-") if end else pl.lit(False)
    moment = pl.when(whole_day).then(pl.col(TIME) + DAY - pl.duration(microseconds=1)).otherwise(pl.col(TIME))
    return found.select(moment).to_series()


def listed(rule: str, given: str | IdListSettings, shop: Shop) -> tuple[np.ndarray, pl.Series]:
    """Return which items a list names, bool [V + 1], and the list.

    Raises
    ------
    InputError
        It cannot be read.
    """
    ids = read_ids(given, f"rules.{rule}.items", shop.data_root)
    codes = shop.vocabulary.encode(ids.alias(ITEM_ID))
    found = np.zeros(shop.size + 1, dtype=bool)
    found[codes] = True
    found[0] = False
    return found, ids
