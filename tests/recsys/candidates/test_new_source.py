"""A new source is one class and one registration: the blend weighs it, the bundle holds it, the table names it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bundles.bundle import read_bundle
from recsys.candidates.base import Block, Feature, Source, TrainingData, among
from recsys.candidates.registry import MOST, SOURCES, register
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.table.build import read_candidates, retrieve

BRANDS, EACH = 10, 6


class FirstWord(Source):
    """Items whose title begins with the same word as that of the newest event; it never sees the whole catalogue."""

    name = "first_word"
    FEATURES = (Feature(name="same_word"),)
    READS_CATALOGUE = True

    def __init__(self, words: np.ndarray) -> None:
        self.words = words  # int32 [V + 1] number of each item's first word, from 1; 0: no title
        self.by_word = np.argsort(words, kind="stable")
        self.starts = np.searchsorted(words[self.by_word], np.arange(words.max() + 2))

    @classmethod
    def fit(cls, data: TrainingData) -> FirstWord | None:
        first = data.catalogue["title"].str.split(" ").list.first()
        return cls(np.append(0, first.rank("dense").fill_null(0).to_numpy()).astype(np.int32))

    def propose(self, block: Block, n: int) -> np.ndarray:
        keys = [
            row * block.stride + np.sort(self.by_word[self.starts[word] : self.starts[word + 1]][:n])
            for row, word in enumerate(self._asked(block))
            if word
        ]
        found = np.concatenate(keys, dtype=np.int64) if keys else np.zeros(0, dtype=np.int64)
        found = found[~among(found, block.hidden)]
        return found if block.allowed is None else found[block.allowed[found % block.stride]]

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        return {"same_word": (self._asked(block)[rows] == self.words[codes]) & (self.words[codes] > 0)}

    def to_tensors(self) -> dict[str, np.ndarray]:
        return {"first_word.words": self.words}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> FirstWord:
        return cls(tensors["first_word.words"])

    def _asked(self, block: Block) -> np.ndarray:
        """int32 [b] word of the newest event; 0 of an empty history."""
        histories = block.histories
        newest = np.append(histories.items, 0)[histories.offsets[1:] - 1]
        return np.where(histories.lengths > 0, self.words[newest], 0)


@pytest.fixture
def registered() -> Iterator[None]:
    register(FirstWord)
    yield
    SOURCES.pop(FirstWord.name, None)


def shop(folder: Path) -> Settings:
    """People stay with a brand; which of its items they take is chance."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(150):
        brand = rng.integers(BRANDS)
        for step, place in enumerate(rng.permutation(EACH)[: rng.integers(4, EACH)]):
            lines.append(f"{user},{brand}-{place},{1_600_000_000 + 60 * step}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    items = [{"item_id": f"{b}-{n}", "title": f"brand{b} thing {n}"} for b in range(BRANDS) for n in range(EACH)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    return parse_settings(
        {
            "name": "brands",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl", "text": ["title"]},
            "model": {"dimensions": 8, "heads": 1, "blocks": 1, "max_length": 8, "text": False},
            "train": {"epochs": 1, "batch_size": 64},
            "evaluate": {"cutoffs": [10], "baselines": []},
            "blend": {"kind": "always", "text": False, "counts": False, "candidates": 12},
            "retrieve": {"k": 5},
        }
    )


def test_one_class_and_one_registration(tmp_path: Path, registered: None) -> None:
    settings = shop(tmp_path)
    versions = ingest(settings).versions
    report = fit(settings, versions)
    assert report.blend is not None and report.blend.weights is not None and report.blend.validation is not None
    weights = dict(zip(report.blend.weights["feature"], report.blend.weights["alone"], strict=True))
    assert weights["same_word"] > 2 * abs(weights["model"])
    assert report.blend.validation["same_word"]["val/hr_at_10"] > 0.9

    bundle = read_bundle(report.bundle)
    served = open_bundle(report.bundle)
    assert served.blended is not None and served.blended.names[-1] == "first_word"
    assert bundle.features()["blend"]["sources"][-1] == "first_word"
    assert evaluate(settings, versions, report.bundle).metrics["test/hr_at_10"] > 0.9
    retrieve(settings, versions, report.bundle, "r1", datetime(2026, 5, 1, tzinfo=UTC))
    best = read_candidates(settings.warehouse).filter(pl.col("rank") == 1).collect()
    assert best["source"].str.contains("first_word").mean() > 0.9
    assert {row["item_id"][0] for row in served.recommend(["3-1"], 5)} == {"3"}

    SOURCES.pop("first_word")
    with pytest.raises(InputError) as caught:
        _ = open_bundle(report.bundle).blended
    told = str(caught.value)
    assert told.startswith(f"The bundle {report.bundle} cannot be read: its blend asks the source 'first_word'")
    assert "\n" not in told and told.count(". ") == 0


def test_older_bundles_do_not_ask_it(tmp_path: Path) -> None:
    """A source that came later changes nothing about a bundle that was fitted without it."""
    settings = shop(tmp_path)
    report = fit(settings, ingest(settings).versions)
    before = open_bundle(report.bundle).recommend(["3-1"], 5)
    register(FirstWord)
    try:
        assert open_bundle(report.bundle).recommend(["3-1"], 5) == before
    finally:
        SOURCES.pop("first_word")


def other(**changed: Any) -> type[Source]:
    return type("Other", (FirstWord,), {"name": "other", "FEATURES": (Feature(name="mine"),)} | changed)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "vector"}, "there is a source 'vector' already"),
        ({"FEATURES": (Feature(name="popular"),)}, "there is a feature 'popular' already"),
        ({"FEATURES": (Feature(name="mine"), Feature(name="mine"))}, "there is a feature 'mine' already"),
        ({"FEATURES": (Feature(name="blend"),)}, "there is a feature 'blend' already"),
        ({"CONTEXT": ("length",)}, "there is a context value 'length' already"),
        ({"name": "a+b"}, r"the source 'a\+b' needs a name of letters"),
        ({"FEATURES": ()}, "'other' has no feature"),
    ],
)
def test_a_source_that_cannot_be_told_apart_is_refused(changed: dict[str, Any], message: str) -> None:
    before = dict(SOURCES)
    with pytest.raises(ValueError, match=message):
        register(other(**changed))
    assert before == SOURCES


def test_there_are_as_many_sources_as_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in range(MOST - len(SOURCES)):
        name = f"s{place}"
        monkeypatch.setitem(SOURCES, name, other(name=name, FEATURES=(Feature(name=name),)))
    with pytest.raises(ValueError, match="64 sources already"):
        register(other())
