"""The watermark of a reading: the newest value of a column that grows, from which the next reading goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal
from zoneinfo import ZoneInfo

import polars as pl

from recsys.errors import InputError
from recsys.reading.text_times import like, shapes, written_time
from recsys.reading.times import FIRST

Kind = Literal["integer", "float", "text", "date", "time", "moment"]

_EPOCH: Final = datetime(1970, 1, 1)
_DAY: Final = 86_400_000_000  # microseconds
_WESTERNMOST: Final = timedelta(hours=-12)  # the earliest of all zones
_UNITS: Final = (1, 10**3, 10**6, 10**9)  # counts a second, of which numbers since 1970 are
_YEARS: Final = (631_152_000, 4_102_444_800)  # seconds: 1990 to 2100, between which numbers seem to be times


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermark:
    """A value of a watermark column; of `date`, `time` (without a zone) and `moment` microseconds since 1970."""

    kind: Kind
    value: int | float | str
    # the smallest of the numbers that seem to count from 1970; None: they do not; it is not part of the record
    oldest: float | None = field(default=None, compare=False)

    @property
    def bound(self) -> Any:
        """The value as a database's driver takes it."""
        if self.kind in ("integer", "float", "text"):
            return self.value
        time = _EPOCH + timedelta(microseconds=int(self.value))
        return time.date() if self.kind == "date" else time.replace(tzinfo=UTC) if self.kind == "moment" else time

    def __str__(self) -> str:
        return str(self.bound)

    def to_json(self) -> dict[str, Any]:
        """Plain values, of which `from_json` makes it again."""
        return {"kind": self.kind, "value": self.value}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Watermark:
        """Undo `to_json`."""
        return cls(kind=given["kind"], value=given["value"])

    def not_after(self, now: datetime, timezone: str | None = None) -> Watermark:
        """The value, or the present where it is later.

        A row with a time in the future must not keep the next readings from all rows until then.

        Parameters
        ----------
        timezone
            Of values without one; None: unknown, so that the present is the earliest that a clock anywhere shows.
        """
        if self.kind in ("integer", "float"):
            return self._number_not_after(now)
        if timezone is None:
            here = now.astimezone(UTC).replace(tzinfo=None) + _WESTERNMOST
        else:
            here = now.astimezone(ZoneInfo(timezone)).replace(tzinfo=None)
        if self.kind == "text":
            written = written_time(str(self.value))
            if written is None:
                return self
            if written.tzinfo is not None:
                here = now.astimezone(written.tzinfo).replace(tzinfo=None)
            late = written.replace(tzinfo=None) > here
            return Watermark(kind="text", value=like(here, str(self.value))) if late else self
        present = now.astimezone(UTC).replace(tzinfo=None) if self.kind == "moment" else here
        return Watermark(kind=self.kind, value=min(int(self.value), (present - _EPOCH) // timedelta(microseconds=1)))

    def _number_not_after(self, now: datetime) -> Watermark:
        if self.oldest is None:
            return self
        present = now.timestamp() * _unit_of(self.oldest)
        if not self.oldest <= present < float(self.value):  # all of them later than now: these are ids
            return self
        return Watermark(kind=self.kind, value=int(present) if self.kind == "integer" else present)

    def least(self, other: Watermark) -> Watermark:
        """Return the smaller one of two values of one column."""
        ours: Any = self.value
        return other if other.value < ours else self

    def earlier(self, hours: float, key: str) -> Watermark:
        """The value this many hours before.

        Raises
        ------
        InputError
            It is no time; `key` names the setting.
        """
        if not hours:
            return self
        if self.kind == "text" and (written := written_time(str(self.value))) is not None:
            clock = written.replace(tzinfo=None)
            clock -= min(timedelta(hours=hours), clock - datetime.min)
            return Watermark(kind="text", value=like(clock, str(self.value)))
        if self.kind in ("integer", "float", "text"):
            raise InputError(
                f"{key}_overlap_hours = {hours:g} needs a watermark of times, and this one is {self.value!r}; set it "
                "to 0."
            )
        return Watermark(kind=self.kind, value=max(FIRST, int(self.value) - round(hours * 3_600e6)))


class Newest:
    """The newest value of a column over many batches."""

    def __init__(self, column: str, place: str, since: Watermark | None = None) -> None:
        self.column, self.place, self.since = column, place, since
        self.kind: Kind | None = None
        self.value: Any = None
        self.count = 0
        self.within = dict.fromkeys(_UNITS, 0)  # numbers that seem to be times, by their counts a second
        self.smallest: dict[int, float] = {}  # of these
        self.shape: tuple[str | None, str] | None = None  # of the texts, and one of them

    def add(self, values: pl.Series) -> None:
        """Look at a batch.

        Raises
        ------
        InputError
            A value is missing, or is of another kind than the others, or of one that has no order; or texts write
            times in several forms.
        """
        if values.is_empty():
            return
        missing = values.null_count() + (int(values.is_nan().sum()) if values.dtype.is_float() else 0)
        if missing:
            raise InputError(
                f"{self.place}: the watermark {self.column!r} has no finite value in {missing} rows, which no later "
                "reading would find; fill it, or name another column."
            )
        kind = kind_of(values.dtype)
        if kind is None:
            raise no_order(self.column, self.place, str(values.dtype))
        if self.kind not in (None, kind):
            raise no_order(self.column, self.place, f"values of the kinds {self.kind} and {kind}")
        if kind == "text":
            self._compare_shapes(values)
        elif kind in ("integer", "float"):
            self._count_times(values)
        newest: Any = (values.dt.epoch("us") if kind in ("time", "moment") else values).max()
        if kind == "date":
            newest = (newest - date(1970, 1, 1)).days * _DAY
        self.kind, self.value = kind, newest if self.value is None else max(self.value, newest)

    def _compare_shapes(self, values: pl.Series) -> None:
        if self.shape is None and self.since is not None and self.since.kind == "text":
            begin = pl.Series([str(self.since.value)])
            self.shape = (shapes(begin)[0], begin[0])
        found = pl.DataFrame({"text": values, "shape": shapes(values)}).unique("shape", maintain_order=True)
        for text, shape in found.iter_rows():
            if self.shape is None:
                self.shape = (shape, text)
            if shape != self.shape[0]:
                raise InputError(
                    f"{self.place}: the watermark {self.column!r} is text that is not written in one form, such as "
                    f"{self.shape[1]!r} and {text!r}, so that its order is not that of the times; cast the column to a "
                    "time in a query (in SQLite with datetime(...)), and read all again with --rebuild where the "
                    "first of the two is of an earlier reading."
                )

    def _count_times(self, values: pl.Series) -> None:
        self.count += len(values)
        numbers = values.cast(pl.Float64)
        for unit in _UNITS:
            inside = numbers.filter(numbers.is_between(_YEARS[0] * unit, _YEARS[1] * unit))
            if len(inside):
                smallest = float(inside.min())  # type: ignore[arg-type]
                self.within[unit] += len(inside)
                self.smallest[unit] = min(self.smallest.get(unit, smallest), smallest)

    @property
    def _oldest(self) -> float | None:
        """The smallest time, where the last reading ended at one or most numbers are of one unit."""
        begin = None if self.since is None or self.since.kind not in ("integer", "float") else float(self.since.value)
        for unit in _UNITS:
            if begin is not None and _YEARS[0] * unit <= begin <= _YEARS[1] * unit:
                return begin
        if not self.count:
            return None
        unit = max(_UNITS, key=self.within.__getitem__)
        return self.smallest[unit] if self.within[unit] * 2 >= self.count else None

    @property
    def watermark(self) -> Watermark | None:
        """The newest value; None where there was no row."""
        return None if self.kind is None else Watermark(kind=self.kind, value=self.value, oldest=self._oldest)


def kind_of(dtype: pl.DataType) -> Kind | None:
    """Kind of a column's watermark; None where it can be none."""
    if dtype.is_integer():
        return "integer"
    if dtype.is_float():
        return "float"
    if isinstance(dtype, pl.Datetime):
        return "time" if dtype.time_zone is None else "moment"
    return "text" if dtype == pl.String else "date" if dtype == pl.Date else None


def no_order(column: str, place: str, what: str) -> InputError:
    """Return the error for a column that cannot be a watermark."""
    return InputError(
        f"{place}: the watermark {column!r} holds {what}, which has no order to read on by; name a column of times or "
        "whole numbers, or cast it in the query."
    )


def _unit_of(number: float) -> int:
    """Counts a second of a number that seems to be a time."""
    return next(unit for unit in _UNITS if number <= _YEARS[1] * unit)
