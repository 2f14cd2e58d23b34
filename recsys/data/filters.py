"""[filter]: which rows of the log count, one by one; and the k-core, which looks at all of them."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import polars as pl

from recsys.columns import EVENT, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT, WITHDRAWAL
from recsys.data.sequences import AT_ONCE, counted, user_blocks
from recsys.data.withdrawals import Withdrawals, without_withdrawn
from recsys.settings import FilterSettings


def standing_events(log: pl.LazyFrame, settings: FilterSettings) -> tuple[pl.LazyFrame, Withdrawals]:
    """The events that count by `filter.events` and were not taken back, and what was taken back."""
    # what does not count cannot be taken back
    counting = log if settings.events is None else log.filter(pl.col(EVENT).is_in([*settings.events, WITHDRAWAL]))
    return without_withdrawn(counting)


def counting(log: pl.LazyFrame, settings: FilterSettings, context: Collection[str] = ()) -> pl.LazyFrame:
    """The rows that [filter] lets through one by one, however few their user or item has.

    Events, weights, then repeats. Columns that the `context` of events needs stay.
    """
    if settings.events is not None:
        log = log.filter(pl.col(EVENT).is_in(settings.events))
    if settings.min_weight is not None:
        log = log.filter(pl.col(WEIGHT) >= settings.min_weight)
    log = log.select(USER_ID, ITEM_ID, TIMESTAMP, POSITION, *(name for name in (EVENT, WEIGHT) if name in context))
    if settings.repeats != "keep":
        log = log.sort(USER_ID, TIMESTAMP, POSITION).unique(
            [USER_ID, ITEM_ID], keep=settings.repeats, maintain_order=True
        )
    return log


def k_core(items: np.ndarray, offsets: np.ndarray, min_user: int, min_item: int) -> np.ndarray:
    """bool [N]: the events that are left when users and items with too few are dropped until none has too few.

    Parameters
    ----------
    items, offsets
        Flat histories: int [N] codes from 0 or 1, int64 [U + 1].
    """
    left = np.ones(len(items), dtype=bool)
    most, events = int(items.max(initial=0)) + 1, -1
    while events != (events := int(np.count_nonzero(left))):
        counts = np.zeros(most, dtype=np.int64)
        for start in range(0, len(items), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            counts += np.bincount(items[part][left[part]], minlength=most)
        enough = counts >= min_item
        for start in range(0, len(items), AT_ONCE):
            part = slice(start, start + AT_ONCE)
            left[part] &= enough[items[part]]
        active = counted(left, offsets) >= min_user
        for users in user_blocks(offsets, AT_ONCE):
            lengths = np.diff(offsets[users.start : users.stop + 1])
            left[offsets[users.start] : offsets[users.stop]] &= np.repeat(active[users], lengths)
    return left
