"""Rows that a source holds and the tables should not: what `drop` leaves out, and what `withdraw` takes back.

A condition looks at one column of the source as it came, so it works alike on the strings of text formats and on the
types of tables. A row that a reader found broken meets none: it is quarantined like any other broken row.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Final

import polars as pl

from recsys.errors import InputError
from recsys.ingestion.contracts import columns_said, id_text, is_missing, number
from recsys.reading.readers import Rows
from recsys.reading.reasons import DEFECT
from recsys.settings import Condition

_MET: Final = "__met"  # the number of the first condition that a row meets; null: none


def need_columns(key: str, conditions: Sequence[Condition], rows: Rows) -> None:
    """Return whether a file has every column that the conditions of a setting look at.

    Raises
    ------
    InputError
        Names the setting and the nearest column.
    """
    for condition in conditions:
        if condition.column not in rows.columns:
            raise InputError(
                f"{rows.file.name} has no column {condition.column!r}, at which {key} looks ({condition}); "
                f"{columns_said(condition.column, rows.columns)}"
            )


def columns_of(conditions: Sequence[Condition]) -> list[str]:
    """The columns that conditions look at."""
    return list(dict.fromkeys(condition.column for condition in conditions))


def left_out(rows: Rows, conditions: Sequence[Condition], decimal: str = ".") -> tuple[Rows, pl.LazyFrame | None]:
    """A file's rows without those that meet a condition, and how many met which.

    Parameters
    ----------
    decimal
        What stands before the fraction of a number that is text.

    Returns
    -------
    Rows, LazyFrame
        `condition` (its place, UInt32) and `len`; None where there are no conditions.
    """
    if not conditions:
        return rows, None
    schema = rows.frame.collect_schema()
    marked = rows.frame.with_columns(_first_met(conditions, schema, decimal).alias(_MET))
    kept = marked.filter(pl.col(_MET).is_null()).drop(_MET)
    counts = marked.group_by(pl.col(_MET).alias("condition")).len().filter(pl.col("condition").is_not_null())
    return replace(rows, frame=kept), counts


def counted(conditions: Sequence[Condition], counts: Collection[pl.DataFrame]) -> dict[str, int]:
    """Rows that were left out, by condition as it is written, in the order of the settings; each is in the dict."""
    total = dict.fromkeys(map(str, conditions), 0)
    for frame in counts:
        for place, rows in frame.iter_rows():
            total[str(conditions[place])] += rows
    return total


def any_met(conditions: Sequence[Condition], schema: pl.Schema, decimal: str = ".") -> pl.Expr:
    """Expression: a row meets one of the conditions; never null. `decimal` as in `left_out`."""
    met = (_met(condition, schema[condition.column], decimal) for condition in conditions)
    return pl.any_horizontal(pl.lit(False), *met)


def _first_met(conditions: Sequence[Condition], schema: pl.Schema, decimal: str) -> pl.Expr:
    sound = pl.col(DEFECT).is_null()
    cases = [
        pl.when(sound & _met(condition, schema[condition.column], decimal)).then(pl.lit(place, dtype=pl.UInt32))
        for place, condition in enumerate(conditions)
    ]
    return pl.coalesce(cases)


def _met(condition: Condition, dtype: Any, decimal: str) -> pl.Expr:
    """Return whether a row meets a condition; never null.

    Raises
    ------
    InputError
        The column's type has neither text nor numbers.
    """
    if dtype.is_nested() or dtype == pl.Binary:
        raise InputError(f"A condition looks at the column {condition.column!r}, which holds {dtype}; it needs text.")
    test, value = condition.test, getattr(condition, condition.test)
    if test == "missing":
        met = is_missing(condition.column, dtype) if value else ~is_missing(condition.column, dtype)
    elif test in ("starts_with", "matches", "one_of"):
        text = id_text(condition.column, dtype)
        if test == "starts_with":
            met = text.str.starts_with(value)
        elif test == "matches":
            met = text.str.contains(value)
        else:
            met = text.is_in([spelling for one in value for spelling in _spellings(one)])
    else:
        size = numbers(condition.column, dtype, decimal)
        compared = {"below": size < value, "at_most": size <= value, "above": size > value, "at_least": size >= value}
        met = compared[test] & size.is_not_nan()
    return met.fill_null(False)


def numbers(name: str, dtype: Any, decimal: str) -> pl.Expr:
    """A column as Float64, as conditions see it; null where a value is no number."""
    column = pl.col(name)
    if dtype.is_numeric():
        return column.cast(pl.Float64, strict=False)
    return number(column.cast(pl.String), decimal if dtype == pl.String else ".")


def _spellings(value: bool | str | int | float) -> list[str]:
    """Return the spellings of a value in sources: truth values in both cases, whole numbers without a fraction."""
    text = str(value)
    if isinstance(value, bool):
        return [text.lower(), text, text.upper()]
    return [text, str(int(value))] if isinstance(value, float) and value.is_integer() else [text]
