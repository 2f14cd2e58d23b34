"""Runs that leave MLflow for good: those of the configuration that are old, whole, and nobody else's."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import requests
from mlflow.entities import Dataset, DatasetInput, LoggedModelOutput, Metric, Param, ViewType

from recsys.errors import RecsysError
from recsys.settings.read import parse_settings
from recsys.tracking import log as tracking
from recsys.tracking import records, retention
from recsys.tracking.operations import CHAMPION_ALIAS, LOCAL_TAG, NAME_TAG, PARENT_TAG, STEP_TAG
from recsys.tracking.owner import WAREHOUSE_TAG
from recsys.tracking.store import Store

NOW = datetime(2026, 11, 29, tzinfo=UTC)
LIMIT = NOW - timedelta(days=400)


@pytest.fixture
def store(tmp_path: Path, database: Path) -> Store:
    shutil.copy(database, tmp_path / "mlflow.db")
    tree = {"name": "shop", "warehouse": str(tmp_path / "warehouse"), "interactions": {"source": "x.csv"}}
    return tracking.open_store(parse_settings(tree | {"tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"}}))


def run(store: Store, name: str, days: float, parent: str | None = None, **tags: str) -> str:
    """A run that began some days ago and has ended, with a file, a number, a parameter, a data set and a model."""
    client, at = store.client, int((NOW - timedelta(days=days)).timestamp() * 1000)
    known = {PARENT_TAG: parent, STEP_TAG: "train"} if parent else {NAME_TAG: "shop"}
    made = client.create_run(store.experiment_id, run_name=name, start_time=at, tags=known | tags)
    run_id = str(made.info.run_id)
    client.log_batch(run_id, [Metric("loss", 1.0, at, step) for step in range(20)], [Param("p", "v" * 200)])
    client.log_inputs(run_id, [DatasetInput(Dataset("log", f"{days}", "local", "{}", "s" * 500))])
    client.log_text(run_id, "text", "report.md")
    model = client.create_logged_model(store.experiment_id, name="m", source_run_id=run_id, tags={"a": "b"})
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.set_terminated(run_id)
    return run_id


def rows(store: Store, *tables: str) -> dict[str, int]:
    with closing(sqlite3.connect(store.uri.removeprefix("sqlite:///"))) as held:
        return {name: held.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}


TABLES = ("runs", "metrics", "latest_metrics", "params", "tags", "inputs", "input_tags", "datasets")
MODELS = ("logged_models", "logged_model_tags", "logged_model_params", "logged_model_metrics")


def names(store: Store, found: Any) -> list[str]:
    return [str(store.client.get_run(one).info.run_name) for one, _ in found]


def old(store: Store, *keep: str) -> list[tuple[str, int]]:
    return list(records.old_records(store, "shop", keep, LIMIT))


def test_old_runs_go_with_their_steps_and_leave_no_row(store: Store) -> None:
    empty = rows(store, *TABLES, *MODELS)
    young = run(store, "young", 3)
    run(store, "young step", 3, young)
    with_young = rows(store, *TABLES, *MODELS)
    first = run(store, "first", 500)
    trial = run(store, "step", 500, first)
    run(store, "step of a step", 500, trial)
    found = old(store)
    assert names(store, found) == ["step of a step", "step", "first"]  # a kill leaves what says whose a step is
    assert all(size > 0 for _, size in found)
    folder = Path(store.uri.removeprefix("sqlite:///")).parent / "artifacts"
    for one, _ in found:
        records.delete(store, one)
    assert rows(store, *TABLES, *MODELS) == with_young != empty
    assert len(list(folder.rglob("report.md"))) == 2
    assert old(store) == []


def test_what_is_cited_served_running_or_of_others_stays(store: Store) -> None:
    cited, served = run(store, "cited", 500), run(store, "served", 500)
    run(store, "step of the cited", 500, cited)
    store.client.create_registered_model("shop")
    store.client.create_model_version("shop", "somewhere", served)
    store.client.set_registered_model_alias("shop", CHAMPION_ALIAS, "1")
    for name in ("another configuration", "another program"):
        tags = {NAME_TAG: "other"} if name.endswith("configuration") else {}
        at = int((NOW - timedelta(days=900)).timestamp() * 1000)
        made = store.client.create_run(store.experiment_id, run_name=name, start_time=at, tags=tags)
        store.client.set_terminated(made.info.run_id)
    at = int((NOW - timedelta(days=900)).timestamp() * 1000)
    store.client.create_run(store.experiment_id, start_time=at, tags={NAME_TAG: "shop"})  # it is still running
    assert old(store, cited) == []
    alone = run(store, "alone", 500, **{STEP_TAG: "train"})
    store.client.delete_tag(alone, NAME_TAG)  # as a step that was run by itself
    assert names(store, old(store, cited)) == ["alone"]


def test_a_kill_half_way_is_made_good(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run(store, "first", 500)
    run(store, "step", 500, first)
    (step, _), _ = old(store)
    with monkeypatch.context() as patch:
        patch.setattr(records, "_delete_for_good", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            records.delete(store, step)
    for one, _ in (found := old(store)):
        records.delete(store, one)
    assert len(found) == 2 and set(rows(store, *TABLES, *MODELS).values()) == {0}


def test_a_server_marks_runs_as_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_database", lambda _: None)  # as one that only has the public interface
    run(store, "first", 500)
    assert not records.can_delete(store)
    ((first, _),) = old(store)
    records.delete(store, first)
    assert old(store) == []
    (left,) = store.client.search_runs([store.experiment_id], run_view_type=ViewType.DELETED_ONLY)
    assert left.info.run_id == first and not store.client.list_artifacts(first)


def files(store: Store, *keep: str) -> list[str]:
    return names(store, retention.old_runs(store, "shop", keep, LIMIT))


def test_runs_of_another_warehouse_of_the_same_name_stay(store: Store) -> None:
    store.warehouses = ("this one",)
    first = run(store, "first", 500, **{WAREHOUSE_TAG: "this one"})
    run(store, "step", 500, first)
    early = run(store, "of an earlier version", 500)
    assert set(names(store, old(store))) == set(files(store)) == {"first", "step", "of an earlier version"}
    other = run(store, "of another warehouse", 500, **{WAREHOUSE_TAG: "another"})
    run(store, "its step", 500, other)
    # whose the one of an earlier version is, nobody can tell any more
    assert set(names(store, old(store))) == set(files(store)) == {"first", "step"}
    records.delete(store, other)
    assert store.client.get_run(early).info.lifecycle_stage == "active"


def test_a_night_that_began_without_the_store_stays_by_its_own_id(store: Store) -> None:
    first = run(store, "first", 500, **{LOCAL_TAG: "local-1"})
    run(store, "step", 500, first)
    assert old(store, "local-1") == files(store, "local-1") == []
    assert files(store, "local-2") == names(store, old(store, first[:8])) == ["step", "first"]


def test_files_go_once_and_with_those_of_steps_of_steps(store: Store) -> None:
    first = run(store, "first", 500)
    step = run(store, "step", 500, first)
    run(store, "step of a step", 500, step)
    found = list(retention.old_runs(store, "shop", (), LIMIT))
    assert names(store, found) == ["step of a step", "step", "first"]
    for one, _ in found:
        retention.remove_files(store, one)
    assert files(store) == []
    assert not list(Path(store.uri.removeprefix("sqlite:///")).parent.rglob("report.md"))


def test_a_store_that_stops_to_answer_says_so_and_is_not_asked_for_each_run(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def away(*_: Any, **__: Any) -> None:
        asked.append(1)
        raise requests.exceptions.ConnectionError("refused")  # as an artifact's address does; no error of MLflow's

    runs = [run(store, name, 500) for name in ("first", "second")]
    with monkeypatch.context() as patch:
        patch.setattr(retention, "empty", away)
        patch.setattr(store.client, "get_experiment", away)
        patch.setattr(store, "uri", "http://127.0.0.1:9")  # a server is waited for, a database on this disk is not
        with pytest.raises(RecsysError, match=r"^The MLflow store .* does not answer \(ConnectionError: refused\)\.$"):
            retention.remove_files(store, runs[0])
        many = len(asked)
        for act in (retention.remove_files, records.delete):
            with pytest.raises(RecsysError, match="does not answer"):
                act(store, runs[1])
        with pytest.raises(RecsysError, match="does not answer"):
            files(store)
        assert len(asked) == many
    store.lost = None
    assert len(files(store)) == 2  # nothing has been noted as gone


def test_one_run_that_fails_keeps_no_other(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (run(store, name, 500) for name in ("first", "second"))
    with monkeypatch.context() as patch:
        patch.setattr(retention, "empty", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied")))
        with pytest.raises(RecsysError, match=r" fails \(PermissionError: .*Permission denied\)\.$"):
            retention.remove_files(store, first)
    retention.remove_files(store, second)
    assert files(store) == ["first"]
