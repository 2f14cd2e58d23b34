"""Bundles of a warehouse in an object store: whole or not there, whoever asks and from which machine."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import obstore
import pytest
from obstore.store import S3Store

from recsys import runs
from recsys.bundles import mirror
from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import files_of
from recsys.bundles.store import find_bundle, latest_bundle, measured_bundle, publish_bundle, write_bundle
from recsys.errors import InputError, RecsysError
from recsys.pipelines.steps import is_transient
from recsys.storage import objects as module
from tests.recsys.bundles.test_bundle import parts
from tests.recsys.exports.conftest import ObjectStore
from tests.recsys.stores.conftest import Faulty


def moved(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """From here on this is another machine."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))


def objects(store: ObjectStore, prefix: str) -> S3Store:
    path = prefix.split("/", 3)[3]
    return S3Store(store.bucket, prefix=path, endpoint=store.endpoint, client_options={"allow_http": True})


def names(store: ObjectStore, prefix: str) -> set[str]:
    return {held["path"] for batch in obstore.list(objects(store, prefix)) for held in batch}


def test_another_machine_opens_it(
    prefix: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_bundle(prefix, **parts())
    assert written == runs.local_folder(prefix) / "bundles" / written.name
    files = {f"bundles/{written.name}/{name}" for name in (*files_of({}), "manifest.json")}
    assert names(object_store, prefix) == files
    publish_bundle(prefix, written)
    url = f"{prefix}/bundles/{written.name}"
    assert mirror.address(written) == url and mirror.warehouse_of(written) == prefix
    moved(monkeypatch, tmp_path / "other")
    for named in (url, f"{prefix}/bundles/tiny", f"{prefix}/bundles/tiny/"):
        found = find_bundle(named)
        assert found.is_relative_to(tmp_path / "other") and read_bundle(found).place == url
    assert latest_bundle(f"{prefix}/", "tiny") == found and read_bundle(url).path == found
    with pytest.raises(InputError, match=f"There is no bundle {prefix}/bundles/tony; did you mean {url}") as caught:
        find_bundle(f"{prefix}/bundles/tony")
    assert str(tmp_path) not in str(caught.value)
    with pytest.raises(InputError, match=r"There is no bundle 'other' in s3://.*/bundles; run `recsys train`"):
        latest_bundle(prefix, "other")
    with pytest.raises(InputError, match=r"There is no bundle .*/nothing/here/tiny, and no other one beside it"):
        find_bundle(f"{prefix}/nothing/here/tiny")


def test_the_same_content_is_uploaded_once_and_a_newer_one_is_pointed_to(
    prefix: str, object_store: ObjectStore
) -> None:
    first = write_bundle(prefix, **parts())
    before = obstore.head(objects(object_store, f"{prefix}/bundles/{first.name}"), "weights.safetensors")
    assert write_bundle(prefix, **parts()) == first
    assert obstore.head(objects(object_store, f"{prefix}/bundles/{first.name}"), "weights.safetensors") == before
    second = write_bundle(prefix, **parts(1))
    publish_bundle(prefix, first)
    publish_bundle(prefix, second)
    assert latest_bundle(prefix, "tiny") == second


@pytest.mark.parametrize("how", ["403", "close"])
def test_half_an_upload_is_no_bundle(
    how: str, prefix: str, faulty: Faulty, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    faulty.fails(how, "PUT .*bundles/tiny", after=3)
    with pytest.raises(RecsysError, match=f"The bundles in {prefix}/bundles cannot be reached") as caught:
        write_bundle(prefix, **parts())
    assert is_transient(caught.value) == (how == "close")
    assert "\n" not in str(caught.value) and "test" not in str(caught.value).replace(prefix, "")
    faulty.fails("", "$nothing")
    here, there = tmp_path / "machine", tmp_path / "other"
    moved(monkeypatch, there)
    with pytest.raises(InputError, match="There is no bundle 'tiny'"):
        latest_bundle(prefix, "tiny")
    label = next(iter((here / "recsys").glob("*/bundles/tiny-*"))).name
    assert not mirror.is_there(mirror.local_path(f"{prefix}/bundles/{label}"))
    moved(monkeypatch, here)
    assert write_bundle(prefix, **parts()).name == label  # the step is done again, and uploads what is missing
    moved(monkeypatch, there)
    assert read_bundle(f"{prefix}/bundles/{label}").id.startswith(label.removeprefix("tiny-"))


def test_a_store_that_is_busy_for_a_moment_is_asked_again(prefix: str, faulty: Faulty) -> None:
    faulty.fails("503", "bundles", after=2, times=2)
    publish_bundle(prefix, write_bundle(prefix, **parts()))
    assert latest_bundle(prefix, "tiny").name.startswith("tiny-")


def test_of_two_machines_one_moves_the_pointer(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = write_bundle(prefix, **parts()), write_bundle(prefix, **parts(1))
    real = module.replace

    def while_another_publishes(*arguments: Any) -> bool:
        monkeypatch.setattr(module, "replace", real)
        publish_bundle(prefix, second)
        return real(*arguments)

    monkeypatch.setattr(module, "replace", while_another_publishes)
    with pytest.raises(RecsysError, match=r"Another process has replaced s3://.*/bundles/tiny.latest.json in the mean"):
        publish_bundle(prefix, first)
    assert latest_bundle(prefix, "tiny") == second


def test_a_damaged_object_is_named(
    prefix: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_bundle(prefix, **parts())
    url, there = f"{prefix}/bundles/{written.name}", objects(object_store, f"{prefix}/bundles/{written.name}")
    content = bytes(obstore.get(there, "items.safetensors").bytes())
    moved(monkeypatch, tmp_path / "other")
    obstore.put(there, "items.safetensors", content[:-1] + b"?")
    with pytest.raises(
        InputError, match=f"The file items.safetensors of the bundle {url} is not the one that was written"
    ):
        read_bundle(url)
    obstore.delete(there, "items.safetensors")
    with pytest.raises(InputError, match=f"The bundle {url} lacks its file items.safetensors"):
        read_bundle(url)
    assert not list((tmp_path / "other").rglob("items.safetensors")) and not list(
        (tmp_path / "other").rglob(".*writing*")
    )
    obstore.put(there, "manifest.json", b'{"format": 99}')
    with pytest.raises(InputError, match="format 99"):
        read_bundle(url)


def test_a_bundle_from_elsewhere_is_brought_into_the_store(prefix: str, tmp_path: Path) -> None:
    local = write_bundle(tmp_path / "warehouse", **parts())
    assert mirror.address(local) == str(local) and publish_bundle(tmp_path / "warehouse", local) == local
    copy = publish_bundle(prefix, local)
    assert copy == latest_bundle(prefix, "tiny") and mirror.address(copy) == f"{prefix}/bundles/{local.name}"
    assert read_bundle(copy).id == read_bundle(local).id


def test_the_measured_bundle_of_a_refitted_one_comes_along(
    prefix: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = write_bundle(prefix, **parts())
    given = parts(1)
    given["lineage"] = {"refit": {"measured": measured.name}}
    refitted = write_bundle(prefix, **given)
    moved(monkeypatch, tmp_path / "other")
    found = find_bundle(f"{prefix}/bundles/{refitted.name}")
    assert measured_bundle(found) == found.with_name(measured.name)
    moved(monkeypatch, tmp_path / "third")
    obstore.delete(objects(object_store, f"{prefix}/bundles/{measured.name}"), "manifest.json")
    with pytest.raises(InputError, match=f"the bundle that was measured, {prefix}/bundles/{measured.name}, is gone"):
        measured_bundle(find_bundle(f"{prefix}/bundles/{refitted.name}"))


def test_a_damaged_pointer_is_named(prefix: str, object_store: ObjectStore) -> None:
    publish_bundle(prefix, write_bundle(prefix, **parts()))
    for content, sentence in (
        (b"{", f"{prefix}/bundles/tiny.latest.json is damaged; train again"),
        (json.dumps({"path": "tiny-0"}).encode(), f"points to {prefix}/bundles/tiny-0, which is gone; train again"),
    ):
        obstore.put(objects(object_store, f"{prefix}/bundles"), "tiny.latest.json", content)
        with pytest.raises(InputError, match=sentence):
            latest_bundle(prefix, "tiny")


def test_without_the_library_nothing_begins(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore", None)
    monkeypatch.delitem(sys.modules, "recsys.storage.objects", raising=False)
    needs = "needs the package obstore; run `pip install obstore`"
    with pytest.raises(InputError, match=needs), runs.locked(prefix):
        raise AssertionError


def test_a_removed_bundle_is_gone_in_the_store_and_in_the_mirror(
    prefix: str, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = write_bundle(prefix, **parts())
    assert mirror.labels(written.parent) == [written.name]
    mirror.remove(written)
    mirror.remove(written)
    assert not written.exists() and names(object_store, prefix) == set()
    moved(monkeypatch, tmp_path / "other")
    assert mirror.labels(mirror.bundles_folder(prefix)) == []
