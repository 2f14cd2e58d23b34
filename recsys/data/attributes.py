"""Declared attributes of items and users: from a table's columns to columns that features/encode.py reads."""

from __future__ import annotations

import polars as pl

from recsys.errors import InputError
from recsys.ingestion.contracts import number, whole_text
from recsys.settings import AttributedSettings, CategoricalSettings, NumericSettings


def attribute_values(table: str, settings: AttributedSettings, rows: pl.DataFrame) -> pl.DataFrame:
    """A column for each categorical and numeric attribute, under its own name.

    Returns
    -------
    DataFrame
        Categorical: List(String) without blanks around or between values, empty where missing; of kind "single"
        String, null where missing; a whole float is written as an integer, as rules write those of items. Numeric:
        Float64, null where there is no number. Lists where one value is declared stay lists, for the encoder to refuse.

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


def _text(dtype: pl.DataType, name: str, pattern: str | None) -> pl.Expr:
    if pattern is None:
        return whole_text(pl.col(name), dtype)
    return pl.col(name).cast(pl.String).str.extract(pattern, 1)  # written for the text as it comes, such as "49.0"


def _categorical(dtype: pl.DataType, name: str, of: CategoricalSettings) -> pl.Expr:
    column = of.column or name
    if of.kind == "single":
        stripped = _text(dtype, column, of.pattern).str.strip_chars()
        return (pl.col(column) if dtype == pl.List else pl.when(stripped != "").then(stripped)).alias(name)
    if isinstance(dtype, pl.List):
        values = pl.col(column).list.eval(whole_text(pl.element(), dtype.inner))
    elif of.separator is not None:
        values = _text(dtype, column, of.pattern).str.split(of.separator)
    else:
        values = pl.concat_list(_text(dtype, column, of.pattern))
    stripped = values.list.eval(pl.element().str.strip_chars())
    return stripped.list.eval(pl.element().filter(pl.element() != "")).fill_null([]).alias(name)


def _numeric(dtype: pl.DataType, name: str, of: NumericSettings, decimal: str) -> pl.Expr:
    column = of.column or name
    if dtype == pl.List:
        return pl.col(column).alias(name)
    if dtype == pl.String or of.pattern is not None:
        return number(_text(dtype, column, of.pattern), decimal).alias(name)
    return pl.col(column).cast(pl.Float64).alias(name)
