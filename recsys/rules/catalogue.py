"""Reads a catalogue for rules: conditions that items meet, values that they have, moments, and lists of ids.

Shapes: V items (arrays by code have V + 1 rows, row 0 is no item), R rows, g values of an item.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Final

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID
from recsys.errors import InputError
from recsys.ingestion.conditions import any_met, numbers
from recsys.ingestion.contracts import columns_said, id_text
from recsys.reading.id_lists import read_ids
from recsys.reading.plausible import EARLIEST
from recsys.reading.times import TIME, disguise, with_time
from recsys.rules.base import Shop
from recsys.settings import Condition
from recsys.settings.id_list import IdListSettings

DAY: pl.Expr = pl.duration(days=1)
_OF_NUMBERS: Final = frozenset({"below", "at_most", "above", "at_least"})  # tests


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
    """Return which items meet all conditions, bool [V + 1], and remarks: no item meets one, values are no numbers."""
    for condition in conditions:
        need_column(rule, condition.column, shop)
    each = [rows_meeting(shop.catalogue, condition, shop.decimal) for condition in conditions]
    met = np.concatenate([[False], np.logical_and.reduce(each)])
    remarks = tuple(remark for condition in conditions for remark in _no_numbers(rule, condition, shop)) + tuple(
        f"No item meets a condition of rules.{rule} ({condition}){_nearest_value(shop.catalogue, condition)}."
        for condition, rows in zip(conditions, each, strict=True)
        if not rows.any()
    )
    return met, remarks


def rows_meeting(frame: pl.DataFrame, condition: Condition, decimal: str = ".") -> np.ndarray:
    """Return which rows meet a condition, bool [R]; of a row with several values, one must.

    Parameters
    ----------
    decimal
        What stands before the fraction of a number that is text.
    """
    column = condition.column
    dtype = frame.schema[column]
    if dtype != pl.List:
        return frame.select(any_met([condition], frame.schema, decimal)).to_series().to_numpy().astype(bool)
    flat = frame.select(pl.int_range(pl.len()).alias("__row"), pl.col(column)).explode(column)
    met = flat.filter(any_met([condition], flat.schema, decimal))["__row"].to_numpy()
    found = np.zeros(len(frame), dtype=bool)
    found[met] = True
    return found


def _no_numbers(rule: str, condition: Condition, shop: Shop) -> Iterator[str]:
    """Values that a comparison of numbers passes over, as they are text of another form."""
    column = shop.catalogue[condition.column]
    flat = column.explode() if column.dtype == pl.List else column
    if condition.test not in _OF_NUMBERS or flat.dtype != pl.String:
        return
    given = flat.str.strip_chars().to_frame().filter(pl.first() != "")
    lost = given.filter(numbers(flat.name, flat.dtype, shop.decimal).is_null())[flat.name]
    if len(lost):
        yield (
            f"{len(lost):,} of {len(given):,} values of {flat.name!r}, such as {lost[0]!r}, are no numbers, so they do "
            f"not meet {condition} of rules.{rule}; items.decimal, the sign before a fraction, is {shop.decimal!r}."
        )


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
        There is no such column, or a value is no time, or a number that is hardly one.
    """
    need_column(rule, column, shop)
    reads = f"rules.{rule} reads times in the column {column!r} of {shop.called}, and"
    advice = "write them as 2024-03-31 or 2024-03-31T08:00:00Z"
    dtype = shop.catalogue.schema[column]
    if dtype.is_nested():
        raise InputError(f"{reads} it holds lists or objects ({dtype}); write one time an item, as 2024-03-31.")
    frame = shop.catalogue.select(pl.col(column).alias("given"))
    found = with_time(frame.lazy(), "given", "auto", shop.timezone or "UTC").collect()
    text = pl.col("given").cast(pl.String).str.strip_chars()
    given = pl.col("given").is_not_null() & (text != "")
    bad = found.filter(given & pl.col(TIME).is_null())
    if len(bad):
        raise InputError(f"{reads} {bad['given'][0]!r} is none; {advice}.")
    hidden = disguise(frame.lazy(), "given")
    if hidden is not None:
        raise InputError(f"{reads} numbers such as {hidden.example} are {hidden.kind}; {advice}.")
    number = pl.lit(None, pl.Float64) if dtype.is_temporal() else text.cast(pl.Float64, strict=False)
    early = found.filter((pl.col(TIME) < EARLIEST) & (number.is_not_null() if end else number != 0))
    if len(early):
        raise InputError(
            f"{reads} the number {early['given'][0]!r}, counted from 1970, is the moment {early[TIME][0]:%Y-%m-%d}; "
            f"{advice}, and leave empty what has no time."
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
    ids = read_ids(given, f"rules.{rule}.items", shop.data_root, ITEM_ID)
    codes = shop.vocabulary.encode(ids.alias(ITEM_ID))
    found = np.zeros(shop.size + 1, dtype=bool)
    found[codes] = True
    found[0] = False
    return found, ids
