"""[split]: what is held out."""

from __future__ import annotations

from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from recsys.settings.section import Section


class SplitSettings(Section):
    """What is held out for validation and test."""

    strategy: Literal["leave-one-out", "time"] = "leave-one-out"
    # a user's events at one time: events in the log's order, or one step without an order, as a shop's basket is; it is
    # held out whole, and training by next items asks for one of the next basket
    same_time: Literal["order", "basket"] = "order"
    test_from: datetime | None = None  # time: the cut-off; None: the fractions below decide
    validation_from: datetime | None = None
    test_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)  # time: share of interactions after the cut
    validation_fraction: float = Field(default=0.1, gt=0.0, lt=0.5)

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
