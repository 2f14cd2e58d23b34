"""Events that were taken back: a cancelled order, a returned item.

The table only grows: a withdrawal is an event of its own there, so that reading a file twice, or tomorrow's
cancellation of today's order, needs nothing special. What it takes back is decided here, whenever the table is read.

A withdrawal takes from one event, its user's newest with its item at or before its time (in a log without time: before
its place) of which anything is left. Where both have a weight (a quantity), it takes as much as it weighs, whatever its
sign: an event of which nothing is left is gone, and one of which something is left stays. Where one of the two has
none, it takes the whole event.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT, WITHDRAWAL

_ORDER: Final = "__order"
_IS_WITHDRAWAL: Final = pl.col(EVENT) == WITHDRAWAL


@dataclass(frozen=True, kw_only=True, slots=True)
class Withdrawals:
    """Counts of applied withdrawals."""

    rows: int = 0  # withdrawals in the table
    events: int = 0  # events that are gone
    lessened: int = 0  # events of which something was taken and something is left
    unmatched: int = 0  # withdrawals that found nothing to take back

    def __add__(self, other: Withdrawals) -> Withdrawals:
        """The counts of two parts of a log that share no user."""
        return Withdrawals(**{of.name: getattr(self, of.name) + getattr(other, of.name) for of in fields(self)})

    def __str__(self) -> str:
        return (
            f"{self.rows:,} withdrawals took {self.events:,} events back and a part of {self.lessened:,} others; "
            f"{self.unmatched:,} found nothing to take."
        )


def without_withdrawn(log: pl.LazyFrame) -> tuple[pl.LazyFrame, Withdrawals]:
    """The events of a log that were not taken back, and what was.

    Parameters
    ----------
    log
        Rows of the table of interactions, among them the withdrawals; events that do not count are left out before.
    """
    pairs = log.filter(_IS_WITHDRAWAL).select(USER_ID, ITEM_ID).unique().collect(engine="streaming")
    if pairs.is_empty():
        return log, Withdrawals()
    # of one moment a withdrawal comes after what it may take back; without times the place decides
    late = pl.when(pl.col(TIMESTAMP).is_not_null()).then(_IS_WITHDRAWAL).otherwise(False)
    touched = (
        log.join(pairs.lazy(), on=[USER_ID, ITEM_ID], how="semi")
        .with_columns(late.alias(_ORDER))
        .sort(USER_ID, ITEM_ID, TIMESTAMP, _ORDER, POSITION)
        .select(USER_ID, ITEM_ID, _IS_WITHDRAWAL.alias(EVENT), pl.col(WEIGHT).abs().fill_nan(None), POSITION)
        .collect(engine="streaming")
    )
    fresh = touched.select((pl.struct(USER_ID, ITEM_ID) != pl.struct(USER_ID, ITEM_ID).shift()).fill_null(True))
    gone, told = _taken_back(zip(fresh.to_series(), touched[EVENT], touched[WEIGHT], touched[POSITION], strict=True))
    left = log.filter(~_IS_WITHDRAWAL).join(
        pl.LazyFrame({POSITION: np.array(gone, dtype=np.int64)}), on=POSITION, how="anti"
    )
    return left, told


def _taken_back(rows: Iterable[tuple[bool, bool, float | None, int]]) -> tuple[list[int], Withdrawals]:
    """The places of the events that are gone.

    Parameters
    ----------
    rows
        (begins a new pair of user and item, is a withdrawal, weight, place), in order.
    """
    gone: list[int] = []
    withdrawals = lessened = unmatched = 0
    had: list[tuple[int, float | None]] = []  # of this pair: place and what is left, the newest last
    touched: set[int] = set()
    for begins, takes, weight, place in rows:
        if begins:
            lessened += sum(place in touched for place, _ in had)
            had, touched = [], set()
        if not takes:
            had.append((place, weight))
            continue
        withdrawals += 1
        if not had:
            unmatched += 1
            continue
        newest, left = had[-1]
        if weight and left and left > weight:
            had[-1] = (newest, left - weight)
            touched.add(newest)
        else:
            had.pop()
            gone.append(newest)
    lessened += sum(place in touched for place, _ in had)
    return gone, Withdrawals(rows=withdrawals, events=len(gone), lessened=lessened, unmatched=unmatched)
