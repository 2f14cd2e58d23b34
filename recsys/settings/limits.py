"""[limits]: how long a step may take, and how often reading and writing is tried again."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from recsys.settings.section import Section

Minutes = Annotated[float, Field(gt=0)] | None
_DAY = 1440.0  # a step that computes: later than that the next night is due
_HANGS = 360.0  # a step that reads or writes


class TimeoutSettings(Section):
    """Time that a step may take; "none" sets no limit.

    A step that takes longer ends its night, so that a connection that hangs does not hold the warehouse for the nights
    after it. What is done stays done: the next start goes on from there.
    """

    ingest: Minutes = _HANGS  # (minutes)
    represent: Minutes = _DAY  # (minutes)
    train: Minutes = _DAY  # (minutes)
    evaluate: Minutes = _DAY  # (minutes)
    refit: Minutes = _DAY  # (minutes)
    retrieve: Minutes = _DAY  # (minutes)
    judge: Minutes = _DAY  # (minutes)
    publish: Minutes = _HANGS  # (minutes)
    export: Minutes = _HANGS  # (minutes)
    report: Minutes = _HANGS  # (minutes)


class LimitSettings(Section):
    """Limits of a step's time and tries. Neither changes what a night makes."""

    timeout_minutes: TimeoutSettings = TimeoutSettings()
    retries: int = Field(default=3, ge=0, le=20)  # of `ingest` and `export`, when storage or network fail
    retry_seconds: float = Field(default=2.0, ge=0, le=3600)  # (seconds) before the first one; doubled each time

    @property
    def waits(self) -> list[float]:
        """Return the seconds before each retry."""
        return [self.retry_seconds * 2.0**n for n in range(self.retries)]
