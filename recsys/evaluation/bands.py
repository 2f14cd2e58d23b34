"""Intervals of metric@k at every cut-off of a curve."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from scipy import special

from recsys.evaluation.metrics import Metric, per_user
from recsys.evaluation.significance import CONFIDENCE

QUANTILE: Final = float(special.ndtri((1 + CONFIDENCE) / 2))


def curve_band(
    ranks: np.ndarray, metric: Metric, cutoffs: Sequence[int], owner: np.ndarray | None = None
) -> dict[str, list[float]]:
    """Return the 95% normal interval of a metric's mean at each cut-off, under `low` and `high`, within 0 and 1.

    mean +- z x standard error; rows of one user count together (Cameron and Miller, "A practitioner's guide to
    cluster-robust inference", 2015, for a mean).

    Parameters
    ----------
    ranks
        int64 [N] ranks of the targets.
    metric
        One of `METRICS`.
    owner
        int64 [N]: the user of each row, any numbers; None: each row is a user.
    """
    low: list[float] = []
    high: list[float] = []
    if owner is not None:
        owner = np.unique(owner, return_inverse=True)[1]
    for k in cutoffs:
        mean, error = _mean_and_error(per_user(ranks, metric, k), owner)
        low.append(max(mean - QUANTILE * error, 0.0))
        high.append(min(mean + QUANTILE * error, 1.0))
    return {"low": low, "high": high}


def _mean_and_error(values: np.ndarray, owner: np.ndarray | None) -> tuple[float, float]:
    """Return the mean and its standard error; 0 and 0 for no rows, an error of 0 for one user."""
    if not len(values):
        return 0.0, 0.0
    mean = float(values.mean())
    centred = values - mean
    sums = centred if owner is None else np.bincount(owner, weights=centred)
    users = len(sums)
    if users < 2:
        return mean, 0.0
    return mean, float(np.sqrt((sums**2).sum() * users / (users - 1))) / len(values)
