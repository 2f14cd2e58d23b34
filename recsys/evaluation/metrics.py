"""Metrics: accuracy from ranks, coverage and popularity of recommended lists.

One item is held out for each user, so HR@k equals recall@k and the ideal DCG is 1.

Shapes: U users, V items (arrays by code have V + 1 entries), k length of a list.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import numpy as np

from recsys.columns import PADDING, metric_name

Metric = Literal["hr", "ndcg", "mrr"]
METRICS: Final[tuple[Metric, ...]] = ("hr", "ndcg", "mrr")

BANDS: Final = (
    0.01,
    0.02,
    0.05,
    0.1,
    0.2,
    0.5,
    1.0,
)  # upper ends, as shares of the catalogue, most popular first


def per_user(ranks: np.ndarray, metric: Metric, k: int) -> np.ndarray:
    """Return one metric of every user, float64 [U], from ranks (1 is first). The mean over users is the metric.

    Within the first k: hr is 1, ndcg is 1 / log2(rank + 1), mrr is 1 / rank. Beyond k each is 0.

    >>> per_user(np.array([1, 3, 11]), "ndcg", 10)
    array([1. , 0.5, 0. ])
    """
    hit = ranks <= k
    if metric == "hr":
        return hit.astype(np.float64)
    if metric == "ndcg":
        return np.where(hit, 1.0 / np.log2(ranks + 1.0), 0.0)
    return np.where(hit, 1.0 / ranks, 0.0)


def accuracy(ranks: np.ndarray, cutoffs: Sequence[int], part: str | None = None) -> dict[str, float]:
    """Return HR, NDCG and MRR at each cut-off, by name (`test/ndcg_at_10`); 0 for no users."""
    return {
        metric_name(metric, k, part): float(per_user(ranks, metric, k).mean()) if len(ranks) else 0.0
        for k in cutoffs
        for metric in METRICS
    }


def coverage(top: np.ndarray, allowed: np.ndarray, k: int) -> float:
    """Return the share of recommendable items (`allowed` bool [V + 1]) that are in at least one user's first k."""
    possible = int(allowed.sum()) - int(allowed[PADDING])
    shown = np.unique(top[:, :k])
    return int((shown != PADDING).sum()) / possible if possible else 0.0


def popularity_bands(popularity: np.ndarray, codes: np.ndarray, bands: Sequence[float] = BANDS) -> np.ndarray:
    """Return the shares of `codes` by popularity band, float64 [bands], most popular first. They sum to 1.

    Parameters
    ----------
    popularity
        float32 [V + 1] training interactions; ties are ordered by code.
    codes
        Any int array of item codes; 0 is ignored.
    bands
        Ascending upper ends as shares of the catalogue: (0.01, 1.0) separates the most popular hundredth. A
        band may be empty in a small catalogue; the first one holds at least one item.
    """
    size = len(popularity) - 1
    order = np.argsort(-popularity[1:], kind="stable")  # [V]
    place = np.empty(size, dtype=np.int64)
    place[order] = np.arange(size)
    ends = np.maximum(np.round(np.asarray(bands) * size), 1)
    chosen = codes[codes != PADDING].astype(np.int64)
    counts = np.bincount(np.searchsorted(ends, place[chosen - 1], side="right"), minlength=len(bands))
    return counts / max(len(chosen), 1)
