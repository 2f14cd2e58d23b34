"""[split]: what is held out."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings.section import Section

Target = Literal["first", "last", "random", "successive"]
Validation = Literal["time", "last-event", "users"]


class SplitSettings(Section):
    """Settings of the parts held out for validation and test."""

    strategy: Literal["leave-one-out", "time"] = "leave-one-out"
    # a user's events at one time: events in the log's order, or one step without an order, as a shop's basket is; it is
    # held out whole, and training by next items asks for one of the next basket
    same_time: Literal["order", "basket"] = "order"
    test_from: datetime | None = None  # time: the cut-off; None: the fractions below decide
    validation_from: datetime | None = None  # time, validation = "time": its cut-off
    test_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)  # time: share of interactions after the cut
    validation_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)
    # time: the events after the cut that a user is asked for: the first, the last, one drawn by the seed, or each in
    # turn with all earlier ones in the history
    target: Target = "first"
    # time: validation asks for the first event after its own cut-off, or for the last event before the test cut-off;
    # "users": the users that are asked train with no event
    validation: Validation = "time"
    # (0 to 1) last-event, users: share of the users, drawn by the seed, that validation asks; None: all of them for
    # last-event, a tenth for users
    validation_users: float | None = Field(default=None, gt=0.0, le=1.0)
    # time: users without an event before the cut: measured apart from the others, or, as in "Time to Split"
    # (arXiv 2507.16289), among the others from their second event on
    new_users: Literal["apart", "from-second-event"] = "apart"
    # time: test items without an event before the cut: they count as questions, which counts can only miss, or they
    # are dropped, which flatters every figure
    cold_items: Literal["keep", "drop"] = "keep"

    @model_validator(mode="after")
    def _cut_offs_have_a_zone(self) -> Self:
        for name in ("test_from", "validation_from"):
            value = getattr(self, name)
            if value is not None and value.tzinfo is None:
                raise ValueError(f"{name} = {value.isoformat()} has no time zone; write {value.isoformat()}Z")
        if self.test_from and self.validation_from and self.validation_from >= self.test_from:
            raise ValueError(
                f"validation_from = {self.validation_from.isoformat()} must lie before "
                f"test_from = {self.test_from.isoformat()}"
            )
        return self

    @model_validator(mode="after")
    def _keys_are_read(self) -> Self:
        if self.strategy != "time":
            for name in ("target", "validation", "validation_users", "new_users", "cold_items"):
                if getattr(self, name) != type(self).model_fields[name].default:
                    raise ValueError(f'{name} = {getattr(self, name)!r} needs strategy = "time"')
        if self.validation == "time":
            if self.validation_users is not None:
                raise ValueError(
                    f'validation_users = {self.validation_users:g} needs validation = "last-event" or "users"'
                )
        elif self.validation_from is not None:
            raise ValueError(
                f'validation_from = {self.validation_from.isoformat()} needs validation = "time"; "{self.validation}" '
                "asks for events before test_from"
            )
        if self.validation == "users" and self.validation_users == 1:
            raise ValueError('validation_users = 1 with validation = "users" leaves no user for training; lower it')
        return self

    @property
    def validation_share(self) -> float:
        """Share of the users that validation asks, where it is not by time."""
        if self.validation_users is not None:
            return self.validation_users
        return 0.1 if self.validation == "users" else 1.0
