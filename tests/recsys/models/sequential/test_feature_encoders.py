"""Declared features from the configuration to the bundle and back: what is fitted, stored, refused and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.data.prepare import prepare
from recsys.data.sequences import HistoryVectors
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.features.hashing import hash_values
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.build import build_model, item_features
from recsys.models.sequential.feature_encoders import fit_encoders, unseen_values
from recsys.night.fit import fit
from recsys.serving.recommender import recommender_of
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.table import build as retrieval
from recsys.training.validation import validation_metrics
from tests.recsys.opened import encoders_of, queries_of

USERS, ITEMS = 90, 30
DECLARED: dict[str, Any] = {
    "categorical": {
        "tags": {"lookups": 1, "separator": "|"},
        "maker": {"kind": "single", "column": "brand"},
    },
    "numeric": {"year": {"column": "title", "pattern": r"\((\d{4})\)", "buckets": 4}, "price": {"buckets": 8}},
    "crosses": {"maker by price": {"of": ["maker", "price"], "lookups": 1}},
}
OF_USERS: dict[str, Any] = {
    "source": "users.csv",
    "categorical": {"gender": {"kind": "single"}},
    "numeric": {"age": {"buckets": 4}},
    "id_map": {"source": "user_ids.txt"},
}
EVERY = ["event", "hour", "weekday", "gap", "weight"]


def write(folder: Path, *, times: bool = True) -> None:
    """Users walk a ring of items; i30 and i31 nobody has touched, and one of the two has a tag and price of its own."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp,event,weight" if times else "user_id,item_id,event,weight"]
    for user in range(USERS):
        start, length = rng.integers(ITEMS), rng.integers(6, 10)
        for n in range(length):
            moment = f"{1_600_000_000 + 5000 * n}," if times else ""
            lines.append(f"{user},i{(start + n) % ITEMS},{moment}{['view', 'buy'][n % 2]},{n % 5 + 0.5}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    items = [
        {"item_id": f"i{n}", "title": f"Item {n} ({1990 + n % 8})", "tags": f"t{n % 3}|t{n % 4}", "brand": f"b{n % 5}"}
        | {"price": str(float(n))}
        for n in range(ITEMS)
    ]
    items.append({"item_id": "i30", "title": "Late (1993)", "tags": "t1", "brand": "b1", "price": "3"})
    items.append({"item_id": "i31", "title": "Later", "tags": "new", "brand": "b9", "price": "1e9"})
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, items)))
    rows = [f"m{user},{'fm'[user % 2]},{20 + user % 40}" for user in range(USERS - 1)]  # one user has no row
    (folder / "users.csv").write_text("\n".join(["user_id,gender,age", *rows]) + "\n")
    (folder / "user_ids.txt").write_text("\n".join(f"{user} m{user}" for user in range(USERS)) + "\n")


def settings(folder: Path, **sections: Any) -> Settings:
    items = {"source": "items.jsonl", "text": ["title"], **DECLARED, **sections.pop("items", {})}
    users = {**OF_USERS, **sections.pop("users", {})}
    model = {"dimensions": 16, "max_length": 10, "blocks": 1, "text": False, "context": EVERY}
    return parse_settings(
        {
            "name": "ring",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": items,
            "users": users,
            "model": model | sections.pop("model", {}),
            "train": {"epochs": 2, "batch_size": 16, "evaluate_every": 1, "learning_rate": 0.01},
            "evaluate": {"baselines": ["popularity"]},
            "blend": {"kind": "never"},
        }
        | sections
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Settings, TableVersions, Bundle]:
    folder = tmp_path_factory.mktemp("ring")
    write(folder)
    configured = settings(folder)
    versions = ingest(configured).versions
    return configured, versions, read_bundle(fit(configured, versions).bundle)


def test_validation_knows_what_serving_knows(trained: tuple[Settings, TableVersions, Bundle]) -> None:
    """The best epoch's figures are those of the bundle on the validation users, attributes and context included."""
    configured, versions, _ = trained
    train = configured.train.model_copy(update={"precision": "fp32", "epochs": 4, "next_item_share": 0.0})
    configured = configured.model_copy(update={"train": train})
    report = fit(configured, versions)
    bundle = read_bundle(report.bundle)
    asked = prepare(configured, versions).split.validation

    def figures(queries: HistoryVectors) -> dict[str, float]:
        return validation_metrics(queries, bundle.vectors, bundle.allowed, asked, configured)

    best = report.history[report.best_epoch - 1]
    found = figures(recommender_of(bundle).encode)
    assert {name: best[name] for name in found} == pytest.approx(found, abs=2e-3)
    assert figures(lambda of: queries_of(bundle, of.items, of.offsets)) != pytest.approx(
        found, abs=5e-3
    )  # as if unknown


def test_everything_declared_is_in_one_table(trained: tuple[Settings, TableVersions, Bundle]) -> None:
    configured, _, bundle = trained
    names = {part: [feature.name for feature in of] for part, of in encoders_of(bundle).features().items()}
    assert names == {
        "attributes": ["tags", "maker", "year", "price", "maker by price"],
        "users": ["user:gender", "user:age"],
        "context": [f"context:{name}" for name in EVERY],
    }
    lookups = {feature.name: feature.lookups for feature in encoders_of(bundle).features()["attributes"]}
    assert lookups == {"tags": 1, "maker": 2, "year": 2, "price": 2, "maker by price": 1}
    weights = bundle.weights()
    assert [name for name in weights if "table" in name] == ["tower.table.weight"]
    assert weights["encoder.side.users.project.weight"].shape == (16, 8 * 4)
    assert weights["encoder.side.context.project.weight"].shape == (16, 8 * 10)
    assert bundle.allowed[bundle.vocabulary.encode_text(["i30", "i31"])].all()
    assert (
        configured.items is not None and json.loads((bundle.path / "features.json").read_text())["attributes"]["edges"]
    )


def test_buckets_know_the_training_part_alone(trained: tuple[Settings, TableVersions, Bundle]) -> None:
    configured, versions, bundle = trained
    dataset = prepare(configured, versions)
    fitted = fit_encoders(configured, dataset).attributes
    assert fitted is not None
    assert fitted.buckets["price"].edges.max() < ITEMS  # i31 costs 1e9, and nobody has touched it
    years = dataset.catalogue.filter(pl.col("item_id").is_in(["i0", "i31"])).sort("item_id")["year"].to_list()
    assert years == [1990.0, None]
    stored = encoders_of(bundle).attributes
    assert stored is not None
    assert stored.buckets["price"].edges.tolist() == fitted.buckets["price"].edges.tolist()
    weight = encoders_of(bundle).context
    assert weight is not None and set(weight.buckets) == {"context:weight"}


def test_users_come_by_their_map_and_the_one_without_a_row_is_missing(
    trained: tuple[Settings, TableVersions, Bundle],
) -> None:
    configured, versions, bundle = trained
    serving = prepare(configured, versions).split.serving
    assert serving.attributes is not None
    assert serving.attributes.rows()[:2] == [("f", 20.0), ("m", 21.0)]
    assert serving.attributes.rows()[-1] == (None, None)
    side = encoders_of(bundle).side(serving)
    assert side is not None and side.users is not None and side.context is not None
    missing = hash_values([None])[0]
    assert (side.users.values[-1] == missing).all() and not (side.users.values[:-1] == missing).any()
    assert side.context.shape == (len(serving.items) + 1, 5)
    some = serving.select(np.array([5, 2]))
    again = encoders_of(bundle).side(some)
    assert again is not None and again.users is not None and again.context is not None
    assert torch.equal(again.users.values, side.users.values[[5, 2]])
    first, second = serving.offsets[5], serving.offsets[2]
    assert torch.equal(again.context[1], side.context[first + 1])
    assert torch.equal(again.context[serving.lengths[5] + 1], side.context[second + 1])


def test_one_value_one_bundle(trained: tuple[Settings, TableVersions, Bundle]) -> None:
    configured, versions, bundle = trained
    assert fit(configured, versions).bundle_id == bundle.id


def test_a_bundle_serves_what_it_was_trained_with(
    trained: tuple[Settings, TableVersions, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured, versions, bundle = trained
    report = evaluate(configured, versions, bundle.path)
    unseen = report.report["unseen_look_ups"]
    assert unseen["tags"] == 1 and unseen["maker"] == 2 and unseen["maker by price"] >= 1  # of i31
    assert unseen["price"] == 0 and unseen["user:gender"] == 0  # a bucket is never new
    assert set(unseen) == {feature.name for part in encoders_of(bundle).features().values() for feature in part}
    serving = prepare(configured, versions).split.serving
    known = recommender_of(bundle).encode(serving)
    unknown = queries_of(bundle, serving.items, serving.offsets)
    assert known.shape == unknown.shape and not np.allclose(known, unknown, atol=1e-4)
    assert len(recommender_of(bundle).recommend(["i3", "i4"], 5)) == 5

    def other_edges(*_: Any) -> Any:
        raise AssertionError("edges are the bundle's")

    monkeypatch.setattr("recsys.features.buckets.QuantileBuckets.fit", other_edges)
    retrieved = retrieval.retrieve(
        configured, versions, bundle.path, "r", pl.Series([0]).cast(pl.Datetime("us", "UTC"))[0]
    )
    assert retrieved.users == USERS


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"items": {"categorical": DECLARED["categorical"] | {"tags": {"lookups": 2, "separator": "|"}}}},
            r"Feature 'tags' has lookups 1 in the bundle and 2 in the data; declare it as in the bundle",
        ),
        (
            {"items": {"numeric": {"price": {"buckets": 8}}}},
            "The bundle was trained with feature 'year', which the data lack; add it or train anew",
        ),
        (
            {"users": {"categorical": {"gender": {"kind": "single"}, "zip": {}}}},
            "The bundle does not know feature 'user:zip' of the data; remove it or train anew",
        ),
        ({"model": {"context": ["hour"]}}, "The bundle was trained with feature 'context:event', which the data lack"),
    ],
)
def test_data_that_are_declared_otherwise_are_refused(
    trained: tuple[Settings, TableVersions, Bundle], changes: dict[str, Any], message: str
) -> None:
    configured, versions, bundle = trained
    other = settings(Path(configured.data_root), **changes)
    with pytest.raises(InputError, match=message):
        evaluate(other, versions, bundle.path)
    moment = pl.Series([0]).cast(pl.Datetime("us", "UTC"))[0]
    with pytest.raises(InputError, match=message):
        retrieval.retrieve(other, versions, bundle.path, "r", moment)


def test_a_bundle_that_hashes_otherwise_is_refused(
    trained: tuple[Settings, TableVersions, Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    configured, _, bundle = trained
    monkeypatch.setattr("recsys.models.sequential.recommender.HASHING", "another way")
    with pytest.raises(InputError, match="hashes values in another way"):
        recommender_of(bundle).check_features(configured)


def test_what_a_model_does_not_read_may_be_declared_as_one_likes(tmp_path: Path) -> None:
    write(tmp_path)
    plain = settings(tmp_path, model={"attributes": False, "user_attributes": False, "context": []})
    versions = ingest(plain).versions
    bundle = read_bundle(fit(plain, versions).bundle)
    assert encoders_of(bundle).features() == {"attributes": (), "users": (), "context": ()}
    evaluate(settings(tmp_path, items={"numeric": {}, "crosses": {}}, model={"context": []}), versions, bundle.path)


def test_side_features_leave_the_other_weights_as_they_begin(trained: tuple[Settings, TableVersions, Bundle]) -> None:
    """With a table of one size, a model that reads users and events begins as one that does not."""
    configured, versions, _ = trained
    weights = []
    for context, users in (([], False), (EVERY, True)):
        model = {"context": context, "user_attributes": users, "table_rows": 500}
        of = settings(Path(configured.data_root), model=model)
        dataset = prepare(of, versions)
        encoders = fit_encoders(of, dataset)
        side = encoders.side_features(dataset.split.train)
        weights.append(build_model(of, item_features(dataset, encoders, None), side=side).state_dict())
    assert all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    assert {name.rsplit(".", 2)[0] for name in set(weights[1]) - set(weights[0])} == {
        "encoder.side.users",
        "encoder.side.context",
    }


def test_tomorrow_keeps_the_buckets_and_what_is_known_of_users(
    trained: tuple[Settings, TableVersions, Bundle], tmp_path: Path
) -> None:
    bundle = trained[2]
    write(tmp_path)
    prices = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    dearer = [item | {"price": str(10 * float(item["price"]))} for item in prices]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, dearer)))
    tomorrow = settings(tmp_path, train={"epochs": 3, "warm_start": str(bundle.path), "warm_epochs": 1})
    report = fit(tomorrow, ingest(tomorrow).versions)
    assert report.warm_start is not None and report.warm_start["fresh"] == ()
    new, old = encoders_of(read_bundle(report.bundle)).attributes, encoders_of(bundle).attributes
    assert new is not None and old is not None
    assert new.buckets["price"].edges.tolist() == old.buckets["price"].edges.tolist()
    other = settings(
        tmp_path, model={"context": ["hour"]}, train={"warm_start": str(bundle.path), "epochs": 3, "warm_epochs": 1}
    )
    report = fit(other, ingest(other).versions)
    assert report.warm_start is not None and report.warm_start["fresh"] == ("encoder.side.context.project.weight",)


def fails(folder: Path, message: str, **sections: Any) -> None:
    write(folder, times=sections.pop("times", True))
    with pytest.raises(InputError, match=message) as caught:
        configured = settings(folder, **sections)
        fit(configured, ingest(configured).versions)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        # unknown names
        (
            {"items": {"categorical": {"tgs": {}}, "crosses": {}}},
            "items.categorical names 'tgs' and the catalogue has no such attribute; the nearest: 'tags",
        ),
        (
            {"items": {"numeric": {"cost": {"column": "prize"}}, "crosses": {}}},
            "items.numeric names 'prize'.*the nearest: 'price'",
        ),
        (
            {"users": {"categorical": {"gendre": {}}}},
            "users.categorical names 'gendre' and the users have no such attribute; the nearest: 'gender'",
        ),
        (
            {"items": {"crosses": {"x": {"of": ["makr", "price"]}}}},
            "feature 'x' crosses the unknown feature 'makr'; did you mean 'maker'",
        ),
        # of another kind than declared
        (
            {"items": {"crosses": {"x": {"of": ["tags", "price"]}}}},
            "feature 'x' crosses 'tags', which is of kind 'multi'; only single-valued",
        ),
        ({"items": {"categorical": {"tags": {"kind": "single", "separator": "|"}}}}, "drop one"),
        (
            {"items": {"numeric": {"tags": {}}, "categorical": {}, "crosses": {}}},
            r"items.numeric names 'tags' and none of its values is a number, such as",
        ),
        # look-ups and buckets out of range
        (
            {"items": {"categorical": {"tags": {"lookups": 9}}, "crosses": {}}},
            r"items.categorical.tags.lookups = 9: .*less than or equal to 8",
        ),
        ({"items": {"crosses": {"x": {"of": ["maker", "price"], "lookups": 0}}}}, r"items.crosses.x.lookups = 0"),
        ({"items": {"numeric": {"price": {"buckets": 1}}}}, r"items.numeric.price.buckets = 1"),
        (
            {"items": {"numeric": {"year": {"column": "title", "pattern": "[0-9]+"}}, "crosses": {}}},
            "has no group; put what is the value into brackets",
        ),
        ({"items": {"numeric": {"tags": {}}}}, "feature 'tags' is declared twice"),
        # context
        ({"times": False, "model": {"context": ["gap"]}}, "model.context names 'gap' and the log has no times"),
        ({"model": {"context": ["minute"]}}, r"model.context.*'event', 'hour', 'weekday', 'gap' or 'weight'"),
        ({"model": {"context": ["hour", "hour"]}}, "names something twice"),
        ({"model": {"kind": "text", "context": ["hour"]}}, 'needs kind = "bert4rec"'),
    ],
)
def test_a_declaration_that_cannot_be_is_one_sentence(tmp_path: Path, sections: dict[str, Any], message: str) -> None:
    fails(tmp_path, message, **sections)


def test_lists_where_one_value_is_declared_and_columns_of_nulls(tmp_path: Path) -> None:
    write(tmp_path)
    items = [json.loads(line) for line in (tmp_path / "items.jsonl").read_text().splitlines()]
    listed = [item | {"brand": [item["brand"], "b0"], "empty": None} for item in items]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, listed)))
    for changes, message in (
        ({}, "Feature 'maker' is declared 'single' and its column holds lists; declare it \"multi\""),
        (
            {"categorical": {}, "crosses": {}, "numeric": {"brand": {}}},
            "'brand' is declared 'numeric' and its column holds",
        ),
        (
            {"categorical": {}, "crosses": {}, "numeric": {"empty": {}}},
            "Numeric feature 'empty' is null in every training row",
        ),
    ):
        configured = settings(tmp_path, items=changes)
        with pytest.raises(InputError, match=message):
            fit(configured, ingest(configured).versions)


def test_users_that_were_never_ingested(tmp_path: Path) -> None:
    write(tmp_path)
    configured = settings(tmp_path)
    versions = ingest(configured).versions
    without = TableVersions(interactions=versions.interactions, items=versions.items)
    with pytest.raises(InputError, match="no table 'users'; run `recsys ingest` first"):
        prepare(configured, without)


def test_unseen_values_are_those_that_training_has_not(trained: tuple[Settings, TableVersions, Bundle]) -> None:
    configured, versions, bundle = trained
    dataset = prepare(configured, versions)
    counts = unseen_values(encoders_of(bundle), dataset)
    assert counts == unseen_values(fit_encoders(configured, dataset), dataset)
    assert counts["context:hour"] >= 0 and counts["context:event"] == 0
