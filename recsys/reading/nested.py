"""Values inside objects under dotted names: `{"category": {"path": ["A", "B"]}}` has `category.path`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import polars as pl


def leaves(schema: Mapping[str, pl.DataType]) -> dict[str, pl.Expr]:
    """Expressions by dotted name of what the struct columns hold, at any depth; lists of objects give lists.

    A name that a column has already is left to the column.
    """
    found = {name: value for column, dtype in schema.items() for name, value in _inside(column, pl.col(column), dtype)}
    return {name: value for name, value in found.items() if name not in schema}


def _inside(name: str, value: pl.Expr, dtype: pl.DataType) -> Iterator[tuple[str, pl.Expr]]:
    if isinstance(dtype, pl.Struct):
        for field in dtype.fields:
            yield from _leaf(f"{name}.{field.name}", value.struct.field(field.name), field.dtype)  # type: ignore[arg-type]
    elif isinstance(dtype, pl.List) and isinstance(dtype.inner, pl.Struct):
        for field in dtype.inner.fields:
            values = value.list.eval(pl.element().struct.field(field.name).drop_nulls())
            yield from _leaf(f"{name}.{field.name}", values, pl.List(field.dtype))


def _leaf(name: str, value: pl.Expr, dtype: pl.DataType) -> Iterator[tuple[str, pl.Expr]]:
    inner = dtype.inner if isinstance(dtype, pl.List) else dtype
    if isinstance(inner, pl.Struct):
        yield from _inside(name, value, dtype)
    else:
        yield name, value
