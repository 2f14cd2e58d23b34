"""Times: from numbers, ISO 8601, native types and declared formats to UTC microseconds.

Pure functions of lazy frames. A time without a zone needs a declared one. Numbers that are dates in disguise
(20231115, Excel's 45245, .NET's ticks) are refused: read as counts from 1970 they would be other moments.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

import polars as pl

from recsys.errors import InputError, first_line, is_panic

TIME: Final = "__time"
NAIVE: Final = "__naive"
SKIPPED: Final = "__skipped"

TimeUnit = Literal["auto", "s", "ms", "us"]
FIRST: Final = -62_135_596_800_000_000  # microseconds: the years 1 to 9999, which are all that Python's times hold
_LAST: Final = 253_402_300_799_999_999
_MICROSECONDS: Final = {"s": 1_000_000, "ms": 1_000, "us": 1}
_ISO: Final = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[Tt ](?<minute>\d{2}:\d{2})(?<second>:\d{2})?(?:[.,](?<fraction>\d{1,9}))?)?"
    r" ?(?:(?<utc>Z|z|UTC|GMT)|(?<sign>[+-])(?<hours>0\d|1[0-4])(?::?(?<minutes>[0-5]\d))?)?$"
)
_KNOWN: Final = {*"YymdebBhaAjHIklMSpPTRDFf%", "z", ":z", "#z", ".f", ".3f", ".6f", ".9f", "-d", "-m", "-H", "-I"}
_DIRECTIVE: Final = re.compile(r"%(:z|#z|\.\d?f|-\w|.)")
# from these on, the next number of a float is more than a second away; in finer units a multiple of them
_COARSE: Final[dict[Any, int]] = {pl.Float16: 2**11, pl.Float32: 2**24}
_FINER: Final = {"auto": 1, "s": 1, "ms": 2**9, "us": 2**19}
_DIGITS: Final = {"Y": 4, "y": 2, "m": 2, "d": 2, "H": 2, "M": 2, "S": 2, "j": 3}


def with_time(
    frame: pl.LazyFrame, name: str, unit: TimeUnit, timezone: str | None, formats: Sequence[str] = ()
) -> pl.LazyFrame:
    """Add a column's moments and what is wrong with those that are none.

    TIME is Datetime("us", "UTC"); NAIVE says that a time is readable and written without a zone; SKIPPED that the
    clock of `timezone` has no such moment, as it is put forward then. No time is null.

    Numbers count from 1970 in `unit`; "auto" decides for each by its magnitude: below 1e11 seconds (the year
    5138), below 1e14 milliseconds, below 1e17 microseconds, else nanoseconds. Strings hold such a number or
    ISO 8601 (`2024-03-31`, `2024-03-31 02:30`, `2024-03-31T02:30:00.123+02:00`, `... UTC`). With `formats`
    (`check_formats`) strings and whole numbers are read by the first of them that fits, and by nothing else.
    A local hour that a zone's clock goes through twice means the first.
    """
    dtype = frame.collect_schema()[name]
    column = pl.col(name)
    if dtype.is_temporal():
        if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
            moment = column.dt.cast_time_unit("us").dt.convert_time_zone("UTC")
            return frame.with_columns(moment.alias(TIME), _never(NAIVE), _never(SKIPPED))
        clock = pl.lit(None, pl.Datetime("us"))
        if dtype == pl.Date or isinstance(dtype, pl.Datetime):
            clock = column.cast(pl.Datetime("us"))
        return _with_clock(frame.with_columns(clock.alias("__clock")), timezone)
    if formats:
        return _with_formats(frame, _written(column, dtype), formats, timezone)
    if dtype.is_integer():
        number = _from_integer(column.cast(pl.Int64, strict=False), unit)
    elif dtype.is_float() or dtype.is_decimal():
        number = _from_float(column.cast(pl.Float64), unit)
    else:
        return _with_text_time(frame, column.cast(pl.String, strict=False).str.strip_chars(), unit, timezone)
    return frame.with_columns(_moment(number).alias(TIME), _never(NAIVE), _never(SKIPPED))


def _never(name: str) -> pl.Expr:
    return pl.lit(False).alias(name)


def _with_clock(frame: pl.LazyFrame, timezone: str | None, zoned: pl.Expr | None = None) -> pl.LazyFrame:
    """Judge `__clock`, readings without a zone; `zoned` are the moments of the other rows."""
    naive = pl.col("__clock").is_not_null()
    if timezone is None:
        local = pl.lit(None, dtype=pl.Datetime("us", "UTC"))
    else:
        aware = pl.col("__clock").dt.replace_time_zone(timezone, ambiguous="earliest", non_existent="null")
        local = aware.dt.convert_time_zone("UTC")
    skipped = naive & pl.col(TIME).is_null() if timezone is not None else pl.lit(False)
    moment = local if zoned is None else pl.coalesce(zoned, local)
    return frame.with_columns(moment.alias(TIME), naive.alias(NAIVE)).with_columns(skipped.alias(SKIPPED))


def _with_text_time(frame: pl.LazyFrame, text: pl.Expr, unit: TimeUnit, timezone: str | None) -> pl.LazyFrame:
    """In steps, so that costly expressions are computed once and ISO is tried only on what is no number."""
    whole, real = text.cast(pl.Int64, strict=False), text.cast(pl.Float64, strict=False)
    number = pl.when(whole.is_not_null()).then(_from_integer(whole, unit)).otherwise(_from_float(real, unit))
    parts = pl.when(pl.col("__number").is_null()).then(text).str.extract_groups(_ISO)
    clock, shift = _from_iso("__parts")
    zoned = (pl.col("__read") - pl.col("__shift")).dt.replace_time_zone("UTC")
    split = (
        frame.with_columns(number.alias("__number"))
        .with_columns(parts.alias("__parts"))
        .with_columns(clock.alias("__read"), shift.alias("__shift"))
        .with_columns(pl.when(pl.col("__shift").is_null()).then("__read").alias("__clock"))
    )
    return _with_clock(split, timezone, pl.coalesce(_moment(pl.col("__number")), zoned))


def _from_iso(parts: str) -> tuple[pl.Expr, pl.Expr]:
    """The clock's reading of an ISO time, and its distance from UTC (null: none is written)."""

    def part(name: str) -> pl.Expr:
        return pl.col(parts).struct.field(name)

    clock = pl.concat_str(
        part("date"),
        pl.lit("T"),
        part("minute").fill_null("00:00"),
        part("second").fill_null(":00"),
        pl.lit("."),
        part("fraction").fill_null("0"),
    )
    naive = clock.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f", time_unit="us", strict=False)
    minutes = part("hours").cast(pl.Int64) * 60 + part("minutes").cast(pl.Int64).fill_null(0)
    east = pl.when(part("sign") == "-").then(-minutes).otherwise(minutes)
    shift = pl.when(part("utc").is_not_null()).then(0).otherwise(east)
    return naive, pl.duration(minutes=shift, time_unit="us")


# --- declared formats -----------------------------------------------------------------------------


def check_formats(formats: Sequence[str]) -> None:
    """Try each format of `interactions.time_format` on a moment, with the engine that will read the log.

    Raises
    ------
    InputError
        Names the format that cannot be read back.
    """
    moment = datetime(2003, 12, 31, 13, 59, 58, tzinfo=UTC)
    clock = moment.replace(tzinfo=None)
    whole = (clock, clock.replace(second=0), clock.replace(hour=0, minute=0, second=0))
    for pattern in formats:
        key = f"interactions.time_format = {pattern!r}"
        unknown = next((found for found in _DIRECTIVE.findall(pattern) if found not in _KNOWN), None)
        if unknown is not None:
            raise InputError(f"{key}: %{unknown} is not known here; write a pattern such as '%d.%m.%Y %H:%M'.")
        given = pl.Series("t", [moment if _has_zone(pattern) else clock])
        try:
            read = given.dt.strftime(pattern).to_frame().select(_parse(pl.col("t"), pattern)).item()
        except BaseException as error:
            if not isinstance(error, pl.exceptions.PolarsError | ValueError) and not is_panic(error):
                raise
            raise InputError(f"{key} is no pattern of times: {first_line(error)}.") from None
        if read is None or read.replace(tzinfo=None) not in whole:
            raise InputError(
                f"{key} does not name a whole date, or not both hour and minute; write a pattern such as "
                "'%d.%m.%Y %H:%M' or '%m/%d/%Y %I:%M %p'."
            )


def _has_zone(pattern: str) -> bool:
    return any(found.endswith("z") for found in _DIRECTIVE.findall(pattern))


def _written(column: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """A value as text; a whole float as the integer that it is."""
    if dtype.is_float():
        column = pl.when(column == column.round()).then(column.cast(pl.Int64, strict=False))
    return column.cast(pl.String, strict=False).str.strip_chars()


def _parse(text: pl.Expr, pattern: str) -> pl.Expr:
    """Moments of a pattern (UTC, or without a zone); stricter than the engine where it is too lenient."""
    if _has_zone(pattern):
        text = text.str.replace(r"\s*(?:UTC|GMT|Z|z)$", " +0000" if re.search(r"\s%[:#]?z$", pattern) else "+0000")
    widths = [_DIGITS.get(found) for found in _DIRECTIVE.findall(pattern)]
    if None not in widths and not _DIRECTIVE.sub("", pattern):  # digits alone: "2023111" is no date
        text = pl.when(text.str.len_bytes() == sum(width or 0 for width in widths)).then(text)
    # the engine reads "23" by %Y as the year 23, and "3" by %y as 2003
    text = pl.when(text.str.contains(_with_whole_year(pattern))).then(text)
    return text.str.to_datetime(pattern, time_unit="us", strict=False)


def _with_whole_year(pattern: str) -> str:
    """A regular expression of texts that write the year in all its digits."""
    pieces = re.split(r"(%(?::z|#z|\.\d?f|-\w|.))", pattern)
    years = {"%Y": r"\d{4}", "%y": r"\d{2}"}
    inside = [
        years.get(piece, ".*?") if piece.startswith("%") else re.escape(piece).replace("\\ ", r"\s*")
        for piece in pieces
    ]
    return f"^{''.join(inside)}$"


def _with_formats(frame: pl.LazyFrame, text: pl.Expr, formats: Sequence[str], timezone: str | None) -> pl.LazyFrame:
    zoned = [_parse(text, pattern) for pattern in formats if _has_zone(pattern)]
    naive = [_parse(text, pattern) for pattern in formats if not _has_zone(pattern)]
    zoned.append(pl.lit(None, pl.Datetime("us", "UTC")))
    naive.append(pl.lit(None, pl.Datetime("us")))
    split = frame.with_columns(pl.coalesce(zoned).alias("__zoned"))
    split = split.with_columns(pl.when(pl.col("__zoned").is_null()).then(pl.coalesce(naive)).alias("__clock"))
    return _with_clock(split, timezone, pl.col("__zoned"))


# --- numbers --------------------------------------------------------------------------------------


def _moment(microseconds: pl.Expr) -> pl.Expr:
    there = pl.when(microseconds.is_between(FIRST, _LAST)).then(microseconds)
    return there.cast(pl.Datetime("us")).dt.replace_time_zone("UTC")


def _from_integer(number: pl.Expr, unit: TimeUnit) -> pl.Expr:
    def within(limit: int) -> pl.Expr:  # not by abs: the lowest integer has none
        return number.is_between(-limit, limit, closed="none")

    if unit != "auto":
        factor = _MICROSECONDS[unit]
        return pl.when(within(_LAST // factor + 1)).then(number * factor)
    return (
        pl.when(within(10**11))
        .then(number * 1_000_000)
        .when(within(10**14))
        .then(number * 1_000)
        .when(within(10**17))
        .then(number)
        .when(within(2**63 - 1))  # the lowest integer is NumPy's word for no time
        .then(number // 1_000)
    )


def _from_float(number: pl.Expr, unit: TimeUnit) -> pl.Expr:
    size = number.abs()
    if unit != "auto":
        scaled = number * _MICROSECONDS[unit]
    else:
        scaled = (
            pl.when(size < 1e11)
            .then(number * 1_000_000)
            .when(size < 1e14)
            .then(number * 1_000)
            .when(size < 1e17)
            .then(number)
            .otherwise(number / 1_000)
        )
    # not a number and infinity fail the comparison
    return pl.when(scaled.is_finite() & (scaled.abs() <= _LAST)).then(scaled.round()).cast(pl.Int64, strict=False)


# --- dates in disguise ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Disguise:
    """Numbers that are times and do not count from 1970."""

    kind: str  # as it goes into a message
    example: str
    pattern: str | None  # of `time_format`, where one reads them

    @property
    def advice(self) -> str:
        """Settings that read them, or the way to rewrite them."""
        if self.pattern is None:
            return 'write them as ISO 8601, or set interactions.time_unit = "s" if they are seconds'
        return (
            f'set interactions.time_format = "{self.pattern}", or interactions.time_unit = "s" if they are seconds '
            "since 1970"
        )


def disguise(frame: pl.LazyFrame, name: str) -> Disguise | None:
    """Find out whether all numbers of a column are dates in disguise; words among them do not count.

    The first thousand values decide for nearly every log; only where all of them are dates, all values are read.
    """
    dtype: Any = frame.collect_schema()[name]
    if dtype.is_temporal() or dtype.is_nested() or dtype == pl.Boolean:
        return None
    column = pl.col(name)
    number = (column.str.strip_chars() if dtype == pl.String else column).cast(pl.Float64, strict=False)
    numbers = frame.select(number.alias(name), column.alias("__given")).filter(column.is_finite())
    kinds = _disguises(pl.col(name))
    for part in (numbers.head(1000), numbers):
        told = part.select(
            pl.first("__given").cast(pl.String),
            pl.len(),
            *(rule.all().alias(kind) for kind, (rule, _) in kinds.items()),
        ).collect(engine="streaming")
        kinds = {kind: of for kind, of in kinds.items() if told.item(0, "len") and told.item(0, kind)}
        if not kinds:
            return None
    kind, (_, pattern) = next(iter(kinds.items()))
    return Disguise(kind=kind, example=told.item(0, "__given"), pattern=pattern)


def refuse_disguise(frame: pl.LazyFrame, name: str, file: str) -> None:
    """Refuse a column whose numbers are all dates in disguise.

    Raises
    ------
    InputError
        Says what they are and which setting reads them.
    """
    found = disguise(frame, name)
    if found is not None:
        raise InputError(
            f"{file}: the numbers in {name!r}, such as {found.example}, are {found.kind} and no counts from 1970; "
            f"{found.advice}."
        )


def refuse_coarse(frame: pl.LazyFrame, name: str, file: str, unit: TimeUnit) -> None:
    """Refuse a column of short floats, which hold such times in steps of more than a second.

    Raises
    ------
    InputError
        Names the type and a value.
    """
    dtype: Any = frame.collect_schema()[name]
    if dtype not in _COARSE:
        return
    size = pl.col(name).cast(pl.Float64)
    coarse = size.is_finite() & (size.abs() >= _COARSE[dtype] * _FINER[unit])
    found = frame.filter(coarse).select(size).head(1).collect(engine="streaming")
    if len(found):
        raise InputError(
            f"{file}: the times in {name!r} are {dtype}, which holds numbers such as {found.item():.0f} in steps of "
            "more than a second, so that the moments are lost; write them as 64-bit numbers from where they came."
        )


def _disguises(number: pl.Expr) -> dict[str, tuple[pl.Expr, str | None]]:
    """(rule, pattern that reads them) of dates of 1990 to 2100, by kind."""
    whole = number == number.floor()

    def date(day: pl.Expr) -> pl.Expr:
        month = day // 100 % 100
        inside = day.is_between(19_900_101, 21_001_231) & month.is_between(1, 12)
        return whole & inside & (day % 100).is_between(1, 31)

    def clock(hour_minute: pl.Expr) -> pl.Expr:
        return (hour_minute // 100 < 24) & (hour_minute % 100 < 60)

    month = whole & number.is_between(199_001, 210_012) & (number % 100).is_between(1, 12)
    return {
        "dates written as numbers (yyyymmdd)": (date(number), "%Y%m%d"),
        "times written as numbers (yyyymmddhhmm)": (date(number // 10**4) & clock(number % 10**4), "%Y%m%d%H%M"),
        "times written as numbers (yyyymmddhhmmss)": (
            date(number // 10**6) & clock(number % 10**6 // 100) & (number % 100 < 60),
            "%Y%m%d%H%M%S",
        ),
        "months written as numbers (yyyymm)": (month, None),
        "years": (whole & number.is_between(1990, 2100), None),
        "days since 1900, as Excel counts them": (number.is_between(32_874, 73_415), None),
        "ticks of .NET (100 ns since the year 1)": (number.is_between(627_667e12, 662_698e12), None),
        "file times of Windows (100 ns since 1601)": (number.is_between(122_756e12, 157_786e12), None),
    }
