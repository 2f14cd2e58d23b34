"""A warehouse has one id, wherever it is moved; a copy has another, and nothing is written where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recsys.settings.read import parse_settings
from recsys.tracking import log as tracking
from recsys.tracking import quotes
from recsys.tracking.owner import FILE, WAREHOUSE_TAG, warehouse_id
from recsys.tracking.store import Store
from tests.recsys.retention.full import nothing_can_be_written


@pytest.fixture
def states(tmp_path: Path) -> Path:
    folder = tmp_path / "warehouse" / "runs"
    folder.mkdir(parents=True)
    return folder


def test_a_moved_warehouse_keeps_its_id_and_a_copy_draws_another(states: Path) -> None:
    drawn = warehouse_id(states)
    assert drawn and warehouse_id(states) == drawn
    copy = states.with_name("copy")
    shutil.copytree(states, copy)
    other = warehouse_id(copy)
    assert other not in (None, drawn) and warehouse_id(copy) == other and warehouse_id(states) == drawn
    moved = states.rename(states.with_name("moved"))
    assert warehouse_id(moved) == drawn and str(moved) in (moved / FILE).read_text()
    link = states.with_name("link")
    link.symlink_to(moved)
    assert warehouse_id(link) == drawn


def test_where_nothing_can_be_written_there_is_no_new_id(states: Path) -> None:
    with nothing_can_be_written():
        assert warehouse_id(states) is None
    drawn = warehouse_id(states)
    with nothing_can_be_written():
        assert warehouse_id(states) == drawn
        assert warehouse_id(states.rename(states.with_name("moved"))) == drawn
    assert warehouse_id(states) is None and not states.exists()
    (states.with_name("moved") / FILE).write_text("{")
    assert warehouse_id(states.with_name("moved")) not in (None, drawn)


def opened(folder: Path, database: Path) -> Store:
    (folder / "warehouse" / "runs").mkdir(parents=True)
    tree = {"name": "shop", "warehouse": str(folder / "warehouse"), "interactions": {"source": "x.csv"}}
    return tracking.open_store(parse_settings(tree | {"tracking": {"uri": f"sqlite:///{database}"}}))


def test_two_warehouses_of_one_name_see_their_own_runs(tmp_path: Path, database: Path) -> None:
    shutil.copy(database, tmp_path / "mlflow.db")
    stores = [opened(tmp_path / name, tmp_path / "mlflow.db") for name in ("real", "test")]
    assert stores[0].experiment_id == stores[1].experiment_id
    for store in stores:
        night = tracking.start_run(store, "night", {"recsys.name": "shop"})
        with tracking.step_run(store, "retrieve", night) as step:
            tracking.log_text(store, step, "candidates.md", "| user |")
        tracking.end_run(store, night)
        run = store.client.get_run(night)
        assert run.data.tags[WAREHOUSE_TAG] == store.warehouse is not None
        (quoted,) = quotes.quoting(store, "shop", lambda *_: True)  # those of the other are not forgotten with them
        assert quoted.run == step
