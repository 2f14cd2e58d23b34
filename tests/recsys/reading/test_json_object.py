"""One JSON object of histories, attributes, titles or ids; and a given split that leave-one-out finds again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.prepare import Dataset, prepare
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import scan

TRAIN = {"7": [3, 1, 3], "2": [0], "5": [2, 2, 2, 2], "9": [1, 0]}
VALIDATION = {"7": [2], "5": [0]}
TEST = {"5": [3], "7": [2]}  # other order: a file knows nothing of another
ITEMS = {
    "B1": {"title": "Tape &amp; glue", "brand": "Lux", "category": ["Office", "Tape"]},
    "B2": {"title": "Drill", "brand": None, "category": []},
    "B3": {"title": "Lamp", "category": ["Light"]},
    "B4": {"title": "夜用 🌙", "brand": "Mio", "category": None},
}
IDS = {"B1": 0, "B2": 1, "B3": 2, "B4": 3}


def write(folder: Path, **files: Any) -> None:
    for name, value in files.items():
        (folder / f"{name}.json").write_text(json.dumps(value))


def settings(folder: Path, **items: Any) -> Settings:
    return parse_settings(
        {
            "name": "shop",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": ["train.json", "val.json", "test.json"], "format": "json"},
            "items": {
                "source": "meta.json",
                "format": "json",
                "id_map": {"source": "smap.json", "format": "json"},
                "text": ["title", "brand", "category"],
            }
            | items,
        }
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path, train=TRAIN, val=VALIDATION, test=TEST, meta=ITEMS, smap=IDS)
    return tmp_path


def as_ids(dataset: Dataset, codes: np.ndarray) -> list[int]:
    return dataset.vocabulary.decode(codes).to_list()


def test_leave_one_out_finds_a_given_split_again(folder: Path) -> None:
    configured = settings(folder)
    report = ingest(configured)
    assert report.rows_added == {"interactions": 14, "items": 4}
    assert report.rows_rejected == {"interactions": 0, "items": 0}
    dataset = prepare(configured, report.versions)
    train = dataset.split.train
    found = {user: as_ids(dataset, train.history(place)) for place, user in enumerate(train.users)}
    assert found == {int(user): items for user, items in TRAIN.items()}
    for part, expected, before in (
        (dataset.split.validation, VALIDATION, TRAIN),
        (dataset.split.test, TEST, {user: TRAIN[user] + VALIDATION[user] for user in TEST}),
    ):
        users = part.histories.users.to_list()
        assert dict(zip(users, as_ids(dataset, part.targets), strict=True)) == {
            int(user): items[0] for user, items in expected.items()
        }
        for place, user in enumerate(users):
            assert as_ids(dataset, part.histories.history(place)) == before[str(user)]
    assert ingest(configured).rows_added == {"interactions": 0, "items": 0}  # reading again adds nothing


def test_attributes_keep_their_kinds_and_ids_are_the_logs(folder: Path) -> None:
    configured = settings(folder)
    report = ingest(configured)
    items = scan(configured.warehouse, "items", report.versions.items).collect().sort("item_id")
    assert items["item_id"].to_list() == [0, 1, 2, 3]
    assert items["category"].to_list() == [["Office", "Tape"], [], ["Light"], None]
    dataset = prepare(configured, report.versions)
    sentences = dict(zip(as_ids(dataset, np.arange(1, 5)), dataset.catalogue["sentence"], strict=True))
    assert sentences[0] == "title: Tape & glue brand: Lux category: Office, Tape"
    assert sentences[3] == "title: 夜用 🌙 brand: Mio"


def test_titles_alone_are_a_catalogue_too(folder: Path) -> None:
    write(folder, meta={"B1": "Tape", "B2": None, "B3": 3, "B4": "Lamp"})
    configured = settings(folder, text=["title"])
    report = ingest(configured)
    items = scan(configured.warehouse, "items", report.versions.items).collect().sort("item_id")
    assert items["title"].to_list() == ["Tape", None, "3", "Lamp"]


def test_an_event_without_an_item_is_rejected_and_quoted(folder: Path) -> None:
    write(folder, train=TRAIN | {"11": [1, None, True, 2] * 200, "12": []})
    configured = settings(folder)
    configured = configured.model_copy(
        update={"interactions": configured.interactions.model_copy(update={"max_rejected_share": 1.0})}
    )
    report = ingest(configured)
    assert report.rows_rejected["interactions"] == 200
    quarantine = pl.read_delta(str(folder / "warehouse" / "quarantine"))
    assert set(quarantine["raw"]) == {'{"11": null}'}
    ids = scan(configured.warehouse, "interactions", report.versions.interactions).collect()["item_id"]
    assert "true" in ids  # as in JSON lines and Parquet


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1, 2]", "train.json is not one JSON object; set its format"),
        ('{"1": [2], "2": "x"}', r"the value is text, unlike in most rows \(1\); .*train.json line 2"),
        ('{"1": [2', "train.json is not JSON: .* correct the file, or its format"),
    ],
)
def test_another_kind_of_file_says_what_it_is(folder: Path, content: str, message: str) -> None:
    (folder / "train.json").write_text(content)
    with pytest.raises(InputError, match=message):
        ingest(settings(folder))


def test_attributes_that_do_not_go_together_say_so(folder: Path) -> None:
    write(folder, meta={"B1": {"title": "x", "item_id": 3}})
    with pytest.raises(InputError, match=r"meta.json has an attribute 'item_id' beside the ids"):
        ingest(settings(folder))
