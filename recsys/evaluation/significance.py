"""Confidence intervals, paired tests between runs, correction for several of them, and the detectable difference.

Two rankers rank the same users, so everything is paired: the difference is taken user by user. Separate intervals of
the two means would hide most real differences, and an unpaired test is wrong here.

The bootstrap draws users with replacement. Metrics have few distinct values, so a resample is drawn as the counts of
the distinct values, from a multinomial distribution; that is the same distribution and does not grow with the users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from scipy import stats

RESAMPLES: Final = 1000  # draws of all users, with replacement
PAIRED_RESAMPLES: Final = 10_000  # of a test: its p-value is at least 1 / 5,001
CONFIDENCE: Final = 0.95  # share of the resampled means inside an interval
POWER: Final = 0.8  # probability that a difference of the detectable size is found
CHUNK_DRAWS: Final = 4_000_000  # counts of one chunk of resamples


@dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean over users and its percentile interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedTest:
    """A mean difference over users, and whether chance explains it.

    Attributes
    ----------
    n
        Users.
    mean, low, high
        Mean difference, and its 95% bootstrap interval.
    p_bootstrap
        Two-sided, from the same resamples: below 0.05 if the interval excludes 0.
    p_wilcoxon
        Two-sided signed-rank test (Wilcoxon, 1945); 1 if no user differs.
    detectable
        Smallest true difference that a two-sided test at 5% finds with 80% power for this n and spread.
    """

    n: int
    mean: float
    low: float
    high: float
    p_bootstrap: float
    p_wilcoxon: float
    detectable: float


def intervals(values: np.ndarray, rng: np.random.Generator, resamples: int = RESAMPLES) -> list[Interval]:
    """Return percentile bootstrap intervals of the means of several per-user values, from the same resamples.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.

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
    means = np.concatenate(list(_resampled_means(values, rng, resamples)))  # [resamples, M]
    lows, highs = _ends(means)
    return [
        Interval(mean=float(mean), low=float(low), high=float(high))
        for mean, low, high in zip(values.mean(axis=0), lows, highs, strict=True)
    ]


def paired_test(differences: np.ndarray, rng: np.random.Generator) -> PairedTest:
    """Test whether two rankers differ, from their difference for each user, float64 [U].

    Sources: Efron and Tibshirani, 1993, chapter 15 (bootstrap); Wilcoxon, 1945; Cohen, "Statistical power analysis",
    1988 (detectable difference: (z of 97.5% + z of 80%) x standard error).

    Raises
    ------
    ValueError
        There are no users.
    """
    if not len(differences):
        raise ValueError("a test needs at least one user")
    means = np.concatenate(list(_resampled_means(differences[:, None], rng, PAIRED_RESAMPLES)))[:, 0]
    low, high = _ends(means)
    smaller = min(int((means <= 0).sum()), int((means >= 0).sum()))
    error = differences.std(ddof=1) / np.sqrt(len(differences)) if len(differences) > 1 else 0.0
    quantiles = stats.norm.ppf([(1 + CONFIDENCE) / 2, POWER])
    changed = differences[differences != 0]
    return PairedTest(
        n=len(differences),
        mean=float(differences.mean()),
        low=float(low),
        high=float(high),
        p_bootstrap=min(1.0, 2 * (1 + smaller) / (1 + len(means))),
        p_wilcoxon=float(stats.wilcoxon(changed).pvalue) if len(changed) else 1.0,
        detectable=float(quantiles.sum() * error),
    )


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for being several, in their order: each below 5% holds together with all others.

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of Statistics 1979.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    corrected, largest = [0.0] * len(p_values), 0.0
    for step, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - step) * p_values[place]))
        corrected[place] = largest
    return corrected


def _ends(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    tail = (1.0 - CONFIDENCE) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return low, high


def _resampled_means(values: np.ndarray, rng: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Yield means [chunk, M] of resamples, in chunks."""
    users = len(values)
    counted = pl.from_numpy(values).group_by(pl.all()).agg(pl.len().alias("times")).sort(pl.all())
    distinct = counted.drop("times").to_numpy()  # [K, M]
    shares = counted["times"].to_numpy() / users
    chunk = max(1, CHUNK_DRAWS // len(shares))
    for start in range(0, resamples, chunk):
        drawn = rng.multinomial(users, shares, size=min(chunk, resamples - start))  # [chunk, K]
        yield drawn @ distinct / users
