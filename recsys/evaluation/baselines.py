"""Baselines, with nothing trained: popularity, transition counts, these with text similarity.

Counting who followed whom is far from weak: with training items only it reaches HR@10 .078 on Amazon Beauty,
above several published networks, and adding the similarity of whitened text vectors gives .105.

What they count is in recsys/candidates.

Shapes: U users, b users of a block, V items (arrays by code have V + 1 entries), D width.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from recsys.evaluation.ranking import ScoreBlock

TRANSITION_WEIGHT = 6.0  # of transition scores beside cosine similarities


def score_popularity(counts: np.ndarray) -> ScoreBlock:
    """Everybody gets the same scores: `counts` float32 [V + 1]."""
    return lambda start, stop: np.tile(counts, (stop - start, 1))


def score_transitions(weights: sparse.csr_array, table: sparse.csr_array) -> ScoreBlock:
    """Scores [b, V + 1]: `weights` [U, V + 1] @ `table` [V + 1, V + 1], sparse until a block is due."""
    return lambda start, stop: (weights[start:stop] @ table).toarray()


def score_text_and_transitions(
    weights: sparse.csr_array,
    table: sparse.csr_array,
    vectors: np.ndarray,
    *,
    weight: float = TRANSITION_WEIGHT,
) -> ScoreBlock:
    """Scores [b, V + 1] = `weights` @ (`weight` x `table` + `vectors` @ `vectors`.T).

    So one item speaks for another by what followed it and by what it is called, in one sum.

    Parameters
    ----------
    weights, table
        [U, V + 1] and [V + 1, V + 1], from `recency_weights` and `transitions`.
    vectors
        float32 [V + 1, D] whitened text vectors, scaled to a mean squared length of 1; zeros where an item has
        no text.
    """
    queries = weights @ vectors  # [U, D]

    def score(start: int, stop: int) -> np.ndarray:
        counted = (weights[start:stop] @ table).toarray()
        return np.asarray(weight * counted + queries[start:stop] @ vectors.T, dtype=np.float32)

    return score
