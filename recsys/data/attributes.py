"""Declared attributes of items and users: from a table's columns to columns that features/encode.py reads."""

from __future__ import annotations

import polars as pl

from recsys.errors import InputError
from recsys.ingestion.contracts import number
from recsys.settings import AttributedSettings, CategoricalSettings, NumericSettings


def attribute_values(table: str, settings: AttributedSettings, rows: pl.DataFrame) -> pl.DataFrame:
    """A column for each categorical and numeric attribute, under its own name.

    Returns
    -------
    DataFrame
        Categorical: List(String) without blanks around or between values, empty where missing; of kind "single"
        String, null where missing. Numeric: Float64, null where there is no number. Lists where one value is declared
        stay lists, for the encoder to refuse.

    Raises
    ------
    InputError
        A numeric attribute has values and no number among them.
    """
    columns = [_categorical(rows.schema[of.column or name], name, of) for name, of in settings.categorical.items()]
    columns += [
        _numeric(rows.schema[of.column or name], name, of, settings.decimal) for name, of in settings.numeric.items()
    ]
    found = rows.select(columns)
    for name, of in settings.numeric.items():
        given = rows[of.column or name]
        if given.null_count() < len(given) and found[name].null_count() == len(found):
            example = given.drop_nulls()[0]
            raise InputError(
                f"{table}.numeric names {name!r} and none of its values is a number, such as {example!r}; declare it "
                f"in {table}.categorical, or give a pattern whose group is a number."
            )
    return found


def _text(name: str, pattern: str | None) -> pl.Expr:
    text = pl.col(name).cast(pl.String)
    return text if pattern is None else text.str.extract(pattern, 1)


def _categorical(dtype: pl.DataType, name: str, of: CategoricalSettings) -> pl.Expr:
    column = of.column or name
    is_list = dtype == pl.List
    if of.kind == "single":
        stripped = _text(column, of.pattern).str.strip_chars()
        return (pl.col(column) if is_list else pl.when(stripped != "").then(stripped)).alias(name)
    if is_list:
        values = pl.col(column).cast(pl.List(pl.String))
    elif of.separator is not None:
        values = _text(column, of.pattern).str.split(of.separator)
    else:
        values = pl.concat_list(_text(column, of.pattern))
    stripped = values.list.eval(pl.element().str.strip_chars())
    return stripped.list.eval(pl.element().filter(pl.element() != "")).fill_null([]).alias(name)


def _numeric(dtype: pl.DataType, name: str, of: NumericSettings, decimal: str) -> pl.Expr:
    column = of.column or name
    if dtype == pl.List:
        return pl.col(column).alias(name)
    if dtype == pl.String or of.pattern is not None:
        return number(_text(column, of.pattern), decimal).alias(name)
    return pl.col(column).cast(pl.Float64).alias(name)
