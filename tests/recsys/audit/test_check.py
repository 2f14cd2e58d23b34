"""Planted faults of a warehouse made in milliseconds: each is found where it is, and mended where it can be."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deltalake.exceptions import DeltaError

from recsys import runs
from recsys.audit import leftovers, served, stored
from recsys.audit.findings import Finding, carried_out, mend
from recsys.bundles.store import latest_bundle
from recsys.data.log import home_of
from recsys.errors import RecsysError
from recsys.exports.base import Candidates
from recsys.exports.due import due, note
from recsys.exports.several import rollback
from recsys.pipelines.check import check
from recsys.releases.record import champion, path_of, releases
from recsys.releases.switch import described, serve, settle
from recsys.retention.collect import collect
from recsys.settings import Settings
from recsys.storage import artefacts, stream
from recsys.storage.shared import share_files
from recsys.storage.warehouse import commit_metadata, latest_version
from recsys.table.naming import candidates_table
from recsys.tracking.registry import model_name
from recsys.tracking.store import Store, open_store
from tests.recsys.audit.forgetting import forget
from tests.recsys.releases.shop import NAME, Shop


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """Two nights, exported; the second one is served."""
    targets = {
        "files": {"kind": "files", "path": str(tmp_path / "out")},
        "lite": {"kind": "sqlite", "path": str(tmp_path / "lite.db")},
    }
    tracking = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    found = Shop(tmp_path / "warehouse", export=targets, tracking=tracking)
    found.night("a")
    found.night("b")
    return found


def candidates(settings: Settings) -> Candidates:
    table = candidates_table(settings.warehouse, settings.name)
    version = latest_version(settings.warehouse, table)
    assert version is not None
    run = commit_metadata(settings.warehouse, table)["run"]
    return Candidates(path=f"{settings.warehouse}/{table}", version=version, run=run)


def found(shop: Shop, *, deep: bool = False) -> list[Finding]:
    settings = shop.settings
    checks: list[tuple[str, Callable[[], Any]]] = [
        ("table", lambda: stored.tables(settings, deep=deep)),
        ("bundle", lambda: stored.bundles(settings, None, deep=deep)),
        ("prepared data", lambda: stored.prepared(settings) if deep else []),
        ("release", lambda: served.releases(settings)),
        ("pointer", lambda: served.pointer(settings)),
        ("export", lambda: served.exports(settings, lambda: candidates(settings))),
        ("record", lambda: leftovers.records(settings)),
        ("forgotten", lambda: leftovers.proofs(settings)),
        ("scratch", lambda: leftovers.unfinished(settings)),
        ("retention", lambda: leftovers.overdue(settings)),
    ]
    return list(carried_out(checks))


def one(shop: Shop, *, deep: bool = False) -> Finding:
    findings = found(shop, deep=deep)
    assert len(findings) == 1, [finding.told() for finding in findings]
    return findings[0]


def test_a_sound_warehouse_has_no_finding(shop: Shop) -> None:
    assert found(shop, deep=True) == []
    assert found(Shop(shop.root.with_name("nothing"))) == []


def test_rows_without_a_commit_are_a_finding(shop: Shop) -> None:
    (log,) = shop.root.glob("candidates*/_delta_log")
    for commit in log.iterdir():
        commit.unlink()
    told = [finding.what for finding in found(shop) if finding.where == str(log.parent)]
    assert len(told) == 1 and told[0].endswith("files of rows, and no commit names what is in it")


def pointer_of(shop: Shop) -> Path:
    return shop.root / "bundles" / f"{NAME}.latest.json"


@pytest.mark.parametrize("content", [None, "{", '{"path": "shop-gone", "bundle": "0"}'])
def test_a_pointer_that_leads_nowhere_is_turned_to_the_last_good_release(shop: Shop, content: str | None) -> None:
    path = pointer_of(shop)
    path.unlink() if content is None else path.write_text(content)
    finding = one(shop)
    assert (finding.part, finding.where) == ("pointer", str(path))
    release = champion(shop.settings)
    assert release is not None and Path(release.bundle).name in finding.advice
    assert [done["error"] for done in mend([finding])] == [None]
    assert latest_bundle(shop.root, NAME).name == Path(release.bundle).name
    assert found(shop) == []


def test_the_bundle_before_is_taken_where_the_served_one_is_gone(shop: Shop) -> None:
    release = champion(shop.settings)
    assert release is not None
    shutil.rmtree(release.bundle)
    findings = {finding.part: finding for finding in found(shop)}
    assert set(findings) == {"release", "pointer", "bundle"}
    assert findings["release"].repair is None and "recsys rollback" in findings["release"].advice
    mend(findings.values())
    assert latest_bundle(shop.root, NAME).is_dir()
    assert [finding.part for finding in found(shop)] == ["bundle", "release"]  # what is served is a person's choice


def test_damaged_bundles_are_seen_by_size_and_deep_by_content(shop: Shop) -> None:
    release = champion(shop.settings)
    assert release is not None
    weights = Path(release.bundle) / "weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"\0" if content[-1:] != b"\0" else content[:-1] + b"\1")
    assert not [finding for finding in found(shop) if finding.part == "bundle"]
    assert "weights.safetensors" in next(f.what for f in found(shop, deep=True) if f.part == "bundle")
    weights.write_bytes(content + b"more")
    assert "and was written with" in next(f.what for f in found(shop) if f.part == "bundle")
    weights.unlink()
    assert "weights.safetensors is missing" in next(f.what for f in found(shop) if f.part == "bundle")


def test_damaged_tables_are_seen_by_size_and_deep_by_content(shop: Shop) -> None:
    file = max((shop.root / "candidates").glob("*.parquet"), key=lambda path: path.stat().st_mtime_ns)
    content = file.read_bytes()
    file.write_bytes(content[:4] + bytes(len(content) - 12) + content[-8:])
    assert [finding for finding in found(shop) if finding.part == "table"] == []
    finding = next(finding for finding in found(shop, deep=True) if finding.part == "table")
    assert str(file) in finding.what and "recsys retrieve CONFIG" in finding.advice
    file.write_bytes(content[:-1])
    assert "bytes and was written with" in next(f.what for f in found(shop) if f.part == "table")
    file.unlink()
    assert {"table", "release"} <= {finding.part for finding in found(shop)}


def test_a_night_that_publishes_is_no_finding_and_a_stopped_one_is(shop: Shop, tmp_path: Path) -> None:
    bundle = shop.bundle("c")
    release = described(shop.settings, "c", bundle, "night")
    staged = shop.stage("c", bundle)

    def look() -> list[str]:
        return [one["what"] for one in check(shop.settings)["findings"] if one["part"] != "MLflow"]

    def commit(said: Mapping[str, Any]) -> None:
        stream.publish(replace(staged, metadata={**staged.metadata, **said}))
        report = check(shop.settings)
        assert report["busy"] and "A run is writing" in report["sentence"] and look() == []
        raise KeyboardInterrupt

    with runs.locked(shop.settings.warehouse), pytest.raises(KeyboardInterrupt):
        serve(shop.settings, release, commit)
    assert look()[0] == "the switch to run c was stopped"
    settle(shop.settings, exporting=False)
    with runs.locked(shop.settings.warehouse):
        assert look() == []
        shutil.rmtree(bundle)
        assert any("is served, and its bundle" in one for one in look())  # no night makes that
    assert any("readers see run b, and run c is served" in one for one in look())


@pytest.mark.parametrize("whole", [True, False])
def test_an_export_whose_files_are_gone_is_made_anew(shop: Shop, tmp_path: Path, *, whole: bool) -> None:
    copy = (tmp_path / "out").resolve()
    shutil.rmtree(copy)
    if not whole:
        copy.mkdir()
    finding = one(shop)
    assert (finding.where, finding.what) == ("export.files (files)", "readers find no copy")
    assert [done["error"] for done in mend([finding])] == [None]
    assert found(shop) == [] and any((tmp_path / "out").iterdir())


def test_a_repair_at_which_a_library_fails_stops_no_other() -> None:
    done: list[str] = []

    def fail() -> None:
        raise DeltaError("Generic LocalFileSystem error: No space left on device (os error 28)")

    findings = [
        Finding(part="table", where=name, what="w", advice="a", repair=repair)
        for name, repair in (("first", fail), ("second", lambda: done.append("second")))
    ]
    assert [one["error"] is None for one in mend(findings)] == [False, True] and done == ["second"]


def test_an_export_that_is_gone_is_made_anew_and_one_that_was_taken_back_is_not(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "out").unlink()
    finding = one(shop)
    assert (finding.where, finding.what) == ("export.files (files)", "readers find no copy")
    mend([finding])
    assert found(shop) == [] and (tmp_path / "out").is_symlink()
    rollback(shop.settings, "lite")
    finding = one(shop)
    assert finding.what == "readers see run a, and run b is served" and finding.repair is None
    note(shop.settings, ["lite"], Candidates(path="", version=0, run="b"))  # as an export that failed
    mend([one(shop)])
    assert found(shop) == [] and due(shop.settings) == frozenset()
    (tmp_path / "lite.db").write_bytes(b"no database")
    assert "is not an SQLite database" in one(shop).what


def test_a_switch_that_was_stopped_is_finished(shop: Shop) -> None:
    path = path_of(shop.settings)
    record = json.loads(path.read_text())
    token = commit_metadata(str(shop.root), "candidates")["switch"]
    last = record["releases"].pop()
    path.write_text(json.dumps({**record, "switching": {"token": token, "release": last}}))
    finding = next(finding for finding in found(shop) if finding.part == "release")
    assert finding.what == "the switch to run b was stopped"
    mend([finding])
    assert found(shop) == []
    release = champion(shop.settings)
    assert release is not None and release.run == "b"


def test_a_list_of_releases_that_lags_behind_the_table_is_brought_up(shop: Shop) -> None:
    path = path_of(shop.settings)
    record = json.loads(path.read_text())
    path.write_text(json.dumps({**record, "releases": record["releases"][:1]}))
    finding = next(finding for finding in found(shop) if finding.part == "release")
    assert "run a is served, and the candidate table is of run b" in finding.what
    mend([finding])
    assert found(shop) == []
    path.write_text("{")
    assert {finding.part for finding in found(shop)} >= {"release"}


def test_records_and_left_overs(shop: Shop) -> None:
    folder = runs.state_folder(str(shop.root))
    (folder / "broken.json").write_text('{"key": ')
    old, young = shop.root / "bundles" / ".x.writing-0", folder / ".y.writing-1"
    old.mkdir()
    young.write_text("somebody is at it")
    os.utime(old, (0, 0))
    dead = folder / "processes" / "gone"
    dead.parent.mkdir(exist_ok=True)
    dead.write_text("{}")
    findings = {finding.where: finding for finding in found(shop)}
    assert set(findings) == {str(folder / "broken.json"), str(old), str(dead)}
    assert all(done["error"] is None for done in mend(findings.values()))
    assert found(shop) == [] and young.exists() and not old.exists() and not dead.exists()
    assert (folder / "broken.json.damaged").read_text() == '{"key": '
    runs.save(folder, runs.RunState(key="k", run_id="r9", started="2999-01-01T00:00:00+00:00", status="failed"))
    finding = one(shop)
    assert "r9, was stopped or failed after the start" in finding.what and finding.repair is None


def test_a_call_of_forget_that_left_something_is_a_finding_until_it_is_repeated(shop: Shop) -> None:
    proofs = runs.state_folder(str(shop.root)) / "proofs"
    proofs.mkdir()
    (proofs / "20260101T000000Z-a.json").write_text(json.dumps({"clean": False, "hashes": ["h1", "h2"]}))
    assert one(shop).what == "a `recsys forget` left something"
    (proofs / "20260102T000000Z-b.json").write_text(json.dumps({"clean": True, "hashes": ["h1"]}))
    assert one(shop).where.endswith("-a.json")
    (proofs / "20260103T000000Z-c.json").write_text(json.dumps({"clean": True, "hashes": ["h2", "h3"]}))
    assert found(shop) == []


def test_a_check_that_fails_is_a_finding_and_keeps_no_other_from_being_made() -> None:
    def fails() -> list[Finding]:
        raise RecsysError("postgresql://me:secret@host/db does not answer.")

    fine = Finding(part="b", where="w", what="x", advice="y", repair=fails)
    findings = list(carried_out([("a", fails), ("b", lambda: [fine])]))
    assert [finding.part for finding in findings] == ["a", "b"]
    assert "does not answer" in findings[0].what and "secret" not in findings[0].what
    assert "does not answer" in str(mend(findings)[0]["error"])


def test_clean_up_goes_on_after_older_versions_were_forgotten(shop: Shop) -> None:
    forget(shop.settings, ["ann"])
    assert collect(shop.settings, None, dry_run=True).removed == {}  # neither version that a release names is there
    assert found(shop) == []


@pytest.fixture
def tracked(shop: Shop, tmp_path: Path, database: Path) -> tuple[Shop, Store]:
    """The shop, its served bundle in MLflow, which has second names of its files."""
    shutil.copy(database, tmp_path / "mlflow.db")
    settings = shop.settings
    tracking = settings.tracking.model_copy(update={"uri": f"sqlite:///{tmp_path}/mlflow.db"})
    store = open_store(settings.model_copy(update={"tracking": tracking}))
    bundle = served_bundle(shop)
    run = store.client.create_run(store.experiment_id).info.run_id
    model = store.client.create_logged_model(store.experiment_id, name=model_name(bundle.name), source_run_id=run)
    copy = Path(model.artifact_location.removeprefix("file://")) / "artifacts" / bundle.name
    shutil.copytree(bundle, copy)
    assert share_files(str(copy), bundle) > 0
    return shop, store


def served_bundle(shop: Shop) -> Path:
    release = champion(shop.settings)
    assert release is not None
    return Path(release.bundle)


def broken_bundle(shop: Shop, store: Store | None, *, deep: bool = False) -> Finding:
    (finding,) = stored.bundles(shop.settings, store, deep=deep)
    return finding


@pytest.mark.parametrize("name", ["weights.safetensors", "items.safetensors", "manifest.json"])
def test_a_lost_file_of_a_bundle_comes_back_from_mlflow(tracked: tuple[Shop, Store], name: str) -> None:
    shop, store = tracked
    file = served_bundle(shop) / name
    content = file.read_bytes()
    file.unlink()
    assert "MLflow answers" in broken_bundle(shop, None).advice
    finding = broken_bundle(shop, store)
    assert finding.advice == "take MLflow's copy with `recsys check --repair`"
    assert [done["error"] for done in mend([finding])] == [None]
    assert file.read_bytes() == content and found(shop, deep=True) == []
    assert mend([finding])[0]["error"] is None  # twice is as once


@pytest.mark.parametrize("manner", ["served", "pointed to", "before"])
def test_a_bundle_that_is_gone_altogether_comes_back_from_mlflow(tracked: tuple[Shop, Store], manner: str) -> None:
    shop, store = tracked
    bundle = served_bundle(shop)
    if manner == "before":
        shop.night("c")  # the one in MLflow is the one that a rollback serves
    elif manner == "pointed to":
        path_of(shop.settings).write_text('{"releases": []}')
    held = {path.name: path.read_bytes() for path in bundle.iterdir()}
    shutil.rmtree(bundle)
    finding = broken_bundle(shop, store)
    assert (finding.what, finding.advice) == ("it is gone", "take MLflow's copy with `recsys check --repair`")
    pointers = list(served.pointer(shop.settings))
    assert len(pointers) == (manner != "before")
    assert all(done["error"] is None for done in mend([finding, *pointers]))
    assert {path.name: path.read_bytes() for path in bundle.iterdir()} == held
    assert not list(stored.bundles(shop.settings, store, deep=True)) and not list(served.pointer(shop.settings))
    assert (latest_bundle(shop.root, NAME).name == bundle.name) == (manner != "before")  # it points where it did


def test_a_bundle_that_is_not_served_sends_nobody_to_a_rollback(tracked: tuple[Shop, Store]) -> None:
    shop, store = tracked
    before = Path(releases(shop.settings)[0].bundle)
    (before / "weights.safetensors").unlink()
    finding = broken_bundle(shop, store)
    assert finding.repair is None and "a rollback cannot serve it; it is not served now" in finding.advice
    shutil.rmtree(before)
    assert broken_bundle(shop, store).what == "it is gone"
    forget(shop.settings, ["ann"])  # its rows go, so nothing needs it
    assert not list(stored.bundles(shop.settings, store, deep=False))
    other = shop.bundle("measured only")
    (other / "weights.safetensors").unlink()
    finding = broken_bundle(shop, store)
    assert finding.repair is None and "recsys rollback" not in finding.advice
    assert "it is not served, so do nothing, or make another with `recsys run`" in finding.advice


def test_a_damaged_file_comes_back_only_where_a_whole_copy_is_left(tracked: tuple[Shop, Store]) -> None:
    shop, store = tracked
    file = served_bundle(shop) / "weights.safetensors"
    content = file.read_bytes()
    with file.open("r+b") as both:  # one file of two names
        both.write(b"x")
    finding = broken_bundle(shop, store, deep=True)
    assert finding.repair is None and finding.advice.startswith("no whole copy is left: serve the one before")
    file.unlink()
    file.write_bytes(b"x" + content[1:])  # a file of its own now
    (copy,) = Path(store.uri.removeprefix("sqlite:///")).parent.rglob("artifacts/*/weights.safetensors")
    copy.unlink()
    copy.write_bytes(content)
    assert [done["error"] for done in mend([broken_bundle(shop, store, deep=True)])] == [None]
    assert file.read_bytes() == content
    shutil.rmtree(copy.parent)
    file.unlink()
    assert broken_bundle(shop, store).repair is None


def test_damaged_prepared_data_go_and_are_made_again(shop: Shop) -> None:
    home = home_of(str(shop.root))

    def write(folder: Path) -> dict[str, int]:
        (folder / "users.arrow").write_bytes(b"abc")
        return {"n": 1}

    def read(folder: Path, facts: dict[str, int]) -> bytes:
        return (folder / "users.arrow").read_bytes()

    for key in ("a", "b", "c"):
        artefacts.obtain(home, "log", key, write, read)
    (home / "log-a" / "users.arrow").write_bytes(b"abd")  # another byte
    (home / "log-b" / "files.json").write_text("{")
    assert found(shop) == []
    findings = found(shop, deep=True)
    assert [(one.part, Path(one.where).name) for one in findings] == [("prepared data", f"log-{key}") for key in "ab"]
    artefacts.obtain(home, "log", "b", write, read)  # somebody has made it again in the meantime
    assert [done["error"] for done in mend(findings)] == [None, None]
    assert sorted(path.name for path in home.glob("log-*")) == ["log-b", "log-c"]
    assert found(shop, deep=True) == []
