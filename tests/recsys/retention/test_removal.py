"""Things that cannot be removed hold up no other; on a full disk they are tried again when the others are gone."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from recsys import runs
from recsys.bundles import mirror
from recsys.bundles.store import latest_bundle
from recsys.errors import RecsysError
from recsys.pipelines.forget import forget
from recsys.pipelines.retention import gc, keep_less
from recsys.releases.record import champion, path_of, read, releases, write
from recsys.releases.switch import described, serve
from recsys.retention import tables
from recsys.retention.kept import kept
from recsys.retention.removal import Removal, carry_out
from recsys.storage import stream
from recsys.storage.files import remove_folder
from recsys.storage.warehouse import scan
from recsys.tracking import log as tracking
from tests.recsys.releases.shop import NAME, NOW, Shop
from tests.recsys.retention.full import nothing_can_be_written


def test_a_failure_holds_up_no_other_and_is_tried_again_when_there_is_room() -> None:
    room, there = [False], {"record": ["r"], "bundle": ["b1", "b2"], "table": ["t"]}

    def kind(name: str, *, needs_room: bool = False) -> Iterator[Removal]:
        def remove(one: str) -> None:
            if needs_room and not room[0]:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), one)
            there[name].remove(one)
            room[0] |= name == "bundle"

        for one in list(there[name]):
            yield Removal(kind=name, what=one, size=1, act=lambda one=one: remove(one))

    def damaged() -> Iterator[Removal]:
        yield from ()
        raise DeltaError("no such column")

    kinds = [lambda: kind("record", needs_room=True), damaged, lambda: kind("bundle"), lambda: kind("table")]
    dry = carry_out(kinds, "", dry_run=True)
    assert dry.removed == {"record": 1, "bundle": 2, "table": 1} and dry.failed == ["no such column"]
    report = carry_out(kinds, "", dry_run=False)
    assert report.removed == dry.removed and report.failed == dry.failed
    assert there == {"record": [], "bundle": [], "table": []}


def test_a_bug_is_no_failure() -> None:
    def broken() -> Iterator[Removal]:
        yield Removal(kind="bundle", what="b", size=1, act=lambda: {}["key"])

    with pytest.raises(KeyError):
        carry_out([broken], "", dry_run=False)


def test_a_folder_goes_where_no_other_can_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bundle = Shop(tmp_path / "warehouse").bundle("a")
    monkeypatch.setattr(Path, "mkdir", full)  # of which some disks need a block
    mirror.remove(bundle)
    assert [path.name for path in bundle.parent.iterdir()] == []
    with pytest.raises(FileNotFoundError):
        remove_folder(bundle)


def test_older_versions_go_without_a_commit_where_none_can_be_written(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "warehouse", retention={"nights": 1, "days": 0})
    for run in "abcd":
        shop.night(run)
    stays = kept(shop.settings, releases(shop.settings), [], NOW.replace(year=2099))
    before = DeltaTable(shop.path("candidates")).version()
    (one,) = tables.older_versions(shop.settings, stays)
    with nothing_can_be_written():
        one.act()
    assert len(list((shop.root / "candidates").glob("*.parquet"))) == 2  # what is served, and what a rollback serves
    assert DeltaTable(shop.path("candidates")).version() == before
    assert set(scan(shop.settings.warehouse, "candidates").collect()["run"]) == {"d"}
    assert not list(tables.older_versions(shop.settings, stays))


@pytest.fixture
def old(tmp_path: Path, database: Path) -> Shop:
    """A night is served; beside it lie a bundle and a run that nothing needs any more."""
    shutil.copy(database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    shop = Shop(tmp_path / "warehouse", retention={"nights": 1, "days": 0}, tracking={"uri": uri})
    shop.night("served")
    shop.bundle("old")
    store = tracking.open_store(shop.settings)
    run = tracking.start_night(store, shop.settings, NOW)
    tracking.end_run(store, run)
    return shop


def bundles(shop: Shop) -> list[str]:
    return [str(pl.read_parquet(path)["title"][0]) for path in (shop.root / "bundles").glob("*/catalogue.parquet")]


def test_gc_frees_a_full_disk_and_says_what_is_left(old: Shop) -> None:
    assert sorted(bundles(old)) == ["old", "served"]
    with nothing_can_be_written():
        report = gc(old.settings, dry_run=False)
    assert report["removed"] == {"bundle": 1} and bundles(old) == ["served"]
    (left,) = report["failed"]
    assert "The MLflow store" in left and report["sentence"].startswith("Removed by [retention]: 1 bundle (")
    assert report["sentence"].endswith(f", but not all: {left}.")
    assert not list(old.root.rglob("*.writing-*"))
    again = gc(old.settings, dry_run=False)
    assert again["removed"] == {"MLflow run's files": 1} and not again["failed"]


def test_a_switch_that_cannot_be_finished_yet_keeps_what_it_needs(old: Shop) -> None:
    bundle = old.bundle("coming")
    release = described(old.settings, "coming", bundle, "night")
    staged = old.stage("coming", bundle)

    def commit(said: Mapping[str, Any]) -> None:
        stream.publish(replace(staged, metadata={**staged.metadata, **said}))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        serve(old.settings, release, commit)
    with nothing_can_be_written():
        report = gc(old.settings, dry_run=False)
    assert str(path_of(old.settings)) in report["failed"][0] or "The pointer" in report["failed"][0]
    assert sorted(bundles(old)) == ["coming", "served"] and read(old.settings).switching is not None
    assert not gc(old.settings, dry_run=False)["failed"]
    last = champion(old.settings)
    assert last is not None and last.run == "coming"
    assert latest_bundle(old.root, NAME).samefile(bundle)


def test_gc_goes_on_without_mlflow_and_a_night_warns(old: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(*_: object, **__: object) -> None:
        raise RecsysError("The MLflow store does not answer.")

    store = tracking.open_store(old.settings)
    monkeypatch.setattr(store.client, "get_experiment", silent)
    store.lost = "it is away"
    assert keep_less(old.settings, store) is not None
    assert bundles(old) == ["served"]
    monkeypatch.undo()
    done = keep_less(old.settings, store)  # the database answers again, and nobody waits for the end of a pause
    assert done is not None and done["removed"] == {"MLflow run's files": 1}
    old.bundle("old again")
    monkeypatch.setattr("recsys.tracking.log.open_store", silent)
    report = gc(old.settings, dry_run=False)
    assert report["removed"] == {"bundle": 1} and report["failed"] == ["The MLflow store does not answer"]


def test_files_of_the_run_of_a_night_without_mlflow_stay(old: Shop) -> None:
    store = tracking.open_store(old.settings)
    (run,) = store.client.search_runs([store.experiment_id])
    assert run.data.tags["recsys.local_id"].startswith("local-")
    before = read(old.settings)
    release = before.releases[-1]
    write(old.settings, replace(before, releases=(replace(release, run=run.data.tags["recsys.local_id"]),)))
    report = gc(old.settings, dry_run=True)
    assert "MLflow run's files" not in report["removed"] and report["removed"]["bundle"] == 1


def test_a_night_that_runs_is_left_alone_and_said_first(old: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object, **__: object) -> None:
        raise AssertionError("MLflow's database may be the night's now")

    before = sorted(old.root.rglob("*"))
    monkeypatch.setattr("recsys.tracking.log.open_store", held)
    with runs.locked(old.settings.warehouse):
        for command in (gc, lambda one, **_: forget(one, ["ann"])):
            with pytest.raises(runs.WarehouseBusy, match=r"^Another run \(process \d+\) is writing to the warehouse"):
                command(old.settings, dry_run=False)
    assert sorted(path for path in old.root.rglob("*") if path.name != "lock") == before
