"""Drift between the new rows and the weeks before, by the population stability index.

PSI = sum over bins of (p - q) ln(p / q), for the shares p of the new rows and q of those before. Without drift, PSI is
distributed as (1/n + 1/m) times chi-squared of B - 1 degrees of freedom, for B bins and n and m independent rows
(Yurdakul and Naranjo, "Statistical properties of the population stability index", Journal of Risk Model Validation
2020). Rows of one user depend on each other, so users are counted for n and m.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from scipy import special

from recsys.gate.check import Check, at_most, skipped, unless_off

SURE: Final = 0.999  # a night checks some ten distributions, and many nights follow
FEWEST_USERS: Final = 20
SMOOTHING: Final = 0.5  # added to each bin: an empty one has no logarithm


def stability(before: np.ndarray, now: np.ndarray) -> float:
    """Return the population stability index of two arrays of counts by bin.

    >>> stability(np.array([50.0, 50.0]), np.array([50.0, 50.0]))
    0.0
    """
    old, new = (counts + SMOOTHING for counts in (before, now))
    p, q = new / new.sum(), old / old.sum()
    return float(((p - q) * np.log(p / q)).sum())


def by_chance(bins: int, users_before: int, users_now: int) -> float:
    """Return the index that chance alone exceeds once in a thousand times."""
    if bins < 2:
        return 0.0
    return float(special.chdtri(bins - 1, 1 - SURE) * (1 / users_before + 1 / users_now))


def check_drift(
    name: str,
    labels: list[str],
    before: np.ndarray,
    now: np.ndarray,
    *,
    users_before: int,
    users_now: int,
    limit: float | None,
) -> Check:
    """Compare the drift of one distribution with its limit plus what chance explains.

    Parameters
    ----------
    labels, before, now
        Bins, and the counts in them of the rows before and of the new rows.
    users_before, users_now
        Users of these rows.
    """
    name = f"drift of {name}"

    def make(most: float) -> Check:
        users = min(users_before, users_now)
        if users < FEWEST_USERS:
            return skipped(name, f"{users} users are too few to compare ({FEWEST_USERS} are needed).", most)
        value = stability(before, now)
        shares = [(counts + SMOOTHING) / (counts + SMOOTHING).sum() for counts in (before, now)]
        moved = int(np.argmax(np.abs((shares[1] - shares[0]) * np.log(shares[1] / shares[0]))))
        sentence = (
            f"PSI {value:.2f} between the new rows and those before; {labels[moved]} went from {shares[0][moved]:.0%} "
            f"to {shares[1][moved]:.0%}."
        )
        return at_most(name, value, most + by_chance(len(before), users_before, users_now), sentence)

    return unless_off(name, limit, make)


def popularity_bins(older: np.ndarray, bins: int = 10) -> np.ndarray:
    """Return the bin of each item, int64: equal shares of the older events, most popular items first; the last bin is
    for items without one.

    Parameters
    ----------
    older
        Events of each item, before those that are compared.
    """
    order = np.argsort(-older, kind="stable")
    reached = np.cumsum(older[order]) - older[order] / 2
    found = np.empty(len(older), dtype=np.int64)
    found[order] = np.minimum((reached / max(float(older.sum()), 1.0) * bins).astype(np.int64), bins - 1)
    found[older == 0] = bins
    return found
