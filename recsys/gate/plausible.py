"""Checks for figures that cannot be right: too good to be true, the sign of a target that leaked, or no hit at all.

Each compares the night's figure with another one, and fails only beyond chance.

Shapes: Q questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
from scipy import special

from recsys.evaluation.significance import intervals
from recsys.gate.check import Check, at_least, at_most, skipped, unless_chance, unless_off
from recsys.gate.figures import BASELINE_USERS, RESAMPLES

FEWEST: Final = 20  # users
SURE: Final = 0.999  # one-sided
# of another ranker where the night has none: of two equally good ones (hits by Poisson) one has none and the other at
# least so many on less than 5% of all nights, whatever their hit rate
SURE_HITS: Final = 3


def check_jump(
    name: str, whose: str, own: np.ndarray, other: np.ndarray, owner: np.ndarray, seed: int, limit: float | None
) -> Check:
    """Compare a figure with a multiple of another ranker's on the same questions.

    Parameters
    ----------
    whose
        The other one, as the sentence names it.
    own, other
        float64 [Q] values of a metric.
    owner
        int64 [Q]: the user of each question.
    """

    def make(most: float) -> Check:
        users = len(np.unique(owner))
        if users < FEWEST:
            return skipped(name, f"{users} users are too few ({FEWEST} are needed).", most)
        if not other.any():
            return skipped(name, f"The figure of {whose} is 0.", most)
        if not own.any():
            return skipped(name, "The night's figure is 0.", most)
        times = float(own.mean() / other.mean())
        excess = (own - most * other)[:, None]
        (interval,) = intervals(
            excess, np.random.default_rng((seed, 3)), owner, confidence=2 * SURE - 1, resamples=RESAMPLES
        )
        sentence = f"The figure is {times:.1f} times that of {whose}."
        return _suspected(unless_chance(at_most(name, times, most, sentence), interval.low > 0))

    return unless_off(name, limit, make)


def check_over_validation(
    test: np.ndarray, validation: float | None, validation_users: int, limit: float | None
) -> Check:
    """Compare the figure on test with a multiple of the same one on validation.

    Parameters
    ----------
    test
        float64 [Q] values of a metric.
    validation, validation_users
        Mean of the same metric on validation, and of how many users; None: validation was not measured.
    """
    name = "test against validation"

    def make(most: float) -> Check:
        if validation is None:
            return skipped(name, "There is no figure of validation.", most)
        if not validation:
            return skipped(name, "The figure on validation is 0.", most)
        if not test.any():
            return skipped(name, "The figure on test is 0.", most)
        if min(len(test), validation_users) < FEWEST:
            return skipped(name, f"{min(len(test), validation_users)} users are too few ({FEWEST} are needed).", most)
        times = float(test.mean() / validation)
        spread = float(test.var()) * (1 / len(test) + most**2 / validation_users)
        beyond = test.mean() - most * validation > special.ndtri(SURE) * math.sqrt(spread)
        sentence = f"{times:.2f} times the figure on validation ({test.mean():.4f} to {validation:.4f})."
        return _suspected(unless_chance(at_most(name, times, most, sentence), bool(beyond)))

    return unless_off(name, limit, make)


def check_promise(hits: np.ndarray, promised: float | None, limit: float | None) -> Check:
    """Compare the hit rate that the served table reached among the new events with what its own figures promised.

    Parameters
    ----------
    hits
        bool, of each user of that table with a new event: whether its next item was among the first 10.
    promised
        Hit rate at 10 of that release's own evaluation.
    """
    name = "promise of the table before"

    def make(least: float) -> Check:
        if promised is None:
            return skipped(name, "The release before has no hit rate.", least)
        if not promised:
            return skipped(name, "The hit rate of the release before is 0.", least)
        if len(hits) < FEWEST:
            return skipped(name, f"{len(hits)} of its users have new events ({FEWEST} are needed).", least)
        kept = float(hits.mean())
        sentence = (
            f"The table served now held the next item of {kept:.1%} of {len(hits):,} users with new events, and its "
            f"own figures said {promised:.1%}."
        )
        # a binomial test: so few hits have a chance of one in a thousand
        beyond = special.bdtr(int(hits.sum()), len(hits), least * promised) < 1 - SURE
        return _suspected(unless_chance(at_least(name, kept / promised, least, sentence), bool(beyond)))

    return unless_off(name, limit, make)


def check_hits(own: np.ndarray, others: Mapping[str, np.ndarray], owner: np.ndarray) -> Check:
    """Keep back what answers no question where another ranker answers some.

    Parameters
    ----------
    own, others
        float64 [Q] values of a metric: the night's, and by name the other rankers'.
    owner
        int64 [Q]: the user of each question.
    """
    name = "any hit"
    users = len(np.unique(owner))
    if own.any():
        found = int((own > 0).sum())
        return at_least(name, found, 1, f"{found:,} of {len(own):,} test questions are answered.")
    if not any(values.any() for values in others.values()):
        return skipped(name, "No ranker answers a test question, so nothing can be compared.", 1)
    most = max(others, key=lambda other: int((others[other] > 0).sum()))
    hits = int((others[most] > 0).sum())
    sentence = f"The night answers none of {len(own):,} test questions; {most} answers {hits:,}."
    if users < BASELINE_USERS:
        return skipped(name, f"{sentence} {users} test users are too few to decide ({BASELINE_USERS} are needed).", 1)
    return unless_chance(at_least(name, 0, 1, sentence), hits >= SURE_HITS)


def _suspected(check: Check) -> Check:
    if not check.failed:
        return check
    advice = "Look for a target that leaks into training, a history or an attribute."
    return replace(check, sentence=f"{check.sentence} {advice}")
