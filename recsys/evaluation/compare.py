"""Comparison of a model with its baselines on the same held-out items: metrics, intervals, curves, examples.

Every number comes from ranks; scores exist for one block of users at a time.

Shapes: U users, V items (arrays by code have V + 1 entries).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID, PADDING, SENTENCE, TITLE, USER_ID, metric_name
from recsys.compute.base import Engine
from recsys.compute.local import LOCAL
from recsys.data.splits import HeldOut
from recsys.evaluation.bands import curve_band
from recsys.evaluation.journeys import journeys
from recsys.evaluation.lists import BANDS, ListMeasures, popularity_bands, serendipity
from recsys.evaluation.metrics import FURTHER, METRICS, MISS, Metric, accuracy, curve, per_user
from recsys.evaluation.profiles import ItemProfiles, item_profiles
from recsys.evaluation.ranking import Ranking, ScoreBlock, rank_targets
from recsys.evaluation.shares import category_shares
from recsys.evaluation.significance import CONFIDENCE, RESAMPLES, intervals
from recsys.evaluation.slices import measure_slices, slice_keys
from recsys.evaluation.users import user_values
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
        `cutoffs`, and under `hr`, `ndcg`, `mrr` a list of values for each name (the served ranker, then the baselines);
        under `bands` the same lists of `low` and `high` ends of their 95% intervals.
    popularity
        Spread of consumption and recommendations over items by popularity: `bands` (upper ends, shares of the
        catalogue), `consumed` (test targets), `recommended` (by name, the first 10 of every list).
    examples
        A few users: user_id, titles of the newest history and of the first 10 recommendations, the target's,
        and its rank (None: not ranked).
    report
        The protocol, and context of the numbers: ties, misses, list quality, cold targets, speed.
    further
        By name of the ranker: recall, precision and MAP at every cut-off; Gini, novelty, popularity lift and
        serendipity at every cut-off; diversity and miscalibration of the first 10 where items have attributes or text.
    slices
        Of the served ranker: a row for each group of users, see `slices.measure_slices`.
    categories
        Consumed and recommended shares by the values of each categorical attribute, see `shares.category_shares`.
    journeys
        Users with their histories and lists, and the worst failures, see `journeys.journeys`; empty if none is asked.
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
    further: dict[str, dict[str, float]] = field(default_factory=dict)
    slices: list[dict[str, Any]] = field(default_factory=list)
    categories: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    journeys: dict[str, list[dict[str, Any]]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Ranked:
    """Measurements of one ranker: the targets' ranks, the sums over its lists, and a few lists for examples."""

    ranking: Ranking
    lists: ListMeasures
    shown: np.ndarray  # int32 [examples, 10]


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
    catalogue: pl.DataFrame | None = None,
    text: np.ndarray | None = None,
    users_to: Callable[[pl.DataFrame], None] | None = None,
    journeys_of: int = 0,
    engine: Engine = LOCAL,
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
    catalogue
        V rows with `item_id` and the declared attributes of items, for slices, diversity and calibration.
    text
        float32 [V + 1, D] text vectors of items, for diversity; 0 for an item without text.
    users_to
        Called with the served ranker's values per user, see `users.user_values`.
    journeys_of
        Users to describe, and at most as many failures.
    engine
        That ranks.
    """
    scorers = {served: model, **baselines}
    top_k = max(*settings.cutoffs, HEADLINE)
    cold = (held_out.targets != PADDING) & (popularity[held_out.targets] == 0)
    users = len(held_out)
    attributes = None if catalogue is None else catalogue.drop(ITEM_ID, TITLE, SENTENCE, strict=False)
    profiles = item_profiles(popularity, attributes, text)
    chosen = _chosen(users, seed)
    found: dict[str, Ranked] = {}
    seconds: dict[str, float] = {}
    done = 0

    for name, scorer in scorers.items():

        def advance(ranked: int, name: str = name) -> None:
            nonlocal done
            done += ranked
            if progress:
                progress(done, users * len(scorers), name)

        began = time.perf_counter()
        found[name] = _rank(scorer, held_out, profiles, settings, chosen, top_k, advance, engine)
        seconds[name] = time.perf_counter() - began

    rankings = {name: ranked.ranking for name, ranked in found.items()}
    measured = {name: _metrics(ranked, scorers[name].allowed, settings.cutoffs, cold) for name, ranked in found.items()}
    further = {
        name: _further(ranked, scorers[name].allowed, held_out, popularity, settings.cutoffs)
        for name, ranked in found.items()
    }
    owner = _owners(held_out)
    own, differences = _significance(rankings, seed, owner) if users else ({}, {name: {} for name in baselines})
    cutoffs = np.unique(np.geomspace(1, top_k, 30).round().astype(int)).tolist()
    keys = slice_keys(held_out, popularity, attributes)
    ranks = rankings[served].ranks
    if users_to is not None:
        others = {name: rankings[name].ranks for name in baselines}
        users_to(user_values(held_out, ranks, keys, catalogue, HEADLINE, others))
    return EvaluationReport(
        served=served,
        metrics=measured[served],
        baselines={name: measured[name] for name in baselines},
        intervals=own,
        differences=differences,
        curves={
            "cutoffs": cutoffs,
            **{
                metric: {name: curve(ranking.ranks, metric, cutoffs) for name, ranking in rankings.items()}
                for metric in METRICS
            },
            "bands": {
                metric: {name: curve_band(ranking.ranks, metric, cutoffs, owner) for name, ranking in rankings.items()}
                for metric in METRICS
            },
        },
        popularity={
            "bands": list(BANDS),
            "consumed": popularity_bands(popularity, np.bincount(held_out.targets, minlength=len(popularity))).tolist(),
            "recommended": {
                name: popularity_bands(popularity, ranked.lists.counts(HEADLINE)).tolist()
                for name, ranked in found.items()
            },
        },
        examples=examples(found[served], chosen, held_out, labels),
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
            "ranking": {name: _describe(ranked) for name, ranked in found.items()},
            "seconds": seconds,
            "users_per_second": users / max(encoding_seconds + seconds[served], 1e-9),
        },
        further=further,
        slices=measure_slices(keys, ranks, HEADLINE, np.random.default_rng((seed, 1)), owner),
        categories={}
        if attributes is None
        else category_shares(
            attributes,
            np.bincount(held_out.targets, minlength=len(popularity)),
            found[served].lists.counts(HEADLINE),
        ),
        journeys={}
        if not journeys_of
        else journeys(
            model.score_block,
            model.allowed,
            held_out=held_out,
            ranks=ranks,
            popularity=popularity,
            labels=labels,
            exclude_seen=settings.exclude_seen,
            count=journeys_of,
            seed=seed,
        ),
    )


def _rank(
    scorer: Scorer,
    held_out: HeldOut,
    profiles: ItemProfiles,
    settings: EvaluateSettings,
    chosen: np.ndarray,
    top_k: int,
    progress: Callable[[int], None],
    engine: Engine,
) -> Ranked:
    """Rank the targets; measure the lists as they come, and keep those of the chosen users only."""
    lists = ListMeasures(profiles, held_out.histories, cutoffs=settings.cutoffs, k=HEADLINE)
    shown = np.zeros((len(chosen), HEADLINE), dtype=np.int32)
    start = 0

    def take(top: np.ndarray) -> None:
        nonlocal start
        inside = np.flatnonzero((chosen >= start) & (chosen < start + len(top)))
        shown[inside] = top[chosen[inside] - start, :HEADLINE]
        start += len(top)
        lists.add(top)

    ranking = rank_targets(
        scorer.score_block,
        held_out,
        scorer.allowed,
        exclude_seen=settings.exclude_seen,
        top_k=top_k,
        progress=progress,
        lists=take,
        engine=engine,
    )
    return Ranked(ranking=ranking, lists=lists, shown=shown)


def _chosen(users: int, seed: int) -> np.ndarray:
    """Return the users of the examples, ascending."""
    return np.sort(np.random.default_rng(seed).choice(users, size=min(EXAMPLES, users), replace=False))


def examples(ranked: Ranked, chosen: np.ndarray, held_out: HeldOut, labels: Sequence[str]) -> list[dict[str, Any]]:
    """Describe the chosen users: newest history (oldest first), recommendations, and next item."""
    ranks = ranked.ranking.ranks
    return [
        {
            USER_ID: held_out.histories.users[user],
            "history": [labels[code] for code in held_out.histories.history(user)[-HEADLINE:]],
            "recommended": [labels[code] for code in shown if code != PADDING],
            "target": labels[held_out.targets[user]],
            "rank": None if ranks[user] == MISS else int(ranks[user]),
        }
        for user, shown in zip(chosen.tolist(), ranked.shown, strict=True)
    ]


def _metrics(ranked: Ranked, allowed: np.ndarray, cutoffs: Sequence[int], cold: np.ndarray) -> dict[str, float]:
    ranks = ranked.ranking.ranks
    covered = ranked.lists.coverages(allowed, PART)
    metrics = accuracy(ranks, cutoffs, PART)
    metrics |= {name: covered[name] for name in (metric_name("coverage", k, PART) for k in cutoffs)}
    if cold.any():
        metrics |= {
            metric_name(f"cold_{metric}", HEADLINE, PART): float(per_user(ranks[cold], metric, HEADLINE).mean())
            for metric in METRICS
        }
    return metrics


def _further(
    ranked: Ranked, allowed: np.ndarray, held_out: HeldOut, popularity: np.ndarray, cutoffs: Sequence[int]
) -> dict[str, float]:
    ranks = ranked.ranking.ranks
    surprising = {
        metric_name("serendipity", k, PART): serendipity(ranks, popularity, held_out.targets, k) for k in cutoffs
    }
    return accuracy(ranks, cutoffs, PART, FURTHER) | ranked.lists.further(allowed, PART) | surprising


def _owners(held_out: HeldOut) -> np.ndarray | None:
    """Return the user of each row, int64 [U]; None where each user has one."""
    users = held_out.histories.users
    return None if users.n_unique() == len(users) else users.rank("dense").to_numpy().astype(np.int64)


def _significance(
    rankings: Mapping[str, Ranking], seed: int, owner: np.ndarray | None
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
    found = intervals(np.concatenate(columns, axis=1), np.random.default_rng(seed), owner)
    rows = [
        {key: asdict(value) for key, value in zip(keys, found[place : place + len(keys)], strict=True)}
        for place in range(0, len(found), len(keys))
    ]
    return rows[0], dict(zip(list(rankings)[1:], rows[1:], strict=True))


def _describe(ranked: Ranked) -> dict[str, float]:
    """Count ties and misses; give NDCG with all ties for and against the target, and the quality of the lists."""
    ranking = ranked.ranking
    count = max(len(ranking.ranks), 1)
    return {
        "tied_share": ranking.tied_share,
        "ndcg_best_ties": float(per_user(ranking.best, "ndcg", HEADLINE).sum() / count),
        "ndcg_worst_ties": float(per_user(ranking.worst, "ndcg", HEADLINE).sum() / count),
        "missed_targets": ranking.misses,
        "seen_targets": ranking.seen_targets,
        **ranked.lists.quality(),
    }
