"""Comparison of evaluations on the same test part: paired differences to the first, tests, and one sentence each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

import numpy as np
import polars as pl

from recsys.columns import USER_ID, metric_name
from recsys.errors import InputError
from recsys.evaluation.metrics import Metric, per_user
from recsys.evaluation.significance import CONFIDENCE, PairedTest, holm, paired_test
from recsys.evaluation.users import STAND_INS, TARGET, UserValues

DEFAULT: Final = "ndcg@10"
FEW: Final = 20  # users below which nothing is decided: resampling so few says little of others
_METRIC: Final = re.compile(r"(?:test/)?([a-z]+)(?:@|_at_)([1-9]\d*)")


def parse_metric(text: str) -> tuple[Metric, int]:
    """Read `ndcg@10` or `test/ndcg_at_10` as a metric and its cut-off.

    Raises
    ------
    InputError
        It is no metric that has a value for each user.
    """
    found = _METRIC.fullmatch(text.strip().lower())
    for metric in get_args(Metric):
        if found and found[1] == metric:
            return metric, int(found[2])
    raise InputError(
        f"--metric {text} has no value per user; choose one of {', '.join(get_args(Metric))} with a cut-off, such as "
        f"{DEFAULT}."
    )


def compare_runs(
    runs: Mapping[str, UserValues], metrics: Sequence[tuple[Metric, int]] = (("ndcg", 10),), seed: int = 0
) -> dict[str, Any]:
    """Compare each run with the first, user by user; JSON-friendly.

    Parameters
    ----------
    runs
        Two or more by label.
    metrics
        Metrics and cut-offs; all comparisons are one family for the correction.
    seed
        Of the bootstrap.

    Returns
    -------
    dict
        `users`, `test` (digest of users and targets), `runs` (label, facts and means), `notes`, and `comparisons`:
        `run`, `reference`, `metric`, `difference`, `low`, `high`, `p` and `p_wilcoxon` (both after Holm's correction),
        `p_uncorrected`, `p_wilcoxon_uncorrected`, `smallest_detectable`, `outcome` ("better", "worse" or
        "undecided") and `verdict`.

    Raises
    ------
    InputError
        The runs' test parts differ.
    """
    reference, *others = runs
    check_same_test(runs)
    owner = _owners(runs[reference])
    values = {label: _values(run, metrics) for label, run in runs.items()}  # [rows, M] each, in the same order
    pairs = [(other, number) for other in others for number in range(len(metrics))]
    tests = [
        paired_test(values[other][:, number] - values[reference][:, number], np.random.default_rng(seed), owner)
        for other, number in pairs
    ]
    by_bootstrap, by_wilcoxon = holm([test.p_bootstrap for test in tests]), holm([test.p_wilcoxon for test in tests])
    comparisons = []
    for (other, number), test, p, p_wilcoxon in zip(pairs, tests, by_bootstrap, by_wilcoxon, strict=True):
        metric, k = metrics[number]
        outcome = "undecided" if p >= 1 - CONFIDENCE or test.n < FEW else "better" if test.mean > 0 else "worse"
        comparisons.append(
            {
                "run": other,
                "reference": reference,
                "metric": metric_name(metric, k),
                "difference": test.mean,
                "low": test.low,
                "high": test.high,
                "p": p,
                "p_wilcoxon": p_wilcoxon,
                "p_uncorrected": test.p_bootstrap,
                "p_wilcoxon_uncorrected": test.p_wilcoxon,
                "smallest_detectable": test.detectable,
                "outcome": outcome,
                "verdict": verdict(other, reference, f"{metric.upper()}@{k}", test, p, outcome),
            }
        )
    means = {label: own.mean(axis=0).tolist() for label, own in values.items()}
    names = [metric_name(metric, k) for metric, k in metrics]
    return {
        "users": tests[0].n,
        "test": runs[reference].digest(),
        "runs": [
            {"run": label, **run.about, "metrics": dict(zip(names, means[label], strict=True))}
            for label, run in runs.items()
        ],
        "notes": _notes(runs),
        "comparisons": comparisons,
    }


def check_same_test(runs: Mapping[str, UserValues]) -> None:
    """Refuse runs whose users or targets differ from the first run's.

    Raises
    ------
    InputError
        They do; says how many users the test parts have, and share with the same target.
    """
    (label, first), *others = runs.items()
    for other, run in others:
        if run.digest() != first.digest():
            private = any(one.about.get(STAND_INS) for one in (first, run))
            names = ", or name bundles' folders: MLflow's users are pseudonyms of their warehouse" if private else ""
            pairs = [one.frame.select(pl.col(USER_ID, TARGET).cast(pl.String)).unique() for one in (first, run)]
            shared = len(pairs[0].join(pairs[1], on=[USER_ID, TARGET], how="semi", nulls_equal=True))
            raise InputError(
                f"{label} and {other} were measured on different test parts ({len(first.frame):,} and "
                f"{len(run.frame):,} rows, {shared:,} with the same user and target), so their difference would mean "
                f"nothing; evaluate both bundles on the same tables with the same split{names}."
            )


def verdict(run: str, reference: str, metric: str, test: PairedTest, p: float, outcome: str) -> str:
    """Return one plain sentence about a comparison."""
    if outcome == "undecided":
        found = f"{run} and {reference} cannot be told apart by {metric} on {test.n:,} users"
        if not test.detectable:
            return f"{found}: no user's value differs."
        return f"{found}: a true difference of {test.detectable:.4f} would be found in four of five such tests."
    return (
        f"{run} is {outcome} than {reference} by {abs(test.mean):.4f} {metric} "
        f"(95% interval {test.low:+.4f} to {test.high:+.4f}, p = {p:.2g})."
    )


def _sorted(run: UserValues) -> pl.DataFrame:
    """Return user, target and row, by user and target, so that equal test parts stand in the same order."""
    ids = run.frame.select(pl.col(USER_ID, TARGET).cast(pl.String)).with_row_index("row")
    return ids.sort(USER_ID, TARGET, "row")


def _owners(run: UserValues) -> np.ndarray:
    """Return the user of each sorted row, int64 [rows]."""
    return _sorted(run)[USER_ID].rle_id().to_numpy().astype(np.int64)


def _values(run: UserValues, metrics: Sequence[tuple[Metric, int]]) -> np.ndarray:
    """Return the metrics of each sorted row, float64 [rows, M]."""
    ranks = run.ranks()[_sorted(run)["row"].to_numpy()]
    return np.stack([per_user(ranks, metric, k) for metric, k in metrics], axis=1)


def _notes(runs: Mapping[str, UserValues]) -> list[str]:
    notes = []
    if len({run.about.get("exclude_seen") for run in runs.values()}) > 1:
        notes.append("The runs differ in evaluate.exclude_seen, so that they rank different items.")
    if any(run.frame[USER_ID].is_duplicated().any() for run in runs.values()):
        notes.append("Users have several targets; the bootstrap draws users with all of theirs.")
    return notes
