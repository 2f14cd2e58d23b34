"""The offline report: what a bundle serves, its model alone and the untrained baselines on the same held-out items.

Validation chose the weights, so only test is reported. Here the parts are gathered and checked; compare.py
measures them.

Shapes: U users, V items (arrays by code have V + 1 entries), D width.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from features.whitening import Whitening
from recsys.bundle import Bundle, read_bundle
from recsys.columns import INTERACTIONS, ITEM_ID, PADDING, SENTENCE, TITLE
from recsys.config import Settings
from recsys.data.prepare import Dataset, prepare
from recsys.data.sequences import Sequences
from recsys.data.splits import Split
from recsys.data.warehouse import TableVersions
from recsys.errors import InputError, RecsysError
from recsys.evaluation.compare import BLEND, MODEL, EvaluationReport, Progress, Scorer, evaluate_scorers
from recsys.evaluation.ranking import ScoreBlock
from recsys.feature_encoders import unseen_values
from recsys.models import baselines as counting
from recsys.models.repeats import with_repeats
from recsys.represent import text_vectors
from recsys.retrieval.blend import Blended, blend_scores


def evaluate(
    settings: Settings, versions: TableVersions, bundle: str | Path, progress: Progress | None = None
) -> EvaluationReport:
    """Measure a bundle on the test part of the tables at these versions; `prepare` runs the leak guard.

    Raises
    ------
    InputError
        The bundle was trained on other data, so its test items may be among its training items, or on data whose
        features were declared otherwise.
    RecsysError
        The leak guard found something, or the model's scores are not numbers.
    """
    model = read_bundle(bundle)
    model.check_features(settings)
    dataset = prepare(settings, versions)
    check_same_data(model, dataset)
    popularity = counting.popularity(dataset.split.train.items, dataset.vocabulary.size)
    check_counts(popularity, dataset.split)

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
    stated = protocol(settings, dataset.split) | report.report["protocol"]
    if model.blended is not None:
        stated |= {"blend": "ranks what a source proposed; its counts are of the training part, as the model's"}
    unseen = unseen_values(model.encoders, dataset)
    repeated = dataset.report["repeated_targets"]
    more = {"protocol": stated, "unseen_look_ups": unseen, "repeated_targets": repeated}
    return replace(report, report=report.report | more)


def blend_scorer(
    model: Bundle, blended: Blended, queries: np.ndarray, histories: Sequences, settings: Settings
) -> Scorer:
    """The blend as retrieval serves it: among what the sources propose; what none proposed cannot be ranked.

    Parameters
    ----------
    queries
        float32 [U, D] of the histories.
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


def baseline_scorers(
    names: Sequence[str],
    train: Sequences,
    histories: Sequences,
    popularity: np.ndarray,
    text: Callable[[], np.ndarray | None],
) -> dict[str, Scorer]:
    """The named baselines over the whole vocabulary, counted on training histories only.

    Parameters
    ----------
    names
        Out of "popularity", "transitions", "text+transitions".
    train, histories
        What is counted, and the histories that are scored.
    popularity
        float32 [V + 1] of `train`.
    text
        Gives float32 [V + 1, D] whitened text vectors (`baseline_text`), or None where no item has text: then that
        baseline is left out. Called only when asked for.
    """
    size = len(popularity) - 1
    everything = np.arange(size + 1) != PADDING
    found: dict[str, ScoreBlock] = {}
    if "popularity" in names:
        found["popularity"] = counting.score_popularity(popularity)
    if {"transitions", "text+transitions"} & set(names):
        table = counting.transitions(train.items, train.offsets, size)
        weights = counting.recency_weights(histories.items, histories.offsets, size)
        if "transitions" in names:
            found["transitions"] = counting.score_transitions(weights, table)
        vectors = text() if "text+transitions" in names else None
        if vectors is not None:
            found["text+transitions"] = counting.score_text_and_transitions(weights, table, vectors)
    return {name: Scorer(score_block=found[name], allowed=everything) for name in names if name in found}


def baseline_text(settings: Settings, dataset: Dataset) -> np.ndarray | None:
    """Whitened text vectors of the items, float32 [V + 1, D], also where the model itself reads no text.

    Scaled to a mean squared length of 1, not each to length 1. Row 0 and items without text are zero; None where
    no item has text.
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


def check_same_data(bundle: Bundle, dataset: Dataset) -> None:
    """The bundle was trained on exactly this training part, with these codes.

    Otherwise a code could mean another item, or a test item could have been trained on.

    Raises
    ------
    InputError
        It was not; names the table version it was trained on.
    """
    lineage = bundle.manifest["lineage"]
    if bundle.vocabulary.digest != dataset.vocabulary.digest or lineage.get("data") != dataset.digest:
        raise InputError(
            f"The bundle {bundle.path} was trained on other data ({bundle.vocabulary.size} items, version "
            f"{lineage.get('interactions_version')} of {INTERACTIONS!r}) than it is to be evaluated on "
            f"({dataset.vocabulary.size} items); train again, or use the tables and settings of its training."
        )


def check_counts(popularity: np.ndarray, split: Split) -> None:
    """Counts came from the training part and nothing else: as many as it has events.

    Raises
    ------
    RecsysError
        They did not.
    """
    counted = int(popularity.sum(dtype=np.float64))
    expected = int((split.train.items != PADDING).sum())
    if counted != expected:
        raise RecsysError(f"Leak: popularity counted {counted} events and training has {expected}.")


def protocol(settings: Settings, split: Split) -> dict[str, Any]:
    """What must stand beside every number before anyone compares it with another one."""
    flags: dict[str, Any] = {
        "strategy": settings.split.strategy,
        "validation_item_in_training": False,
        "validation_item_in_history": True,
        "request_time": False,
        "training_interactions": len(split.train.items),
    }
    if settings.split.strategy == "leave-one-out":
        flags["caveat"] = "leave-one-out lets other users' future into training"
    return flags


def item_labels(catalogue: pl.DataFrame) -> list[str]:
    """[V + 1] a title for each code, or the id where there is none."""
    titles = catalogue.select(pl.coalesce(pl.col(TITLE), pl.col(ITEM_ID).cast(pl.String))).to_series()
    return ["(unknown item)", *titles.to_list()]
