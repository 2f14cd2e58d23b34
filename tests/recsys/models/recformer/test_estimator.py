"""A Recformer from the tables to a bundle, and from a bundle or a folder to the next training."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.features.tokens import ItemTokenizer, tokenise
from recsys.ingestion.ingest import ingest
from recsys.models.recformer import catalogue_tokens, estimator
from recsys.models.recformer.encode import encode_histories, item_table
from recsys.models.recformer.estimator import with_projection
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.start import publish, start
from recsys.models.recformer.weights import rebuild, save, unprojected
from recsys.night.fit import FitReport, fit
from recsys.night.refit import refit
from recsys.serving.recommender import recommender_of
from recsys.settings import BlendSettings, RecformerModelSettings, RecformerSettings, Settings
from recsys.settings.read import parse_settings
from recsys.training.validation import PRIMARY, validation_metrics
from tests.recsys.opened import queries_of


@pytest.fixture
def data(tmp_path: Path, shops: ModuleType) -> Path:
    """A generated shop as files; item 900 is in the catalogue only, item 901 has no text."""
    shop = shops.shop(0, users=120)
    width = int(shop.offsets[1])
    events = [
        {"user_id": user, "item_id": int(item), "timestamp": 1_600_000_000 + 100 * place}
        for user, row in enumerate(shop.items.reshape(-1, width))
        for place, item in enumerate(row)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, events)))
    items = [{"item_id": code, "title": title} for code, title in enumerate(shop.frame["title"], 1)]
    items += [{"item_id": 900, "title": f"new {shop.frame['title'][3]}"}, {"item_id": 901, "title": None}]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    return tmp_path


def settings(folder: Path, **recformer: Any) -> Settings:
    small = {"dimensions": 32, "heads": 2, "layers": 1, "vocabulary": 500, "max_items": 4, "max_tokens": 40}
    return parse_settings(
        {
            "name": "shop",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.jsonl"},
            "items": {"source": "items.jsonl", "text": ["title"]},
            "model": {"kind": "recformer"},
            "recformer": small | {"pooling": "items", "second_stage_epochs": 1} | recformer,
            "train": {"epochs": 2, "batch_size": 20, "learning_rate": 0.003, "evaluate_every": 1},
        }
    )


def run(configured: Settings) -> tuple[FitReport, Bundle]:
    report = fit(configured, ingest(configured).versions)
    return report, read_bundle(report.bundle)


def test_a_fit_gives_a_bundle_that_needs_no_data(data: Path) -> None:
    configured = settings(data)
    report, bundle = run(configured)
    assert [entry["stage"] for entry in report.history] == [0, 1, 1, 2]
    assert report.epochs == 3
    assert max(entry["val/ndcg_at_10"] for entry in report.history) > report.history[0]["val/ndcg_at_10"] + 0.1
    for table in ("interactions", "items", "tokens"):
        (data / "warehouse" / table).rename(data / f"gone_{table}")
    codes = bundle.vocabulary.encode_text(["3", "4", "5"])
    queries = queries_of(bundle, codes, np.array([0, 2, 2, 3]))
    assert queries.shape == (3, 32)
    np.testing.assert_allclose(np.linalg.norm(queries, axis=1), [1, 0, 1], rtol=1e-5)
    assert bundle.manifest["bias_dims"] == 0


def test_a_refit_trains_each_stage_as_long_as_the_measured_weights(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scores = iter([0.1, 0.5, 0.3, 0.6])  # stage one is best after its first epoch, and stage two better still
    monkeypatch.setattr(estimator, "validation_metrics", lambda *_: {PRIMARY: next(scores)})
    configured = settings(data).model_copy(update={"blend": BlendSettings(kind="never")})
    report, bundle = run(configured)
    assert report.best_epoch == 3 and bundle.manifest["lineage"]["stages"] == [1, 1]
    served = refit(configured, ingest(configured).versions, bundle.path)
    assert [entry["stage"] for entry in served.history] == [0, 1, 2]


def test_a_cold_item_has_a_vector_and_one_without_text_is_not_recommended(data: Path) -> None:
    _, bundle = run(settings(data))
    cold, mute, like = bundle.vocabulary.encode_text(["900", "901", "4"])
    assert bundle.allowed[cold] and not bundle.allowed[mute]
    scores = bundle.vectors[[like]] @ bundle.vectors.T
    assert cold in np.argsort(-scores[0])[:8]  # among those of its kind
    features = bundle.features()
    assert features["empty_items"] == 1 and features["truncated_values"] == 0
    # an item that comes after training needs its text and the bundle
    model, _, tokenizer = rebuild(features, bundle.weights())
    title = bundle.catalogue["title"][int(cold) - 1]
    new = tokenise(pl.DataFrame({"title": [title]}), ["title"], tokenizer, features["attribute_tokens"])
    vector = encode_histories(model.eval(), new, np.array([1], dtype=np.int32), np.array([0, 1]))
    again = queries_of(bundle, np.array([cold], dtype=np.int32), np.array([0, 1]))
    np.testing.assert_allclose(vector, again, rtol=1e-4, atol=1e-5)


def test_the_same_value_gives_the_same_bundle(data: Path) -> None:
    configured = settings(data)
    first, _ = run(configured)
    second, _ = run(configured)
    assert first.bundle_id == second.bundle_id


def test_a_bundle_and_a_folder_are_what_the_next_training_starts_from(data: Path) -> None:
    trained, bundle = run(settings(data))
    best = max(entry["val/ndcg_at_10"] for entry in trained.history)
    # as it is, with a longer history: nothing is trained, and the table is encoded anew
    taken, again = run(settings(data, init=trained.bundle, fine_tune=False, max_items=6))
    assert taken.epochs == 0
    assert again.features()["init"] == bundle.label
    assert again.features()["tokenizer"] == bundle.features()["tokenizer"]
    further, _ = run(settings(data, init=trained.bundle, second_stage_epochs=0))
    assert further.history[0]["val/ndcg_at_10"] > best - 0.1
    # the same in a folder of its own, found by its name without the hash
    begun = start(settings(data, init=trained.bundle).recformer, [], 0)
    parent = data / "pretrained"
    publish(parent, "words", save(parent, "words", begun.model, begun.head, begun.tokenizer, {}))
    found, _ = run(settings(data, init=str(parent / "words"), second_stage_epochs=0))
    assert [e["val/ndcg_at_10"] for e in found.history] == [e["val/ndcg_at_10"] for e in further.history]


def test_numbers_for_what_was_had_are_validated_served_and_passed_on(data: Path) -> None:
    configured = settings(data).model_copy(update={"model": RecformerModelSettings(repeat_bias=True)})
    trained, bundle = run(configured)
    repeats = recommender_of(bundle).model.repeats
    assert repeats is not None
    assert repeats.shape == (4,) and repeats[0] < 0  # nobody comes back in this shop
    dataset = prepare(configured, ingest(configured).versions)
    served = validation_metrics(
        lambda of: queries_of(bundle, of.items, of.offsets),
        bundle.vectors,
        bundle.allowed,
        dataset.split.validation,
        configured,
        repeats,
    )
    best = max(entry[PRIMARY] for entry in trained.history)
    assert served[PRIMARY] == pytest.approx(best, abs=0.01)  # fp32 for a bundle may differ from training's precision
    longer = settings(data, init=trained.bundle, fine_tune=False, max_items=6)
    _, without = run(longer)
    assert recommender_of(without).model.repeats is None
    _, again = run(longer.model_copy(update={"model": configured.model}))
    more = recommender_of(again).model.repeats
    assert more is not None
    assert more.tolist() == [*repeats.tolist(), *[repeats[-1]] * 2]


def test_a_projection_begins_as_whitening(data: Path) -> None:
    report, bundle = run(settings(data, whitened=8, fine_tune=False))
    assert bundle.vectors.shape[1] == 8
    vectors = bundle.vectors[bundle.allowed]
    assert np.abs(vectors.mean(axis=0)).max() < 0.1
    assert report.history == []


def test_a_learnt_projection_is_aligned_with_the_catalogue_it_serves(shops: ModuleType) -> None:
    wanted = RecformerSettings(
        dimensions=32, heads=2, layers=1, vocabulary=500, max_items=4, max_tokens=40, pooling="items", whitened=8
    )
    begun = start(wanted, [shops.shop(0).frame], 0)
    here, there = (shops.shop(number).corpus(begun.tokenizer).tokens for number in (0, 1))
    learnt = with_projection(begun, here, wanted)

    def projected(model: Recformer) -> np.ndarray:
        states = item_table(unprojected(model), there, dtype=torch.float32)[1:]
        weight, bias = (getattr(model.projection, part).detach().numpy() for part in ("weight", "bias"))
        return states @ weight.T + bias

    assert with_projection(learnt, there, wanted) is learnt
    aligned = wanted.model_copy(update={"aligned": True})
    once = with_projection(learnt, there, aligned)
    before, after = projected(learnt.model), projected(once.model)
    assert np.abs(after.mean(axis=0)).max() < 0.05 < np.abs(before.mean(axis=0)).max()
    covariance = np.cov(after.T, bias=True)
    assert np.trace(covariance) == pytest.approx(8, rel=0.01)
    spread = covariance.diagonal()  # shrinkage leaves weak directions a little behind
    assert spread.max() < 1.5 * spread.min()
    assert np.abs(covariance - np.diag(spread)).max() < 0.25 * spread.min()
    # each axis still means what it meant
    assert all(np.corrcoef(before[:, axis], after[:, axis])[0, 1] > 0.5 for axis in range(8))
    twice = with_projection(once, there, aligned)
    assert np.corrcoef(projected(twice.model).ravel(), after.ravel())[0, 1] > 0.99


def test_aligned_without_a_projection_says_what_to_set() -> None:
    with pytest.raises(ValueError, match="aligned = true needs whitened, the width of the projection; set it"):
        RecformerSettings(aligned=True)


def test_another_kind_of_bundle_cannot_be_read(data: Path) -> None:
    tree = settings(data).model_dump() | {"model": {"dimensions": 16, "text": False, "max_length": 10}}
    tree["train"] = {"epochs": 1, "batch_size": 64}
    ids, _ = run(parse_settings(tree))
    with pytest.raises(InputError, match=r'is a bundle of model.kind = "bert4rec"; name one of a Recformer'):
        run(settings(data, init=ids.bundle))


def test_a_catalogue_without_any_text_says_so(data: Path) -> None:
    lines = [json.loads(line) | {"title": "<br>"} for line in (data / "items.jsonl").read_text().splitlines()]
    (data / "items.jsonl").write_text("\n".join(map(json.dumps, lines)))
    with pytest.raises(InputError, match="No item of the catalogue has any text"):
        run(settings(data))


def test_tokens_are_kept_by_content_and_made_anew_for_another_tokenizer(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pl.DataFrame({"title": ["red lamp", "blue drill"]})
    begun = start(settings(data).recformer, [frame], 0)
    root, calls = str(data / "warehouse"), 0
    made = catalogue_tokens.tokenise

    def counted(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        return made(*arguments)

    monkeypatch.setattr(catalogue_tokens, "tokenise", counted)

    def tokens(frame: pl.DataFrame, tokenizer: ItemTokenizer, most: int = 32) -> Any:
        return catalogue_tokens.catalogue_tokens(root, frame, ["title"], tokenizer, most)

    first, second = tokens(frame, begun.tokenizer), tokens(frame.clone(), begun.tokenizer)
    assert calls == 1
    assert (first.tokens == second.tokens).all() and (first.offsets == second.offsets).all()
    other = start(settings(data).recformer, [frame.with_columns(pl.lit("green").alias("title"))], 0)
    tokens(frame, other.tokenizer)
    tokens(frame, begun.tokenizer, 3)
    tokens(frame.with_columns(pl.lit("green lamp").alias("title")), begun.tokenizer)
    assert calls == 4
    for path in (data / "warehouse" / "tokens").iterdir():
        path.write_bytes(b"broken")
    assert (tokens(frame, begun.tokenizer).tokens == first.tokens).all()
    assert calls == 5


def test_gradients_stay_out_of_what_the_settings_freeze(data: Path) -> None:
    lamp = pl.DataFrame({"title": ["lamp"]})

    def begun(**recformer: Any) -> Any:
        return start(settings(data, **recformer).recformer, [lamp], 0).model

    minilm = {"init": "all-MiniLM-L6-v2", "layers": 1}
    assert not begun(**minilm).words.weight.requires_grad
    assert begun(**minilm, train_token_embeddings=True).words.weight.requires_grad
    assert begun().words.weight.requires_grad  # new ones say nothing yet
    plain = begun(embeddings=False)
    assert not plain.types.weight.requires_grad and not plain.item_positions.weight.requires_grad
    assert torch.equal(plain.types.weight, plain.types.weight[:1].expand(4, -1))
