"""[interactions]: the log."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings.conditions import Condition
from recsys.settings.source import SourceSettings


class InteractionSettings(SourceSettings):
    """The interaction log."""

    columns: dict[Literal["user_id", "item_id", "timestamp", "event", "weight"], str] = Field(
        default_factory=dict
    )  # ours = theirs
    time_unit: Literal["auto", "s", "ms", "us"] = "auto"  # of numeric times; "auto" decides by magnitude
    # strftime pattern of written times ("%d.%m.%Y %H:%M"), or a list: the first that fits counts; None: ISO 8601
    time_format: str | tuple[str, ...] | None = None
    timezone: str | None = None  # of times written without a zone; without it such a time is rejected
    # a row that meets one of these is no event: it takes back its user's newest earlier event with its item (where the
    # log has weights, once as much is taken back as the event weighs), as a cancelled invoice does; the rows of a file
    # with one user, item, time and event are lines of one order then: their weights are added, equal ones once
    withdraw: tuple[Condition, ...] = ()
    # (hours) a new event that is older by more than this than the newest one of the table counts as late
    late_hours: float = Field(default=24.0, ge=0)
    late: Literal["add", "leave-out"] = "add"  # late events: they are events, or they are counted and no more
    # a row that says another weight of an event that the table has: the new weight holds, or it is counted and no more
    corrections: Literal["apply", "leave-out"] = "apply"

    @model_validator(mode="after")
    def _orders_are_read_whole(self) -> Self:
        times = self.columns.get("timestamp", "timestamp")
        if self.withdraw and self.watermark not in (None, times):
            raise ValueError(
                f"withdraw takes the lines of an order together, and watermark = {self.watermark!r} may read some of "
                f"them without the others; take the column of the events' times, {times!r}, as the watermark"
            )
        return self

    @property
    def time_formats(self) -> tuple[str, ...]:
        """The declared patterns, always as a tuple."""
        given = self.time_format
        return () if given is None else (given,) if isinstance(given, str) else given
