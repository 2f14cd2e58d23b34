"""Rules that a row must meet to enter a table; others go to quarantine with a reason of `recsys.reading.reasons`.

Pure functions of lazy frames. Ids stay as given: 64-bit integers where every id is written as one, else
strings. `recsys.reading.times` reads the times.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, Final
from zoneinfo import available_timezones

import polars as pl

from recsys.columns import (
    EVENT,
    ITEM_ID,
    LINE,
    RAW,
    REASON,
    TIMESTAMP,
    USER_ID,
    WEIGHT,
    WITHDRAWAL,
)
from recsys.errors import InputError
from recsys.reading.nested import leaves
from recsys.reading.reasons import (
    BAD_TIME,
    DEFECT,
    FILE_LINE,
    FILE_RAW,
    FUTURE_TIME,
    INEXACT_ID,
    MISSING,
    NAIVE_TIME,
    NESTED,
    NOT_INTEGER,
    SKIPPED_TIME,
    WEIGHT_TYPE,
    first_reason,
)
from recsys.reading.times import FIRST, NAIVE, SKIPPED, TIME, TimeUnit, with_time

_REJECTED: Final = "rejected_user"
_COLUMNS_SHOWN: Final = 20  # of a file, in a message
# the first integer of which a float type does not hold the next one
_WHOLE: Final[dict[Any, int]] = {pl.Float16: 2**11, pl.Float32: 2**24, pl.Float64: 2**53}


def nearest(name: str, known: Collection[str], n: int = 3) -> str:
    """The most similar known names, as they go into a message.

    >>> nearest("user", ["item_id", "user_id"], n=1)
    "'user_id'"
    """
    close = difflib.get_close_matches(name, list(known), n=n, cutoff=0.0)
    return ", ".join(repr(match) for match in close)


def columns_said(name: str, known: Collection[str]) -> str:
    """The nearest column of a file and all that it has, as they end a message about one that is not there.

    >>> columns_said("usr", ["item", "user"])
    "did you mean 'user'? It has 'item', 'user'."
    """
    shown = ", ".join(map(repr, list(known)[:_COLUMNS_SHOWN]))
    more = f" and {len(known) - _COLUMNS_SHOWN:,} more" if len(known) > _COLUMNS_SHOWN else ""
    return f"did you mean {nearest(name, known, n=1)}? It has {shown}{more}."


def check_timezone(timezone: str | None) -> None:
    """Refuse a zone that the machine's time zone data does not know."""
    if timezone is not None and timezone not in available_timezones():
        raise InputError(
            f"interactions.timezone = {timezone!r} is not a time zone; "
            f"the nearest are {nearest(timezone, available_timezones())}."
        )


# --- ids ------------------------------------------------------------------------------------------


def whole_text(column: pl.Expr, dtype: Any) -> pl.Expr:
    """Write a column of type `dtype` as text; a whole float or decimal stands for its integer (7.0 is 7)."""
    text = column.cast(pl.String, strict=False)
    if dtype.is_float():
        whole = column.cast(pl.Int64, strict=False)
        return pl.when(column == whole).then(whole.cast(pl.String)).otherwise(text)
    if isinstance(dtype, pl.Decimal) and dtype.scale:
        return text.str.strip_chars_end("0").str.strip_chars_end(".")
    return text


def id_text(name: str, dtype: pl.DataType) -> pl.Expr:
    """An id column as text, as `whole_text`; null where there is none, it is blank, or a float too large to be exact.

    Raises
    ------
    InputError
        The column's type cannot be an id.
    """
    column = pl.col(name)
    if dtype.is_nested() or dtype == pl.Binary:
        raise InputError(f"The column {name!r} holds {dtype}; an id must be a number or a string.")
    text = whole_text(column, dtype)
    if dtype.is_float():
        return pl.when(column.is_finite() & ~_inexact(name, dtype)).then(text)
    return pl.when(text.str.strip_chars() != "").then(text)


def _inexact(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return whether a float is so large that several integers are written as it."""
    return pl.col(name).is_finite() & (pl.col(name).abs() >= _WHOLE[dtype])


def integer_ids(text: pl.Expr) -> pl.Expr:
    """The ids that are written as one writes integers ("7", "-3"; not "007", "1.0"); null for the others."""
    number = text.cast(pl.Int64, strict=False)
    return pl.when(number.cast(pl.String) == text).then(number)


def all_integers(frame: pl.LazyFrame, column: str) -> bool:
    """Return whether every id that is there, in a row that the reader found sound, is written as an integer."""
    dtype = frame.collect_schema()[column]
    if _fits(dtype):
        return True
    text = id_text(column, dtype)
    whole = integer_ids(text).is_not_null() | text.is_null() | pl.col(DEFECT).is_not_null()
    return bool(frame.select(whole.all()).collect(engine="streaming").item())


def _id_value(column: str, given: pl.DataType, dtype: Any) -> pl.Expr:
    """The ids of a column of type `given` as `dtype`, null where one is none."""
    if dtype == pl.Int64 and _fits(given):
        return pl.col(column).cast(pl.Int64)
    text = id_text(column, given)
    return text if dtype == pl.String else integer_ids(text)


def _fits(dtype: pl.DataType) -> bool:
    """Return whether 64 bits with a sign hold every value of a type of integers."""
    return dtype.is_integer() and dtype not in (pl.UInt64, pl.Int128, pl.UInt128)


def _id_rules(name: str, column: str, given: pl.DataType, dtype: Any) -> list[tuple[pl.Expr, str]]:
    """Return the rules that an id of ours (`name`) may break in a column of type `given`; ours are `dtype`."""
    if dtype == pl.Int64 and _fits(given):
        return [(pl.col(column).is_null(), MISSING[name])]
    rules = [(_inexact(column, given).fill_null(False), INEXACT_ID)] if given.is_float() else []
    rules.append((id_text(column, given).is_null(), MISSING[name]))
    return rules if dtype == pl.String else [*rules, (pl.col(_ours(name)).is_null(), NOT_INTEGER[name])]


# --- tables ---------------------------------------------------------------------------------------


def judge_interactions(
    frame: pl.LazyFrame,
    columns: Mapping[str, str],
    *,
    id_types: Mapping[str, Any],
    now: datetime,
    time_unit: TimeUnit = "auto",
    timezone: str | None = None,
    time_formats: Collection[str] = (),
    decimal: str = ".",
    withdrawn: pl.Expr | None = None,
) -> pl.LazyFrame:
    """Interactions in their table's types, each with what it breaks of the contract.

    Parameters
    ----------
    frame
        A reader's rows: the file's columns, FILE_LINE, FILE_RAW, DEFECT.
    columns
        ours = theirs, of the columns that the file has; without a timestamp the time is null.
    id_types
        `pl.Int64` or `pl.String` for user_id and item_id.
    now
        A later time is in the future.
    time_unit, timezone, time_formats
        See `with_time`.
    decimal
        What stands before the fraction of a weight that is text.
    withdrawn
        Whether a row takes an earlier event back: its event is then WITHDRAWAL.

    Returns
    -------
    LazyFrame
        user_id, item_id, timestamp, event, weight, and what `accepted` and `broken` divide it by.
    """
    schema = frame.collect_schema()
    ids = {name: (columns[name], schema[columns[name]], id_types[name]) for name in (USER_ID, ITEM_ID)}
    values = {name: _id_value(*of) for name, of in ids.items()}
    rules = [rule for name, of in ids.items() for rule in _id_rules(name, *of)]
    values[EVENT] = pl.col(columns[EVENT]).cast(pl.String).fill_null("") if EVENT in columns else pl.lit("")
    if withdrawn is not None:
        values[EVENT] = pl.when(withdrawn).then(pl.lit(WITHDRAWAL)).otherwise(values[EVENT])
    values[WEIGHT] = pl.lit(None, dtype=pl.Float64)
    if WEIGHT in columns:
        column, dtype = columns[WEIGHT], schema[columns[WEIGHT]]
        given = pl.col(column)
        values[WEIGHT] = number(given, decimal) if dtype == pl.String else given.cast(pl.Float64, strict=False)
        finite = pl.col(_ours(WEIGHT)).is_finite().fill_null(False)
        rules.append((~is_missing(column, dtype) & ~finite, WEIGHT_TYPE))
    if TIMESTAMP in columns:
        column = columns[TIMESTAMP]
        if decimal != "." and schema[column] == pl.String:  # seconds since 1970 with a fraction
            pointed = pl.col(column).str.replace(rf"^(\s*-?\d+){decimal}(\d+\s*)$", "${1}.${2}")
            frame = frame.with_columns(pointed)
        frame = with_time(frame, column, time_unit, timezone, tuple(time_formats))
        values[TIMESTAMP] = pl.col(TIME)
        rules += [
            (is_missing(column, schema[column]), MISSING[TIMESTAMP]),
            *([(pl.col(NAIVE), NAIVE_TIME)] if timezone is None else []),
            (pl.col(SKIPPED), SKIPPED_TIME),
            (pl.col(TIME).is_null() | (pl.col(TIME) < pl.lit(FIRST).cast(pl.Datetime("us", "UTC"))), BAD_TIME),
            (pl.col(TIME) > now, FUTURE_TIME),
        ]
    else:
        values[TIMESTAMP] = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    names = (USER_ID, ITEM_ID, TIMESTAMP, EVENT, WEIGHT)
    user = _readable(id_text(*ids[USER_ID][:2]), id_types[USER_ID])
    return _judged(frame, {name: values[name] for name in names}, rules, user)


def judge_attributes(
    frame: pl.LazyFrame, key: str, column: str, *, id_type: Any, columns: Collection[str], nested: Collection[str] = ()
) -> pl.LazyFrame:
    """Items or users: the id (`key`, in the file `column`) in its table's type, the other `columns` as given.

    Strings, lists of strings, numbers and truth values stay; an empty string is null; dates become ISO
    strings, lists of lists one list, and objects JSON. Values inside objects that `nested` names ("category.path")
    become columns of their own, where the rows have them.

    Returns
    -------
    LazyFrame
        key, attributes ..., and what `accepted` and `broken` divide it by; broken items have no user_id.
    """
    inside = leaves(frame.collect_schema())
    frame = frame.with_columns(inside[name].alias(name) for name in nested if name in inside)
    columns = [*columns, *(name for name in nested if name in inside)]
    schema = frame.collect_schema()
    text = id_text(column, schema[column])
    # a column of the file that has our name but is not the id keeps a name of its own
    names = {name: f"{name}_given" if name == key else name for name in columns if name != column}
    others = {given: _attribute(name, schema[name]) for name, given in names.items()}
    values = {key: _id_value(column, schema[column], id_type), **others}
    user = _readable(text, id_type) if key == USER_ID else pl.lit(None, dtype=pl.String)
    return _judged(frame, values, _id_rules(key, column, schema[column], id_type), user)


def _attribute(name: str, dtype: pl.DataType) -> pl.Expr:
    column = pl.col(name)
    if dtype == pl.String:
        return pl.when(column != "").then(column).alias(name)
    if isinstance(dtype, pl.List | pl.Array):
        inner, column = dtype.inner, column.cast(pl.List(dtype.inner))
        while isinstance(inner, pl.List | pl.Array):  # [["Makeup", "Nails"], ["Gifts"]]
            flat = pl.element().cast(pl.List(inner.inner)).explode(empty_as_null=False, keep_nulls=False)
            inner, column = inner.inner, column.list.eval(flat)
        if inner == pl.Struct:
            return column.list.eval(_json(pl.element()))
        return column.cast(pl.List(pl.String))
    if dtype == pl.Struct:
        return _json(column)
    if dtype.is_integer() and dtype not in (pl.Int128, pl.UInt128):
        return column.cast(pl.Int64)
    if dtype.is_float() or dtype.is_decimal():
        return column.cast(pl.Float64)
    if dtype == pl.Boolean:
        return column
    if isinstance(dtype, pl.Datetime):
        return column.dt.to_string("iso:strict")
    return column.cast(pl.String, strict=False)


def _json(value: pl.Expr) -> pl.Expr:
    return pl.when(value.is_not_null()).then(value.struct.json_encode())


def number(text: pl.Expr, decimal: str) -> pl.Expr:
    """Float64 of numbers that are text; null for any other text, one with separators of thousands too."""
    stripped = text.str.strip_chars()
    if decimal != ".":
        # a point would be one between thousands
        pointed = stripped.str.replace(decimal, ".", literal=True)
        stripped = pl.when(~stripped.str.contains(".", literal=True)).then(pointed)
    return stripped.cast(pl.Float64, strict=False)


def is_missing(name: str, dtype: pl.DataType) -> pl.Expr:
    """Return whether a column holds no value: null, not a number, or a blank string."""
    column = pl.col(name)
    if dtype == pl.String:
        return column.is_null() | (column.str.strip_chars() == "")
    return column.is_null() | column.is_nan() if dtype.is_float() else column.is_null()


def _ours(name: str) -> str:
    """Name of the column that holds a value in our types beside the file's own columns."""
    return f"__our_{name}"


def _readable(text: pl.Expr, dtype: Any) -> pl.Expr:
    """The id of a rejected row, where the reader did not break on it; an integer as one writes it ("3.0" is "3")."""
    plain = text if dtype == pl.String else text.str.replace(r"^\s*(-?)\+?0*(\d+)(?:\.0*)?\s*$", "${1}${2}")
    return pl.when(pl.col(DEFECT).is_null() | (pl.col(DEFECT) == NESTED)).then(plain)


def _judged(
    frame: pl.LazyFrame, values: Mapping[str, pl.Expr], rules: list[tuple[pl.Expr, str]], user: pl.Expr
) -> pl.LazyFrame:
    reason = pl.coalesce(pl.col(DEFECT), first_reason(*rules)).alias(DEFECT)
    judged = frame.with_columns(
        *(value.alias(_ours(name)) for name, value in values.items()), user.alias(_ours(_REJECTED))
    )
    ours = [pl.col(_ours(name)).alias(name) for name in values]
    return judged.select(*ours, FILE_LINE, reason, FILE_RAW, _ours(_REJECTED))


def accepted(judged: pl.LazyFrame) -> pl.LazyFrame:
    """The good rows among judged ones: our columns and FILE_LINE."""
    return judged.filter(pl.col(DEFECT).is_null()).drop(DEFECT, FILE_RAW, _ours(_REJECTED))


def broken(judged: pl.LazyFrame) -> pl.LazyFrame:
    """The rows among judged ones that break the contract: line, reason, raw, user_id."""
    return judged.filter(pl.col(DEFECT).is_not_null()).select(
        pl.col(FILE_LINE).alias(LINE),
        pl.col(DEFECT).cast(pl.String).alias(REASON),
        pl.col(FILE_RAW).alias(RAW),
        pl.col(_ours(_REJECTED)).alias(USER_ID),
    )
