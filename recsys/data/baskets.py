"""Baskets: the events of one user at one time, which came together and in no order.

A till writes the lines of a receipt in some order, with one time. Which of two things in a basket came "next" is an
accident of that order, so a model that is asked for it is asked something else than what the shop wants to know, what
the next basket holds. With `split.same_time = "basket"` a basket is one step: it is held out whole, and one of its
items, drawn by the seed, is the one that is asked for. Its other items are neither in the history nor ranked against
that item, as in the "filtered" ranks of link prediction (Bordes et al., NIPS 2013): to rank them higher is no mistake.
That the last basket of a user is held out is the protocol of next-basket recommendation (Rendle et al., WWW 2010).

The order inside a basket is drawn by the seed, and the item that is asked for is the first of its basket.

Shapes: N events, S baskets.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID, POSITION, TIMESTAMP, USER_ID
from recsys.data.sequences import AT_ONCE, Sequences
from recsys.errors import InputError


def in_drawn_order(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """A log sorted by user and time, of one time in an order that the seed, the item and the time decide.

    A row more changes the order of no other two, and the order of the file says nothing.

    Raises
    ------
    InputError
        The log has no times.
    """
    if frame[TIMESTAMP].null_count():
        raise InputError(
            'split.same_time = "basket" needs a timestamp in every interaction and this log has none; '
            'name the column in interactions.columns or use same_time = "order".'
        )
    import torch  # here, because a log without baskets is divided without it

    from recsys.features.hashing import hash_values, mix

    distinct = frame.select(pl.col(ITEM_ID).unique())
    hashed = distinct.with_columns(pl.Series("__item", hash_values(distinct[ITEM_ID].to_list())))
    items = frame.select(ITEM_ID).join(hashed, on=ITEM_ID, how="left", maintain_order="left")["__item"].to_numpy()
    times = frame[TIMESTAMP].dt.epoch("us").to_numpy()
    drawn = mix(mix(torch.tensor(items) + seed) + torch.tensor(times)).numpy()
    ordered = frame.with_columns(pl.Series("__drawn", drawn)).sort(USER_ID, TIMESTAMP, "__drawn", POSITION)
    return ordered.drop("__drawn")


def basket_starts(sequences: Sequences) -> np.ndarray:
    """int64 [S]: the flat index at which each basket begins."""
    assert sequences.times is not None
    begins = np.ones(len(sequences.items), dtype=bool)
    for start in range(1, len(begins), AT_ONCE):
        times = sequences.times[start - 1 : start + AT_ONCE]
        begins[start : start + AT_ONCE] = np.diff(times) != 0
    begins[sequences.offsets[:-1][sequences.lengths > 0]] = True
    return np.flatnonzero(begins)


class Steps:
    """The steps of histories: events, or baskets; flat like the events, one user's after another's."""

    def __init__(self, sequences: Sequences, *, baskets: bool) -> None:
        self._starts = np.append(basket_starts(sequences), len(sequences.items)) if baskets else None  # int64 [S + 1]

    def of(self, events: np.ndarray) -> np.ndarray:
        """int64: the first step that begins at these places of the flat arrays, or after them."""
        return events if self._starts is None else np.searchsorted(self._starts, events)

    def places(self, steps: np.ndarray) -> np.ndarray:
        """int64: where steps begin in the flat arrays."""
        return steps if self._starts is None else self._starts[steps]
