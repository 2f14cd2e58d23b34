"""Histories as sparse weights over items: the newer an event, the more it counts.

Shapes: U users, V items (arrays by code have V + 1 entries), N events.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import sparse

LAST: Final = 10  # newest events of a history that speak for it
DECAY: Final = 0.7  # weight of an event against the next newer one
WHOLE: Final = 5_000  # newest events of a history that are read at all; more are no person's


def recency_weights(
    items: np.ndarray, offsets: np.ndarray, size: int, *, last: int = LAST, decay: float = DECAY
) -> sparse.csr_array:
    """Histories as weights over items: float32 [U, V + 1], 1 for the newest event, then `decay` a step back.

    Only the `last` newest events count. An item that occurs twice gets the sum. Unknown items keep their
    place in the order but weigh nothing.

    Parameters
    ----------
    items, offsets
        Flat histories: int32 [N] codes, oldest first inside a user, 0 unknown; int64 [U + 1].
    size
        V.
    """
    kept = np.minimum(np.diff(offsets), last)  # [U]
    indptr = np.concatenate([[0], np.cumsum(kept)])
    age = np.arange(indptr[-1]) - np.repeat(indptr[:-1], kept)  # steps back from the newest
    codes = items[np.repeat(offsets[1:], kept) - 1 - age]
    weights = np.where(codes > 0, decay ** age.astype(np.float64), 0.0).astype(np.float32)
    table = sparse.csr_array((weights, codes, indptr), shape=(len(kept), size + 1))
    table.sum_duplicates()
    return table


def mean_weights(items: np.ndarray, offsets: np.ndarray, size: int, *, last: int, decay: float) -> sparse.csr_array:
    """`recency_weights` whose rows sum to 1, so that what they ask for is a mean; empty rows stay empty."""
    weights = recency_weights(items, offsets, size, last=last, decay=decay)
    totals = np.asarray(weights.sum(axis=1)).ravel()
    weights.data /= np.repeat(np.where(totals > 0, totals, 1.0), np.diff(weights.indptr)).astype(np.float32)
    return weights
