"""Nights that clean up behind themselves: what goes, what stays, and that what stays comes back."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tomlkit

from recsys import runs
from recsys.bundles import mirror
from recsys.bundles.mirror import bundles_folder
from recsys.bundles.store import latest_bundle
from recsys.errors import RecsysError
from recsys.pipelines import cli, nightly
from recsys.pipelines.promote import rollback
from recsys.pipelines.steps import Step, as_function
from recsys.releases.choice import lack
from recsys.releases.record import releases
from recsys.report.files import pages
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.files import writing
from recsys.storage.warehouse import scan
from recsys.tracking import log as tracking
from recsys.tracking.retention import REMOVED_TAG
from tests.recsys.gate import shop

pytestmark = pytest.mark.integration
NIGHTS = 3


def write_config(folder: Path) -> Settings:
    tree = shop.tree(folder)
    tree["gate"] = {"enabled": False}
    tree["tracking"] = {"uri": f"sqlite:///{folder}/mlflow.db"}
    tree["retention"] = {"nights": 2, "days": 0}
    path = folder / "recsys.toml"
    path.write_text(tomlkit.dumps(tree))
    return load_settings(path)


@pytest.fixture(scope="module")
def shop_of_nights(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    """A shop after three nights, two of which are kept."""
    folder = tmp_path_factory.mktemp("nights")
    settings = write_config(folder)
    for number in range(NIGHTS):
        shop.write_log(folder, shop.EVENTS - NIGHTS + 1 + number)
        nightly.night(settings)
    return settings


def test_two_nights_stay_with_all_that_they_need(shop_of_nights: Settings) -> None:
    settings = shop_of_nights
    listed = releases(settings)
    assert len(listed) == NIGHTS  # the list says what was served, also where it cannot come back
    assert [lack(settings, one) is None for one in listed] == [False, True, True]
    stay = {Path(path).name for one in listed[-2:] for path in (one.bundle, one.measured)}
    assert set(mirror.labels(bundles_folder(settings.warehouse))) == stay
    assert latest_bundle(settings.warehouse, settings.name).name == Path(listed[-1].bundle).name
    assert {state.run_id for state in runs.states(runs.state_folder(settings.warehouse))} == {
        one.run for one in listed[-2:]
    }
    assert len(pages(Path(settings.warehouse) / "reports" / settings.name)) == 2
    assert len(list((Path(settings.warehouse) / "evaluations").glob("*.parquet"))) == 2
    assert len(list((Path(settings.warehouse) / "candidates").glob("*.parquet"))) == 2


def test_old_runs_lose_their_files_and_keep_their_figures(shop_of_nights: Settings) -> None:
    store = tracking.open_store(shop_of_nights)
    for place, one in enumerate(releases(shop_of_nights)):
        run, old = store.client.get_run(one.run), place < NIGHTS - 2
        assert run.data.metrics["test/ndcg_at_10"] >= 0
        assert (REMOVED_TAG in run.data.tags) is old
        whole = [one.run, *(step.info.run_id for step in tracking.child_runs(store, one.run))]
        assert any(store.client.list_artifacts(each) for each in whole) is not old  # values per user are a step's
        versions = store.client.search_model_versions(f"run_id = '{one.run}'")
        assert bool(versions) is not old


def test_the_clean_up_ends(shop_of_nights: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Path(shop_of_nights.warehouse).parent / "recsys.toml")
    assert cli.execute(["gc", config, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["removed"] == {}  # the night itself has done it
    assert cli.execute(["check", config]) == 0


def test_a_bundle_is_on_disk_once(shop_of_nights: Settings) -> None:
    bundle = latest_bundle(shop_of_nights.warehouse, shop_of_nights.name)
    copies = list(Path(shop_of_nights.warehouse).parent.rglob("weights.safetensors"))
    same = [path for path in copies if path.stat().st_ino == (bundle / "weights.safetensors").stat().st_ino]
    assert len(same) == 2  # under its own name, and MLflow's
    assert same[0].stat().st_nlink == 2


def test_the_night_before_comes_back_and_stays(shop_of_nights: Settings) -> None:
    settings = shop_of_nights
    before, last = releases(settings)[-2:]
    rollback(settings, "to see it come back")
    rows = scan(settings.warehouse, "candidates").select("run").unique().collect()
    assert rows["run"].to_list() == [before.run]
    config = str(Path(settings.warehouse).parent / "recsys.toml")
    assert cli.execute(["gc", config, "--dry-run", "--json"]) == 0
    assert cli.execute(["gc", config]) == 0
    assert cli.execute(["gc", config]) == 0
    assert lack(settings, releases(settings)[-1]) is None
    assert scan(settings.warehouse, "candidates").select(pl.len()).collect().item() > 0
    rollback(settings, "and forth", to=last.run)


def test_status_tells_of_the_nights(shop_of_nights: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(Path(shop_of_nights.warehouse).parent / "recsys.toml")
    assert cli.execute(["status", config]) == 0
    shown = capsys.readouterr().out
    assert "published" in shown and "bundles" in shown


@pytest.mark.parametrize(("number", "goes"), [(errno.EIO, False), (errno.ENOSPC, True)])
def test_a_night_that_finds_the_disk_full_makes_room_for_the_next(
    shop_of_nights: Settings, *, number: int, goes: bool
) -> None:
    old = Path(shop_of_nights.warehouse) / "evaluations" / f"{shop_of_nights.name}-000000000000.parquet"
    old.write_bytes(b"old")

    def run(step: Step, settings: Settings, *arguments: Any) -> dict[str, Any]:
        if step.fn.__name__ == "ingest":
            return as_function(step, settings, *arguments)
        with writing("The table item_vectors"):
            raise OSError(number, os.strerror(number))

    with pytest.raises(RecsysError, match=rf"The table item_vectors cannot be written: {os.strerror(number)}"):
        nightly.night(shop_of_nights, run)
    assert old.exists() is not goes


def test_a_night_that_is_stopped_in_its_clean_up_is_finished(
    shop_of_nights: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(nightly, "keep_less", stopped)
    with pytest.raises(SystemExit):
        nightly.night(shop_of_nights)
    newest = next(runs.states(runs.state_folder(shop_of_nights.warehouse)))
    assert (newest.status, newest.error) == ("finished", None) and newest.run_id == releases(shop_of_nights)[-1].run
    assert tracking.open_store(shop_of_nights).client.get_run(newest.run_id).info.status == "FINISHED"
