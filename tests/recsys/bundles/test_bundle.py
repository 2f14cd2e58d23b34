"""A bundle is what its hashes say, whole or not there, and refuses parts of another."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundles import bundle as bundle_module
from recsys.bundles.bundle import Bundle, read_bundle
from recsys.bundles.manifest import (
    BLEND,
    FILES,
    INDEX_FILE,
    ITEM_ARRAYS,
    MANIFEST,
    VOCABULARY,
    WEIGHTS,
    bundle_id,
    describe_files,
    file_of,
)
from recsys.bundles.store import latest_bundle, publish_bundle, write_bundle
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError, RecsysError
from recsys.models.sequential.bert4rec import SequenceEncoder
from recsys.ranking.blend import Blended
from recsys.ranking.loglinear import LogLinear
from recsys.retrieval.factory import build_approximate
from recsys.retrieval.index import ItemIndex
from recsys.serving.recommender import open_bundle, recommender_of
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from tests.recsys.opened import queries_of
from tests.recsys.ranking.blends import blend_of, sequences, training


def settings_of(**more: Any) -> Settings:
    tree = {
        "name": "tiny",
        "interactions": {"source": "log.csv"},
        "model": {"dimensions": 8, "max_length": 6, "blocks": 1},
        "tracking": {"uri": "https://someone:secret@mlflow.example.org"},
    }
    return parse_settings({**tree, **more})


def parts(seed: int = 0, ids: tuple[Any, ...] = (30, 10, 20, 40)) -> dict[str, Any]:
    """What `write_bundle` takes besides the root."""
    generator = np.random.default_rng(seed)
    settings = settings_of()
    torch.manual_seed(seed)
    encoder = SequenceEncoder(settings.model)
    vectors = generator.standard_normal((len(ids) + 1, 9)).astype(np.float32)
    vectors[0] = 0
    items = pl.Series("item_id", ids)
    return {
        "settings": settings,
        "vocabulary": Vocabulary(items),
        "catalogue": pl.DataFrame({"item_id": items, "title": [f"title {i}" for i in ids]}),
        "features": {"item_id": {"lookups": 2}, "genres": ["b", "a"]},
        "weights": {f"encoder.{k}": v for k, v in encoder.state_dict().items()},
        "vectors": vectors,
        "allowed": np.arange(len(ids) + 1) > 0,
        "lineage": {"interactions_version": 3, "data": "d1"},
        "bias_dims": 1,
    }


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, **parts())


def indexed(seed: int = 0, ids: tuple[Any, ...] = (30, 10, 20, 40)) -> dict[str, Any]:
    """The same with an approximate index."""
    given = parts(seed, ids)
    codes = np.flatnonzero(given["allowed"])
    built = build_approximate(given["vectors"], codes, "IVF2,SQ8", lengthened=False)
    return {**given, "index": ItemIndex(vectors=given["vectors"], codes=codes, approximate=built)}


@pytest.fixture
def approximate(tmp_path: Path) -> Path:
    return write_bundle(tmp_path, **indexed())


def test_an_approximate_index_travels_with_the_bundle(approximate: Path, tmp_path: Path) -> None:
    bundle = read_bundle(approximate)
    assert bundle.id != read_bundle(write_bundle(tmp_path, **parts())).id  # another way to serve is another bundle
    assert bundle.manifest["index"] == {
        "factory": "IVF2,SQ8",
        "metric": "inner_product",
        "width": 9,
        "ntotal": 4,
        "parameters": {"nprobe": 1},
        "fetch": 1.0,
        "lengthened": False,
        "vocabulary": bundle.vocabulary.digest,
    }
    assert not bundle.index().exact and bundle.index_id == bundle.manifest["files"][INDEX_FILE]["sha256"][:12]
    assert write_bundle(tmp_path, **indexed()) == approximate  # the same bytes


def test_an_exact_search_stores_no_vector_twice(written: Path) -> None:
    bundle = read_bundle(written)
    assert bundle.index().exact and not (written / INDEX_FILE).exists()
    assert bundle.manifest["index"]["factory"] == "exact"
    assert bundle.index_id == bundle.manifest["files"][ITEM_ARRAYS]["sha256"][:12]


def test_an_index_file_that_the_manifest_leaves_out_is_missed(approximate: Path) -> None:
    (approximate / INDEX_FILE).unlink()
    forge(approximate)
    with pytest.raises(InputError, match="whether the search is exact"):
        read_bundle(approximate)


def test_round_trip_without_interactions(written: Path, tmp_path: Path) -> None:
    given, bundle = parts(), read_bundle(written)
    assert bundle.settings.model == given["settings"].model
    assert bundle.vocabulary.items.to_list() == [30, 10, 20, 40]
    assert bundle.catalogue.equals(given["catalogue"])
    np.testing.assert_array_equal(bundle.vectors, given["vectors"])
    np.testing.assert_array_equal(bundle.allowed, given["allowed"])
    assert bundle.features() == given["features"]
    assert list(bundle.features()["genres"]) == ["b", "a"]
    assert bundle.index().codes.tolist() == [1, 2, 3, 4]
    assert bundle.index() is bundle.index()
    assert bundle.bias_dims == 1
    assert written == tmp_path / "bundles" / bundle.label
    assert bundle.label == f"tiny-{bundle.id[:12]}"
    lineage = bundle.manifest["lineage"]
    assert (lineage["seed"], lineage["interactions_version"]) == (0, 3)
    assert lineage["libraries"]["faiss-cpu"] == faiss.__version__


def small_blend(size: int = 4) -> Blended:
    """Two users' worth of counts, and weights of 1 for every feature."""
    return blend_of(training(sequences([[1, 2, 3], [2, 3]]), size), alone=1.0)


def test_a_blend_travels_with_the_bundle(tmp_path: Path) -> None:
    alone, path = (write_bundle(tmp_path, **parts(), **more) for more in ({}, {"more": {BLEND: small_blend()}}))
    assert read_bundle(alone).part(BLEND) is None and not (alone / file_of(BLEND)).exists()
    assert read_bundle(path).id != read_bundle(alone).id  # another way to serve is another bundle
    assert write_bundle(tmp_path, **parts(), more={BLEND: small_blend()}) == path
    found, given = open_bundle(path).blended, small_blend()
    assert found is not None and found.candidates == 10
    assert found.declaration() == given.declaration()
    for name, tensor in given.to_tensors().items():
        np.testing.assert_array_equal(found.to_tensors()[name], tensor)
    assert read_bundle(path).features()["genres"] == ["b", "a"]


def test_a_changed_or_missing_blend_is_refused(tmp_path: Path) -> None:
    path = write_bundle(tmp_path, **parts(), more={BLEND: small_blend()})
    content = (path / file_of(BLEND)).read_bytes()
    (path / file_of(BLEND)).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(InputError, match=r"file blend\.safetensors of the bundle .* sha256"):
        read_bundle(path)
    late = read_bundle(path, verify=False)
    with pytest.raises(InputError, match=r"file blend\.safetensors of the bundle .* sha256"):
        late.part("blend")
    (path / file_of(BLEND)).unlink()
    with pytest.raises(InputError, match=r"lacks its file blend\.safetensors"):
        read_bundle(path)


def test_a_blend_of_other_features_is_refused(tmp_path: Path) -> None:
    blended = small_blend()
    assert isinstance(blended.ranker, LogLinear)
    other = replace(blended, ranker=replace(blended.ranker, features=("colour", *blended.ranker.features[1:])))
    path = write_bundle(tmp_path, **parts(), more={BLEND: other})
    with pytest.raises(InputError, match=r"cannot be read: the blend weighs 'colour', .* train again"):
        _ = open_bundle(path).blended


def test_queries_come_from_the_weights(written: Path) -> None:
    found = queries_of(read_bundle(written), np.array([1, 2, 4, 4], dtype=np.int32), np.array([0, 2, 2, 4]))
    assert found.shape == (3, 9) and found.dtype == np.float32
    assert (found[:, -1] == 1).all()
    assert np.isfinite(found).all() and not np.allclose(found[0], found[2])


def test_weights_of_another_version_of_the_model_are_refused(written: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = read_bundle(written)
    weights = bundle.weights()
    lost = sorted(name for name in weights if name.startswith("encoder."))[0]
    monkeypatch.setattr(Bundle, "weights", lambda self: {k: v for k, v in weights.items() if k != lost})
    with pytest.raises(InputError, match=rf"cannot be read: .*{lost.removeprefix('encoder.')}.*; train again"):
        recommender_of(bundle)


def test_a_text_bundle_needs_no_weights(tmp_path: Path) -> None:
    given = parts()
    more = {"model": {"kind": "text"}, "items": {"source": "items.csv", "text": ["title"]}}
    given |= {"settings": settings_of(**more), "weights": {}, "bias_dims": 0}
    bundle = read_bundle(write_bundle(tmp_path, **given))
    found = queries_of(bundle, np.array([2], dtype=np.int32), np.array([0, 1]))
    direction = given["vectors"][2] / np.linalg.norm(given["vectors"][2])
    np.testing.assert_allclose(found[0] / np.linalg.norm(found[0]), direction, rtol=1e-5)
    assert bundle.bias_dims == 0


def test_the_id_is_the_content_not_the_time_or_lineage(written: Path, tmp_path: Path) -> None:
    later = parts()
    later["lineage"] = {"interactions_version": 4}
    other = write_bundle(tmp_path / "elsewhere", **later)
    assert other.name == written.name
    manifest = json.loads((other / MANIFEST).read_text())
    assert manifest["lineage"]["interactions_version"] == 4
    assert write_bundle(tmp_path / "elsewhere", **parts(seed=1)).name != written.name


def test_the_same_content_is_written_once(written: Path, tmp_path: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in written.iterdir()}
    assert write_bundle(tmp_path, **parts()) == written
    assert {path.name: path.stat().st_mtime_ns for path in written.iterdir()} == before
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_a_damaged_folder_of_the_same_content_is_replaced(written: Path, tmp_path: Path) -> None:
    (written / WEIGHTS).write_bytes(b"")
    assert write_bundle(tmp_path, **parts()) == written
    read_bundle(written)
    assert [path.name for path in written.parent.iterdir()] == [written.name]


def test_no_credentials_in_the_configuration(written: Path) -> None:
    text = (written / "config.json").read_text()
    assert "secret" not in text and "https://***@mlflow.example.org" in text


@pytest.mark.parametrize(
    ("lacking", "meant"), [("rotary", False), ("temperature", None), ("experts", 4), ("repeat_bias", False)]
)
def test_a_bundle_of_a_program_with_fewer_settings_means_what_it_was_trained_with(
    lacking: str, meant: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    older = {**settings_of().model_dump(mode="json")}
    older["model"] = {key: value for key, value in older["model"].items() if key != lacking}
    monkeypatch.setattr(Settings, "model_dump", lambda *_, **__: older)
    path = write_bundle(tmp_path / "older", **parts())
    monkeypatch.undo()
    opened = read_bundle(path)
    assert getattr(opened.settings.model, lacking) == meant


def test_the_folder_holds_what_the_manifest_lists(written: Path) -> None:
    assert sorted(path.name for path in written.iterdir()) == sorted([*FILES, MANIFEST])
    assert {path.suffix for path in written.iterdir()} == {".json", ".parquet", ".safetensors"}


@pytest.mark.parametrize("name", [*FILES, INDEX_FILE])
def test_a_changed_file_is_refused(approximate: Path, name: str) -> None:
    written = approximate
    content = bytearray((written / name).read_bytes())
    content[len(content) // 2] ^= 1
    (written / name).write_bytes(content)
    with pytest.raises(InputError, match=f"file {name} of the bundle .* sha256"):
        read_bundle(written)


@pytest.mark.parametrize("name", [*FILES, INDEX_FILE])
def test_a_missing_file_is_refused(approximate: Path, name: str) -> None:
    written = approximate
    (written / name).unlink()
    with pytest.raises(InputError, match=f"lacks its file {name}"):
        read_bundle(written)


def test_large_files_are_compared_before_they_are_parsed(approximate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nobody asked for verification at opening."""
    written = approximate
    bundle = read_bundle(written, verify=False)
    for name in (INDEX_FILE, WEIGHTS):
        content = bytearray((written / name).read_bytes())
        content[-1] ^= 1
        (written / name).write_bytes(content)
    monkeypatch.setattr(faiss, "read_index", lambda *_: pytest.fail("parsed before it was compared"))
    with pytest.raises(InputError, match=INDEX_FILE):
        bundle.index()
    with pytest.raises(InputError, match=WEIGHTS):
        bundle.weights()


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_another_bundle_is_refused(written: Path, tmp_path: Path, name: str) -> None:
    changed = parts(seed=1, ids=(1, 2, 3, 4))
    changed["features"] = {"other": 1}
    changed["settings"] = settings_of(seed=5)
    other = write_bundle(tmp_path, **changed)
    shutil.copy(other / name, written / name)
    with pytest.raises(InputError, match=name):
        read_bundle(written)


def forge(path: Path, change: Callable[[dict[str, Any]], None] = lambda manifest: None) -> None:
    """A manifest whose hashes fit the files that are there, as a careless mixer would write it."""
    manifest = json.loads((path / MANIFEST).read_text())
    manifest["files"] = describe_files(path)
    manifest["bundle"] = bundle_id(manifest["files"], manifest["kind"])
    change(manifest)
    (path / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (VOCABULARY, "not in the vocabulary's order"),
        (INDEX_FILE, "number of items"),
        (ITEM_ARRAYS, "do not fit"),
    ],
)
def test_mixed_parts_are_refused_even_under_a_new_manifest(
    approximate: Path, tmp_path: Path, name: str, message: str
) -> None:
    written, other_ids = approximate, (30, 20, 10, 40) if name == VOCABULARY else (30, 10, 20, 40, 50)
    other = write_bundle(tmp_path, **indexed(seed=1, ids=other_ids))
    shutil.copy(other / name, written / name)
    forge(written)
    with pytest.raises(InputError, match=message):
        read_bundle(written).index()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(vocabulary="0" * 64), "vocabulary's digest"),
        (lambda m: m["index"].update(vocabulary="0" * 64), "vocabulary of the index"),
        (lambda m: m["index"].update(metric="l2"), "metric of the index"),
        (lambda m: m["index"].update(ntotal=3), "number of items of the index"),
        (lambda m: m["index"].update(width=3), "width of the index"),
        (lambda m: m.update(bundle="0" * 64), "the id"),
        (lambda m: m.update(kind="text"), "the id"),
        (lambda m: m.update(name="other"), "the name"),
        (lambda m: m.update(format=99), "format 99"),
        (lambda m: m.pop("index"), "incomplete"),
        (lambda m: m["files"].pop(WEIGHTS), "incomplete"),
        (lambda m: m.update(name="../../etc"), "incomplete"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(
    written: Path, change: Callable[[dict[str, Any]], None], message: str
) -> None:
    forge(written, change)
    with pytest.raises(InputError, match=message):
        read_bundle(written)


def test_what_is_not_a_bundle(tmp_path: Path, written: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    for name, reason in (("absent", "no such folder"), ("empty", "no manifest"), ("file", "it is a file")):
        with pytest.raises(InputError, match=f"{name} is not a bundle: .*{reason}"):
            read_bundle(tmp_path / name)
    (written / MANIFEST).write_text("{")
    with pytest.raises(InputError, match="not JSON"):
        read_bundle(written)


def test_a_failure_while_writing_leaves_nothing(tmp_path: Path) -> None:
    broken = parts()
    broken["vectors"][2, 0] = np.inf
    with pytest.raises(RecsysError, match="not finite"):
        write_bundle(tmp_path, **broken)
    assert list((tmp_path / "bundles").iterdir()) == []


def test_a_kill_before_the_rename_leaves_no_bundle_and_is_cleaned_up(tmp_path: Path) -> None:
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[2]);"
        "from recsys.bundles import store; from test_bundle import parts;"
        "store._move_into_place = lambda *_: os._exit(9);"
        "store.write_bundle(sys.argv[1], **parts())"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)],
        cwd=Path(bundle_module.__file__).parents[2],
        check=False,
    )
    assert killed.returncode == 9
    left = list((tmp_path / "bundles").iterdir())
    assert [path.name.startswith(".tiny.writing-") for path in left] == [True]
    written = write_bundle(tmp_path, **parts())
    assert left[0].exists()  # young: another process may still be writing it
    os.utime(left[0], (0, 0))
    write_bundle(tmp_path, **parts(seed=1))
    assert not left[0].exists()
    read_bundle(written)


def test_the_latest_bundle_is_the_one_that_was_published(written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no bundle 'tiny'"):
        latest_bundle(tmp_path, "tiny")
    publish_bundle(tmp_path, written)
    assert latest_bundle(tmp_path, "tiny").samefile(written)
    newer = write_bundle(tmp_path, **parts(seed=1))
    assert latest_bundle(tmp_path, "tiny").samefile(written)
    publish_bundle(tmp_path, newer)
    assert latest_bundle(tmp_path, "tiny").samefile(newer)
    publish_bundle(tmp_path, written)  # the way back
    assert latest_bundle(tmp_path, "tiny").samefile(written)
    shutil.rmtree(written)
    with pytest.raises(InputError, match="gone"):
        latest_bundle(tmp_path, "tiny")
    assert [path.name for path in (tmp_path / "bundles").glob(".*")] == []


def test_a_copy_under_another_name_keeps_its_label(written: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(written, tmp_path / "model" / "bundle")
    assert read_bundle(copy).label == written.name


def test_string_ids_and_tied_weights(tmp_path: Path) -> None:
    given = parts(ids=("a", "ü", "c"))
    shared = torch.arange(6.0).reshape(2, 3)
    given["weights"] = {"a": shared, "b": shared.T, "c": np.ones(2, dtype=np.float32)}
    bundle: Bundle = read_bundle(write_bundle(tmp_path, **given))
    assert bundle.vocabulary.items.to_list() == ["a", "ü", "c"]
    assert torch.equal(bundle.weights()["b"], shared.T)


def test_a_catalogue_in_another_order_is_a_fault(tmp_path: Path) -> None:
    given = parts()
    given["catalogue"] = given["catalogue"].reverse()
    with pytest.raises(ValueError, match="order"):
        write_bundle(tmp_path, **given)
