"""Find the columns that hold times by their values whatever they are called, and in which format these are written."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import polars as pl

from recsys.reading.plausible import EARLIEST
from recsys.reading.sniff import looks_numeric, share
from recsys.reading.times import NAIVE, TIME, TimeUnit, disguise, with_time

READABLE: Final = 0.9  # share of a column's values that must be moments for it to hold times
_PROBES: Final = 40  # different values on which every format is tried
_ROWS: Final = 100_000  # on which the formats that fit are compared
_LATEST: Final = datetime(2101, 1, 1, tzinfo=UTC)

# dates of one form; several of one line differ only in what their numbers mean, the likelier first
_FORMS: Final[tuple[tuple[str, ...], ...]] = (
    ("%Y-%m-%d",),
    ("%Y/%m/%d",),
    ("%Y.%m.%d",),
    ("%d.%m.%Y", "%m.%d.%Y"),
    ("%m/%d/%Y", "%d/%m/%Y"),
    ("%d-%m-%Y", "%m-%d-%Y"),
    ("%d.%m.%y", "%y.%m.%d", "%m.%d.%y"),
    ("%m/%d/%y", "%d/%m/%y", "%y/%m/%d"),
    ("%d-%m-%y", "%y-%m-%d", "%m-%d-%y"),
    ("%m %d, %Y", "%d %m, %Y"),
    *(
        (pattern.replace("%b", month),)
        for month in ("%b", "%B")
        for pattern in (
            *("%d %b %Y", "%d. %b %Y", "%d-%b-%Y", "%d-%b-%y", "%d/%b/%Y", "%Y-%b-%d"),
            *("%b %d, %Y", "%b %d %Y", "%a, %d %b %Y", "%a %d %b %Y", "%a, %b %d, %Y", "%a %b %d %Y"),
        )
    ),
    ("%Y%m%d",),
)
_WHOLE: Final = (  # where the clock does not follow the date
    "%a %b %d %H:%M:%S %Y",
    "%a %b %d %H:%M:%S %z %Y",
)
_CLOCK: Final = re.compile(r"(?P<joint>[ ,T:-]+)(?P<hour>\d{1,2}):(\d{2})(:\d{2})?(?P<fraction>[.]\d+)?(?P<rest>.*)$")
_ORDERS: Final = {"d": "day first", "m": "month first", "y": "year first"}


@dataclass(frozen=True, kw_only=True, eq=False)
class TimeColumn:
    """A column whose values are moments, and how to read them."""

    name: str
    moments: pl.Series  # Datetime("us", "UTC"), a row a value; null where there is none
    naive: bool  # some are written without a zone
    formats: tuple[str, ...] = ()
    unit: TimeUnit = "auto"
    plausible: bool = True  # moments of 1990 to 2100
    question: str | None = None  # what the values do not decide

    @property
    def fine(self) -> bool:
        """Return whether it tells moments of one day apart."""
        return share(self.moments.drop_nulls().dt.time() != datetime.min.time()) > 0.5


@dataclass(frozen=True, kw_only=True)
class Unreadable:
    """Why a column's values are no times that ingest reads."""

    example: str
    kind: str | None = None  # of a date in disguise
    advice: str = ""


def read_times(values: pl.Series, name: str) -> TimeColumn | Unreadable:
    """Moments of a column and their format; `plausible` says whether they are such as logs have."""
    there = values.drop_nulls()
    if not len(there) or values.dtype == pl.Boolean or values.dtype.is_nested():
        return Unreadable(example="" if not len(there) else str(there[0]))
    if values.dtype.is_temporal():
        return _judged(values, name, (), "auto")
    if looks_numeric(values):
        found = disguise(there.alias(name).to_frame().lazy(), name)
        if found is not None and found.pattern is None:
            return Unreadable(example=found.example, kind=found.kind, advice=found.advice)
        return _judged(values, name, () if found is None or found.pattern is None else (found.pattern,), _unit(there))
    if values.dtype != pl.String:
        return Unreadable(example=str(there[0]))
    iso = _judged(values, name, (), "auto")
    if isinstance(iso, TimeColumn):
        return iso
    best: tuple[float, tuple[str, ...], str | None] = (0.0, (), None)
    for form in _FORMS:
        candidate = _of_form(there, form)
        if candidate[0] > best[0]:
            best = candidate
    for pattern in _WHOLE:
        covered = share(_read(there, (pattern,)).is_not_null())
        best = max(best, (covered, (pattern,), None), key=lambda found: found[0])
    read, formats, question = best
    return _judged(values, name, formats, "auto", question) if read >= READABLE else Unreadable(example=str(there[0]))


def _judged(
    values: pl.Series, name: str, formats: tuple[str, ...], unit: TimeUnit, question: str | None = None
) -> TimeColumn | Unreadable:
    frame = with_time(values.alias(name).to_frame().lazy(), name, unit, "UTC", formats).select(name, TIME, NAIVE)
    told = frame.collect()
    there = told.filter(pl.col(name).is_not_null())
    moments = there[TIME]
    if share(moments.is_not_null()) < READABLE:
        return Unreadable(example=str(there.filter(pl.col(TIME).is_null())[name][0]))
    return TimeColumn(
        name=name,
        moments=told[TIME],
        naive=bool(told[NAIVE].any()),
        formats=formats,
        unit=unit,
        plausible=share(moments.is_between(EARLIEST, _LATEST)) >= READABLE,
        question=question,
    )


def _unit(values: pl.Series) -> TimeUnit:
    """Return the unit of moments of 1990 to 2100: "s", "ms" or "us"; else "auto", which knows nanoseconds."""
    numbers = values.cast(pl.Float64, strict=False)
    units: tuple[tuple[TimeUnit, int], ...] = (("s", 1), ("ms", 10**3), ("us", 10**6))
    for unit, scale in units:
        if share(numbers.is_between(631_152_000 * scale, 4_102_444_800 * scale)) >= READABLE:
            return unit
    return "auto"


def _of_form(values: pl.Series, form: Sequence[str]) -> tuple[float, tuple[str, ...], str | None]:
    """(share that it reads, its patterns, a question) of the best meaning of one form's numbers."""
    probes = values.unique(maintain_order=True).head(_PROBES)
    tails = {tail for probe in probes for tail in _tails(str(probe))}
    written: dict[str, tuple[str, ...]] = {}
    for date in form:
        counts = {date + tail: int(_read(probes, (date + tail,)).is_not_null().sum()) for tail in sorted(tails)}
        fits = sorted((pattern for pattern, count in counts.items() if count), key=lambda p: (-counts[p], len(p)))
        if fits:
            written[date] = _cover(probes, fits)
    if not written:
        return 0.0, (), None
    head = values.head(_ROWS)
    moments = {date: _read(head, patterns) for date, patterns in written.items()}
    reads = {date: share(read.is_not_null()) for date, read in moments.items()}
    best = max(reads.values())
    tied = [date for date in written if reads[date] == best]
    tied = [date for date in tied if _believable(moments[date])] or tied
    chosen = tied[0]
    question = None
    if len(tied) > 1:
        ordered = [date for date in tied if _in_order(moments[date])]
        if len(ordered) == 1:
            (chosen,) = ordered
        else:
            meanings = " or ".join(_ORDERS[date[1].lower()] for date in tied)
            question = (
                f"could be {meanings} (such as {values[0]!r}); {_ORDERS[chosen[1].lower()]} is a GUESS: see "
                "interactions.time_format."
            )
    return best, written[chosen], question


def _tails(value: str) -> Iterator[str]:
    """Patterns that may follow the date in a value: its clock and its zone."""
    found = _CLOCK.search(value)
    if found is None:
        yield ""
        packed = re.search(r"\d{8}(T?)(\d{4}|\d{6})(Z|[+-]\d{4})?$", value)  # 20231115T143000Z
        if packed:
            yield (
                packed.group(1)
                + ("%H%M" if len(packed.group(2)) == 4 else "%H%M%S")
                + ("%z" if packed.group(3) else "")
            )
        return
    joint, fraction, rest = found.group("joint"), found.group("fraction"), found.group("rest")
    hour = "%I" if re.match(r"(?i)\s*[ap]m", rest) else "%H"
    clock = f"{hour}:%M" + (":%S" if found.group(4) else "") + ("%.f" if fraction else "")
    half = re.match(r"(?i)(\s*)[ap]m", rest)
    if half:
        clock, rest = f"{clock}{half.group(1)}%p", rest[half.end() :]
    zone = re.fullmatch(r"(?i)(\s*)(gmt)?([+-]\d{2}:?\d{2}|Z|UTC|GMT)(\s*\(.*\))?", rest)
    if zone and zone.group(2):
        yield f"{joint}{clock}{zone.group(1)}{zone.group(2)}%z"
    elif zone:
        yield f"{joint}{clock}{' ' if zone.group(1) else ''}%z"
    elif not rest.strip():
        yield joint + clock


def _cover(values: pl.Series, patterns: Sequence[str]) -> tuple[str, ...]:
    """The patterns that read what those before them do not."""
    chosen: list[str] = []
    read = pl.Series([False] * len(values))
    for pattern in patterns:
        now = read | _read(values, (pattern,)).is_not_null()
        if now.sum() > read.sum():
            chosen.append(pattern)
            read = now
    return tuple(chosen)


def _read(values: pl.Series, patterns: tuple[str, ...]) -> pl.Series:
    frame = with_time(values.alias("t").to_frame().lazy(), "t", "auto", "UTC", patterns)
    return frame.select(TIME).collect()[TIME]


def _believable(moments: pl.Series) -> bool:
    """Return whether no moment is before 1990 or in the future."""
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    return bool(moments.drop_nulls().is_between(EARLIEST, tomorrow).all())


def _in_order(moments: pl.Series) -> bool:
    known = moments.drop_nulls()
    return known.n_unique() > 2 and (known.is_sorted() or known.is_sorted(descending=True))
