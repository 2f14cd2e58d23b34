"""Offline report: a bundle's served ranker, its model alone and the untrained baselines, on the same held-out items.

Validation chose the weights, so the report covers only the test part. This module gathers and checks the parts;
compare.py measures them.

Shapes: U users, V items (arrays by code have V + 1 entries), D width.
"""

from __future__ import annotations

import functools
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.candidates import counts as counting
from recsys.columns import INTERACTIONS, ITEM_ID, PADDING, SENTENCE, TITLE
from recsys.data.feature_encoders import unseen_values
from recsys.data.prepare import Dataset, prepare
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, Split, moment
from recsys.errors import InputError, RecsysError
from recsys.evaluation.baseline_scorers import baseline_scorers
from recsys.evaluation.compare import BLEND, MODEL, EvaluationReport, Progress, Scorer, evaluate_scorers
from recsys.evaluation.leaks import check_consumed, learns
from recsys.evaluation.metrics import accuracy
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.recent_popularity import RecentPopularity, recent_popularity
from recsys.features.whitening import Whitening
from recsys.models.repeats import with_repeats
from recsys.ranking.blend import Blended, blend_scores
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.text.represent import text_vectors


def evaluate(
    settings: Settings, versions: TableVersions, bundle: str | Path, progress: Progress | None = None
) -> EvaluationReport:
    """Measure a bundle on the test part of the tables at these versions. `prepare` runs the leak guard.

    Raises
    ------
    InputError
        The bundle was trained on other data, so the test items may be among its training items. Or its features were
        declared differently.
    RecsysError
        The leak guard found a leak, the bundle consumed events that the split holds out, or the model's scores are not
        numbers.
    """
    model = read_bundle(bundle)
    model.check_features(settings)
    dataset = prepare(settings, versions)
    check_same_data(model, dataset)
    consumed = check_consumed(model, dataset)
    popularity = counting.popularity(dataset.split.train.items, dataset.vocabulary.size)
    check_counts(popularity, dataset.split)

    @functools.cache
    def recent() -> RecentPopularity:
        return recent_popularity(dataset.split, dataset.vocabulary.size, exclude_seen=settings.evaluate.exclude_seen)

    histories = dataset.split.test.histories
    began = time.perf_counter()
    queries = model.encode(histories)  # [U, D]
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
    if model.blended is not None:
        scorers = {BLEND: blend_scorer(model, model.blended, queries, histories, settings), **scorers}
    scorers |= baseline_scorers(
        settings.evaluate.baselines,
        dataset.split.train,
        histories,
        popularity,
        lambda: baseline_text(settings, dataset),
        recent,
    )
    served, *others = scorers
    report = evaluate_scorers(
        scorers[served],
        {name: scorers[name] for name in others},
        held_out=dataset.split.test,
        popularity=popularity,
        settings=settings.evaluate,
        seed=settings.seed,
        labels=item_labels(dataset.catalogue),
        encoding_seconds=encoding_seconds,
        progress=progress,
        served=served,
    )
    stated = protocol(settings, dataset.split) | consumed | report.report["protocol"]
    known = model.manifest["lineage"].get("known_before")
    if known is not None:
        stated |= {"warm_start": known}
    if model.blended is not None:
        stated |= {"blend": "ranks what a source proposed; its counts are of the training part, as the model's"}
    if settings.split.strategy == "time":
        stated |= {"users": stated["asked_users"]}
    if "recent-popularity" in settings.evaluate.baselines:
        stated |= {"recent_popularity": f"{recent().window}, a window that events before the test chose"}
    unseen = unseen_values(model.encoders, dataset)
    repeated = dataset.report["repeated_targets"]
    more = {"protocol": stated, "unseen_look_ups": unseen, "repeated_targets": repeated}
    if dataset.split.newcomers is not None:
        more |= {"without_history": without_history(model, dataset.split, popularity, settings)}
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


def baseline_text(settings: Settings, dataset: Dataset) -> np.ndarray | None:
    """Return whitened text vectors of the items, float32 [V + 1, D], even if the model itself reads no text.

    They have a mean squared length of 1, not length 1 each. Row 0 and items without text are zero. None if no item has
    text.
    """
    sentences = dataset.catalogue[SENTENCE]
    has_text = (sentences.fill_null("") != "").to_numpy()  # [V]
    if has_text.sum() < 2:
        return None
    raw = text_vectors(settings, sentences)[has_text]
    whitening = Whitening.fit(raw, settings.text.dimensions or raw.shape[1])
    vectors = np.zeros((dataset.vocabulary.size + 1, whitening.dimensions), dtype=np.float32)
    vectors[1:][has_text] = whitening.project(raw) / np.sqrt(whitening.dimensions)
    return vectors


def without_history(model: Bundle, split: Split, popularity: np.ndarray, settings: Settings) -> dict[str, Any]:
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
    queries = model.encode(histories)
    if model.blended is None:
        score_block = with_repeats(
            lambda start, stop: queries[start:stop] @ model.vectors.T, histories.items, histories.offsets, model.repeats
        )
        scorers = {MODEL: Scorer(score_block=score_block, allowed=model.allowed)}
    else:
        scorers = {BLEND: blend_scorer(model, model.blended, queries, histories, settings)}
    scorers |= baseline_scorers(["popularity"], split.train, histories, popularity, lambda: None)
    return found | {"metrics": {name: _accuracy(one, asked, settings) for name, one in scorers.items()}}


def _accuracy(scorer: Scorer, asked: HeldOut, settings: Settings) -> dict[str, float]:
    ranking = rank_targets(
        scorer.score_block, asked, scorer.allowed, exclude_seen=settings.evaluate.exclude_seen, top_k=1
    )
    return accuracy(ranking.ranks, settings.evaluate.cutoffs)


def check_same_data(bundle: Bundle, dataset: Dataset) -> None:
    """Check that the bundle was trained on exactly this training part, with these codes.

    Otherwise a code could mean another item, or a test item could have been trained on. A bundle that learned from no
    event, such as the text recommender's, is the same night after night as long as the codes are.

    Raises
    ------
    InputError
        It was not; the message names the table version of its training.
    """
    lineage = bundle.manifest["lineage"]
    same_events = not learns(bundle) or lineage.get("data") == dataset.digest
    if bundle.vocabulary.digest != dataset.vocabulary.digest or not same_events:
        raise InputError(
            f"The bundle {bundle.path} was trained on other data ({bundle.vocabulary.size} items, version "
            f"{lineage.get('interactions_version')} of {INTERACTIONS!r}) than it is to be evaluated on "
            f"({dataset.vocabulary.size} items); train again, or use the tables and settings of its training."
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
