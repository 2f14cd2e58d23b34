"""Confidence intervals of metrics and of their differences: a paired bootstrap over users.

Both models rank the same users, so the bootstrap resamples their difference user by user. Separate intervals of the two
means would hide most real differences, and an unpaired test is wrong here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

RESAMPLES = 1000  # draws of all users, with replacement
CONFIDENCE = 0.95  # share of the resampled means inside an interval
CHUNK_DRAWS = 4_000_000  # draws of one chunk of resamples


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over users and its percentile interval."""

    mean: float
    low: float
    high: float


def intervals(values: np.ndarray, rng: np.random.Generator) -> list[Interval]:
    """Return percentile bootstrap intervals of the means of several per-user values, from the same resamples.

    Parameters
    ----------
    values
        float64 [U, M]: M metrics, or differences of metrics, for each user.
    rng
        Random generator, seeded by the caller.

    Raises
    ------
    ValueError
        There are no users.
    """
    if not len(values):
        raise ValueError("an interval needs at least one user")
    means = np.concatenate(list(_resampled_means(values, rng)))  # [RESAMPLES, M]
    tail = (1.0 - CONFIDENCE) / 2.0
    lows, highs = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return [
        Interval(mean=float(mean), low=float(low), high=float(high))
        for mean, low, high in zip(values.mean(axis=0), lows, highs, strict=True)
    ]


def _resampled_means(values: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Yield means [chunk, M] of resamples: count the draws of each user, then multiply."""
    users = len(values)
    chunk = max(1, CHUNK_DRAWS // users)
    for start in range(0, RESAMPLES, chunk):
        rows = min(chunk, RESAMPLES - start)
        drawn = rng.integers(users, size=(rows, users))
        drawn += np.arange(rows)[:, None] * users
        counts = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        yield counts.astype(np.float64) @ values / users
