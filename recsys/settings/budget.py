"""[budget]: time and memory of a step against those of the nights before."""

from __future__ import annotations

from pydantic import Field

from recsys.settings.section import Section


class BudgetSettings(Section):
    """Time and memory of a step against those of the nights before; more than that is a warning and ends nothing."""

    enabled: bool = True
    factor: float = Field(default=3.0, gt=1)  # times the median of the nights before
    nights: int = Field(default=7, ge=3, le=365)  # finished ones that count, the newest; fewer than 3 are no measure
    min_seconds: float = Field(default=60.0, ge=0)  # (seconds) a shorter step says nothing
    min_gib: float = Field(default=1.0, ge=0)  # (GiB) nor does one that holds less memory
