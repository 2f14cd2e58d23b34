"""Comparison of a model with its baselines on the same held-out items: metrics, intervals, curves, examples.

Every number comes from ranks; scores exist for one block of users at a time.

Shapes: U users, V items (arrays by code have V + 1 entries).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from recsys.columns import PADDING, USER_ID, metric_name
from recsys.data.splits import HeldOut
from recsys.evaluation.metrics import BANDS, METRICS, Metric, accuracy, coverage, per_user, popularity_bands
from recsys.evaluation.ranking import MISS, Ranking, ScoreBlock, rank_targets
from recsys.evaluation.significance import CONFIDENCE, RESAMPLES, intervals
from recsys.settings import EvaluateSettings

MODEL: Final = "model"  # the model's vectors alone
BLEND: Final = "blend"  # the model together with the neighbour sources
PART: Final = "test"
HEADLINE: Final = 10  # cut-off of intervals, examples and popularity
EXAMPLES: Final = 3

Progress = Callable[[int, int | None, str], None]  # (done, total, text)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Scorer:
    """Any ranker: scores for a block of test users, and `allowed` bool [V + 1], the items it may recommend."""

    score_block: ScoreBlock
    allowed: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class EvaluationReport:
    """All measurements; JSON-friendly.

    Attributes
    ----------
    served
        Name of what the bundle serves: "model", or "blend" if it blends sources.
    metrics
        Metrics of the served ranker: `test/hr_at_10`, `test/ndcg_at_10`, `test/mrr_at_10`, `test/coverage_at_10` at
        every cut-off, and `test/cold_...` over targets without a training interaction, if there are any.
    baselines
        The same keys for each baseline. If a blend is served, the first one is "model".
    intervals
        `test/hr_at_10` and `test/ndcg_at_10` of the served ranker: mean and 95% bootstrap interval over users.
    differences
        Served ranker minus each baseline, with the paired interval; same keys.
    curves
        `cutoffs`, and under `hr`, `ndcg`, `mrr` a list of values for each name (the served ranker, then the baselines).
    popularity
        Spread of consumption and recommendations over items by popularity: `bands` (upper ends, shares of the
        catalogue), `consumed` (test targets), `recommended` (by name, the first 10 of every list).
    examples
        A few users: user_id, titles of the newest history and of the first 10 recommendations, the target's,
        and its rank (None: not ranked).
    report
        The protocol, and context of the numbers: ties, misses, short lists, cold targets, speed.
    """

    served: str
    metrics: dict[str, float]
    baselines: dict[str, dict[str, float]]
    intervals: dict[str, dict[str, float]]
    differences: dict[str, dict[str, dict[str, float]]]
    curves: dict[str, Any]
    popularity: dict[str, Any]
    examples: list[dict[str, Any]]
    report: dict[str, Any]


def evaluate_scorers(
    model: Scorer,
    baselines: Mapping[str, Scorer],
    *,
    held_out: HeldOut,
    popularity: np.ndarray,
    settings: EvaluateSettings,
    seed: int,
    labels: Sequence[str],
    encoding_seconds: float = 0.0,
    progress: Progress | None = None,
    served: str = MODEL,
) -> EvaluationReport:
    """Rank with the model and with each baseline, and compare them.

    Parameters
    ----------
    model, baselines
        The measured ranker and its references, on the users of `held_out`.
    held_out
        Histories and next items.
    popularity
        float32 [V + 1] training interactions.
    settings
        Cut-offs, and the treatment of seen items.
    seed
        Seed of the bootstrap and of the choice of examples.
    labels
        [V + 1] name of each code; entry 0 is an unknown item.
    encoding_seconds
        Time spent on the model's query vectors, for the users per second.
    progress
        Called after each block of users.
    served
        Name of `model` in the report.
    """
    scorers = {served: model, **baselines}
    top_k = max(*settings.cutoffs, HEADLINE)
    cold = (held_out.targets != PADDING) & (popularity[held_out.targets] == 0)
    users = len(held_out)
    rankings: dict[str, Ranking] = {}
    seconds: dict[str, float] = {}
    done = 0

    for name, scorer in scorers.items():

        def advance(ranked: int, name: str = name) -> None:
            nonlocal done
            done += ranked
            if progress:
                progress(done, users * len(scorers), name)

        began = time.perf_counter()
        rankings[name] = rank_targets(
            scorer.score_block,
            held_out,
            scorer.allowed,
            exclude_seen=settings.exclude_seen,
            top_k=top_k,
            progress=advance,
        )
        seconds[name] = time.perf_counter() - began

    measured = {
        name: _metrics(ranking, scorers[name].allowed, settings.cutoffs, cold) for name, ranking in rankings.items()
    }
    own, differences = _significance(rankings, seed) if users else ({}, {name: {} for name in baselines})
    cutoffs = np.unique(np.geomspace(1, top_k, 30).round().astype(int))
    return EvaluationReport(
        served=served,
        metrics=measured[served],
        baselines={name: measured[name] for name in baselines},
        intervals=own,
        differences=differences,
        curves={
            "cutoffs": cutoffs.tolist(),
            **{
                metric: {
                    name: [float(per_user(ranking.ranks, metric, k).mean()) if users else 0.0 for k in cutoffs.tolist()]
                    for name, ranking in rankings.items()
                }
                for metric in METRICS
            },
        },
        popularity={
            "bands": list(BANDS),
            "consumed": popularity_bands(popularity, held_out.targets).tolist(),
            "recommended": {
                name: popularity_bands(popularity, ranking.top[:, :HEADLINE]).tolist()
                for name, ranking in rankings.items()
            },
        },
        examples=examples(rankings[served], held_out, labels, np.random.default_rng(seed)),
        report={
            "protocol": {
                "ranking": "every allowed item",
                "exclude_seen": settings.exclude_seen,
                "ties": "higher score, then lower item code",
                "users": users,
                "items": int(model.allowed[1:].sum()),
                "cutoffs": list(settings.cutoffs),
                "interval": f"{CONFIDENCE:.0%}, paired bootstrap over users, {RESAMPLES} resamples",
            },
            "cold_targets": int(cold.sum()),
            "unknown_targets": int((held_out.targets == PADDING).sum()),
            "ranking": {name: _describe(ranking) for name, ranking in rankings.items()},
            "seconds": seconds,
            "users_per_second": users / max(encoding_seconds + seconds[served], 1e-9),
        },
    )


def examples(
    ranking: Ranking,
    held_out: HeldOut,
    labels: Sequence[str],
    rng: np.random.Generator,
    count: int = EXAMPLES,
) -> list[dict[str, Any]]:
    """Describe a few random users: newest history (oldest first), recommendations, and next item."""
    chosen = np.sort(rng.choice(len(held_out), size=min(count, len(held_out)), replace=False))
    return [
        {
            USER_ID: held_out.histories.users[user],
            "history": [labels[code] for code in held_out.histories.history(user)[-HEADLINE:]],
            "recommended": [labels[code] for code in ranking.top[user, :HEADLINE] if code != PADDING],
            "target": labels[held_out.targets[user]],
            "rank": None if ranking.ranks[user] == MISS else int(ranking.ranks[user]),
        }
        for user in chosen.tolist()
    ]


def _metrics(ranking: Ranking, allowed: np.ndarray, cutoffs: Sequence[int], cold: np.ndarray) -> dict[str, float]:
    metrics = accuracy(ranking.ranks, cutoffs, PART)
    metrics |= {metric_name("coverage", k, PART): coverage(ranking.top, allowed, k) for k in cutoffs}
    if cold.any():
        metrics |= {
            metric_name(f"cold_{metric}", HEADLINE, PART): float(per_user(ranking.ranks[cold], metric, HEADLINE).mean())
            for metric in METRICS
        }
    return metrics


def _significance(
    rankings: Mapping[str, Ranking], seed: int
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, dict[str, float]]]]:
    """Return intervals of the first ranker's HR and NDCG, and of its lead over the others, from the same resamples."""
    measured: tuple[Metric, ...] = ("hr", "ndcg")
    keys = {metric_name(metric, HEADLINE, PART): metric for metric in measured}
    values = {
        name: np.stack([per_user(ranking.ranks, metric, HEADLINE) for metric in keys.values()], axis=1)
        for name, ranking in rankings.items()
    }  # [U, 2] each
    first, *others = values.values()
    columns = [first, *(first - other for other in others)]
    found = intervals(np.concatenate(columns, axis=1), np.random.default_rng(seed))
    rows = [
        {key: asdict(value) for key, value in zip(keys, found[place : place + len(keys)], strict=True)}
        for place in range(0, len(found), len(keys))
    ]
    return rows[0], dict(zip(list(rankings)[1:], rows[1:], strict=True))


def _describe(ranking: Ranking) -> dict[str, float]:
    """Count ties, misses and short lists; give NDCG with all ties for and against the target."""
    count = max(len(ranking.ranks), 1)
    return {
        "tied_share": ranking.tied_share,
        "ndcg_best_ties": float(per_user(ranking.best, "ndcg", HEADLINE).sum() / count),
        "ndcg_worst_ties": float(per_user(ranking.worst, "ndcg", HEADLINE).sum() / count),
        "missed_targets": ranking.misses,
        "seen_targets": ranking.seen_targets,
        "full_list_share": ranking.full_share,
    }
