from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.entities import ViewType

from recsys.columns import metric_name
from recsys.errors import InputError, RecsysError
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.tracking import log as tracking
from recsys.tracking.parameters import flatten, parameters


def settings_at(uri: str, **extra: object) -> Settings:
    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "tracking": {"uri": uri}, **extra}
    return parse_settings(tree)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracking")


@pytest.fixture(scope="module")
def store(folder: Path) -> tracking.Store:
    return tracking.open_store(settings_at(f"sqlite:///{folder}/mlruns/mlflow.db"))


# --- the store ------------------------------------------------------------------------------------


def test_store_and_artifacts_lie_side_by_side(store: tracking.Store, folder: Path) -> None:
    experiment = store.client.get_experiment(store.experiment_id)
    assert experiment.name == "shop"
    assert experiment.artifact_location == (folder / "mlruns" / "artifacts").as_uri()
    with sqlite3.connect(folder / "mlruns" / "mlflow.db") as database:
        assert ("shop",) in database.execute("select name from experiments").fetchall()
    database.close()


def test_opening_again_finds_the_same_experiment(store: tracking.Store) -> None:
    again = tracking.open_store(settings_at(store.uri))
    assert again.experiment_id == store.experiment_id


def test_relative_store_is_created_in_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    opened = tracking.open_store(settings_at("sqlite:///mlruns/mlflow.db"))
    assert (tmp_path / "mlruns" / "mlflow.db").is_file()
    location = opened.client.get_experiment(opened.experiment_id).artifact_location
    assert location == (tmp_path / "mlruns" / "artifacts").as_uri()


@pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:///tmp/mlruns", "C:\\mlruns"])
def test_a_plain_folder_is_refused_with_advice(uri: str) -> None:
    with pytest.raises(InputError, match=r"plain folder.*sqlite:///mlruns/mlflow.db"):
        tracking.open_store(settings_at(uri))


def test_a_deleted_experiment_is_said_so(tmp_path: Path) -> None:
    settings = settings_at(f"sqlite:///{tmp_path}/mlflow.db")
    opened = tracking.open_store(settings)
    opened.client.delete_experiment(opened.experiment_id)
    with pytest.raises(InputError, match="'shop' was deleted; restore it") as caught:
        tracking.open_store(settings)
    command = re.search("`(MLFLOW_TRACKING_URI=.*)`", str(caught.value))
    assert command is not None  # complete: it works as it stands, from any folder
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(command[1], shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True)
    assert tracking.open_store(settings).experiment_id == opened.experiment_id


def test_a_server_that_does_not_answer_is_one_sentence_without_the_password() -> None:
    with pytest.raises(RecsysError) as caught:
        tracking.open_store(settings_at("http://ann:hunter2@127.0.0.1:9/"))
    message = str(caught.value)
    assert not isinstance(caught.value, InputError)
    assert message.startswith("The MLflow store http://***@127.0.0.1:9/ does not answer")
    assert "hunter2" not in message and "ann" not in message and "\n" not in message
    assert "Connection refused" in message
    assert message.endswith("start it or change tracking.uri.")


# --- names and secrets ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ndcg@10", "a,b", "", "/a", "a//b", "a/../b", "naïve", "a+b"])
def test_names_that_mlflow_rejects(name: str) -> None:
    with pytest.raises(ValueError, match="not a metric name"):
        tracking.check_name(name)


@given(
    metric=st.sampled_from(["hr", "ndcg", "mrr", "coverage"]),
    k=st.integers(1, 10_000),
    part=st.sampled_from([None, "val", "test"]),
)
def test_our_metric_names_pass(metric: str, k: int, part: str | None) -> None:
    name = metric_name(metric, k, part)
    assert tracking.check_name(name) == name


def test_mlflow_agrees_on_names(store: tracking.Store) -> None:
    run_id = tracking.start_run(store, "names")
    name = "test part/ndcg_at_10-x.y:z"
    tracking.log_metrics(store, run_id, {tracking.check_name(name): 0.5})
    assert store.client.get_run(run_id).data.metrics == {name: 0.5}


def test_long_values_are_cut_and_names_are_cleaned() -> None:
    flat = flatten({"items": {"columns": {"größe, x": "v" * 7000}}, "none": None, "on": True})
    assert flat["none"] == "null" and flat["on"] == "true"
    (cut,) = [value for name, value in flat.items() if name.startswith("items.columns.")]
    assert len(cut) == 6000 and cut.endswith("…")
    assert all(re.fullmatch(r"[\w\-. /:]+", name, re.ASCII) for name in flat)


# --- runs -----------------------------------------------------------------------------------------


def test_nested_runs_know_their_parent_and_their_end(store: tracking.Store) -> None:
    parent = tracking.start_run(store, "night")
    with tracking.step_run(store, "train", parent) as child:
        tracking.log_metrics(store, child, {"train/loss": 2.0}, step=1)
        tracking.log_metrics(store, child, {"train/loss": 1.0}, step=2)
        assert store.client.get_run(child).info.status == "RUNNING"
    with pytest.raises(RuntimeError, match="boom"), tracking.step_run(store, "retrieve", parent):
        raise RuntimeError("boom at http://u:p@h")
    tracking.end_run(store, parent)
    runs = tracking.child_runs(store, parent)
    assert [(r.info.run_name, r.info.status) for r in runs] == [("train", "FINISHED"), ("retrieve", "FAILED")]
    assert runs[1].data.tags["recsys.error"] == "RuntimeError: boom at http://***@h"
    points = store.client.get_metric_history(child, "train/loss")
    assert [(point.step, point.value) for point in points] == [(1, 2.0), (2, 1.0)]
    assert store.client.get_run(parent).info.status == "FINISHED"


def test_an_interrupt_closes_the_step_as_killed(store: tracking.Store) -> None:
    parent = tracking.start_run(store, "night")
    with pytest.raises(KeyboardInterrupt), tracking.step_run(store, "train", parent):
        raise KeyboardInterrupt
    assert [r.info.status for r in tracking.child_runs(store, parent)] == ["KILLED"]


def test_resuming_closes_what_the_kill_left_open(store: tracking.Store) -> None:
    parent = tracking.start_run(store, "night")
    child = tracking.start_run(store, "train", {tracking.PARENT_TAG: parent})
    tracking.end_run(store, parent, "FAILED")
    assert tracking.resume_run(store, parent)
    assert store.client.get_run(parent).info.status == "RUNNING"
    assert store.client.get_run(child).info.status == "KILLED"


def test_a_run_that_is_gone_is_not_resumed(store: tracking.Store) -> None:
    gone = tracking.start_run(store, "night")
    store.client.delete_run(gone)
    assert not tracking.resume_run(store, gone)
    assert not tracking.resume_run(store, "0" * 32)


def test_settings_become_parameters_and_files_without_secrets(store: tracking.Store, tmp_path: Path) -> None:
    settings = settings_at("postgresql://ann:hunter2@db/mlflow", train={"epochs": 7})
    run_id = tracking.start_run(store, "settings")
    tracking.log_settings(store, run_id, settings)
    params = store.client.get_run(run_id).data.params
    assert params["train.epochs"] == "7" and params["evaluate.cutoffs"] == "[5, 10, 20, 100]"
    assert not [name for name in params if name.startswith(("tracking", "warehouse", "recformer"))]
    toml = Path(store.client.download_artifacts(run_id, "config.toml", str(tmp_path))).read_text()
    tree = json.loads(Path(store.client.download_artifacts(run_id, "config.json", str(tmp_path))).read_text())
    assert tree["train"]["epochs"] == 7
    assert "hunter2" not in toml + json.dumps(tree) + json.dumps(params)
    assert tree["tracking"]["uri"] == "postgresql://***@db/mlflow"


def test_the_logged_toml_is_the_configuration(store: tracking.Store, tmp_path: Path) -> None:
    from recsys.settings.read import load_settings

    settings = settings_at(
        "sqlite:///mlruns/mlflow.db",
        items={"source": "i.csv", "text": ["title"]},
        model={"temperature": None},
        text={"dimensions": None},
    )
    run_id = tracking.start_run(store, "settings")
    tracking.log_settings(store, run_id, settings)
    path = store.client.download_artifacts(run_id, "config.toml", str(tmp_path))
    assert load_settings(path).digest() == settings.digest()


def test_tables_become_dataset_inputs(store: tracking.Store) -> None:
    run_id = tracking.start_run(store, "inputs")
    tracking.log_tables(store, run_id, "warehouse/", {"interactions": 12, "items": None, "users": 3}, digest="ab" * 32)
    inputs = store.client.get_run(run_id).inputs.dataset_inputs
    found = {i.dataset.name: i.dataset for i in inputs}
    assert set(found) == {"interactions", "users"}
    assert found["interactions"].digest == "ab" * 16 + "-v12"
    assert len(found["interactions"].digest) <= 36 and found["users"].digest.endswith("-v3")
    assert json.loads(found["users"].source) == {"uri": "warehouse/users", "version": 3}
    assert [tag.value for tag in inputs[0].tags] == ["training"]


def test_a_table_says_its_rows_and_columns(store: tracking.Store, tmp_path: Path) -> None:
    frame = pl.DataFrame({"user_id": ["a", "a", "b"], "item_id": ["1", "2", "1"]})
    frame.write_delta(str(tmp_path / "interactions"))
    run_id = tracking.start_run(store, "rows")
    tracking.log_tables(store, run_id, str(tmp_path), {"interactions": 0}, digest="cd" * 32)
    run = store.client.get_run(run_id)
    (found,) = [one.dataset for one in run.inputs.dataset_inputs]
    assert json.loads(found.profile) == {"version": 0, "num_rows": 3}
    assert json.loads(found.schema) == {
        "mlflow_colspec": [{"name": "user_id", "type": "String"}, {"name": "item_id", "type": "String"}]
    }
    assert run.data.tags["recsys.data"] == "cd" * 32


def test_the_test_part_is_a_data_set_of_its_own(store: tracking.Store) -> None:
    run_id = tracking.start_run(store, "test part")
    tracking.log_test_part(store, run_id, pl.DataFrame({"user_id": ["a", "b"], "rank": [1, None]}), "ef" * 32)
    (found,) = store.client.get_run(run_id).inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == ("test", "ef" * 18)
    assert json.loads(found.dataset.profile) == {"num_rows": 2}
    assert [tag.value for tag in found.tags] == ["evaluation"]


def test_a_curve_over_cut_offs_has_a_step_each(store: tracking.Store) -> None:
    run_id = tracking.start_run(store, "curve")
    tracking.log_curve(store, run_id, "test_at_k/ndcg", {1: 0.1, 10: 0.3, 100: None})
    points = store.client.get_metric_history(run_id, "test_at_k/ndcg")
    assert [(point.step, point.value) for point in points] == [(1, 0.1), (10, 0.3)]


def test_failed_starts_in_a_row_are_one_run_until_a_night_comes_between(tmp_path: Path) -> None:
    store = tracking.open_store(settings := settings_at(f"sqlite:///{tmp_path}/mlflow.db"))

    def fail() -> None:
        with (
            pytest.raises(ValueError),
            tracking.begun(store, settings),
            tracking.step_run(store, "ingest"),
        ):
            raise ValueError("no such column")

    def tops() -> list[str]:
        runs = store.client.search_runs([store.experiment_id], order_by=["attributes.start_time ASC"])
        return [run.info.run_id for run in runs if tracking.PARENT_TAG not in run.data.tags]

    fail()
    fail()
    (first,) = tops()
    assert len(tracking.child_runs(store, first)) == 2
    night = tracking.start_night(store, settings, datetime.now(UTC))
    with pytest.raises(ValueError), tracking.begun(store, settings) as begun:
        tracking.settled(store, night)  # it goes on with that one: its own run is taken away
        raise ValueError("later")  # of a night that is known: the night ends its run itself
    assert store.client.get_run(begun).info.lifecycle_stage == "deleted"
    fail()
    assert tops()[:2] == [first, night] and len(tops()) == 3
    assert store.client.get_run(first).data.tags["recsys.error"] == "ValueError: no such column"


def test_an_experiment_of_others_gets_its_kind(tmp_path: Path) -> None:
    settings = settings_at(f"sqlite:///{tmp_path}/mlflow.db")
    client = tracking.open_store(settings_at(settings.tracking.uri, name="another")).client
    made = client.create_experiment("shop")
    assert tracking.open_store(settings).experiment_id == made
    assert client.get_experiment(made).tags["mlflow.experimentKind"] == "custom_model_development"


# --- parameters by kind -----------------------------------------------------------------------------


def names_of(**sections: object) -> set[str]:
    return set(parameters(settings_at("sqlite:///x.db", items={"source": "i.csv", "text": ["title"]}, **sections)))


def test_a_kind_has_the_parameters_that_it_reads() -> None:
    cloze, text = names_of(), names_of(model={"kind": "text"})
    recformer = names_of(model={"kind": "recformer"})
    following = names_of(model={"objective": "next-item"}, train={"loss": "gbce", "warm_start": "previous"})
    assert {"train.mask_probability", "model.blocks", "text.model"} <= cloze
    assert not [name for name in cloze if name.startswith("recformer")]
    assert cloze.isdisjoint({"train.negatives", "train.calibration", "train.warm_epochs", "model.experts"})
    assert {"train.negatives", "train.calibration", "train.warm_epochs"} <= following
    assert following.isdisjoint({"train.mask_probability", "train.next_item_share"})
    assert [name for name in text if name.startswith(("train", "model"))] in (
        ["train.users", "model.kind"],
        ["model.kind", "train.users"],
    )
    assert {"recformer.dimensions", "train.epochs"} <= recformer and "train.cold_negatives" not in recformer
    assert "split.target" not in cloze and "split.target" in names_of(split={"strategy": "time"})
    assert "split.same_time" in cloze and "interactions.source" in cloze
    assert "interactions.separator" not in cloze
    assert "interactions.separator" in names_of(interactions={"source": "log.csv", "separator": ";"})


def test_a_catalogue_without_text_has_no_parameters_of_text() -> None:
    assert not [name for name in parameters(settings_at("sqlite:///x.db")) if name.startswith(("text", "items"))]


def test_many_metrics_in_batches_and_only_numbers(store: tracking.Store) -> None:
    run_id = tracking.start_run(store, "many")
    tracking.log_metrics(store, run_id, {f"m{n}": n for n in range(1500)} | {"text": "x", "flag": True})
    assert len(store.client.get_run(run_id).data.metrics) == 1500


def test_tables_figures_and_texts_are_artifacts(store: tracking.Store, tmp_path: Path) -> None:
    from matplotlib.figure import Figure

    run_id = tracking.start_run(store, "artifacts")
    columns = {"user": [1, 2], "items": ["a|b", "c\nd"]}
    tracking.log_table(store, run_id, "sample.json", columns)
    tracking.log_table(store, run_id, "sample.json", columns)
    tracking.log_text(store, run_id, "report.md", tracking.markdown_table(columns))
    tracking.log_figure(store, run_id, "plots/empty.png", Figure())
    table = json.loads(Path(store.client.download_artifacts(run_id, "sample.json", str(tmp_path))).read_text())
    assert table == {"columns": ["user", "items"], "data": [[1, "a|b"], [2, "c\nd"]]}
    tags = store.client.get_run(run_id).data.tags
    assert json.loads(tags["mlflow.loggedArtifacts"]) == [{"path": "sample.json", "type": "table"}]
    text = Path(store.client.download_artifacts(run_id, "report.md", str(tmp_path))).read_text()
    assert text == "| user | items |\n| --- | --- |\n| 1 | a\\|b |\n| 2 | c d |"
    picture = Path(store.client.download_artifacts(run_id, "plots/empty.png", str(tmp_path)))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_links() -> None:
    local = tracking.Store(client=None, uri="sqlite:///x.db", experiment="e", experiment_id="7")  # type: ignore[arg-type]
    assert tracking.run_link(local, "r") == "http://127.0.0.1:5000/#/experiments/7/runs/r?workflowType=machine_learning"
    server = tracking.Store(client=None, uri="https://a:b@host/ml/", experiment="e", experiment_id="7")  # type: ignore[arg-type]
    assert tracking.run_link(server, "r") == "https://host/ml/#/experiments/7/runs/r?workflowType=machine_learning"


def test_telemetry_is_off() -> None:
    from mlflow.telemetry.client import get_telemetry_client

    assert get_telemetry_client() is None


def test_no_state_is_left_in_mlflow(store: tracking.Store) -> None:
    import mlflow

    with tracking.step_run(store, "alone"):
        assert mlflow.active_run() is None
    found = store.client.search_runs([store.experiment_id], run_view_type=ViewType.ACTIVE_ONLY)
    assert any(r.info.run_name.startswith("alone 20") for r in found)
