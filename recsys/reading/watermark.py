"""The watermark of a reading: the newest value of a column that grows, from which the next reading goes on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final, Literal

import polars as pl

from recsys.errors import InputError

Kind = Literal["integer", "float", "text", "date", "time", "moment"]

_EPOCH: Final = datetime(1970, 1, 1)
_DAY: Final = 86_400_000_000  # microseconds


@dataclass(frozen=True, kw_only=True, slots=True)
class Watermark:
    """A value of a watermark column; of `date`, `time` (without a zone) and `moment` microseconds since 1970."""

    kind: Kind
    value: int | float | str

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

    def not_after(self, now: datetime) -> Watermark:
        """The value, or the present where it is later.

        A row with a time in the future must not keep the next readings from all rows until then.
        """
        if self.kind in ("integer", "float"):
            return self
        here = now.astimezone(UTC).replace(tzinfo=None)
        if self.kind == "text":
            written = _written(str(self.value))
            late = written is not None and _naive(written) > here
            return Watermark(kind="text", value=_like(here, str(self.value))) if late else self
        return Watermark(kind=self.kind, value=min(int(self.value), (here - _EPOCH) // timedelta(microseconds=1)))

    def earlier(self, hours: float, key: str) -> Watermark:
        """The value this many hours before.

        Raises
        ------
        InputError
            It is no time; `key` names the setting.
        """
        if not hours:
            return self
        if self.kind == "text" and (written := _written(str(self.value))) is not None:
            return Watermark(kind="text", value=_like(written - timedelta(hours=hours), str(self.value)))
        if self.kind in ("integer", "float", "text"):
            raise InputError(
                f"{key}_overlap_hours = {hours:g} needs a watermark of times, and this one is {self.value!r}; set it "
                "to 0."
            )
        return Watermark(kind=self.kind, value=int(self.value) - round(hours * 3_600e6))


class Newest:
    """The newest value of a column over many batches."""

    def __init__(self, column: str, place: str) -> None:
        self.column, self.place = column, place
        self.kind: Kind | None = None
        self.value: Any = None

    def add(self, values: pl.Series) -> None:
        """Look at a batch.

        Raises
        ------
        InputError
            A value is missing, or is of another kind than the others, or of one that has no order.
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
        newest: Any = (values.dt.epoch("us") if kind in ("time", "moment") else values).max()
        if kind == "date":
            newest = (newest - date(1970, 1, 1)).days * _DAY
        self.kind, self.value = kind, newest if self.value is None else max(self.value, newest)

    @property
    def watermark(self) -> Watermark | None:
        """The newest value; None where there was no row."""
        return None if self.kind is None else Watermark(kind=self.kind, value=self.value)


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


def _written(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def _naive(time: datetime) -> datetime:
    return time if time.tzinfo is None else time.astimezone(UTC).replace(tzinfo=None)


def _like(time: datetime, sample: str) -> str:
    """A time as text that no text of the same second comes before: a date where the sample is one, else no fraction."""
    if len(sample) <= 10:
        return time.date().isoformat()
    return time.replace(tzinfo=None).isoformat(sep=sample[10], timespec="seconds")
