"""Rules on what users had already: not again within some days, and again after some days.

Shapes: b users, N events of all of them, V items (arrays by code have V + 1 rows).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np

from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.rules.base import Seen, Shop
from recsys.rules.catalogue import meeting
from recsys.settings.rules import NotAgainRuleSettings, RepeatRuleSettings

DAY: Final = 24 * 60 * 60 * 1_000_000  # microseconds


@dataclass(frozen=True, kw_only=True, eq=False)
class NotAgain(Seen):
    """Items of the last days stay out."""

    kind: ClassVar[str] = "not_again"
    has_the_last_word: ClassVar[bool] = True

    within: int  # microseconds

    @classmethod
    def of(cls, name: str, settings: NotAgainRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        _need_times(name, "days", shop)
        return cls(name=name, within=_microseconds(settings.days))

    def hides(self, histories: Sequences, hidden: np.ndarray, now: np.ndarray) -> np.ndarray:
        """See `Seen`."""
        return hidden | (_ages(histories, now) < self.within)


@dataclass(frozen=True, kw_only=True, eq=False)
class Repeat(Seen):
    """Items that meet conditions come again, some days after the user had them last."""

    kind: ClassVar[str] = "repeat"

    items: np.ndarray  # bool [V + 1]
    after: int  # microseconds

    @classmethod
    def of(cls, name: str, settings: RepeatRuleSettings, shop: Shop) -> Self:
        """See `Rule`."""
        if settings.after_days:
            _need_times(name, "after_days", shop)
        met, remarks = meeting(name, settings.where, shop)
        return cls(name=name, items=met, after=_microseconds(settings.after_days), remarks=remarks)

    def hides(self, histories: Sequences, hidden: np.ndarray, now: np.ndarray) -> np.ndarray:
        """See `Seen`."""
        old = _ages(histories, now) >= self.after
        return hidden & ~(self.items[histories.items] & old)


def _ages(histories: Sequences, now: np.ndarray) -> np.ndarray:
    """int64 [N] microseconds since each event; 0 without times: an event of unknown time is one of this moment."""
    if histories.times is None:
        return np.zeros(len(histories.items), dtype=np.int64)
    ages: np.ndarray = np.repeat(now, histories.lengths) - histories.times
    return ages


def _microseconds(days: float) -> int:
    return round(min(days, 1e5) * DAY)


def _need_times(name: str, key: str, shop: Shop) -> None:
    if not shop.timed:
        raise InputError(
            f"rules.{name}.{key} counts from when a user had an item, and the log has no time; declare "
            "interactions.columns.timestamp, or leave the rule out."
        )
