"""A warehouse has one id, wherever it is moved; a copy has another, and nothing is written where there is none."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from recsys.settings.read import parse_settings
from recsys.tracking import log as tracking
from recsys.tracking import quotes
from recsys.tracking.owner import FILE, WAREHOUSE_TAG, warehouse_ids
from recsys.tracking.store import Store
from tests.recsys.retention.full import nothing_can_be_written


def warehouse_id(states: Path) -> str | None:
    return next(iter(warehouse_ids(states)), None)


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


def test_a_copy_takes_over_the_runs_of_what_it_was_copied_from_when_that_is_gone(states: Path) -> None:
    first = warehouse_id(states)
    copy, copy_of_copy = states.with_name("copy"), states.with_name("copy of copy")
    shutil.copytree(states, copy)
    (second,) = warehouse_ids(copy)
    shutil.copytree(copy, copy_of_copy)
    (third,) = warehouse_ids(copy_of_copy)
    shutil.rmtree(states)
    assert warehouse_ids(copy) == (second, first) and warehouse_ids(copy_of_copy) == (third, first)
    shutil.rmtree(copy)
    assert set(warehouse_ids(copy_of_copy.rename(states))) == {third, second, first}


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
        assert (run.data.tags[WAREHOUSE_TAG],) == store.warehouses
        (quoted,) = quotes.quoting(store, "shop", lambda *_: True)  # those of the other are not forgotten with them
        assert quoted.run == step


def test_runs_of_nobody_are_searched_and_left_alone(tmp_path: Path, database: Path) -> None:
    shutil.copy(database, tmp_path / "mlflow.db")
    real, test = (opened(tmp_path / name, tmp_path / "mlflow.db") for name in ("real", "test"))
    nights = []
    for store in (real, real, test):
        nights.append(night := tracking.start_run(store, "night", {"recsys.name": "shop"}))
        tracking.log_text(store, night, "candidates.md", "| user |")
        tracking.end_run(store, night)
    early, night, tried = nights
    real.client.delete_tag(early, WAREHOUSE_TAG)  # as a night of an earlier version

    def found(store: Store, **options: bool) -> set[str]:
        return {file.run for file in quotes.quoting(store, "shop", lambda *_: True, **options)}

    assert (found(real), found(test)) == ({night}, {tried})
    assert found(real, nobodys=True) == found(test, nobodys=True) == {early}
    test.warehouses = (*test.warehouses, *real.warehouses)  # taken over, and nobody else writes there
    assert (found(test), found(test, nobodys=True)) == (set(nights), set())
