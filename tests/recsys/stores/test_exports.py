"""Exports to a store that fails: one sentence, readers keep the old copy, and what may pass is tried again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest
from deltalake import DeltaTable

from recsys.errors import InputError, RecsysError
from recsys.exports.base import Candidates
from recsys.pipelines.steps import is_transient
from tests.recsys.exports.conftest import ObjectStore
from tests.recsys.exports.targets import publish, sink_of
from tests.recsys.stores.conftest import Faulty
from tests.recsys.stores.test_bundles import objects

OLD, NEW = {"ann": ["x", "y"], "bob": ["z"]}, {"ann": ["w"]}
KINDS = ["s3", "delta"]
COPY = "PUT .*(part-|[.]parquet)"  # an object with rows
SWITCH = "PUT .*(latest.json|_delta_log)"  # what makes them the copy that readers see


def given(kind: str, prefix: str) -> dict[str, Any]:
    return {"kind": kind, "path": f"{prefix}/copy"}


def read(kind: str, path: str, store: ObjectStore) -> set[Any]:
    """Items that a reader sees, past the server that fails."""
    if kind == "delta":
        options = {"AWS_ENDPOINT_URL": store.endpoint}
        return set(pl.DataFrame(DeltaTable(path, storage_options=options).to_pyarrow_table())["item_id"])
    there = objects(store, path)
    pointer = json.loads(bytes(obstore.get(there, "latest.json").bytes()))
    return set(pl.concat(pl.read_parquet(bytes(obstore.get(there, n).bytes())) for n in pointer["files"])["item_id"])


@pytest.fixture
def candidates(tmp_path: Path) -> tuple[Candidates, Candidates]:
    return publish(tmp_path / "warehouse", OLD), publish(tmp_path / "warehouse", NEW, "r2")


@pytest.mark.parametrize(
    ("how", "what"),
    [("403", "."), ("403", COPY), ("403", SWITCH), ("503", "."), ("close", COPY), ("close", SWITCH)],
    ids=["denied", "rows denied", "switch denied", "busy", "gone at the rows", "gone at the switch"],
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_fails_leaves_the_old_copy(
    kind: str,
    how: str,
    what: str,
    prefix: str,
    faulty: Faulty,
    object_store: ObjectStore,
    candidates: tuple[Candidates, Candidates],
) -> None:
    sink, (older, newer) = sink_of(**given(kind, prefix)), candidates
    sink.write(older)
    faulty.fails(how, what)
    for act in (
        lambda: sink.write(newer),
        *([sink.check, sink.rollback, sink.present] if (how, what) == ("403", ".") else []),
    ):
        with pytest.raises(RecsysError, match="and readers see the old copy") as caught:
            act()
        said = str(caught.value)
        assert "\n" not in said and "\x1b" not in said and len(said) < 500 and said.count(prefix) == 1
        assert is_transient(caught.value) == (how != "403")
        assert ("check the credentials" in said) == (how == "403")
    faulty.fails("", "$nothing")
    assert read(kind, f"{prefix}/copy", object_store) == {"x", "y", "z"}
    sink.write(newer)
    assert read(kind, f"{prefix}/copy", object_store) == {"w"} and sink.rollback().version == 0
    assert read(kind, f"{prefix}/copy", object_store) == {"x", "y", "z"}


@pytest.mark.parametrize("what", [COPY, SWITCH], ids=["rows", "switch"])
@pytest.mark.parametrize("how", ["503", "close", "lost"])
@pytest.mark.parametrize("kind", KINDS)
def test_what_passes_is_tried_again(
    kind: str, how: str, what: str, prefix: str, faulty: Faulty, object_store: ObjectStore,
    candidates: tuple[Candidates, Candidates],
) -> None:  # fmt: skip
    sink = sink_of(**given(kind, prefix))
    sink.write(candidates[0])
    faulty.fails(how, what, times=1)
    sink.write(candidates[1])
    assert read(kind, f"{prefix}/copy", object_store) == {"w"}
    faulty.fails(how, what, times=1)
    assert sink.rollback().version == 0
    assert read(kind, f"{prefix}/copy", object_store) == {"x", "y", "z"}


@pytest.mark.parametrize("what", [COPY, SWITCH], ids=["rows", "switch"])
def test_no_answer_at_all_loses_no_copy(
    what: str, prefix: str, faulty: Faulty, object_store: ObjectStore, candidates: tuple[Candidates, Candidates]
) -> None:
    sink = sink_of(**given("s3", prefix))
    sink.write(candidates[0])
    faulty.fails("lost", what)  # all that is asked is done, and nothing is answered
    with pytest.raises(RecsysError):
        sink.write(candidates[1])
    faulty.fails("", "$nothing")
    assert read("s3", f"{prefix}/copy", object_store) in ({"x", "y", "z"}, {"w"})
    sink.write(candidates[1])
    assert read("s3", f"{prefix}/copy", object_store) == {"w"}


@pytest.mark.parametrize("kind", KINDS)
def test_names_with_quotes_blanks_and_slashes(
    kind: str, prefix: str, object_store: ObjectStore, candidates: tuple[Candidates, Candidates]
) -> None:
    place = given(kind, f'{prefix}/it\'s a "shop"/ü b')
    sink = sink_of(**place)
    for one, items in zip(candidates, ({"x", "y", "z"}, {"w"}), strict=True):
        sink.write(one)
        assert read(kind, place["path"], object_store) == items
    assert sink.rollback().version == 0 and read(kind, place["path"], object_store) == {"x", "y", "z"}


def test_a_folder_with_quotes_and_blanks(tmp_path: Path, candidates: tuple[Candidates, Candidates]) -> None:
    sink = sink_of(kind="delta", path=str(tmp_path / 'it\'s a "shop"' / "b c"))
    for one in candidates:
        sink.write(one)
    assert sink.rollback().version == 0
    assert pl.DataFrame(DeltaTable(sink.place).to_pyarrow_table()).height == 3


def test_other_files_in_the_place_stay(tmp_path: Path, candidates: tuple[Candidates, Candidates]) -> None:
    folder = tmp_path / "copy"
    folder.mkdir()
    pl.DataFrame({"a": [1]}).write_parquet(folder / "theirs.parquet")
    sink = sink_of(kind="delta", path=str(folder), keep_hours=0)
    for one in candidates:
        sink.write(one, keep=False)
    assert pl.read_parquet(folder / "theirs.parquet").height == 1
    (tmp_path / "file").write_text("no folder")
    for place in (tmp_path / "file", tmp_path / "file" / "such" / "x"):
        with pytest.raises(InputError, match=r"file is a file, no folder; choose another export.out.path"):
            sink_of(kind="delta", path=str(place)).write(candidates[0])
    assert (tmp_path / "file").read_text() == "no folder"


def test_other_objects_below_the_prefix_stay(
    prefix: str, object_store: ObjectStore, candidates: tuple[Candidates, Candidates]
) -> None:
    there = objects(object_store, f"{prefix}/copy")
    for name in ("theirs.parquet", "v1/theirs", "v1-0123456/theirs", "folder/v1-01234567/theirs"):
        obstore.put(there, name, b"theirs")
    sink = sink_of(**given("s3", prefix))
    for one in candidates:
        sink.write(one, keep=False)
    for name in ("theirs.parquet", "v1/theirs", "v1-0123456/theirs", "folder/v1-01234567/theirs"):
        assert bytes(obstore.get(there, name).bytes()) == b"theirs"


@pytest.mark.parametrize("kind", KINDS)
def test_no_bucket(kind: str, object_store: ObjectStore, candidates: tuple[Candidates, Candidates]) -> None:
    sink = sink_of(kind=kind, path="s3://no-such-bucket/x")
    for act in (sink.check, lambda: sink.write(candidates[0]), sink.rollback):
        with pytest.raises(InputError, match="make the bucket, or choose another") as caught:
            act()
        assert "\n" not in str(caught.value)
