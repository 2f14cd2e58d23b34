"""Figures of the night against the champion's and the baselines', question by question on the same test part.

A difference is beyond chance if its bootstrap interval excludes it. The intervals of a night hold together: for m
comparisons each has the level 1 - (1 - confidence) / m (Bonferroni), so that equal rankers are called different in
at most 1 - confidence of all nights. Users are resampled, each with all of its questions.

Shapes: Q questions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

import numpy as np

from recsys.evaluation.metrics import Metric, per_user
from recsys.evaluation.runs import FEW
from recsys.evaluation.significance import intervals
from recsys.gate.check import Check, at_least, unless_off

RESAMPLES: Final = 10_000  # an interval of 99.5% ends between the 25th and the 26th of them
Outcome = Literal["better", "worse", "undecided"]
TEST_USERS: Final = "test users"  # the check of their number


BASELINE_USERS: Final = 60  # from which a baseline decides: as many as the fit of a blend needs


@dataclass(frozen=True, kw_only=True, slots=True)
class Lead:
    """The lead of the night's ranker over another one by one metric.

    Attributes
    ----------
    difference, low, high
        Mean of the night's value minus the other's over all questions, and its interval.
    value
        The other's mean.
    """

    metric: str
    difference: float
    low: float
    high: float
    value: float
    outcome: Outcome

    @property
    def margin(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


def split_metric(text: str) -> tuple[Metric, int]:
    """Return the metric and the cut-off of a setting such as "ndcg@10"."""
    metric, _, k = text.partition("@")
    return cast(Metric, metric), int(k)


def leads(
    ranks: np.ndarray,
    others: Mapping[str, np.ndarray],
    metrics: Sequence[str],
    *,
    owner: np.ndarray,
    confidence: float,
    tolerance: float,
    seed: int,
) -> dict[str, list[Lead]]:
    """Return the leads over each other ranker, one for each metric.

    Parameters
    ----------
    ranks, others
        int64 [Q]: ranks of the targets, the night's and by name the others'.
    metrics
        Such as "ndcg@10".
    owner
        int64 [Q]: the user of each question.
    tolerance
        "worse" needs an interval below its negative, "better" one above 0. With fewer than `FEW` users nothing is
        decided.
    """
    comparisons = max(1, len(others) * len(metrics))
    level = 1 - (1 - confidence) / comparisons
    few = len(np.unique(owner)) < FEW
    found: dict[str, list[Lead]] = {}
    for name, theirs in others.items():
        found[name] = []
        for metric in metrics:
            kind, k = split_metric(metric)
            own, other = per_user(ranks, kind, k), per_user(theirs, kind, k)
            rng = np.random.default_rng((seed, 2))
            (interval,) = intervals((own - other)[:, None], rng, owner, confidence=level, resamples=RESAMPLES)
            outcome: Outcome = "undecided"
            if not few and interval.high < -tolerance:
                outcome = "worse"
            elif not few and interval.low > 0:
                outcome = "better"
            found[name].append(
                Lead(
                    metric=metric,
                    difference=interval.mean,
                    low=interval.low,
                    high=interval.high,
                    value=float(other.mean()),
                    outcome=outcome,
                )
            )
    return found


def check_test_users(users: int, limit: float | None) -> Check:
    """Compare the number of users with a test question with its limit."""
    who = "1 user has" if users == 1 else f"{users:,} users have"

    def compared(least: float) -> Check:
        wanted = f", and gate.min_test_users = {least:,.0f}" if users < least else ""
        return at_least(TEST_USERS, users, least, f"{who} a test question{wanted}.")

    return unless_off(TEST_USERS, limit, compared)


def undecided_for_few(baselines: Mapping[str, list[Lead]], users: int) -> dict[str, list[Lead]]:
    """Return the leads over baselines, of which none is a reason where the users are fewer than `BASELINE_USERS`.

    So small a shop has no blend, and counting often ranks better than a model alone. The night says so; a table of the
    model is worth more than none.
    """
    if users >= BASELINE_USERS:
        return dict(baselines)
    return {name: [replace(lead, outcome="undecided") for lead in found] for name, found in baselines.items()}


def best(baselines: Mapping[str, list[Lead]]) -> str | None:
    """Return the baseline with the highest value of the first metric; None where there is none."""
    return max(baselines, key=lambda name: baselines[name][0].value) if baselines else None


def as_dict(lead: Lead) -> dict[str, Any]:
    """Return a lead for the verdict's JSON."""
    return {name: getattr(lead, name) for name in ("difference", "low", "high", "outcome", "value")}
