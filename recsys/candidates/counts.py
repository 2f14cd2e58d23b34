"""What a model has to beat, with nothing trained: popularity, transition counts, these with text similarity.

Counting who followed whom is far from weak: with training items only it reaches HR@10 .078 on Amazon Beauty,
above several published networks, and adding the similarity of whitened text vectors gives .105.

Every function takes flat histories: `items` int32 [N] codes (1 to V, oldest first inside a user; 0 is an
unknown item and counts for nothing) and `offsets` int64 [U + 1].

Shapes: U users, b users of a block, V items (arrays by code have V + 1 entries), N events, D width.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import sparse

BlockScores = Callable[[int, int], np.ndarray]  # (start, stop) -> a fresh float32 [stop - start, V + 1]

REACH = 4  # a pair counts when its events lie at most this many steps apart
LAST = 10  # newest events of a history that speak for it
DECAY = 0.7  # weight of an event against the next newer one
TRANSITION_WEIGHT = 6.0  # of transition scores beside cosine similarities


def popularity(items: np.ndarray, size: int) -> np.ndarray:
    """Training interactions of each item, float32 [V + 1]; entry 0 (no item) is 0."""
    counts = np.bincount(items, minlength=size + 1).astype(np.float32)
    counts[0] = 0.0
    return counts


def transitions(
    items: np.ndarray, offsets: np.ndarray, size: int, *, reach: int = REACH, smoothing: float = 0.0
) -> sparse.csr_array:
    """Row-normalised counts of what followed each item: float32 [V + 1, V + 1].

    Events at places p < q <= p + `reach` of one history add 1 / (q - p) to entry (item at p, item at q); then
    every row that is not empty is divided by its sum plus `smoothing`, which lowers rows of few sightings.
    """
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))  # [N]
    table = sparse.csr_array((size + 1, size + 1), dtype=np.float64)
    for distance in range(1, reach + 1):
        before, after = items[:-distance], items[distance:]
        pairs = (owner[:-distance] == owner[distance:]) & (before > 0) & (after > 0)
        counted = np.full(int(pairs.sum()), 1.0 / distance)
        table = table + sparse.coo_array((counted, (before[pairs], after[pairs])), shape=table.shape).tocsr()
    totals = np.asarray(table.sum(axis=1)).ravel()  # [V + 1]
    table.data /= np.repeat(totals + smoothing, np.diff(table.indptr))  # an empty row stores nothing: no division by 0
    return table.astype(np.float32)


def recency_weights(
    items: np.ndarray, offsets: np.ndarray, size: int, *, last: int = LAST, decay: float = DECAY
) -> sparse.csr_array:
    """Histories as weights over items: float32 [U, V + 1], 1 for the newest event, then `decay` a step back.

    Only the `last` newest events count. An item that occurs twice gets the sum. Unknown items keep their
    place in the order but weigh nothing.
    """
    kept = np.minimum(np.diff(offsets), last)  # [U]
    indptr = np.concatenate([[0], np.cumsum(kept)])
    age = np.arange(indptr[-1]) - np.repeat(indptr[:-1], kept)  # steps back from the newest
    codes = items[np.repeat(offsets[1:], kept) - 1 - age]
    weights = np.where(codes > 0, decay ** age.astype(np.float64), 0.0).astype(np.float32)
    table = sparse.csr_array((weights, codes, indptr), shape=(len(kept), size + 1))
    table.sum_duplicates()
    return table


def text_queries(weights: sparse.csr_array, vectors: np.ndarray) -> np.ndarray:
    """Unit vectors of histories, float32 [U, D]: the weighted sum of item vectors, normalised.

    A history without any vector (its items unknown or without text) stays zero, so all its scores are 0.

    Parameters
    ----------
    weights
        [U, V + 1], from `recency_weights`.
    vectors
        float32 [V + 1, D] text vectors; zeros where an item has no text.
    """
    queries = weights @ vectors
    lengths = np.linalg.norm(queries, axis=1, keepdims=True)
    return np.divide(queries, lengths, out=np.zeros_like(queries), where=lengths > 0)


def score_popularity(counts: np.ndarray) -> BlockScores:
    """Everybody gets the same scores: `counts` float32 [V + 1]."""
    return lambda start, stop: np.tile(counts, (stop - start, 1))


def score_transitions(weights: sparse.csr_array, table: sparse.csr_array) -> BlockScores:
    """Scores [b, V + 1]: `weights` [U, V + 1] @ `table` [V + 1, V + 1], sparse until a block is due."""
    return lambda start, stop: (weights[start:stop] @ table).toarray()


def score_text_and_transitions(
    weights: sparse.csr_array,
    table: sparse.csr_array,
    vectors: np.ndarray,
    *,
    weight: float = TRANSITION_WEIGHT,
) -> BlockScores:
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
