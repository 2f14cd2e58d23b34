"""Queries with raw ids and events, and their conversion to histories in a bundle's codes.

Shapes: b queries, N events of all of them, V items.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, ITEM_ID, PADDING, TIMESTAMP, USER_ID, USERS, WEIGHT
from recsys.data.attributes import attribute_values
from recsys.data.context import context_of
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError, first_line
from recsys.settings import FilterSettings, Settings, UserSettings

NUMBER: Final = re.compile(r"[+-]?[0-9]{1,19}")  # what polars reads as an Int64
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MOMENT: Final = pl.Datetime("us", "UTC")
_TOLD: Final = {USER_ID: pl.Int64(), TIMESTAMP: pl.Int64(), EVENT: pl.String(), WEIGHT: pl.Float64()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """Event of a history, with raw ids.

    Attributes
    ----------
    item
        Raw id as text.
    time
        Microseconds since the epoch (UTC); None: now, and the model is told of no time.
    event, weight
        As the log has them; None: unknown.
    """

    item: str
    time: int | None = None
    event: str | None = None
    weight: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Query:
    """Query for the next items of a user or of a history.

    Attributes
    ----------
    history
        Oldest first; where every event has a time, in the order of time. Events that [filter] does not count are left
        out, the repeated ones together with those of the log.
    of_log
        What the log knows of the user, one history in the bundle's codes; `history` comes after it.
    attributes
        Of the user, by the names of [users]; what is not named here the log's tables say.
    k
        Items wanted.
    exclude
        Raw ids of items that are not wanted.
    exclude_seen
        Whether the history's own items are left out.
    rules
        Names of those rules that hold; None: all.
    """

    history: Sequence[Event] = ()
    of_log: Sequences | None = None
    attributes: Mapping[str, Any] | None = None
    k: int = 10
    exclude: Sequence[str] = ()
    exclude_seen: bool = True
    rules: tuple[str, ...] | None = None


@dataclass(frozen=True, eq=False)
class CodeLookup:
    """CodeLookup of raw ids by a dictionary: few ids of a large vocabulary are found without looking at all of it."""

    vocabulary: Vocabulary
    _known: dict[Any, int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        items = self.vocabulary.items.to_list()
        object.__setattr__(self, "_known", dict(zip(items, range(1, len(items) + 1), strict=True)))

    def of(self, ids: Sequence[str]) -> list[int]:
        """Return the code of each id written as text; 0 where it is unknown."""
        known = self._known
        if self.vocabulary.items.dtype == pl.String:
            return [known.get(item, PADDING) for item in ids]
        return [known.get(int(item), PADDING) if NUMBER.fullmatch(item) else PADDING for item in ids]


@dataclass(frozen=True, kw_only=True, eq=False)
class EncodedQueries:
    """Queries in the form that the model reads.

    Attributes
    ----------
    histories
        Of the b queries, in the bundle's codes.
    unknown
        Ids of each given history that the bundle does not know.
    exclude
        CodeLookup of each query's items that are not wanted.
    """

    histories: Sequences
    unknown: list[list[str]]
    exclude: list[list[int]]

    def select(self, rows: Sequence[int]) -> EncodedQueries:
        """Some of them, in the order given."""
        return EncodedQueries(
            histories=self.histories.select(np.array(rows)),
            unknown=[self.unknown[row] for row in rows],
            exclude=[self.exclude[row] for row in rows],
        )


def microseconds(written: str | datetime) -> int:
    """Return a moment in microseconds since the epoch (UTC).

    Raises
    ------
    InputError
        It is not ISO 8601, or has no zone.
    """
    try:
        moment = datetime.fromisoformat(written) if isinstance(written, str) else written
    except ValueError:
        raise InputError(f"time = {written!r} is not ISO 8601, such as 2026-05-01T12:00:00Z.") from None
    if moment.tzinfo is None:
        raise InputError(f"time = {written!r} has no zone; add one, such as Z for UTC.")
    return (moment - _EPOCH) // timedelta(microseconds=1)


def check(settings: Settings, query: Query) -> None:
    """Refuse a query that cannot be read.

    Raises
    ------
    InputError
        Its k is below 1, or its attributes are not those of [users].
    """
    if query.k < 1:
        raise InputError(f"k = {query.k} must be at least 1.")
    if query.attributes:
        _attributes_of(settings.users, query.attributes)


def read(settings: Settings, codes: CodeLookup, queries: Sequence[Query]) -> EncodedQueries:
    """Bring b queries into the form that the model reads; they passed `check`.

    Parameters
    ----------
    settings
        Those that the bundle was trained with.
    """
    names = settings.model.event_context
    given = [_in_order(query.history, settings.filter) for query in queries]
    found = [codes.of([event.item for event in events]) for events in given]
    unknown = [
        [event.item for event, code in zip(events, row, strict=True) if code == PADDING] if 0 in row else []
        for events, row in zip(given, found, strict=True)
    ]
    logs = [query.of_log for query in queries]
    known = [
        [event for event, code in zip(events, row, strict=True) if code != PADDING]
        for events, row in zip(given, found, strict=True)
    ]
    kept = [np.array([code for code in row if code != PADDING], dtype=np.int32) for row in found]
    items = [own if log is None else np.concatenate([log.items, own]) for log, own in zip(logs, kept, strict=True)]
    lengths = [len(own) for own in items]
    histories = Sequences(
        users=pl.Series(USER_ID, range(len(queries))),
        items=np.concatenate(items) if items else np.zeros(0, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        times=_times(logs, known),
        attributes=_attributes(settings.users, queries),
    )
    counting = _counting(histories, settings.filter)
    if not counting.all():
        histories = histories.keep(counting)
    if names:  # made of the events that count, between which training measures the gap
        told = _told(logs, known).filter(pl.Series(counting))
        histories = replace(histories, context=context_of(told, names))
    exclude = [[code for code in codes.of(query.exclude) if code != PADDING] for query in queries]
    return EncodedQueries(histories=histories, unknown=unknown, exclude=exclude)


def _in_order(events: Sequence[Event], of: FilterSettings) -> Sequence[Event]:
    """The events that count, oldest first; one whose kind or weight is not told counts."""
    if of.events is not None:
        events = [event for event in events if event.event is None or event.event in of.events]
    if of.min_weight is not None:
        events = [event for event in events if event.weight is None or event.weight >= of.min_weight]
    times = [event.time for event in events if event.time is not None]
    if times and len(times) == len(events):
        events = sorted(events, key=lambda event: event.time or 0)
    return events


def _counting(histories: Sequences, of: FilterSettings) -> np.ndarray:
    """bool [N]: a user's first or last event of an item, where `filter.repeats` keeps but one."""
    counting = np.ones(len(histories.items), dtype=bool)
    if of.repeats != "keep":
        owner = np.repeat(np.arange(len(histories)), histories.lengths)
        events = pl.DataFrame({USER_ID: owner, ITEM_ID: histories.items}).with_row_index("place")
        counting[:] = False
        counting[events.unique([USER_ID, ITEM_ID], keep=of.repeats)["place"].to_numpy()] = True
    return counting


def _times(logs: Sequence[Sequences | None], given: Sequence[Sequence[Event]]) -> np.ndarray | None:
    """int64 [N]; None where a log without times takes part."""
    if any(log is not None and log.times is None and len(log.items) for log in logs):
        return None
    now = time.time_ns() // 1000
    parts: list[np.ndarray] = []
    for log, events in zip(logs, given, strict=True):
        if log is not None and log.times is not None:
            parts.append(log.times)
        own = [now if event.time is None else event.time for event in events]
        parts.append(np.array(own, dtype=np.int64))
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)


def _told(logs: Sequence[Sequences | None], given: Sequence[Sequence[Event]]) -> pl.DataFrame:
    """A row an event, as `context_of` reads it; what is not told is null."""
    parts = []
    for user, (log, events) in enumerate(zip(logs, given, strict=True)):
        if log is not None and len(log.items):
            own: dict[str, pl.Series] = {} if log.context is None else log.context.to_dict()
            parts.append(_rows(user, len(log.items), log.times, own.get(EVENT), own.get(WEIGHT)))
        parts.append(
            _rows(
                user,
                len(events),
                [event.time for event in events],
                [event.event for event in events],
                [event.weight for event in events],
            )
        )
    return pl.concat(parts).with_columns(pl.col(TIMESTAMP).cast(_MOMENT))


def _rows(user: int, count: int, times: Any, events: Any, weights: Any) -> pl.DataFrame:
    columns = {USER_ID: np.full(count, user), TIMESTAMP: times, EVENT: events, WEIGHT: weights}
    return pl.DataFrame(columns, schema=_TOLD)


def _attributes(declared: UserSettings | None, queries: Sequence[Query]) -> pl.DataFrame | None:
    """A row a query; None where nothing is known of anybody."""
    logs = [None if query.of_log is None else query.of_log.attributes for query in queries]
    if declared is None or not any(
        query.attributes or log is not None for query, log in zip(queries, logs, strict=True)
    ):
        return None
    nobody = _attributes_of(declared, {})
    rows = []
    for query, log in zip(queries, logs, strict=True):
        row = nobody if log is None else log.cast(nobody.schema)
        if query.attributes:
            own = _attributes_of(declared, query.attributes)
            row = row.with_columns(own.select(_named(declared, query.attributes)))
        rows.append(row)
    return pl.concat(rows)


def _named(declared: UserSettings, given: Mapping[str, Any]) -> list[str]:
    """The names of [users] that are given, by name or by column."""
    every = {**declared.categorical, **declared.numeric}
    return [name for name, of in every.items() if name in given or (of.column or name) in given]


def _attributes_of(declared: UserSettings | None, given: Mapping[str, Any]) -> pl.DataFrame:
    """One row of the declared attributes, out of what is given by name or by column."""
    every = {} if declared is None else {**declared.categorical, **declared.numeric}
    columns = {name: of.column or name for name, of in every.items()}
    for name in given:
        if name not in columns and name not in columns.values():
            known = (
                f"they are {', '.join(columns)}" if columns else "the bundle's configuration declares none in [users]"
            )
            raise InputError(f"There is no attribute {name!r} of users; {known}.")
    assert declared is not None
    for name, of in every.items():
        value = given.get(name, given.get(columns[name]))
        if isinstance(value, list) and getattr(of, "kind", "single") == "single":
            raise InputError(f"attributes.{name} is a list and [users] declares it as one value; give one value.")
    raw = {column: _written(given.get(name, given.get(column))) for name, column in columns.items()}
    row = pl.DataFrame({column: pl.Series([value], dtype=_type_of(value)) for column, value in raw.items()})
    try:
        return attribute_values(USERS, declared, row)
    except pl.exceptions.PolarsError as error:
        raise InputError(f"The attributes {dict(given)!r} cannot be read: {first_line(error)}.") from None


def _written(value: Any) -> Any:
    """A value as a table holds it: a float, text, or a list of texts."""
    if isinstance(value, list):
        whole = [int(one) if isinstance(one, float) and one.is_integer() else one for one in value]
        return [str(one) for one in whole if one is not None]
    return value if value is None or isinstance(value, float) else str(value)


def _type_of(value: Any) -> Any:
    if isinstance(value, list):
        return pl.List(pl.String)
    return pl.Float64() if isinstance(value, float) else pl.String()
