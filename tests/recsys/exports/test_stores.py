"""Copies in a store of objects, which moto's server plays on loopback, and Delta tables in folders and in the store."""

from __future__ import annotations

import json
import math
import uuid
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest
from deltalake import DeltaTable
from obstore.store import S3Store

from recsys.errors import InputError, RecsysError
from recsys.exports import rows as shaping
from recsys.exports import s3 as module
from tests.recsys.exports.targets import ODD, kill_in_the_middle, many, publish, reading, sink_of
from tests.servers import ObjectStore

OLD, NEW = {"ann": ["x", "y"], "bob": ["z"]}, {"ann": ["w"]}


class Place:
    """A prefix of the store, or a folder, and how its readers read it."""

    def __init__(self, kind: str, store: ObjectStore, folder: Path) -> None:
        self.kind, self.store = kind.partition(" ")[0], store
        self.path = str(folder / "copy") if kind == "delta" else f"s3://{store.bucket}/{uuid.uuid4().hex}/copy"
        self.given = {"kind": self.kind, "path": self.path}
        if self.kind == "s3":
            self.given["endpoint"] = store.endpoint

    def reader(self) -> S3Store:
        prefix = self.path.split("/", 3)[3]
        return S3Store(
            self.store.bucket, prefix=prefix, endpoint=self.store.endpoint, client_options={"allow_http": True}
        )

    def bytes(self, name: str) -> bytes:
        return bytes(obstore.get(self.reader(), name).bytes())

    def read(self) -> pl.DataFrame:
        if self.kind == "delta":
            return pl.DataFrame(DeltaTable(self.path).to_pyarrow_table()).sort("user_id", "rank")
        pointer = json.loads(self.bytes("latest.json"))
        return pl.concat([pl.read_parquet(self.bytes(name)) for name in pointer["files"]])

    def users(self) -> set[Any]:
        return set(self.read()["user_id"])


@pytest.fixture(params=["s3", "delta", "delta in a store"])
def place(request: pytest.FixtureRequest, object_store: ObjectStore, tmp_path: Path) -> Place:
    return Place(request.param, object_store, tmp_path)


def test_again_older_and_back(place: Place, tmp_path: Path) -> None:
    sink = sink_of(**place.given)
    sink.check()
    with pytest.raises(RecsysError, match="none can be taken back"):
        sink.rollback()
    assert not sink.present()
    older, newer = publish(tmp_path / "warehouse", ODD), publish(tmp_path / "warehouse", NEW, "r2")
    assert sink.write(older).rows == sum(map(len, ODD.values()))
    copy = place.read()
    assert copy.columns[0] == "run" and copy["item_id"].to_list() == [
        i for _, items in sorted(ODD.items()) for i in items
    ]
    sink.write(newer)
    sink.write(newer)
    assert place.users() == {"ann"} and len(place.read()) == 1 and sink.holds(newer) and not sink.holds(older)
    with pytest.raises(RecsysError, match=r"holds version 1 .*\(run r2\), which is newer than version 0"):
        sink.write(older)
    back = sink.rollback()
    assert (back.version, back.instead) == (0, 1) and place.users() == set(ODD)
    with pytest.raises(RecsysError, match="keeps no copy older than that of version 0"):
        sink.rollback()
    sink.write(newer)
    sink.rollback()
    assert place.users() == set(ODD)
    sink.write(newer)
    sink.write(publish(tmp_path / "warehouse", OLD, "r3"), keep=False)
    assert place.users() == set(OLD)
    with pytest.raises(RecsysError, match="keeps no copy older"):
        sink.rollback()
    assert place.users() == set(OLD)
    with pytest.raises(InputError, match="the configuration 'shop', and this one is 'other'"):
        sink_of("other", **place.given).check()


def test_readers_see_whole_copies(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping, "BATCH_ROWS", 1_000)
    sink = sink_of(**place.given)
    sink.write(publish(tmp_path / "warehouse", many(300, "0"), "r0"))
    with reading(lambda: set(place.read()["item_id"].value_counts().rows())) as seen:
        for number in (1, 2):
            sink.write(publish(tmp_path / "warehouse", many(300, str(number)), f"r{number}"))
    assert seen[0] == {("0", 3_000)} and all(found in [{(str(n), 3_000)} for n in range(3)] for found in seen)


@pytest.mark.parametrize("moments", [[0.05], pytest.param([n / 20 for n in range(20)], marks=pytest.mark.slow)])
def test_a_kill_leaves_the_old_copy_or_the_new_one(place: Place, tmp_path: Path, moments: list[float]) -> None:
    sink = sink_of(**place.given)
    sink.write(publish(tmp_path / "warehouse", many(2_000, "old"), "r0"))
    newer = publish(tmp_path / "warehouse", many(2_000, "new"), "r1")

    def whole() -> None:
        assert place.read()["item_id"].value_counts().rows() in ([("old", 20_000)], [("new", 20_000)])

    kill_in_the_middle(newer, moments, whole, **place.given)
    sink.write(newer)
    assert set(place.read()["item_id"]) == {"new"}
    assert sink.rollback().version == 0
    whole()


def test_what_is_somebody_elses_stays(place: Place, tmp_path: Path) -> None:
    candidates = publish(tmp_path / "warehouse", OLD)
    if place.kind == "s3":
        obstore.put(place.reader(), "latest.json", b"{}")
        wrong = sink_of(**place.given)
    else:
        wrong = sink_of(kind="delta", path=candidates.path)  # the table itself
    for act in (wrong.check, lambda: wrong.write(candidates)):
        with pytest.raises(InputError, match="that no export has written; choose another"):
            act()


def test_odd_values_and_layouts(place: Place, tmp_path: Path) -> None:
    nobody = publish(
        tmp_path / "warehouse", {"a": ["x", "y"]}, user_id=pl.Series([None, "a"]), score=[math.nan, math.inf]
    )
    sink_of(**place.given).write(nobody)
    found = place.read().sort("user_id", nulls_last=False)
    assert found["user_id"].to_list() == [None, "a"] and math.isnan(found["score"][0])
    sink_of(**place.given).write(publish(tmp_path / "warehouse", {}, "r2"))
    assert place.read().is_empty() and "item_id" in place.read().columns


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_other_forms_of_objects(form: str, object_store: ObjectStore, tmp_path: Path) -> None:
    place = Place("s3", object_store, tmp_path)
    wanted = {"user_id": "user", "item_id": "item"}
    sink_of(**place.given, format=form, layout="wide", columns=wanted).write(publish(tmp_path / "warehouse", OLD))
    pointer = json.loads(place.bytes("latest.json"))
    assert (pointer["format"], pointer["rows"], pointer["version"]) == (form, 2, 0)
    text = place.bytes(pointer["files"][0]).decode()
    wide = {"csv": "user,item_1,item_2\nann,x,y\nbob,z,\n"}
    wide["jsonl"] = '{"user":"ann","item":["x","y"]}\n{"user":"bob","item":["z"]}\n'
    assert text == wide[form]


def test_two_exports_to_one_prefix_do_not_mix(
    object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place("s3", object_store, tmp_path)
    sink = sink_of(**place.given)
    first, second = publish(tmp_path / "warehouse", OLD), publish(tmp_path / "warehouse", NEW, "r2")
    real = module.S3Sink._write_objects

    def while_another_ends(self: Any, *arguments: Any) -> int:
        monkeypatch.setattr(module.S3Sink, "_write_objects", real)
        sink.write(second)
        return real(self, *arguments)

    monkeypatch.setattr(module.S3Sink, "_write_objects", while_another_ends)
    with pytest.raises(RecsysError, match=r"Another export to .* has ended in the meantime; this one changed nothing"):
        sink.write(first)
    assert place.users() == {"ann"}
    folders = {held["path"].split("/")[0] for batch in obstore.list(place.reader()) for held in batch}
    assert len(folders) == 2  # the pointer and one copy


def test_a_reader_of_the_pointer_before_finds_its_files_also_after_a_refresh(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    place = Place("s3", object_store, tmp_path)
    sink = sink_of(**place.given)

    def folders() -> set[str]:
        held = [one["path"] for batch in obstore.list(place.reader()) for one in batch]
        return {path.partition("/")[0] for path in held} - {"latest.json"}

    def folder_of(lists: dict[str, list[str]], run: str, **more: Any) -> str:
        sink.write(publish(tmp_path / "warehouse", lists, run), **more)
        return str(json.loads(place.bytes("latest.json"))["folder"])

    first, night = folder_of(OLD, "r1"), folder_of(OLD, "r2")
    seen = json.loads(place.bytes("latest.json"))["files"]
    refreshed = folder_of(NEW, "r2")
    assert all(place.bytes(name) for name in seen) and folders() == {first, night, refreshed}
    again = folder_of(OLD, "r2")
    assert folders() == {first, refreshed, again}  # one export later nobody reads it any more
    assert sink.rollback().version == 0
    last = folder_of(OLD, "r3", keep=False)  # as `recsys forget` does
    assert folders() == {last}


def test_no_store_and_no_bucket(object_store: ObjectStore, tmp_path: Path) -> None:
    candidates = publish(tmp_path / "warehouse", OLD)
    missing = sink_of(kind="s3", path="s3://no-such-bucket/x", endpoint=object_store.endpoint)
    for act in (missing.check, lambda: missing.write(candidates)):
        with pytest.raises(InputError, match="make the bucket, or choose another") as caught:
            act()
        assert "\n" not in str(caught.value)
