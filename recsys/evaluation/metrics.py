"""Accuracy from the ranks of held-out items, for one target a user or several.

A rank counts from 1; a target that is not ranked has a rank beyond every cut-off. Sources of the formulas: Järvelin and
Kekäläinen, "Cumulated gain-based evaluation of IR techniques", TOIS 2002 (NDCG); Manning, Raghavan and Schütze,
"Introduction to Information Retrieval", chapter 8 (precision, recall, average precision, reciprocal rank).

Shapes: U users, T targets of all users together, K = largest cut-off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from recsys.columns import metric_name

Metric = Literal["hr", "ndcg", "mrr", "recall", "precision", "map"]
METRICS: Final[tuple[Metric, ...]] = ("hr", "ndcg", "mrr")  # with one target a user the others follow from these
FURTHER: Final[tuple[Metric, ...]] = ("recall", "precision", "map")
MISS: Final = np.iinfo(np.int32).max  # rank of a target that cannot be ranked, beyond every cut-off


def per_user(ranks: np.ndarray, metric: Metric, k: int, offsets: np.ndarray | None = None) -> np.ndarray:
    """Return one metric of every user, float64 [U]. The mean over users is the metric.

    With R(u) the ranks of a user's targets, and H(u) those of them that are at most k:

    - hr: 1 if H(u) is not empty, else 0;
    - recall: |H(u)| / |R(u)|;
    - precision: |H(u)| / k;
    - ndcg: sum of 1 / log2(r + 1) over H(u), divided by the same sum over the ranks 1 to min(k, |R(u)|);
    - mrr: 1 / min H(u), or 0;
    - map: sum over H(u) of (targets at ranks up to r) / r, divided by |R(u)|, as trec_eval and ranx divide it.

    Parameters
    ----------
    ranks
        int64 [U], one target a user; with `offsets` int64 [T], in any order within a user.
    offsets
        int64 [U + 1]: user `u` owns `ranks[offsets[u]:offsets[u + 1]]`.

    Raises
    ------
    ValueError
        A user has no target.

    >>> per_user(np.array([1, 3, 11]), "ndcg", 10)
    array([1. , 0.5, 0. ])
    >>> per_user(np.array([1, 11, 2, 4]), "recall", 10, offsets=np.array([0, 2, 4]))
    array([0.5, 1. ])
    """
    if offsets is not None:
        return _of_several(ranks, metric, k, offsets)
    hit = ranks <= k
    if metric in ("hr", "recall"):
        return hit.astype(np.float64)
    if metric == "precision":
        return hit / k
    if metric == "ndcg":
        return np.where(hit, 1.0 / np.log2(ranks + 1.0), 0.0)
    return np.where(hit, 1.0 / ranks, 0.0)


def _of_several(ranks: np.ndarray, metric: Metric, k: int, offsets: np.ndarray) -> np.ndarray:
    counts = np.diff(offsets)
    if not (counts > 0).all():
        raise ValueError(f"user {int(np.flatnonzero(counts < 1)[0])} has no target, so no metric")
    if not len(counts):
        return np.zeros(0)
    if metric in ("hr", "mrr"):
        return per_user(np.minimum.reduceat(ranks, offsets[:-1]), metric, k)
    owner = np.repeat(np.arange(len(counts)), counts)
    order = np.lexsort((ranks, owner))  # owner is sorted already: ranks ascend within each user
    ranks = ranks[order]
    hit = ranks <= k

    def summed(gains: np.ndarray | float) -> np.ndarray:
        return np.bincount(owner, weights=np.where(hit, gains, 0.0), minlength=len(counts))

    if metric == "recall":
        return summed(1.0) / counts
    if metric == "precision":
        return summed(1.0) / k
    if metric == "map":
        place = np.arange(1, len(ranks) + 1) - np.repeat(offsets[:-1] - offsets[0], counts)
        return summed(place / ranks) / counts
    ideal = np.cumsum(1.0 / np.log2(np.arange(2, min(k, int(counts.max())) + 2)))
    return summed(1.0 / np.log2(ranks + 1.0)) / ideal[np.minimum(counts, k) - 1]


def accuracy(
    ranks: np.ndarray,
    cutoffs: Sequence[int],
    part: str | None = None,
    metrics: Sequence[Metric] = METRICS,
    offsets: np.ndarray | None = None,
) -> dict[str, float]:
    """Return the metrics' means at each cut-off, by name (`test/ndcg_at_10`); 0 for no users."""
    return {
        metric_name(metric, k, part): float(per_user(ranks, metric, k, offsets).mean()) if len(ranks) else 0.0
        for k in cutoffs
        for metric in metrics
    }


def curve(ranks: np.ndarray, metric: Metric, cutoffs: Sequence[int]) -> list[float]:
    """Return a metric of `METRICS` at ascending cut-offs for one target a user; 0 for no users.

    The counts of each rank suffice, so that thirty cut-offs cost as much as one.
    """
    places = np.arange(1, max(cutoffs) + 1)
    counts = np.bincount(ranks[ranks <= places[-1]], minlength=len(places) + 1)[1:]
    summed = np.cumsum(counts * per_user(places, metric, len(places)))
    return [float(summed[k - 1]) / max(len(ranks), 1) for k in cutoffs]
