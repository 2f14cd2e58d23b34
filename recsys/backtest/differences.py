"""Paired differences of what was served to everything else, by night and over all nights, and a sentence of verdict.

Everything is paired: the same users, the same targets. Over all nights a user may be asked several times; resamples
draw users with all of their nights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import polars as pl

from recsys.backtest.questions import KNOWN
from recsys.evaluation.significance import intervals, paired_test

OWNER = "user"  # the user's number, the same in all nights
Outcome = str  # "better", "worse" or "undecided"


def column(ranker: str, metric: str) -> str:
    """Name of a column of values: of which ranker, of which metric."""
    return f"{ranker}|{metric}"


def rankers(values: pl.DataFrame) -> list[str]:
    """The rankers that values are of, in their order."""
    return list(dict.fromkeys(name.rpartition("|")[0] for name in values.columns if "|" in name))


def differences(
    values: pl.DataFrame, reference: str, metrics: Sequence[str], seed: int = 0
) -> dict[str, dict[str, Any]]:
    """The reference minus each other ranker, over users with a history.

    Parameters
    ----------
    values
        A row for each question: `user`, `known`, and a column for each ranker and metric; null where a ranker served
        nothing that night, and the question then does not count for it.

    Returns
    -------
    dict
        By ranker and metric: `n` users, `mean`, `low`, `high` (95%), `p_bootstrap`, `p_wilcoxon`, `detectable`, and
        the `outcome` for the reference: better, worse or undecided.
    """
    known = values.filter(KNOWN)
    found: dict[str, dict[str, Any]] = {}
    for other in rankers(values):
        if other == reference:
            continue
        for metric in metrics:
            ours, theirs = column(reference, metric), column(other, metric)
            rows = known.select(OWNER, ours, theirs).drop_nulls()
            if rows.is_empty():
                continue
            test = paired_test(
                (rows[ours] - rows[theirs]).to_numpy(), np.random.default_rng((seed, 20)), rows[OWNER].to_numpy()
            )
            found.setdefault(other, {})[metric] = asdict(test) | {"outcome": outcome(test.low, test.high)}
    return found


def outcome(low: float, high: float) -> Outcome:
    """Return whether an interval lies above zero, below it, or on both sides.

    >>> outcome(0.01, 0.02), outcome(-0.01, 0.02)
    ('better', 'undecided')
    """
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def overall(values: pl.DataFrame, metrics: Sequence[str], seed: int = 0) -> dict[str, dict[str, Any]]:
    """Mean of each ranker and metric over all questions of users with a history, with 95% intervals.

    Where a ranker served nothing in some night, its questions do not count.
    """
    known = values.filter(KNOWN)
    found: dict[str, dict[str, Any]] = {}
    for ranker in rankers(values):
        for metric in metrics:
            rows = known.select(OWNER, column(ranker, metric)).drop_nulls()
            if len(rows):
                (interval,) = intervals(
                    rows.select(column(ranker, metric)).to_numpy(),
                    np.random.default_rng((seed, 21)),
                    rows[OWNER].to_numpy(),
                )
                found.setdefault(ranker, {})[metric] = asdict(interval)
    return found


def verdict(
    means: Mapping[str, Mapping[str, Any]],
    differences: Mapping[str, Mapping[str, Any]],
    *,
    reference: str,
    former: str,
    baselines: Sequence[str],
    metric: str,
    nights: int,
    questions: int,
) -> str:
    """Say in one sentence what the nights have shown: beside yesterday's table, and beside the best baseline."""
    if reference not in means:
        return "No night had a question of a user with a history: nothing is decided."
    name, _, k = metric.partition("_at_")
    said = [
        f"Over {nights} night{'s' if nights != 1 else ''} and {questions:,} questions of users with a history, what "
        f"was served reaches {name.upper()}@{k} {means[reference][metric]['mean']:.4f}"
    ]
    if former in differences:
        said.append(_beside("the former night's table served again", differences[former][metric]))
    there = [name for name in baselines if name in means]
    if there:
        best = max(there, key=lambda name: means[name][metric]["mean"])
        said.append(_beside(f"the best baseline ({best})", differences[best][metric]))
    return "; ".join(said) + "."


def _beside(what: str, test: Mapping[str, Any]) -> str:
    ends = sorted((abs(test["low"]), abs(test["high"])))
    if test["outcome"] == "undecided":
        return f"beside {what} it is undecided ({test['mean']:+.4f} [{test['low']:+.4f}, {test['high']:+.4f}])"
    words = "it is better than" if test["outcome"] == "better" else "it is worse than"
    return f"{words} {what} by {abs(test['mean']):.4f} [{ends[0]:.4f}, {ends[1]:.4f}]"
