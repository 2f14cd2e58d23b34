"""What yesterday's bundle knows passes to today's model by raw id, and nothing else does."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.bundles.store import publish_bundle
from recsys.candidates import text as source_text
from recsys.data.prepare import Dataset, prepare
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.features.multiplexed import lookup_rows
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.models.sequential.build import build_model, item_features
from recsys.models.sequential.estimator import item_text
from recsys.models.sequential.feature_encoders import fit_encoders
from recsys.models.sequential.item_tower import ID_FEATURE, ItemFeatures
from recsys.models.sequential.warm_start import (
    Counts,
    WarmStart,
    after_warm_start,
    earlier_bundle,
    grown_rows,
    start_from,
)
from recsys.night.fit import FitReport, fit
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.text import catalogue as catalogue_text
from recsys.training.origin import known_before, trained_until
from tests.recsys.opened import encoders_of

LETTERS = 26


def vectors_of(_: Settings, sentences: pl.Series) -> np.ndarray:
    """As a text encoder, but quick: a random direction for each sentence."""
    seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "little") for text in sentences]
    return np.stack([np.random.default_rng(seed).standard_normal(12).astype(np.float32) for seed in seeds])


@pytest.fixture(autouse=True)
def encoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue_text, "text_vectors", vectors_of)
    monkeypatch.setattr(source_text, "text_vectors", vectors_of)


def write_day(folder: Path, items: range, seed: int = 0) -> None:
    """Ninety users walk a ring of these items; item n has the title and the kind of its letter, n modulo 26."""
    folder.mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    lines = ["user_id,item_id,timestamp"]
    for user in range(90):
        start, length = rng.integers(len(items)), rng.integers(5, 9)
        lines += [f"{user},i{items[(start + n) % len(items)]},{1_600_000_000 + 100 * n}" for n in range(length)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    catalogue = [{"item_id": f"i{n}", "title": f"Title {n % LETTERS}", "kind": f"k{n % LETTERS}"} for n in items]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, catalogue)))


def settings_of(folder: Path, warehouse: Path | None = None, **more: Any) -> Settings:
    model = {"dimensions": 16, "max_length": 10, "blocks": 1, "temperature": None, **more.pop("model", {})}
    train = {"epochs": 3, "batch_size": 16, "evaluate_every": 1, "learning_rate": 0.01, "next_item_share": 0}
    train |= more.pop("train", {})
    return parse_settings(
        {
            "name": "ring",
            "data_root": str(folder),
            "warehouse": str(warehouse or folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl", "text": ["title"], "categorical": {"kind": {}}},
            "text": {"dimensions": 8},
            "model": model,
            "train": train,
            "blend": {"kind": "never"},
        }
        | more
    )


def trained(settings: Settings) -> FitReport:
    return fit(settings, ingest(settings).versions)


@pytest.fixture(scope="module")
def yesterday(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """Items i0 to i29."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_text, "text_vectors", vectors_of)
        folder = tmp_path_factory.mktemp("yesterday")
        write_day(folder, range(30))
        return read_bundle(trained(settings_of(folder)).bundle)


def today(
    folder: Path, items: range, previous: Bundle, **more: Any
) -> tuple[Bert4Rec, ItemFeatures, Dataset, WarmStart]:
    """A new model that has started from yesterday's bundle, untrained."""
    write_day(folder, items, seed=1)
    settings = settings_of(folder, **more)
    dataset = prepare(settings, ingest(settings).versions)
    encoders = fit_encoders(settings, dataset, encoders_of(previous))
    features = item_features(dataset, encoders, item_text(settings, dataset, previous))
    train = dataset.split.train
    model = build_model(settings, features, previous, encoders.side_features(train))
    events = np.bincount(train.items, minlength=features.size)
    started = start_from(previous, model, features, settings, events, encoders.side(train))
    return model, features, dataset, started


def matched(previous: Bundle, dataset: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the items that both know, in either."""
    new = np.arange(1, dataset.vocabulary.size + 1)
    old = previous.vocabulary.encode(dataset.vocabulary.items)
    return old[old > 0], new[old > 0]


def same(one: np.ndarray, other: np.ndarray) -> bool:
    """Equal but for the last digit, which on some processors depends on a row's place in its product."""
    return np.allclose(one, other, rtol=0, atol=1e-6)


def test_the_same_catalogue_keeps_every_vector(yesterday: Bundle, tmp_path: Path) -> None:
    model, _, dataset, started = today(tmp_path, range(30), yesterday)
    old, new = matched(yesterday, dataset)
    assert len(new) == 30 and (old != new).any()  # the codes are others, the ids decide
    assert same(model.item_vectors()[0][new], yesterday.vectors[old])
    weights = yesterday.weights()
    for name, tensor in model.state_dict().items():
        if name.startswith("encoder."):
            assert torch.equal(tensor, weights[name]), name
    assert started.bundle == yesterday.label
    assert started.items == Counts(copied=30, new=0, dropped=0)
    assert started.fresh == ()


@pytest.mark.parametrize(("items", "factor"), [(range(5, 36), 1), (range(5, 80), 2), (range(130), 3)])
def test_a_grown_catalogue_keeps_the_vectors_of_what_is_known(
    yesterday: Bundle, tmp_path: Path, items: range, factor: int
) -> None:
    model, features, dataset, started = today(tmp_path, items, yesterday)
    old, new = matched(yesterday, dataset)
    seen = features.trained.numpy()[new]  # an id that today's training part lacks is not looked up
    assert seen.sum() > 15
    assert same(model.item_vectors()[0][new[seen]], yesterday.vectors[old[seen]])
    known = len(set(items) & set(range(30)))
    assert started.items == Counts(copied=known, new=len(items) - known, dropped=30 - known)
    assert model.tower.table is not None
    before = yesterday.features()["table"]["rows"]
    assert model.tower.table.rows == before * factor
    assert started.rows.copied + started.rows.new == before * factor
    assert 0 < started.rows.dropped < before


def test_rows_pass_by_raw_id_where_the_sizes_have_nothing_in_common(yesterday: Bundle, tmp_path: Path) -> None:
    """So wide a table that no two values share a row: every vector is kept there, too."""
    model, features, dataset, started = today(tmp_path, range(3, 33), yesterday, model={"table_rows": 1_000_003})
    old, new = matched(yesterday, dataset)
    assert np.allclose(model.item_vectors()[0][new], yesterday.vectors[old], atol=1e-6)
    values = 27 + LETTERS  # known items, and the kinds that they have
    assert started.rows == Counts(copied=2 * values, new=1_000_003 - 2 * values, dropped=started.rows.dropped)
    # an id that is new says next to nothing: what it starts with is its letter's title and kind
    fresh = np.flatnonzero(yesterday.vocabulary.encode(dataset.vocabulary.items) == 0) + 1
    rows = lookup_rows(features.id_hashes[fresh], ID_FEATURE, 2, 1_000_003)
    assert model.tower.table is not None
    assert model.tower.table.single(rows).detach().abs().max() < 0.1
    vectors, titles = model.item_vectors()[0], dataset.catalogue["title"].to_list()
    for code in fresh:
        content = vectors[code] - np.append(model.tower.table.single(rows[fresh == code])[0].detach(), 0)
        twin = 1 + next(place for place, title in enumerate(titles) if title == titles[code - 1] and place + 1 != code)
        alone = vectors[twin].copy()
        alone[:-1] -= model.tower.table.single(model.tower.id_rows[[twin]])[0].detach().numpy()
        assert np.allclose(content[:-1], alone[:-1], atol=1e-5)


def test_heirs_of_several_rows_are_their_mean_weighed_by_events(yesterday: Bundle, tmp_path: Path) -> None:
    model, features, dataset, _ = today(tmp_path, range(30), yesterday, model={"table_rows": 16, "attributes": False})
    assert model.tower.table is not None
    old = yesterday.weights()["tower.table.weight"]
    events = np.bincount(dataset.split.train.items, minlength=features.size)
    targets, sources = (lookup_rows(features.id_hashes, ID_FEATURE, 2, rows) for rows in (16, len(old)))
    expected, total = np.zeros((16, 8)), np.zeros(16)
    for item in range(1, features.size):
        for target, source in zip(targets[item], sources[item], strict=True):
            expected[target] += (events[item] + 1) * old[source].numpy()
            total[target] += events[item] + 1
    hit = total > 0
    assert np.allclose(model.tower.table.weight.detach()[hit], expected[hit] / total[hit, None], atol=1e-5)


def test_the_table_grows_by_whole_factors(yesterday: Bundle) -> None:
    rows = yesterday.features()["table"]["rows"]
    assert [grown_rows(round(rows * share), yesterday) // rows for share in (0.2, 1, 1.4, 1.6, 2.4, 2.6)] == [
        1, 1, 1, 2, 2, 3,
    ]  # fmt: skip


def test_what_is_new_in_the_model_starts_afresh(yesterday: Bundle, tmp_path: Path) -> None:
    _, _, _, started = today(tmp_path / "text", range(30), yesterday, text={"dimensions": 10})
    assert started.fresh == ("tower.text_map.weight",)  # other whitening, other meaning
    _, _, _, started = today(tmp_path / "no_text", range(30), yesterday, model={"text": False, "attributes": False})
    assert started.fresh == ()


def test_a_warm_night_begins_where_the_last_one_ended(yesterday: Bundle, tmp_path: Path) -> None:
    """One epoch from yesterday's weights beats one epoch from nothing, and the report says what happened."""
    write_day(tmp_path, range(32), seed=1)
    one = {"epochs": 3, "warm_epochs": 1, "learning_rate": 1e-3}
    cold = trained(settings_of(tmp_path, train=one))
    said: list[str] = []
    warm_settings = settings_of(tmp_path, train={**one, "warm_start": str(yesterday.path)})
    warm = fit(warm_settings, ingest(warm_settings).versions, say=said.append)
    assert len(warm.history) == 1
    assert warm.history[0]["val/ndcg_at_10"] > cold.history[0]["val/ndcg_at_10"] + 0.1
    assert cold.warm_start is None and warm.warm_start is not None
    assert warm.warm_start["bundle"] == yesterday.label
    assert warm.warm_start["items"] == {"copied": 30, "new": 2, "dropped": 0}
    assert said[1].startswith(f"Training starts from {yesterday.label}: items 30 copied, 2 new, 0 dropped; table rows ")
    assert read_bundle(warm.bundle).manifest["lineage"]["warm_start"] == yesterday.id


@pytest.mark.parametrize(("epochs", "asked", "planned"), [(70, None, 24), (1, None, 1), (70, 5, 5)])
def test_a_warm_training_is_shorter(tmp_path: Path, epochs: int, asked: int | None, planned: int) -> None:
    settings = settings_of(tmp_path, train={"epochs": epochs, "warm_epochs": asked, "next_item_share": 0.5})
    assert after_warm_start(settings).train.epochs == planned
    assert after_warm_start(settings).train.next_item_share == settings.train.next_item_share / 2


def test_previous_is_the_newest_bundle_of_the_name(yesterday: Bundle, tmp_path: Path) -> None:
    write_day(tmp_path, range(30))
    settings = settings_of(tmp_path, train={"warm_start": "previous", "epochs": 1})
    said: list[str] = []
    versions = ingest(settings).versions
    first = fit(settings, versions, say=said.append)
    assert first.warm_start is not None and first.warm_start["bundle"] is None
    assert said[0] == f"Training starts from nothing: {first.warm_start['reason']}"
    assert "There is no bundle 'ring'" in said[0]
    publish_bundle(settings.warehouse, first.bundle)
    second = fit(settings, versions)
    assert second.warm_start is not None and second.warm_start["bundle"] == read_bundle(first.bundle).label
    weights = Path(first.bundle) / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    third = fit(settings, versions)  # a night goes on where yesterday's bundle is damaged
    assert third.warm_start is not None and "weights.safetensors" in third.warm_start["reason"]


def test_a_bundle_that_was_named_must_be_there(yesterday: Bundle, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no bundle .*nothing, and no other one beside it"):
        earlier_bundle(settings_of(tmp_path, train={"warm_start": str(tmp_path / "nothing")}))
    moved = shutil.copytree(yesterday.path, tmp_path / "elsewhere")
    origin = earlier_bundle(settings_of(tmp_path, train={"warm_start": str(moved)}))
    found, reason = origin.bundle, origin.reason
    assert found is not None and found.id == yesterday.id and reason is None


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"dimensions": 32}, "has model.dimensions = 16 and this configuration has 32"),
        ({"blocks": 3}, "has model.blocks = 1 and this configuration has 3"),
        ({"norm_first": False}, "has model.norm_first = True and this configuration has False"),
        ({"max_length": 20}, "has model.max_length = 10 and this configuration has 20"),
    ],
)
@pytest.mark.parametrize("how", ["named", "previous"])
def test_another_architecture_is_one_sentence(
    yesterday: Bundle, tmp_path: Path, model: dict[str, Any], told: str, how: str
) -> None:
    warehouse = yesterday.path.parent.parent
    publish_bundle(warehouse, yesterday.path)
    asked = "previous" if how == "previous" else str(yesterday.path)
    with pytest.raises(InputError) as caught:
        earlier_bundle(settings_of(tmp_path, warehouse, model=model, train={"warm_start": asked}))
    assert told in str(caught.value) and "--set train.warm_start=none" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("model", [{"dropout": 0.5}, {"id_dropout": 0.3}, {"table_rows": 500}, {"text": False}])
def test_what_does_not_change_the_weights_may_differ(yesterday: Bundle, tmp_path: Path, model: dict[str, Any]) -> None:
    found = earlier_bundle(settings_of(tmp_path, model=model, train={"warm_start": str(yesterday.path)})).bundle
    assert found is not None


def with_lineage(bundle: Bundle, **changed: Any) -> Bundle:
    """Changed entries; None takes one out."""
    lineage = {**bundle.manifest["lineage"], **changed}
    kept = {name: value for name, value in lineage.items() if value is not None}
    return replace(bundle, manifest={**bundle.manifest, "lineage": kept})


def test_a_log_that_grows_under_leave_one_out_tells_no_test_item(yesterday: Bundle, tmp_path: Path) -> None:
    write_day(tmp_path, range(30))
    settings = settings_of(tmp_path)
    split = prepare(settings, ingest(settings).versions).split
    assert known_before(yesterday, settings, split) is None
    said = "was trained with another [split] or [filter], so it may know events that are held out now"
    for more in ({"filter": {"min_user_interactions": 2}}, {"filter": {"repeats": "first"}}):
        told = known_before(yesterday, settings_of(tmp_path, **more), split)
        assert told is not None and said in told and yesterday.label in told
    # a basket is held out whole, so one way of holding out trains on what the other holds out
    baskets = {"split": {"same_time": "basket"}, "model": {"objective": "next-item"}}
    in_baskets = settings_of(tmp_path, **baskets)
    told = known_before(yesterday, in_baskets, split)
    assert told is not None and said in told
    by_baskets = replace(yesterday, settings=in_baskets)
    told = known_before(by_baskets, settings, split)
    assert told is not None and said in told
    assert known_before(by_baskets, in_baskets, split) is None
    # an item that is had again leaves its old place, where yesterday's training had it
    moving = settings_of(tmp_path, filter={"repeats": "last"})
    told = known_before(replace(yesterday, settings=moving), moving, split)
    assert told is not None and 'filter.repeats = "last"' in told
    pretrained = known_before(with_lineage(yesterday, data=None), settings, split)
    assert pretrained is not None and "does not say which events it was trained on" in pretrained
    # a night that began with such weights hands the doubt on
    assert known_before(with_lineage(yesterday, known_before=said), settings, split) == said


@pytest.mark.parametrize("validation", ["time", "last-event", "users"])
def test_a_cut_off_that_lies_behind_the_earlier_training_is_said(
    yesterday: Bundle, tmp_path: Path, validation: str
) -> None:
    write_day(tmp_path, range(30))
    settings = settings_of(tmp_path, split={"strategy": "time", "validation": validation})
    split = prepare(settings, ingest(settings).versions).split
    cut = split.validation_from
    assert cut is not None and (cut == split.test_from) == (validation != "time")
    assert known_before(with_lineage(yesterday, trained_until=cut - 1), settings, split) is None
    told = known_before(with_lineage(yesterday, trained_until=cut), settings, split)
    assert told is not None and "was trained on events up to 2020-09-13T" in told and "after the cut-off" in told
    silent = known_before(with_lineage(yesterday, trained_until=None), settings, split)
    assert silent is not None and "does not say up to when it was trained" in silent


def test_the_newest_event_that_was_learnt_from_passes_on(yesterday: Bundle, tmp_path: Path) -> None:
    write_day(tmp_path, range(30))
    settings = settings_of(tmp_path)
    train = prepare(settings, ingest(settings).versions).split.train
    assert train.times is not None
    own = int(train.times.max())
    assert yesterday.manifest["lineage"]["trained_until"] == own == trained_until(train, None)
    assert trained_until(train, with_lineage(yesterday, trained_until=own + 9)) == own + 9
    assert trained_until(train, with_lineage(yesterday, trained_until=own - 9)) == own
    assert trained_until(train, with_lineage(yesterday, trained_until=None)) is None
    assert trained_until(replace(train, times=None), None) is None


def test_what_may_be_known_stands_in_the_report(yesterday: Bundle, tmp_path: Path) -> None:
    write_day(tmp_path, range(30), seed=1)
    settings = settings_of(
        tmp_path, train={"warm_start": str(yesterday.path), "epochs": 1}, filter={"min_user_interactions": 2}
    )
    versions, said = ingest(settings).versions, list[str]()
    report = fit(settings, versions, say=said.append)
    told = evaluate(settings, versions, report.bundle).report["protocol"]["warm_start"]
    assert told == said[0] and told.startswith(f"The bundle {yesterday.label}, from which training begins, was trained")
    plain = settings_of(tmp_path, train={"warm_start": str(yesterday.path), "epochs": 1})
    stated = evaluate(plain, versions, fit(plain, versions).bundle).report["protocol"]
    assert "warm_start" not in stated
