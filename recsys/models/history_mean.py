"""A recommender for any item vectors: a history is the mean of its newest items' vectors, each a step back weighing .7.

It has no weights, so whatever gives items vectors is a model with it.
"""

from __future__ import annotations

import numpy as np

from recsys.data.recency import recency_weights
from recsys.data.sequences import Sequences
from recsys.models.base import Recommender


def history_means(vectors: np.ndarray, items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Vectors of histories.

    Parameters
    ----------
    vectors
        float32 [V + 1, D]; row 0 is zero.
    items, offsets
        int32 [N] codes, oldest first inside a user, and int64 [U + 1].

    Returns
    -------
    ndarray
        float32 [U, D] unit vectors; zeros where a history is empty or its newest items have no vector.
    """
    summed = recency_weights(items, offsets, len(vectors) - 1) @ vectors
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.divide(summed, lengths, out=np.zeros_like(summed), where=lengths > 0)


class HistoryMean(Recommender):
    """Histories are the recency-weighted means of their items' vectors."""

    def encode(self, histories: Sequences) -> np.ndarray:
        """float32 [U, D] unit vectors; zeros where a history is empty or its newest items have no vector."""
        return history_means(self.vectors, histories.items, histories.offsets)
