"""Moments that hardly any log has: before 1990, as counts in another unit or from another beginning give them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from recsys.reading.times import TimeUnit

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
_SECONDS: Final = {"s": 1.0, "ms": 1e-3, "us": 1e-6}  # of one count, by unit; "auto" reads such small numbers as "s"
_LONGER: Final = {"minutes": 60.0, "hours": 3600.0, "days": 86_400.0}
_2001: Final = datetime(2001, 1, 1, tzinfo=UTC).timestamp()  # where Apple's clocks begin
_FIRST_OF_2001: Final = datetime(2005, 1, 1, tzinfo=UTC).timestamp()  # no log that counts so is older
_DAY: Final = 86_400
_MOST: Final = 0.9  # share of the times that a reading must make plausible


def doubt(
    moments: pl.Series, now: datetime, *, counts: bool, unit: TimeUnit = "auto", times: int | None = None
) -> str | None:
    """A sentence on times that are hardly the log's own: how many, and which reading makes them plausible.

    Parameters
    ----------
    moments
        Datetime UTC, as they were read; nulls do not count.
    now
        No log is more than a day ahead of it.
    counts
        Whether they were numbers, which count from 1970 in `unit`.
    times
        How many there are, where `moments` are the early ones alone, or the first and the last.

    Returns
    -------
    str | None
        Without a subject: "12 of 80 times are before 1990 ..."; None where nothing speaks against the times.
    """
    moments = moments.drop_nulls()
    times = len(moments) if times is None else times
    tomorrow = (now + timedelta(days=1)).timestamp()
    early = moments.filter(moments < EARLIEST)
    if early.is_empty():
        seconds = _seconds(moments)
        if counts and len(seconds) and float(seconds.max()) + _2001 <= tomorrow:  # type: ignore[arg-type]
            told = f"all {times:,} times are of {_span(seconds)}, years of which hardly a log is left"
            return f"{told}: {_since_2001(seconds)}"
        return None
    seconds = _seconds(early)
    told = f"{len(early):,} of {times:,} times are before 1990 ({_span(seconds)})"
    if bool((seconds == 0).all()):
        return f"{told}, which is what programs write where there is no time: leave those empty"
    advice = next(_readings(seconds, unit, tomorrow), None) if counts else None
    return f"{told}: {advice or 'if they count from another moment, their order is right and their days are not'}"


def _readings(seconds: pl.Series, unit: TimeUnit, tomorrow: float) -> Iterator[str]:
    """Other meanings of the counts that make nearly all of them plausible, the likeliest first."""
    raw = seconds / _SECONDS.get(unit, 1.0)
    for name, length in {**_SECONDS, **_LONGER}.items():
        read = raw * length
        if _within(read, EARLIEST.timestamp(), tomorrow):
            what = f"as {name} since 1970 they would be of {_span(read)}"
            yield (
                f'{what}: set interactions.time_unit = "{name}"'
                if name in _SECONDS
                else (f"{what}: multiply them by {length:,.0f} to have seconds")
            )
    if _within(raw + _2001, _FIRST_OF_2001, tomorrow):
        yield _since_2001(raw)
    if bool(((raw >= 0) & (raw < _DAY)).all()):
        yield "they may count seconds of a day; write date and time into one column"


def _since_2001(seconds: pl.Series) -> str:
    return f"if they count seconds from 2001, they are of {_span(seconds + _2001)}: add {_2001:,.0f} to each"


def _within(seconds: pl.Series, low: float, high: float) -> bool:
    return float(seconds.is_between(low, high).mean() or 0.0) >= _MOST  # type: ignore[arg-type]


def _seconds(moments: pl.Series) -> pl.Series:
    """Seconds since 1970, with their fraction."""
    return moments.dt.epoch("us") / 1e6


def _span(seconds: pl.Series) -> str:
    """The first and the last day."""
    low, high = (
        (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=float(value))).date().isoformat()  # type: ignore[arg-type]
        for value in (seconds.min(), seconds.max())
    )
    return low if low == high else f"{low} to {high}"
