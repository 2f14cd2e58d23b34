"""Checks for figures that are too good to be true: the signs of a target that leaked into the model.

Each compares the night's figure with a multiple of another one, and fails where it is above beyond chance.

Shapes: Q questions.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Final

import numpy as np
from scipy import special

from recsys.evaluation.significance import intervals
from recsys.gate.check import Check, at_least, at_most, skipped, unless_chance, unless_off
from recsys.gate.figures import RESAMPLES

FEWEST: Final = 20  # users
SURE: Final = 0.999  # one-sided


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
        if validation is None or not validation:
            return skipped(name, "There is no figure of validation.", most)
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
        if promised is None or not promised:
            return skipped(name, "The release before has no hit rate.", least)
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


def _suspected(check: Check) -> Check:
    if not check.failed:
        return check
    advice = "Look for a target that leaks into training, a history or an attribute."
    return replace(check, sentence=f"{check.sentence} {advice}")
