"""A whole night whose warehouse, log and exports lie in an object store; killed, started again, taken back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest

import recsys
from recsys.bundles.mirror import address
from recsys.bundles.store import latest_bundle
from recsys.datasets.synthetic import generate
from recsys.pipelines.compare import find_values
from recsys.pipelines.forget import forget
from recsys.pipelines.nightly import night
from recsys.pipelines.promote import rollback
from recsys.runs import local_folder
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import scan
from tests.recsys.exports.conftest import ObjectStore
from tests.recsys.stores.test_bundles import moved, names, objects


def settings_of(prefix: str, folder: Path, **more: Any) -> Settings:
    tree = {
        "name": "tiny",
        "data_root": f"{prefix}/data",
        "warehouse": f"{prefix}/warehouse",
        "interactions": {"source": "interactions.csv"},
        "items": {"source": "items.jsonl", "text": ["title"], "categorical": {"brand": {}}},
        "text": {"dimensions": 16},
        "model": {"max_length": 10, "dimensions": 16, "text": False},
        "train": {"epochs": 1},
        "evaluate": {"cutoffs": [10], "baselines": ["popularity"]},
        "retrieve": {"k": 5},
        "gate": {"enabled": False},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }
    return parse_settings(tree | more)


def put_shop(prefix: str, store: ObjectStore, folder: Path, users: int = 60, items: int = 216) -> None:
    """A generated shop's files below `data/`."""
    generate(folder / "data", users=users, items=items)
    for path in (folder / "data").iterdir():
        if path.is_file():
            obstore.put(objects(store, prefix), f"data/{path.name}", path)


def test_what_a_night_makes_lies_in_the_store(
    prefix: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put_shop(prefix, object_store, tmp_path)
    settings = settings_of(prefix, tmp_path, items={"source": "items.jsonl", "categorical": {"brand": {}}})
    recsys.fit(settings)
    served = latest_bundle(settings.warehouse, "tiny")
    model = recsys.load(f"{prefix}/warehouse/bundles/tiny")
    assert model.path == served and model.items.height == 216
    report = recsys.evaluate(settings, model)  # with the measured bundle, which lies beside
    assert report.metrics["test/ndcg_at_10"] >= 0
    assert "warehouse/bundles/tiny.latest.json" in names(object_store, prefix)
    moved(monkeypatch, tmp_path / "other")
    assert recsys.load(settings).path != served and recsys.load(settings).served.bundle.id == model.served.bundle.id
    user = scan(settings.warehouse, "interactions").first().collect()["user_id"][0]
    assert len(recsys.load(settings).served.answer_user(user, 3).items) == 3


@pytest.mark.slow
def test_a_whole_night(
    prefix: str, object_store: ObjectStore, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mlflow.db").write_bytes(database.read_bytes())
    put_shop(prefix, object_store, tmp_path, users=120, items=400)
    export = {"s3": {"kind": "s3", "path": f"{prefix}/export"}, "delta": {"kind": "delta", "path": f"{prefix}/delta"}}
    settings = settings_of(prefix, tmp_path, export=export)
    first = night(settings)
    assert first["published"] and first["bundle"].startswith(f"{prefix}/warehouse/bundles/tiny-")
    assert Path(first["report"]).is_relative_to(local_folder(settings.warehouse))
    find_values(first["bundle"], settings.tracking.uri)
    second = night(settings.model_copy(update={"seed": 3}))
    assert second["bundle"] != first["bundle"]
    rollback(settings, "a test")
    assert address(latest_bundle(settings.warehouse, "tiny")) == first["bundle"]
    exported = pl.read_delta(f"{prefix}/delta")
    assert set(exported["run"]) == {first["run_id"]} == set(scan(settings.warehouse, "candidates").collect()["run"])
    user = exported["user_id"][0]
    assert forget(settings, [user])["removed"]["candidates"] == 5
    assert user not in set(pl.read_delta(f"{prefix}/delta")["user_id"])
    moved(monkeypatch, tmp_path / "other")
    third = night(settings)
    assert third["published"] and third["candidates"]["users"] == 119
