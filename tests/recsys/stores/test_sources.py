"""Logs and catalogues that lie in an object store: a file, a glob, a folder, packed or not."""

from __future__ import annotations

import gzip
import io
import json
import tomllib
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest

from recsys.errors import InputError, RecsysError
from recsys.ingestion.ingest import ingest
from recsys.init.guess import guess
from recsys.pipelines.steps import is_transient
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import scan
from tests.recsys.exports.conftest import ObjectStore
from tests.recsys.stores.conftest import Faulty
from tests.recsys.stores.test_bundles import objects

LOG = pl.DataFrame({"user_id": ["ann", "bob", "ann"], "item_id": ["x", "ü", "y"], "timestamp": [1.5e9, 1.6e9, 1.7e9]})
LOG = LOG.with_columns(pl.col("timestamp").cast(pl.Int64))
ITEMS = pl.DataFrame({"item_id": ["x", "y", "ü"], "title": ["An x", "A, y", None]})


def written(frame: pl.DataFrame, ending: str) -> bytes:
    """A file of that ending."""
    content = io.BytesIO()
    if ending == "parquet":
        frame.write_parquet(content)
        return content.getvalue()
    text = frame.write_csv() if "csv" in ending else "\n".join(json.dumps(row) for row in frame.to_dicts())
    return gzip.compress(text.encode()) if ending.endswith("gz") else text.encode()


def settings_of(folder: Path, log: Any, items: Any = None, **more: Any) -> Settings:
    tree = {"name": "tiny", "warehouse": str(folder / "warehouse"), "interactions": {"source": log, **more}}
    return parse_settings(tree | ({"items": {"source": items}} if items else {}))


def users(folder: Path) -> list[Any]:
    rows = scan(folder / "warehouse", "interactions").sort("timestamp").collect()
    return list(rows.select("user_id", "item_id").rows())


@pytest.mark.parametrize("ending", ["csv", "csv.gz", "jsonl", "jsonl.gz", "parquet"])
def test_files_globs_and_folders(ending: str, prefix: str, object_store: ObjectStore, tmp_path: Path) -> None:
    store = objects(object_store, prefix)
    for number, row in enumerate(LOG.iter_slices(1)):
        obstore.put(store, f"logs/2026/day {number}.{ending}", written(row, ending))
    obstore.put(store, f"logs/_hidden.{ending}", b"no log")
    obstore.put(store, f"items.{ending}", written(ITEMS, ending))
    for place, log in enumerate(
        (
            f"{prefix}/logs/",
            f"{prefix}/logs/*/day ?.{ending}",
            [f"{prefix}/logs/2026/day {n}.{ending}" for n in (1, 0, 2)],
        )
    ):
        report = ingest(settings_of(tmp_path / str(place), log, f"{prefix}/items.{ending}"))
        assert users(tmp_path / str(place)) == [("ann", "x"), ("bob", "ü"), ("ann", "y")]
        titles = scan(tmp_path / str(place) / "warehouse", "items").sort("item_id").collect()["title"]
        assert titles.to_list() == ["An x", "A, y", None] and len(report.digests) == 4


def test_a_second_reading_takes_what_is_new(prefix: str, object_store: ObjectStore, tmp_path: Path) -> None:
    store = objects(object_store, prefix)
    settings = parse_settings({"name": "tiny", "data_root": prefix, "warehouse": f"{prefix}/warehouse",
                               "interactions": {"source": "logs/*.csv"}})  # fmt: skip
    obstore.put(store, "logs/1.csv", written(LOG.head(1), "csv"))
    assert ingest(settings).versions.interactions == 0
    obstore.put(store, "logs/2.csv", written(LOG.tail(2), "csv"))
    assert ingest(settings).versions.interactions == 1
    assert scan(f"{prefix}/warehouse", "interactions").collect().height == 3
    assert ingest(settings).versions.interactions == 1


def test_a_delta_table_in_the_store(prefix: str, object_store: ObjectStore, tmp_path: Path) -> None:
    LOG.write_delta(f"{prefix}/log")
    ingest(settings_of(tmp_path, f"{prefix}/log", format="delta"))
    assert len(users(tmp_path)) == 3


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("{prefix}/nothing.csv", r"interactions.source = .* matches no file; looked at s3://"),
        ("{prefix}/*.csv", r"interactions.source = .* matches no file; looked at s3://"),
        ("s3://no-such-bucket/logs/", "there is no bucket 'no-such-bucket'; correct it"),
        ("s3://no-such-bucket/*.csv", "there is no bucket 'no-such-bucket'; correct it"),
        ("s3://no-such-bucket/log.delta", "make the bucket, or choose another"),
    ],
)
def test_what_is_not_there(source: str, sentence: str, prefix: str, tmp_path: Path) -> None:
    more = {"format": "delta"} if source.endswith("delta") else {}
    with pytest.raises(InputError, match=sentence):
        ingest(settings_of(tmp_path, source.format(prefix=prefix), **more))


@pytest.mark.parametrize("asked", ["GET .*list-type", "GET .*log.csv"])
def test_a_store_that_denies_access(
    asked: str, prefix: str, faulty: Faulty, object_store: ObjectStore, tmp_path: Path
) -> None:
    obstore.put(objects(object_store, prefix), "logs/log.csv", written(LOG, "csv"))
    faulty.fails("403", asked)
    with pytest.raises(InputError, match="check the credentials in the environment") as caught:
        ingest(settings_of(tmp_path, f"{prefix}/logs/"))
    assert "\n" not in str(caught.value)


def test_a_store_that_is_away(prefix: str, object_store: ObjectStore, tmp_path: Path, faulty: Faulty) -> None:
    obstore.put(objects(object_store, prefix), "logs/log.csv", written(LOG, "csv"))
    faulty.fails("close", "GET .*log.csv", times=1)
    ingest(settings_of(tmp_path, f"{prefix}/logs/"))
    assert len(users(tmp_path)) == 3
    faulty.fails("close", "GET .*log.csv")
    with pytest.raises(RecsysError, match=r"log.csv cannot be read: NETWORK_CONNECTION") as caught:
        ingest(settings_of(tmp_path, f"{prefix}/logs/"))
    assert is_transient(caught.value)


def test_an_address_without_encryption_must_be_meant(
    prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ALLOW_HTTP")
    for log in (f"{prefix}/log.csv", f"{prefix}/log"):
        with pytest.raises(InputError, match="set AWS_ALLOW_HTTP=true where that is meant"):
            ingest(settings_of(tmp_path, log, **({} if log.endswith("csv") else {"format": "delta"})))


def test_a_configuration_is_guessed_from_what_lies_in_a_store(
    prefix: str, object_store: ObjectStore, tmp_path: Path
) -> None:
    store = objects(object_store, prefix)
    log = pl.DataFrame({"user_id": [f"u{n % 9}" for n in range(90)], "item_id": [f"i{n % 7}" for n in range(90)]})
    log = log.with_columns(timestamp=pl.int_range(1_500_000_000, 1_500_000_090))
    for number, rows in enumerate(log.iter_slices(45)):
        obstore.put(store, f"logs/{number}.csv", written(rows, "csv"))
    obstore.put(
        store, "items.csv", written(pl.DataFrame({"item_id": [f"i{n}" for n in range(7)], "title": "t"}), "csv")
    )
    text, _ = guess(f"{prefix}/logs/*.csv", f"{prefix}/items.csv", None, tmp_path / "recsys.toml")
    settings = parse_settings(tomllib.loads(text) | {"warehouse": str(tmp_path / "warehouse")})
    assert settings.data_root == "." and settings.interactions.source == f"{prefix}/logs/*.csv"
    ingest(settings)
    assert len(users(tmp_path)) == 90
    for path, sentence in (
        (f"{prefix}/logs/", r"is a folder; name a file in it, or a pattern in quotes such as 's3://.*/logs/\*.csv'"),
        (f"{prefix}/log.csv", "There is no file s3://"),
        ("s3://no-such-bucket/log.csv", "there is no bucket 'no-such-bucket'"),
    ):
        with pytest.raises(InputError, match=sentence):
            guess(path, None, None, tmp_path / "recsys.toml")
