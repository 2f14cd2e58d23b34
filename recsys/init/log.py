"""Find the columns of an interaction log that are user, item, timestamp, event and weight.

Names decide first ("userId", "Artikelnummer", "ts"), then values (moments, ratings, ids that the catalogue knows).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID, WEIGHT
from recsys.errors import InputError
from recsys.init.times import TimeColumn, read_times
from recsys.reading.column_names import by_name, is_other_time, means
from recsys.reading.plausible import doubt
from recsys.reading.sniff import Sample, comma_decimals, known_share, looks_numeric, point_thousands, share
from recsys.reading.times import TimeUnit

_VAGUE: Final = ("data", "day", "tag", "when")  # names of times, and of much else
_CLOCK: Final = r"^\s*\d{1,2}:\d{2}(:\d{2})?(\s*[AaPp][Mm])?\s*$"
_CONSTANT: Final = 0.95  # share of the users (items) with one time alone that makes it a time of theirs
Take = Callable[[str, str, str], None]  # (our name, the column, why it is only a guess or "")


class NoIdError(InputError):
    """No column of a log can be the id of a user or of an item; `whose` says of which."""

    def __init__(self, message: str, whose: str) -> None:
        super().__init__(message)
        self.whose = whose


@dataclass(kw_only=True)
class LogGuess:
    """The log's columns by meaning (ours = theirs), how they are read, and what is said about them."""

    columns: dict[str, str] = field(default_factory=dict)
    time_unit: TimeUnit = "auto"
    time_formats: tuple[str, ...] = ()
    timezone: str | None = None
    decimal: str = "."
    moments: pl.Series | None = None  # a row an event
    found: list[str] = field(default_factory=list)
    unsure: list[str] = field(default_factory=list)


def guess_log(sample: Sample, catalogue: pl.DataFrame | None = None) -> LogGuess:
    """Columns of a log that are user, item, timestamp, event and weight.

    Raises
    ------
    InputError
        No column can be the user's or the item's id.
    """
    frame, result = sample.frame, LogGuess()
    result.found.append(_described(sample))
    free = [name for name in frame.columns if not frame.schema[name].is_nested()]

    def take(ours: str, theirs: str, why: str) -> None:
        result.columns[ours] = theirs
        free.remove(theirs)
        if why:
            result.unsure.append(f"{ours} = {shown(sample, theirs)}: {why}")

    if sample.format == "sequences":
        take(USER_ID, USER_ID, "")
        take(ITEM_ID, ITEM_ID, "")
        return result
    named = {ours: by_name(frame, free, ours) if sample.named else [] for ours in _MEANINGS}
    for ours in (USER_ID, ITEM_ID):
        theirs = next((name for name in named[ours] if name in free), None)
        if theirs is not None:
            take(ours, theirs, "")
    times = _times(sample, free, named[TIMESTAMP], result)
    _take_ids(sample, [name for name in free if name not in times], catalogue, result, take)
    _take_time(sample, times, named[TIMESTAMP], result, take)
    _take_weight(sample, free, named[WEIGHT], result, take)
    _take_event(sample, free, named[EVENT], take)
    return result


_MEANINGS: Final = (USER_ID, ITEM_ID, TIMESTAMP, EVENT, WEIGHT)


# --- times ----------------------------------------------------------------------------------------


def _times(sample: Sample, free: list[str], named: list[str], result: LogGuess) -> dict[str, TimeColumn]:
    """Columns that hold times: named ones that can be read, others whose moments are such as logs have."""
    found: dict[str, TimeColumn] = {}
    clocks = [
        name
        for name in free
        if sample.frame.schema[name] == pl.String and share(sample.frame[name].drop_nulls().str.contains(_CLOCK)) > 0.9
    ]
    for name in [*(n for n in named if n in free), *(n for n in free if n not in named)]:
        read = read_times(sample.frame[name], name)
        if isinstance(read, TimeColumn):
            if read.plausible or name in named:
                found[name] = read
        elif name in named and name not in clocks and name.lower() not in _VAGUE and read.example:
            of = (
                f"are {read.kind}"
                if read.kind
                else "are neither ISO 8601 nor another known format nor counts from 1970"
            )
            then = read.advice if read.kind else "set interactions.time_format to their pattern, or rewrite them"
            result.unsure.append(
                f"The column {name!r} is named like a time, but values such as {read.example!r} {of}; it was left out: "
                f"{then}."
            )
    if clocks:
        result.unsure.append(
            f"The column {clocks[0]!r} holds times of the day without a date; write date and time into one column to "
            "have the order within a day."
        )
    return found


def _take_time(sample: Sample, times: dict[str, TimeColumn], named: list[str], result: LogGuess, take: Take) -> None:
    """The event's own time: not one of a user or an item, named, fine, in this order."""
    left = {name: time for name, time in times.items() if name not in result.columns.values()}
    if not left:
        return
    owners = {name: _owner(sample.frame, time, result.columns) for name, time in left.items()}

    def rank(name: str) -> tuple[bool, bool, bool, bool, int]:
        place = named.index(name) if name in named else len(named)
        return is_other_time(name), owners[name] is not None, not left[name].plausible, not left[name].fine, place

    ordered = sorted(left, key=rank)
    best, others = left[ordered[0]], ordered[1:]
    shown_best = shown(sample, best.name)
    take(TIMESTAMP, best.name, "" if best.name in named else "taken for its values, which are moments of 1990 to 2100.")
    result.time_unit, result.time_formats, result.moments = best.unit, best.formats, best.moments
    if best.question is not None:
        result.unsure.append(f"The times in {shown_best} {best.question}")
    elif best.formats:
        result.found.append(f"The times in {shown_best} are written as {' or '.join(best.formats)}.")
    if best.naive:
        result.timezone = "UTC"
        example = next(str(value) for value in sample.frame[best.name] if value is not None)
        result.unsure.append(
            f'The times in {shown_best} have no zone (such as {example!r}); timezone = "UTC" is a guess.'
        )
    counts = not best.formats and looks_numeric(sample.frame[best.name])
    asked = doubt(best.moments, datetime.now(UTC), counts=counts, unit=best.unit)
    if asked is not None:
        result.unsure.append(f"The times in {shown_best} look wrong: {asked}.")
    if is_other_time(best.name) or owners[best.name] is not None:
        whose = owners[best.name] or "something else than the event"
        result.unsure.append(f"The times in {shown_best} may be those of {whose}, not of the event: look at a few.")
    if others:
        told = ", ".join(shown(sample, name) for name in others)
        result.unsure.append(f"timestamp = {shown_best}: {told} holds times, too; one of them orders the events.")


def _owner(frame: pl.DataFrame, time: TimeColumn, columns: dict[str, str]) -> str | None:
    """Say whose time it is when nearly every user or item with several events has one value alone."""
    for ours, whose in ((USER_ID, "the user"), (ITEM_ID, "the item")):
        ids = frame[columns[ours]].alias("id")
        several = (
            pl.DataFrame([ids, time.moments.alias("time")])
            .drop_nulls()
            .group_by("id")
            .agg(pl.len(), pl.n_unique("time").alias("times"))
            .filter(pl.col("len") > 1)
        )
        if len(several) >= 10 and share(several["times"] == 1) >= _CONSTANT and time.moments.n_unique() > 2:
            return whose
    return None


# --- ids ------------------------------------------------------------------------------------------


def _take_ids(sample: Sample, free: list[str], catalogue: pl.DataFrame | None, result: LogGuess, take: Take) -> None:
    """Columns of ids that no name told: the user's first, unless the catalogue knows better."""
    frame = sample.frame
    missing = [ours for ours in (USER_ID, ITEM_ID) if ours not in result.columns]
    if not missing:
        return
    ids = [name for name in free if _is_id(frame[name])]
    for unlikely in (
        lambda n: _is_event(frame[n], by_name=False),
        lambda n: len(frame) > 50 and frame[n].n_unique() == len(frame),  # a row's number, an order line
        lambda n: _is_weight(sample, n, by_name=False),
    ):
        likely = [name for name in ids if not unlikely(name)]
        spare = sorted((n for n in ids if n not in likely), key=lambda n: -frame[n].n_unique())
        likely += spare[: max(0, len(missing) - len(likely))]  # those that tell the most apart
        ids = [name for name in ids if name in likely]
    if ITEM_ID in missing and catalogue is not None and ids:
        known = {name: _known(frame[name], catalogue) for name in ids}
        best = max(ids, key=lambda name: known[name])
        # numbers of users and of items overlap by chance: only a clear lead says something
        second = max((share for name, share in known.items() if name != best), default=0.0)
        if known[best] > 0.5 and second < known[best] - 0.2:
            take(ITEM_ID, best, f"taken because the catalogue knows {known[best]:.0%} of its values.")
            ids.remove(best)
            missing.remove(ITEM_ID)
    for ours in missing:
        _refuse_nested(sample, ours)
        if not ids:
            names = ", ".join(frame.columns)
            whose = "user's" if ours == USER_ID else "item's"
            raise NoIdError(
                f"{sample.path}: no column looks like the {whose} id (its columns: {names}); name them in a "
                'configuration: [interactions] columns = { user_id = "...", item_id = "..." }.',
                whose,
            )
        why = f"taken for its place, the {'first' if ours == missing[0] else 'next'} column of ids."
        take(ours, ids.pop(0), why)


def _refuse_nested(sample: Sample, ours: str) -> None:
    """Refuse a column that is named like an id and holds lists or objects, which are several ids or none."""
    frame = sample.frame
    nested = [name for name in frame.columns if frame.schema[name].is_nested() and means(name) == ours]
    if nested:
        objects = frame.schema[nested[0]] == pl.Struct
        what = "an object" if objects else "a list"
        do = "write its id into a field of its own" if objects else "write one event a line"
        example = frame[nested[0]].drop_nulls().head(1).to_list()
        raise InputError(
            f"{sample.path}: the column {nested[0]!r} looks like {ours} and holds {what} where one id belongs, such as "
            f"{example[0]!r}; {do}."
        )


def _is_id(values: pl.Series) -> bool:
    """Numbers without fractions or short strings, more than one of them, without gaps."""
    if values.null_count() > 0.1 * len(values) or values.n_unique() < 2:
        return False
    if values.dtype.is_integer():
        return True
    if values.dtype != pl.String:
        return False
    return not values.str.contains(r"^\s*\d+[.,]\d+\s*$|\s\S+\s").any()


def _known(values: pl.Series, catalogue: pl.DataFrame) -> float:
    """Share of a column's distinct values that a column of the catalogue holds that tells items apart."""
    flat = [catalogue[name] for name in catalogue.columns if not catalogue.schema[name].is_nested()]
    identifying = [column for column in flat if means(column.name) == ITEM_ID or column.n_unique() >= 0.9 * len(column)]
    return max((known_share(values, column) for column in identifying), default=0.0)


# --- weights and events ---------------------------------------------------------------------------


def _take_weight(sample: Sample, free: list[str], named: list[str], result: LogGuess, take: Take) -> None:
    """A column of numbers: named like a weight, or in a file without names few different small ones."""
    candidates = [(name, "") for name in named if name in free]
    if not sample.named:
        why = "taken for its values (few different small numbers, as ratings are)."
        candidates = [(name, why) for name in free if _is_weight(sample, name, by_name=False)]
    for name, why in candidates:
        values = sample.frame[name]
        if _is_weight(sample, name, by_name=True):
            take(WEIGHT, name, why)
            result.decimal = "," if sample.format == "csv" and comma_decimals(values) else "."
            asked = point_thousands(sample, values)
            if asked is not None:
                result.unsure.append(
                    f"The numbers in {shown(sample, name)} have a point that may stand before a fraction or between "
                    f"thousands (such as {asked!r}); it is read as one before a fraction: take it out if it is not."
                )
            return
        if looks_numeric(values):
            why = (
                "may stand before a fraction or between thousands"
                if comma_decimals(values) is None
                else "is read only in csv files"
            )
            result.unsure.append(
                f"The numbers in {shown(sample, name)} have a comma that {why} (such as {_with_comma(values)!r}); they "
                "are not used as weight."
            )


def _is_weight(sample: Sample, name: str, *, by_name: bool) -> bool:
    values = sample.frame[name]
    if not looks_numeric(values):
        return False
    commas = comma_decimals(values)
    if commas is None or (commas and sample.format != "csv"):
        return False
    if by_name:
        return True
    text = values.drop_nulls().cast(pl.String).str.strip_chars().str.replace(",", ".", literal=True)
    small = share(text.cast(pl.Float64, strict=False).abs() <= 100) == 1
    return values.n_unique() <= 20 and small


def _with_comma(values: pl.Series) -> str:
    return str(values.filter(values.str.contains(",", literal=True).fill_null(False))[0])


def _take_event(sample: Sample, free: list[str], named: list[str], take: Take) -> None:
    frame = sample.frame
    for name in named:
        if name in free and _is_event(frame[name], by_name=True):
            take(EVENT, name, "")
            return
    theirs = next((name for name in free if _is_event(frame[name], by_name=False)), None)
    if theirs is not None:
        take(EVENT, theirs, "taken for its values (few different words, as events are).")


def _is_event(values: pl.Series, *, by_name: bool) -> bool:
    if values.dtype != pl.String or looks_numeric(values):
        return False
    distinct = values.n_unique()
    few = distinct <= 50 if by_name else 2 <= distinct <= 12 and distinct < 0.01 * len(values) + 3
    return few and bool(values.drop_nulls().str.contains(r"^[^\W\d][\w -]*$").all())


# --- words ----------------------------------------------------------------------------------------


def _described(sample: Sample) -> str:
    names = {"\t": "tab", " ": "space"}
    if sample.format == "csv":
        header = "with" if sample.header else "without"
        separator = names.get(sample.separator, repr(sample.separator))
        return f"{sample.path} is csv, separator {separator}, {header} a header line, {sample.encoding}."
    if sample.format == "sequences":
        return f"{sample.path} holds sequences: a user and the items in order, a line."
    return f"{sample.path} is {sample.format}."


def shown(sample: Sample, column: str) -> str:
    """A column as it goes into a sentence."""
    return repr(column) if sample.named else f"field {column.removeprefix('column_')}"
