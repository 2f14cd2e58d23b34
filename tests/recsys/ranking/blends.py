"""Blends for tests: sources fitted on given histories, with weights that are given instead of fitted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from recsys.candidates.base import TrainingData
from recsys.candidates.stage import fit_sources
from recsys.data.sequences import Sequences
from recsys.ranking.blend import Blended
from recsys.ranking.fit import columns_of
from recsys.ranking.loglinear import LogLinear
from recsys.ranking.pairs import ScoredPairs


def sequences(lists: list[list[int]]) -> Sequences:
    """Histories as flat arrays; users are called 0, 1, ..."""
    return Sequences(
        users=pl.Series("user_id", np.arange(len(lists))),
        items=np.array([item for items in lists for item in items], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, lists)]).astype(np.int64),
    )


def dense_rows(pairs: ScoredPairs, users: int, width: int) -> np.ndarray:
    """Scores float32 [U, V + 1]; minus infinity where no pair is."""
    found = np.full((users, width), -np.inf, dtype=np.float32)
    found[pairs.rows, pairs.codes] = pairs.scores
    return found


def training(histories: Sequences, size: int, text: np.ndarray | None = None, sentences: Any = None) -> TrainingData:
    """Training data with a catalogue of generated titles, or of these sentences."""
    said = [f"item {code}" for code in range(1, size + 1)] if sentences is None else sentences
    catalogue = pl.DataFrame({"item_id": np.arange(1, size + 1), "title": said, "sentence": said})
    return TrainingData(histories=histories, size=size, catalogue=catalogue, text=text)


def blend_of(data: TrainingData, *, alone: dict[str, float] | float = 0.0, candidates: int = 10) -> Blended:
    """A blend of all sources whose weights are these, by feature or for every feature; others weigh nothing."""
    sources = fit_sources(data)
    columns = columns_of(sources)
    F, C = len(columns.features), len(columns.context)
    given = dict.fromkeys(columns.features, alone) if isinstance(alone, float | int) else alone
    ranker = LogLinear(
        features=columns.features,
        context=columns.context,
        mean=np.zeros(F + C),
        scale=np.ones(F + C),
        alone=np.array([given.get(name, 0.0) for name in columns.features]),
        pairs=np.zeros((F, F)),
        given=np.zeros((C, F)),
    )
    return Blended(sources=sources, ranker=ranker, candidates=candidates)


def random_weights(blended: Blended, seed: int) -> Blended:
    """The blend with weights on everything, so that any feature that differed would show."""
    rng, ranker = np.random.default_rng(seed), blended.ranker
    F, C = len(ranker.features), len(ranker.context)
    assert isinstance(ranker, LogLinear)
    weights = replace(
        ranker,
        mean=rng.standard_normal(F + C) / 5,
        scale=np.full(F + C, 0.7),
        alone=rng.standard_normal(F),
        pairs=np.triu(rng.standard_normal((F, F))) / 5,
        given=rng.standard_normal((C, F)) / 5,
    )
    return replace(blended, ranker=weights)
