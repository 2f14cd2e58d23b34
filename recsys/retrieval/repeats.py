"""Scores of items that are in the history already, moved by the numbers that a model learnt (recsys/models/repeats.py).

Shapes: U users, L numbers by steps back, R events that they belong to, P histories.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from recsys.features.tokens import spans

ScoreBlock = Callable[[int, int], np.ndarray]


def newest_events(
    items: np.ndarray, starts: np.ndarray, ends: np.ndarray, most: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The newest events of histories, one after the other, each history's newest first.

    Parameters
    ----------
    items
        int [N] codes, oldest first.
    starts, ends
        int64 [P], the slice of each history.
    most
        Events of a history.

    Returns
    -------
    rows, codes, back
        int64 [R]: which history, the item, and the steps back; 0 is the newest event.
    """
    counts = np.minimum(ends - starts, most)
    rows = np.repeat(np.arange(len(ends)), counts)
    back = spans(np.zeros_like(counts), counts)
    return rows, items[ends[rows] - 1 - back].astype(np.int64), back


def bonuses(items: np.ndarray, offsets: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The numbers of each user's newest L events, one entry an event: an item had twice has two.

    Parameters
    ----------
    items, offsets
        int32 [N] and int64 [U + 1], the histories.
    weights
        float32 [L] from `Repeats`.

    Returns
    -------
    users, codes, values
        int64 [R], ascending; int64 [R]; float32 [R].
    """
    users, codes, back = newest_events(items, offsets[:-1], offsets[1:], len(weights))
    return users, codes, weights[back]


def with_repeats(
    score_block: ScoreBlock, items: np.ndarray, offsets: np.ndarray, weights: np.ndarray | None
) -> ScoreBlock:
    """Scores with the numbers of the history's own items added; `weights` None: the scores as they are."""
    if weights is None:
        return score_block
    users, codes, values = bonuses(items, offsets, weights)

    def scores(start: int, stop: int) -> np.ndarray:
        block = score_block(start, stop)
        part = slice(*np.searchsorted(users, [start, stop]))
        np.add.at(block, (users[part] - start, codes[part]), values[part])
        return block

    return scores
