"""Offline report: a bundle's served ranker, its model alone and the untrained baselines, on the same held-out items.

Validation chose the weights, so the report covers only the test part. This module gathers and checks the parts;
compare.py measures them.

Shapes: U users, V items (arrays by code have V + 1 entries), D width.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle
from recsys.bundles.store import REFIT, measured_bundle, passed_on
from recsys.candidates.popularity import popularity as count_popularity
from recsys.candidates.text import whitened_text
from recsys.columns import INTERACTIONS, ITEM_ID, PADDING, SENTENCE, TITLE
from recsys.compute.choice import engine_of
from recsys.data.asked import test_questions
from recsys.data.prepare import Dataset, prepare
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, Split, moment
from recsys.data.volume import volume
from recsys.errors import InputError, RecsysError
from recsys.evaluation.baseline_scorers import baseline_scorers
from recsys.evaluation.compare import BLEND, MODEL, EvaluationReport, Progress, Scorer, evaluate_scorers
from recsys.evaluation.leaks import check_consumed, learns
from recsys.evaluation.metrics import accuracy
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.recent_popularity import RecentPopularity, recent_popularity
from recsys.forgetting.forgotten import forgotten_since
from recsys.ranking.blend import Blended, blend_scores
from recsys.retrieval.repeats import with_repeats
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions


def evaluate(
    settings: Settings,
    versions: TableVersions,
    bundle: str | Path,
    progress: Progress | None = None,
    users_to: Callable[[pl.DataFrame], None] | None = None,
) -> EvaluationReport:
    """Measure a bundle on the test part of the tables at these versions. `prepare` runs the leak guard.

    For a bundle that was refitted on all events the measured one, which it was made of, is measured; the protocol says
    so. `users_to`, where given, is called with the served ranker's values per user.

    Raises
    ------
    InputError
        The bundle was trained on other data, so the test items may be among its training items. Or its features were
        declared differently. Or what a refitted bundle was made of is gone.
    RecsysError
        The leak guard found a leak, the bundle consumed events that the split holds out, or the model's scores are not
        numbers.
    """
    served = open_bundle(measured_bundle(bundle))
    served.check_features(settings)
    dataset = prepare(settings, versions)
    check_same_data(served.bundle, dataset, versions.interactions)
    consumed = check_consumed(served, dataset)
    popularity = count_popularity(dataset.split.train.items, dataset.vocabulary.size)
    check_counts(popularity, dataset.split)

    @functools.cache
    def recent() -> RecentPopularity:
        return recent_popularity(dataset.split, dataset.vocabulary.size, exclude_seen=settings.evaluate.exclude_seen)

    asked = test_questions(settings, dataset)
    histories = asked.histories
    began = time.perf_counter()
    queries, model = served.encode(histories), served.model  # [U, D]
    encoding_seconds = time.perf_counter() - began
    scorers = {
        MODEL: Scorer(
            score_block=with_repeats(
                lambda start, stop: queries[start:stop] @ model.vectors.T,
                histories.items,
                histories.offsets,
                model.repeats,
            ),
            allowed=model.allowed,
        )
    }
    if served.blended is not None:
        scorers = {BLEND: blend_scorer(served.bundle, served.blended, queries, histories, settings), **scorers}
    text = functools.cache(lambda: whitened_text(settings, dataset.catalogue[SENTENCE]))
    scorers |= baseline_scorers(
        settings.evaluate.baselines,
        dataset.split.train,
        histories,
        popularity,
        text,
        recent,
    )
    first, *others = scorers
    report = evaluate_scorers(
        scorers[first],
        {name: scorers[name] for name in others},
        held_out=asked,
        popularity=popularity,
        settings=settings.evaluate,
        seed=settings.seed,
        labels=item_labels(dataset.catalogue),
        encoding_seconds=encoding_seconds,
        progress=progress,
        served=first,
        catalogue=dataset.catalogue,
        text=text() if any("text" in name for name in settings.evaluate.baselines) else None,
        users_to=users_to,
        journeys_of=settings.report.described,
        engine=engine_of(settings),
    )
    stated = protocol(settings, dataset.split) | consumed | report.report["protocol"]
    if len(asked) < len(dataset.split.test):
        stated["sample"] = (
            f"{len(asked):,} of {len(dataset.split.test):,} test questions, drawn by the seed; each is ranked among "
            "all items, and intervals are those of the sample"
        )
    known = served.bundle.manifest["lineage"].get("known_before")
    if known is not None:
        stated |= {"warm_start": known}
    if passed := passed_on(bundle):
        stated |= {"measured": passed}
    if served.blended is not None:
        stated |= {"blend": "ranks what a source proposed; its counts are of the training part, as the model's"}
    if settings.split.strategy == "time":
        stated |= {"users": stated["asked_users"]}
    if "recent-popularity" in settings.evaluate.baselines:
        stated["recent_popularity"] = f"{recent().window}, a window that events before the test chose"
    unseen = model.unseen_values(dataset)
    repeated = dataset.report["repeated_targets"]
    more = {"protocol": stated, "unseen_look_ups": unseen, "repeated_targets": repeated}
    more |= {"volume": volume(settings.warehouse, versions.interactions)}
    if dataset.split.newcomers is not None:
        more |= {"without_history": without_history(served, dataset.split, popularity, settings)}
    return replace(report, report=report.report | more)


def blend_scorer(
    model: Bundle, blended: Blended, queries: np.ndarray, histories: Sequences, settings: Settings
) -> Scorer:
    """Score users by the blend as retrieval serves it. It ranks only items that a source proposed.

    Parameters
    ----------
    queries
        float32 [U, D], the model's queries of the histories.
    """
    score_block = blend_scores(
        model.index(),
        queries,
        blended,
        histories,
        n=max(blended.candidates, *settings.evaluate.cutoffs),
        exclude_seen=settings.evaluate.exclude_seen,
    )
    return Scorer(score_block=score_block, allowed=np.arange(len(model.vectors)) != PADDING)


def without_history(
    served: BundleRecommender, split: Split, popularity: np.ndarray, settings: Settings
) -> dict[str, Any]:
    """Measure the questions of users without an event before the cut, apart from all other figures.

    The candidate table has no row for them until they have an event. This is what the bundle would answer: the blend,
    whose popularity needs no history, or the model alone, which for an empty history ranks items by their codes.

    Returns
    -------
    dict
        `users`, `questions`, `empty_histories`, a sentence, and HR, NDCG and MRR at every cut-off by name.
    """
    asked = split.newcomers
    assert asked is not None
    found: dict[str, Any] = {
        "users": split.users_without_history,
        "questions": len(asked),
        "empty_histories": int((asked.histories.lengths == 0).sum()),
        "served_by": "nothing: the candidate table has no row for them; the figures are what the bundle would answer",
    }
    if not len(asked):
        return found
    histories = asked.histories
    queries, model = served.encode(histories), served.model
    if served.blended is None:
        score_block = with_repeats(
            lambda start, stop: queries[start:stop] @ model.vectors.T, histories.items, histories.offsets, model.repeats
        )
        scorers = {MODEL: Scorer(score_block=score_block, allowed=model.allowed)}
    else:
        scorers = {BLEND: blend_scorer(served.bundle, served.blended, queries, histories, settings)}
    scorers |= baseline_scorers(["popularity"], split.train, histories, popularity, lambda: None)
    return found | {"metrics": {name: _accuracy(one, asked, settings) for name, one in scorers.items()}}


def _accuracy(scorer: Scorer, asked: HeldOut, settings: Settings) -> dict[str, float]:
    ranking = rank_targets(
        scorer.score_block, asked, scorer.allowed, exclude_seen=settings.evaluate.exclude_seen, top_k=1
    )
    return accuracy(ranking.ranks, settings.evaluate.cutoffs)


def check_same_data(bundle: Bundle, dataset: Dataset, version: int | None = None) -> None:
    """Check that the bundle was trained on exactly this training part, with these codes.

    Otherwise a code could mean another item, or a test item could have been trained on. A bundle that learned from no
    event, such as the text recommender's, is the same night after night as long as the codes are.

    Raises
    ------
    InputError
        It was not; the message names the table version of its training, or says that users were forgotten since.
    RecsysError
        It was fitted on all events.
    """
    lineage = bundle.manifest["lineage"]
    if REFIT in lineage:
        raise RecsysError(
            f"Leak: the bundle {bundle.place} was fitted on all events, those of the test part too; measure "
            f"{lineage[REFIT]['measured']}, which it was made of."
        )
    same_events = not learns(bundle) or lineage.get("data") == dataset.digest
    if bundle.vocabulary.digest != dataset.vocabulary.digest or not same_events:
        if forgotten_since(Path(bundle.path).parents[1], bundle.manifest["created_at"]):
            raise InputError(
                f"Users were forgotten after the bundle {bundle.place} was trained: the tables no longer hold what it "
                "learned from, so it cannot be measured on them. Train again with `recsys train CONFIG`, then evaluate."
            )
        raise InputError(
            f"The bundle {bundle.place} was trained on other data ({bundle.vocabulary.size} items, version "
            f"{lineage.get('interactions_version')} of {INTERACTIONS!r}) than it is to be evaluated on "
            f"({dataset.vocabulary.size} items, version {version}): new rows, or other settings; train again, or use "
            "the tables and settings of its training."
        )


def check_counts(popularity: np.ndarray, split: Split) -> None:
    """Check that counts come from the training part alone: there are as many as it has events.

    Raises
    ------
    RecsysError
        They do not.
    """
    counted = int(popularity.sum(dtype=np.float64))
    expected = int((split.train.items != PADDING).sum())
    if counted != expected:
        raise RecsysError(f"Leak: popularity counted {counted} events and training has {expected}.")


def protocol(settings: Settings, split: Split) -> dict[str, Any]:
    """Return the protocol that must accompany every number before anyone compares it with another."""
    flags: dict[str, Any] = {
        "strategy": settings.split.strategy,
        "validation_item_in_training": False,
        "validation_item_in_history": True,
        "request_time": False,
        "same_time": settings.split.same_time,
        "training_interactions": len(split.train.items),
    }
    if settings.split.same_time == "basket":
        flags["basket"] = "one item of the held-out basket, drawn by the seed; its other items are not ranked"
    if settings.split.strategy == "leave-one-out":
        flags["caveat"] = "leave-one-out lets other users' future into training"
        return flags
    assert split.test_from is not None
    if future := _future(settings):
        flags["caveat"] = f"what trains depends on events after the cut: {'; '.join(future)}"
    asked = split.test.histories.users.n_unique()
    return flags | {
        "test_from": moment(split.test_from),
        "target": settings.split.target,
        "validation": settings.split.validation,
        "questions": len(split.test),
        "asked_users": asked,
        "averages": "over questions; those of one user depend on each other, so intervals are too narrow"
        if len(split.test) > asked
        else "over users, of one question each",
        "users_without_history": split.users_without_history,
        "new_users": settings.split.new_users,
        "cold_targets": split.cold_targets,
        "cold_items": settings.split.cold_items,
    }


def _future(settings: Settings) -> list[str]:
    """Say by which rules of [filter] and [interactions] events after a cut decide which events before it there are."""
    found = []
    if max(settings.filter.min_user_interactions, settings.filter.min_item_interactions) > 1:
        found.append("users and items with too few interactions are left out before the split")
    if settings.filter.repeats == "last":
        found.append('filter.repeats = "last" keeps the last of repeated interactions')
    if settings.interactions.withdraw:
        found.append("rows after the cut take back events before it")
    return found


def item_labels(catalogue: pl.DataFrame) -> list[str]:
    """Return a title for each code, [V + 1], or the id of an item without one."""
    titles = catalogue.select(pl.coalesce(pl.col(TITLE), pl.col(ITEM_ID).cast(pl.String))).to_series()
    return ["(unknown item)", *titles.to_list()]
