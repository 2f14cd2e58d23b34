"""Confidence intervals, paired tests between runs, correction for several of them, and the detectable difference.

Two rankers rank the same users, so everything is paired: the difference is taken user by user. Separate intervals of
the two means would hide most real differences, and an unpaired test is wrong here.

The bootstrap draws users with replacement, each with all of its rows: a user with several targets answers them alike.
Where users have few distinct values, a resample is drawn as the counts of the values, from a multinomial distribution;
that is the same distribution and does not grow with the users.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
from scipy import special

RESAMPLES: Final = 1000  # draws of all users, with replacement
PAIRED_RESAMPLES: Final = 10_000  # of a test: its p-value is at least 1 / 5,001
CONFIDENCE: Final = 0.95  # share of the resampled means inside an interval
POWER: Final = 0.8  # probability that a difference of the detectable size is found
CHUNK_DRAWS: Final = 4_000_000  # draws, or counts, of one chunk of resamples
FEW: Final = 20  # users for each distinct value, from which counts of values are faster to draw than users


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


def intervals(
    values: np.ndarray,
    rng: np.random.Generator,
    owner: np.ndarray | None = None,
    *,
    confidence: float = CONFIDENCE,
    resamples: int = RESAMPLES,
) -> list[Interval]:
    """Return percentile bootstrap intervals of the means of several values, from the same resamples of users.

    Source: Efron and Tibshirani, "An introduction to the bootstrap", 1993, chapter 13.

    Parameters
    ----------
    values
        float64 [N, M]: M metrics, or differences of metrics, in N rows.
    rng
        Random generator, seeded by the caller.
    owner
        int64 [N]: the user of each row, any numbers; None: each row is a user.
    confidence
        Share of the resampled means inside an interval.

    Raises
    ------
    ValueError
        There are no users.
    """
    if not len(values):
        raise ValueError("an interval needs at least one user")
    lows, highs = _ends(_resampled(*_by_user(values, owner), rng, resamples), confidence)
    return [
        Interval(mean=float(mean), low=float(low), high=float(high))
        for mean, low, high in zip(values.mean(axis=0), lows, highs, strict=True)
    ]


def paired_test(differences: np.ndarray, rng: np.random.Generator, owner: np.ndarray | None = None) -> PairedTest:
    """Test whether two rankers differ, from their difference in each row, float64 [N].

    Sources: Efron and Tibshirani, 1993, chapter 15 (bootstrap); Wilcoxon, 1945, on users' means; Cohen, "Statistical
    power analysis", 1988 (detectable difference: (z of 97.5% + z of 80%) x standard error of the mean over rows, whose
    rows of one user count together).

    Parameters
    ----------
    owner
        int64 [N]: the user of each row, any numbers; None: each row is a user.

    Raises
    ------
    ValueError
        There are no users.
    """
    from scipy import stats  # half a second of CPU, which who tests nothing is spared

    if not len(differences):
        raise ValueError("a test needs at least one user")
    sums, rows = _by_user(differences[:, None], owner)
    means = _resampled(sums, rows, rng, PAIRED_RESAMPLES)[:, 0]
    low, high = _ends(means)
    smaller = min(int((means <= 0).sum()), int((means >= 0).sum()))
    users, mean = len(rows), float(differences.mean())
    spread = (sums[:, 0] - mean * rows) / rows.mean()
    error = spread.std(ddof=1) / np.sqrt(users) if users > 1 else 0.0
    quantiles = special.ndtri([(1 + CONFIDENCE) / 2, POWER])
    changed = (sums[:, 0] / rows)[sums[:, 0] != 0]
    return PairedTest(
        n=users,
        mean=mean,
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


def _ends(means: np.ndarray, confidence: float = CONFIDENCE) -> tuple[np.ndarray, np.ndarray]:
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail], axis=0)
    return low, high


def _by_user(values: np.ndarray, owner: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Return each user's sums, float64 [U, M], and number of rows, float64 [U]."""
    if owner is None:
        return values, np.ones(len(values))
    users = np.unique(owner, return_inverse=True)[1]
    sums = [np.bincount(users, weights=column) for column in values.T]
    return np.stack(sums, axis=1), np.bincount(users).astype(np.float64)


def _resampled(sums: np.ndarray, rows: np.ndarray, rng: np.random.Generator, resamples: int) -> np.ndarray:
    """Return means over rows in resamples of users, float64 [resamples, M]."""
    values = np.column_stack([sums, rows])  # [U, M + 1]
    counted = pl.from_numpy(values).group_by(pl.all()).agg(pl.len().alias("times")).sort(pl.all())
    if FEW * len(counted) <= len(values):
        distinct = counted.drop("times").to_numpy()
        totals = _drawn_counts(distinct, counted["times"].to_numpy(), rng, resamples)
    else:
        totals = _drawn_users(values, rng, resamples)
    whole = np.concatenate(list(totals))
    means: np.ndarray = whole[:, :-1] / whole[:, -1:]
    return means


def _drawn_counts(
    distinct: np.ndarray, times: np.ndarray, rng: np.random.Generator, resamples: int
) -> Iterator[np.ndarray]:
    """Yield totals [chunk, M + 1] of resamples: draw how often each distinct value occurs, then multiply."""
    users = int(times.sum())
    chunk = max(1, CHUNK_DRAWS // len(times))
    for start in range(0, resamples, chunk):
        yield rng.multinomial(users, times / users, size=min(chunk, resamples - start)) @ distinct


def _drawn_users(values: np.ndarray, rng: np.random.Generator, resamples: int) -> Iterator[np.ndarray]:
    """Yield totals [chunk, M + 1] of resamples: count the draws of each user, then multiply."""
    users = len(values)
    chunk = max(1, CHUNK_DRAWS // users)
    for start in range(0, resamples, chunk):
        rows = min(chunk, resamples - start)
        drawn = rng.integers(users, size=(rows, users))
        drawn += np.arange(rows)[:, None] * users
        counts = np.bincount(drawn.ravel(), minlength=rows * users).reshape(rows, users)
        yield counts.astype(np.float64) @ values
