"""The question of a log whose steps are baskets: at every event, what does the user's next basket hold?

An event's answer is one item of the basket after its own, drawn anew in every epoch, so that the model is trained for
what it is measured by and never asked which item of one basket came "next". Every event asks, as the first events of a
basket do not know the rest of it and the model learns from the whole history before them all the same.

Shapes: N events, S baskets.
"""

from __future__ import annotations

import numpy as np

from recsys.columns import PADDING
from recsys.data.baskets import basket_starts
from recsys.data.sequences import Sequences


class NextBasket:
    """Draws the answers for the events of flat histories."""

    def __init__(self, histories: Sequences) -> None:
        starts = basket_starts(histories)
        self.items = histories.items
        self.starts = np.append(starts, len(histories.items))  # [S + 1]
        basket = np.searchsorted(starts, np.arange(len(histories.items)), side="right")  # the number of the next one
        owner = np.repeat(np.arange(len(histories)), histories.lengths)
        there = basket < len(starts)
        there[there] = owner[starts[basket[there]]] == owner[there]
        self.next = np.where(there, basket, -1)  # int64 [N]: the next basket; -1: the user's last

    def labels(self, rng: np.random.Generator) -> np.ndarray:
        """int64 [N + 1] by the number of an event from 1: an item of the next basket; 0 where there is none."""
        asked = np.flatnonzero(self.next >= 0)
        first, end = self.starts[self.next[asked]], self.starts[self.next[asked] + 1]
        drawn = first + (rng.random(len(asked)) * (end - first)).astype(np.int64)
        labels = np.full(len(self.items) + 1, PADDING, dtype=np.int64)
        labels[asked + 1] = self.items[drawn]
        return labels

    def ask(self, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
        """bool [W]: the windows of the flat array in which some event has a next basket."""
        before = np.concatenate([[0], np.cumsum(self.next >= 0)])
        return before[ends] > before[starts]
