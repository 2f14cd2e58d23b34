"""What a sequence model learns in one shop from texts alone, it knows in another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bundles.bundle import read_bundle
from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.evaluation.metrics import per_user
from recsys.evaluation.ranking import rank_targets
from recsys.ingestion.ingest import ingest
from recsys.models.sequential import pretrain as module
from recsys.models.sequential.pretrain import pretrain_sequence, united
from recsys.night.fit import fit
from recsys.settings import Settings
from recsys.settings.pretrain import PretrainSettings
from recsys.settings.read import parse_settings
from recsys.text import catalogue as catalogue_text
from tests.recsys.opened import queries_of

KINDS = ("lamp", "drill", "brush", "valve", "spoon", "tent")
MODEL = {
    "objective": "next-item",
    "ids": False,
    "attributes": False,
    "item_bias": False,
    "text_adapter": "identity",
    "recency_mean": True,
    "temperature": 0.1,
    "dimensions": 16,
    "max_length": 8,
    "blocks": 1,
    "head": False,
}
TEXT = {"dimensions": 16}


def write_shop(folder: Path, name: str, seed: int) -> None:
    """Whoever bought a lamp buys a drill next, then a brush, ...: which one is up to chance."""
    generator = np.random.default_rng(seed)
    titles = {f"i{n}": f"{KINDS[n % 6]} {name} {n}" for n in range(36)}
    histories = {
        f"u{user}": [f"i{(start + step) % 6 + 6 * generator.integers(6)}" for step in range(6)]
        for user, start in enumerate(generator.integers(6, size=150))
    }
    (folder / f"{name}.json").write_text(json.dumps(histories))
    (folder / f"{name}-items.json").write_text(json.dumps(titles))


def vectors(_: Any, sentences: pl.Series) -> np.ndarray:
    """A direction for each kind and a little for each title, in place of a language model's."""
    kinds = np.random.default_rng(7).standard_normal((len(KINDS), 24))
    found = np.zeros((len(sentences), 24), dtype=np.float32)
    for row, sentence in enumerate(sentences.to_list()):
        kind = next((place for place, kind in enumerate(KINDS) if kind in (sentence or "")), None)
        if kind is not None:
            found[row] = kinds[kind] + 0.3 * np.random.default_rng(len(sentence) * 1000 + row).standard_normal(24)
    return found


@pytest.fixture
def shops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_shop(tmp_path, "one", 0)
    write_shop(tmp_path, "two", 1)
    write_shop(tmp_path, "three", 2)
    for place in (module, catalogue_text):
        monkeypatch.setattr(place, "text_vectors", vectors)
    return tmp_path


def source(name: str) -> dict[str, Any]:
    return {
        "interactions": {"source": f"{name}.json", "format": "json"},
        "items": {"source": f"{name}-items.json", "format": "json", "text": ["title"]},
    }


def pretraining(folder: Path, **changes: Any) -> PretrainSettings:
    tree: dict[str, Any] = {
        "name": "walks",
        "data_root": str(folder),
        "warehouse": str(folder / "store"),
        "catalogues": {"one": source("one"), "two": source("two"), "three": source("three") | {"held_out": True}},
        "model": MODEL,
        "text": TEXT,
        "sequence": {"epochs": 12, "batch_size": 32, "learning_rate": 0.003, "evaluate_every": 4},
    }
    return PretrainSettings.model_validate(tree | changes)


def shop(folder: Path, name: str, **train: Any) -> Settings:
    return parse_settings(
        {
            "name": name,
            "data_root": str(folder),
            "warehouse": str(folder / name),
            **source(name),
            "model": MODEL,
            "text": TEXT,
            "train": {"epochs": 0, **train},
            "blend": {"kind": "never"},
        }
    )


def quality(settings: Settings) -> float:
    """Test NDCG@10 of a fit."""
    versions = ingest(settings).versions
    bundle = read_bundle(fit(settings, versions).bundle)
    held_out = prepare(settings, versions).split.test
    queries = queries_of(bundle, held_out.histories.items, held_out.histories.offsets)
    ranking = rank_targets(
        lambda start, stop: queries[start:stop] @ bundle.vectors.T, held_out, bundle.allowed, top_k=1
    )
    return float(per_user(ranking.ranks, "ndcg", 10).mean())


def test_what_is_learnt_in_two_shops_is_known_in_a_third(shops: Path) -> None:
    settings = pretraining(shops)
    versions = {name: ingest(settings.catalogue(name)).versions for name in settings.catalogues}
    report = pretrain_sequence(settings, versions)
    assert report.history[-1]["val/three_ndcg_at_10"] == report.history[-1]["val/ndcg_at_10"]
    bundle = read_bundle(report.folder)
    assert bundle.vocabulary.size == 72 and bundle.vocabulary.items[0].startswith("one/")
    assert {name for name, counts in report.catalogues.items() if counts["held_out"]} == {"three"}

    untrained = quality(shop(shops, "three"))
    zero_shot = quality(shop(shops, "three", warm_start=str(shops / "store" / "bundles" / "walks")))
    assert zero_shot > untrained + 0.2
    again = pretrain_sequence(settings, versions)
    assert again.identity == report.identity


def test_catalogues_are_put_side_by_side(shops: Path) -> None:
    settings = pretraining(shops)
    datasets = {n: prepare(settings.catalogue(n), ingest(settings.catalogue(n)).versions) for n in ("one", "two")}
    vocabulary, catalogue, histories = united(datasets, settings)
    assert catalogue["item_id"].equals(vocabulary.items, check_names=False)
    for place, (name, dataset) in enumerate(datasets.items()):
        train = dataset.split.train
        user = len(datasets["one"].split.train) * place + 3
        assert histories.users[user] == f"{name}/{train.users[3]}"
        raw = [f"{name}/{item}" for item in dataset.vocabulary.decode(train.history(3)).to_list()]
        assert vocabulary.decode(histories.history(user)).to_list() == raw


def test_a_catalogue_that_is_learnt_from_whole_says_so(shops: Path) -> None:
    # 150 users of six events each, of which the last two are otherwise kept for validation and test
    catalogues = {"one": source("one") | {"whole": True}, "two": source("two")}
    settings = pretraining(shops, catalogues=catalogues, sequence={"epochs": 1})
    versions = {name: ingest(settings.catalogue(name)).versions for name in settings.catalogues}
    report = pretrain_sequence(settings, versions)
    assert {name: counts["events"] for name, counts in report.catalogues.items()} == {"one": 900, "two": 600}


def test_what_belongs_to_an_item_is_refused(shops: Path) -> None:
    for change in ({"ids": True}, {"text_adapter": "linear"}, {"item_bias": True}):
        with pytest.raises(ValueError, match="what passes from shop to shop needs"):
            pretraining(shops, model={**MODEL, **change})


def test_a_catalogue_without_text_is_named(shops: Path) -> None:
    (shops / "two-items.json").write_text(json.dumps({f"i{n}": "" for n in range(36)}))
    settings = pretraining(shops)
    versions = {name: ingest(settings.catalogue(name)).versions for name in settings.catalogues}
    with pytest.raises(InputError, match="No item of the catalogue 'two' has any text"):
        pretrain_sequence(settings, versions)
