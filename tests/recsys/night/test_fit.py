from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundles.bundle import read_bundle
from recsys.data.consumed import Consumed
from recsys.data.prepare import few_users, prepare
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, drawn_users, leave_one_out
from recsys.errors import InputError
from recsys.features.declaration import Feature
from recsys.ingestion.ingest import ingest
from recsys.models.sequential import estimator as fitting
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.models.sequential.build import table_rows
from recsys.models.sequential.estimator import validation
from recsys.models.sequential.item_tower import Attribute, ItemFeatures
from recsys.models.sequential.side import SideFeatures
from recsys.night.fit import blend_of, fit
from recsys.ranking import fit as ranking
from recsys.settings import BlendSettings, EvaluateSettings, ModelSettings, Settings, TrainSettings
from recsys.settings.read import parse_settings
from recsys.text.represent import represent
from recsys.training import checkpoint
from recsys.training.validation import validation_metrics
from tests.recsys.night.killed import Killed, fragile
from tests.recsys.opened import queries_of, sequence_queries


def test_the_table_is_as_large_as_separate_tables_would_be() -> None:
    of = ItemFeatures(
        id_hashes=torch.arange(101),
        trained=torch.ones(101, dtype=torch.bool),
        attributes={
            "brand": Attribute(
                feature=Feature(name="brand", lookups=4, kind="multi"),
                hashes=torch.tensor([1, 1, 2]),
                offsets=torch.zeros(102, dtype=torch.int64),
            )
        },
    )
    assert table_rows(of, ModelSettings(id_lookups=2)) == 101 * 2 + 2 * 4
    assert table_rows(of, ModelSettings(id_lookups=2), SideFeatures(rows=7)) == 101 * 2 + 2 * 4 + 7
    assert table_rows(of, ModelSettings(ids=False)) == 16  # never tiny


def write_data(folder: Path) -> None:
    """Users walk a ring of 30 items; item 31 is in the catalogue only and looks like item 7."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(120):
        start, length = rng.integers(30), rng.integers(5, 9)
        lines += [f"{user},i{(start + n) % 30},{1_600_000_000 + 100 * n}" for n in range(length)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    items = [{"item_id": f"i{n}", "title": f"Item {n}", "kind": ["even", "odd"][n % 2]} for n in range(30)]
    items.append({"item_id": "i31", "title": "Item 7", "kind": "odd"})
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))


def settings(folder: Path, **model: Any) -> Settings:
    return parse_settings(
        {
            "name": "ring",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl", "text": ["title"], "categorical": {"kind": {}}},
            "model": {"dimensions": 16, "max_length": 10, "text": False} | model,
            "train": {"epochs": 4, "batch_size": 16, "evaluate_every": 2, "learning_rate": 0.01, "next_item_share": 0},
            "blend": {"kind": "never"},
        }
    )


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_data(tmp_path)
    return tmp_path


def test_a_fit_gives_a_bundle_that_needs_no_data(data: Path) -> None:
    configured = settings(data)
    entries: list[dict[str, float]] = []
    report = fit(configured, ingest(configured).versions, entries.append)
    assert [entry["epoch"] for entry in entries] == [1, 2, 3, 4]
    assert {"loss", "tokens_per_second"} <= entries[0].keys()
    assert "val/ndcg_at_10" in entries[1] and "val/ndcg_at_10" not in entries[0]
    assert report.best_epoch in (2, 4)
    for table in ("interactions", "items"):
        (data / "warehouse" / table).rename(data / f"gone_{table}")
    bundle = read_bundle(report.bundle)
    codes = bundle.vocabulary.encode_text(["i3", "i4"])
    query = queries_of(bundle, codes, np.array([0, 2]))
    assert query.shape == (1, bundle.vectors.shape[1])
    assert bundle.allowed[bundle.vocabulary.encode_text(["i31"])].all()  # its attribute places it


def test_the_first_half_asks_for_next_items_and_is_not_validated(data: Path) -> None:
    configured = settings(data)
    train = configured.train.model_copy(
        update={"next_item_share": TrainSettings().next_item_share, "evaluate_every": 1}
    )
    configured = configured.model_copy(update={"train": train})
    report = fit(configured, ingest(configured).versions)
    assert ["val/ndcg_at_10" in entry for entry in report.history] == [False, False, True, True]
    assert report.best_epoch > 2


def test_the_same_value_gives_the_same_bundle(data: Path) -> None:
    configured = settings(data)
    versions = ingest(configured).versions
    first, second = fit(configured, versions), fit(configured, versions)
    assert first.bundle_id == second.bundle_id
    another = configured.model_copy(update={"seed": 1})
    assert fit(another, versions).bundle_id != first.bundle_id


def test_ids_alone_do_not_recommend_what_nobody_has_seen(data: Path) -> None:
    configured = settings(data, attributes=False)
    bundle = read_bundle(fit(configured, ingest(configured).versions).bundle)
    assert not bundle.allowed[bundle.vocabulary.encode_text(["i31"])].any()


def test_a_training_that_would_not_fit_says_so_before_it_begins(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = settings(data)
    versions = ingest(configured).versions
    said: list[str] = []
    fit(configured, versions, say=said.append)
    assert said[0] == "Training takes about 0.1 GiB of memory."
    monkeypatch.setattr(fitting, "free_memory", lambda: 2**20)
    monkeypatch.setattr(fitting, "build_model", lambda *_: pytest.fail("began"))
    with pytest.raises(InputError, match=r"would take about 0\.1 GiB of memory at its peak, and 0\.0 GiB are free"):
        fit(configured, versions)


@pytest.mark.parametrize(("objective", "longest"), [("cloze", 10), ("next-item", 11)])
def test_training_uses_every_position_of_the_encoder(
    objective: str, longest: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A question of next-item training stands at each event but the last, so a window holds one more."""
    configured = settings(data, objective=objective)
    given: dict[str, Any] = {}
    plain = fitting.train

    def watched(*arguments: Any, **named: Any) -> Any:
        given.update(named)
        return plain(*arguments, **named)

    monkeypatch.setattr(fitting, "train", watched)
    fit(configured, ingest(configured).versions)
    assert given["max_length"] == longest


def questions() -> HeldOut:
    """Sixty users with more events than the encoder reads; a third of the targets were had."""
    rng = np.random.default_rng(0)
    lists = [rng.permutation(30)[: rng.integers(9, 14)] + 1 for _ in range(60)]
    targets = [one[0] if user % 3 == 0 else rng.integers(1, 31) for user, one in enumerate(lists)]
    histories = Sequences(
        users=pl.Series(range(60)),
        items=np.concatenate(lists).astype(np.int32),
        offsets=np.cumsum([0, *map(len, lists)]).astype(np.int64),
    )
    return HeldOut(histories=histories, targets=np.array(targets, dtype=np.int32))


def ring_model(**model: Any) -> Bert4Rec:
    torch.manual_seed(0)
    of = ItemFeatures(id_hashes=torch.arange(31), trained=torch.ones(31, dtype=torch.bool))
    built = Bert4Rec(of, ModelSettings(dimensions=16, max_length=10, **model), 64)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return built


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_validation_asks_as_serving_does(objective: str, exclude_seen: bool, tmp_path: Path) -> None:
    """Whole windows, the history's own items as evaluation has them, and what a model knows of repeats."""
    repeats = objective == "next-item"
    configured = settings(tmp_path, objective=objective, repeat_bias=repeats)
    configured = configured.model_copy(
        update={
            "evaluate": configured.evaluate.model_copy(update={"exclude_seen": exclude_seen}),
            "train": configured.train.model_copy(update={"precision": "fp32"}),
        }
    )
    built = ring_model(objective=objective, repeat_bias=repeats)
    asked = questions()
    found = validation(configured, asked)(built)
    vectors, _ = built.item_vectors()
    serve = sequence_queries(configured.model, built.state_dict(), vectors)
    of = asked.histories
    scores = serve(of.items, of.offsets) @ vectors.T
    for user in range(len(of)):
        history = of.history(user)
        if built.encoder.repeats is not None:
            numbers = built.encoder.repeats().detach().numpy()
            for back, item in enumerate(history[::-1][: len(numbers)]):
                scores[user, item] += numbers[back]
        if exclude_seen:
            scores[user, history] = -np.inf
    scores[:, 0] = -np.inf
    own = scores[np.arange(len(of)), asked.targets]
    gains = [0.0 if np.isneginf(one) else 1 / (1 + (row > one).sum()) for row, one in zip(scores, own, strict=True)]
    gains = [gain if gain >= 0.1 else 0.0 for gain in gains]
    assert found["val/mrr_at_10"] == pytest.approx(np.mean(gains), abs=1e-4)


def test_only_the_same_training_goes_on_from_a_checkpoint(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = settings(data)
    versions = ingest(configured).versions
    whole = fit(configured, versions)
    folder = data / "warehouse" / "runs" / "training"
    assert whole.resumed is None and not list(folder.glob("*"))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "Checkpoints", fragile(10))
        with pytest.raises(Killed):
            fit(configured, versions)
    assert len(list(folder.iterdir())) == 1
    others = [
        configured.model_copy(update={"seed": 1}),
        configured.model_copy(update={"train": configured.train.model_copy(update={"epochs": 1})}),
    ]
    assert [fit(other, versions).resumed for other in others] == [None, None]
    with (data / "log.csv").open("a") as log:
        log.write("7,i3,1700000000\n")
    assert fit(configured, ingest(configured).versions).resumed is None  # other data
    said: list[str] = []
    again = fit(configured, versions, say=said.append)
    assert again.resumed == {"epoch": 2, "step": 2}  # eight steps an epoch
    assert said[-1] == "Training resumed at epoch 2, step 2."
    assert again.bundle_id == whole.bundle_id
    assert not list(folder.iterdir())


def test_without_epochs_the_model_is_as_it_starts_and_text_alone_ranks(data: Path) -> None:
    """Zero-shot: the untrained text-only sequence model is the text recommender."""
    text_only = {"text": True, "attributes": False, "ids": False, "objective": "next-item", "temperature": 0.1}
    text_only |= {"text_adapter": "identity", "recency_mean": True, "item_bias": False, "dimensions": 32}
    configured = settings(data, **text_only)
    configured = configured.model_copy(
        update={
            "train": configured.train.model_copy(update={"epochs": 0}),
            "text": configured.text.model_copy(update={"dimensions": 16}),
        }
    )
    versions = ingest(configured).versions
    represent(configured, versions)
    report = fit(configured, versions)
    assert report.epochs == 0 and report.history == []
    bundle = read_bundle(report.bundle)
    alike = bundle.vocabulary.encode_text(["i7", "i31"])  # of one title
    query = queries_of(bundle, alike[:1], np.array([0, 1]))
    scores = (query @ bundle.vectors.T)[0]
    assert set(np.argsort(-scores)[:2]) == set(alike.tolist())
    assert np.isclose(scores[alike[0]], 1 / 0.1, rtol=0.01)  # bf16 has two digits


def test_a_smaller_share_of_users_is_a_part_of_a_larger_one(data: Path) -> None:
    configured = settings(data)
    dataset = prepare(configured, ingest(configured).versions)
    parts = {share: set(few_users(dataset, share, 0).split.train.users.to_list()) for share in (0.01, 0.1, 0.5, 1)}
    assert [len(users) for users in parts.values()] == [1, 12, 60, 120]
    assert parts[0.01] < parts[0.1] < parts[0.5] < parts[1]
    few = few_users(dataset, 0.1, 0)
    assert len(few.split.test) == len(dataset.split.test) and few.digest == dataset.digest
    assert set(few_users(dataset, 0.1, 1).split.train.users.to_list()) != parts[0.1]
    user = next(iter(parts[0.01]))
    place, whole = few.split.train.users.to_list().index(user), dataset.split.train.users.to_list().index(user)
    assert few.split.train.history(place).tolist() == dataset.split.train.history(whole).tolist()


def test_the_blend_and_the_model_alone_are_measured_on_the_same_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    users, items, asked = 300, 50, 100
    monkeypatch.setattr(ranking, "USERS", asked)
    rng = np.random.default_rng(0)
    walks = (rng.integers(items, size=(users, 1)) + np.cumsum(rng.choice([1, 1, 7], size=(users, 6)), axis=1)) % items
    log = Sequences(
        users=pl.Series("user_id", np.arange(users)),
        items=(walks.ravel() + 1).astype(np.int32),
        offsets=np.arange(users + 1) * 6,
    )
    dataset: Any = SimpleNamespace(
        split=leave_one_out(log), vocabulary=SimpleNamespace(size=items), catalogue=pl.DataFrame()
    )
    vectors = rng.standard_normal((items + 1, 8)).astype(np.float32) * (np.arange(items + 1) > 0)[:, None]
    model: Any = SimpleNamespace(
        encode=lambda of: vectors[of.items[of.offsets[1:] - 1]],
        vectors=vectors,
        allowed=np.arange(items + 1) > 0,
        repeats=np.array([0.5], dtype=np.float32),
    )
    configured = settings(tmp_path).model_copy(
        update={"blend": BlendSettings(text=False), "evaluate": EvaluateSettings(exclude_seen=False)}
    )
    _, report = blend_of(configured, dataset, model)
    assert report is not None and report.validation is not None
    those = drawn_users(dataset.split.validation, asked, np.random.default_rng(configured.seed))
    assert report.users == len(those) and report.weighed == Consumed.asked(those)
    alone = validation_metrics(model.encode, vectors, model.allowed, those, configured, model.repeats)
    assert report.validation["model"] == alone
    everyone = dataset.split.validation
    assert alone != validation_metrics(model.encode, vectors, model.allowed, everyone, configured, model.repeats)
