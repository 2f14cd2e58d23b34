"""A store that stops to answer: nothing is lost, nothing waits, nothing is told twice."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from recsys.errors import RecsysError
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.tracking import database as tracking_database
from recsys.tracking import log as tracking
from recsys.tracking import registry
from recsys.tracking import store as tracking_store
from recsys.tracking.spool import Spool, read


class DeadServer:
    """A port where connections are taken and closed, as of a server that is going down; it counts them."""

    def __init__(self) -> None:
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.uri = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._refuse, daemon=True)
        self._thread.start()

    def _refuse(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            connection.close()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()


@pytest.fixture
def dead() -> Iterator[DeadServer]:
    server = DeadServer()
    yield server
    server.close()


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    folder = tmp_path_factory.mktemp("store")
    return parse_settings(
        {
            "name": "shop",
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        }
    )


def opened(settings: Settings) -> tuple[tracking.Store, list[str]]:
    said: list[str] = []
    return tracking.open_store(settings, said.append), said


def log_a_night(store: tracking.Store, parent: str, settings: Settings) -> None:
    """A step of every kind of record."""
    from matplotlib.figure import Figure

    with tracking.step_run(store, "train", parent) as step:
        tracking.log_settings(store, step, settings)
        tracking.log_tables(store, step, "warehouse", {"interactions": 3})
        for epoch in range(1, 41):
            tracking.log_metrics(store, step, {"train/loss": 1 / epoch}, step=epoch)
        tracking.log_table(store, step, "sample.json", {"user": [1]})
        tracking.log_text(store, step, "notes/report.md", "ünïcode")
        tracking.log_figure(store, step, "plots/empty.png", Figure())
        tracking.describe(store, step, "# page")


def check_the_night(store: tracking.Store, parent: str, folder: Path) -> None:
    (step,) = tracking.child_runs(store, parent)
    assert step.info.status == "FINISHED" and step.info.run_name == "train"
    assert step.data.params["train.epochs"] == "40" and step.data.tags["mlflow.note.content"] == "# page"
    points = store.client.get_metric_history(step.info.run_id, "train/loss")
    assert [(point.step, point.value) for point in points] == [(epoch, 1 / epoch) for epoch in range(1, 41)]
    assert len({point.timestamp for point in points}) >= 1 and points[0].timestamp >= step.info.start_time
    assert step.info.end_time >= points[-1].timestamp  # when it happened, not when it was sent
    (dataset,) = step.inputs.dataset_inputs
    assert dataset.dataset.name == "interactions"
    files = {Path(artifact.path).name for artifact in store.client.list_artifacts(step.info.run_id)}
    assert {"notes", "plots", "sample.json", "config.toml"} <= files
    note = store.client.download_artifacts(step.info.run_id, "notes/report.md", str(folder))
    assert Path(note).read_text(encoding="utf-8") == "ünïcode"
    tables = json.loads(step.data.tags["mlflow.loggedArtifacts"])
    assert tables == [{"path": "sample.json", "type": "table"}]


def test_what_a_store_misses_is_sent_when_it_answers(settings: Settings, dead: DeadServer, tmp_path: Path) -> None:
    store, said = opened(settings)
    parent = tracking.start_run(store, "night")
    alive, store.client = store.client, MlflowClient(dead.uri)
    log_a_night(store, parent, settings)
    assert dead.connections <= 4  # for some fifty records: it was asked once and is not asked again at once
    (warning,) = said
    assert "does not answer any more" in warning and "unsent" in warning
    unsent = store.unsent()
    assert unsent is not None and unsent["records"] == len(read(Path(unsent["file"]))) > 45
    assert not store.ask()
    store.client = alive
    assert store.ask() and store.unsent() is None and not Path(unsent["file"]).exists()
    check_the_night(store, parent, tmp_path)
    assert len(said) == 1


def test_the_next_start_sends_what_a_killed_process_kept(settings: Settings, dead: DeadServer, tmp_path: Path) -> None:
    store, _ = opened(settings)
    store.client = MlflowClient(dead.uri)
    parent = tracking.start_run(store, "night")  # even the run itself
    assert parent.startswith("local-") and tracking.resume_run(store, parent)
    log_a_night(store, parent, settings)
    tracking.end_run(store, parent, "FAILED", RuntimeError("boom at http://u:p@h"))
    unsent = store.unsent()
    assert unsent is not None
    file = Path(unsent["file"])
    assert opened(settings)[0].unsent() is None and file.exists()  # the process lives: its file is its own
    assert store.spool is not None
    store.spool.close()
    with file.open("a") as torn:
        torn.write('{"operation": "tag", "run"')  # the kill came in the middle of a line
    again, said = opened(settings)
    assert said == [] and not file.exists()
    check_the_night(again, parent, tmp_path)
    run = again.client.get_run(again.ids[parent])
    assert run.info.status == "FAILED" and run.data.tags["recsys.error"] == "RuntimeError: boom at http://***@h"
    assert f"/{run.info.run_id}?" in tracking.run_link(again, parent)


def test_records_that_arrive_twice_count_once(settings: Settings, tmp_path: Path) -> None:
    store, _ = opened(settings)
    parent = tracking.start_run(store, "night")
    sent: list[dict[str, Any]] = []
    real = store.send

    def listen(operation: str, **content: Any) -> Any:
        sent.append({"operation": operation, **content})
        return real(operation, **content)

    store.send = listen  # type: ignore[method-assign]
    log_a_night(store, parent, settings)
    assert store._repeat(json.loads(json.dumps(sent)))
    check_the_night(store, parent, tmp_path)


def test_a_record_that_is_refused_stops_no_other(settings: Settings) -> None:
    store, said = opened(settings)
    run = tracking.start_run(store, "night")
    for key in ("a", "b"):
        store.send("tag", run="0" * 32, key=key, value="of a run that is not there")
    tracking.describe(store, run, "told")
    assert store.client.get_run(run).data.tags["mlflow.note.content"] == "told"
    (warning,) = said
    assert "refused" in warning and store.unsent() is None


def test_the_error_of_a_night_is_no_reason_of_mlflows(settings: Settings) -> None:
    store, said = opened(settings)
    try:
        raise ValueError("the night's own")
    except ValueError:
        store.send("tag", run="0" * 32, key="a", value="of a run that is not there")
    (warning,) = said
    assert "refused" in warning and "the night's own" not in warning


def test_a_disk_that_takes_no_record_costs_no_work(settings: Settings, dead: DeadServer, tmp_path: Path) -> None:
    store, _ = opened(settings)
    (tmp_path / "file").write_text("")
    store.spool = Spool(tmp_path / "file", "x")
    store.client = MlflowClient(dead.uri)
    tracking.start_run(store, "night")
    assert store.unsent() is not None
    assert "1 records" in str(tracking.lacking(store)) and "they are lost" in str(tracking.lacking(store))


def test_a_bundle_is_registered_later(settings: Settings, dead: DeadServer) -> None:
    store, _ = opened(settings)
    run = tracking.start_run(store, "night")
    store.client = MlflowClient(dead.uri)
    made = registry.log_bundle(store, run, "bundles/shop-1", example=[1], metrics={"a": 1}, register_as="shop")
    assert made == {"model_uri": None, "name": "shop", "version": None}
    assert store.spool is not None
    (record,) = store.spool.records()
    assert record["operation"] == "bundle" and Path(record["bundle"]).is_absolute()
    store.spool.clear()


@pytest.mark.parametrize(
    ("error", "later"),
    [
        (ConnectionResetError("reset"), True),
        (OSError(28, "No space left on device"), True),
        (FileNotFoundError("the bundle"), False),
        (MlflowException("request failed"), True),
        (MlflowException("no such run", error_code=5), False),
        (ValueError("a bug"), False),
    ],
)
def test_which_errors_may_pass(error: BaseException, later: bool) -> None:
    assert tracking_store.unavailable(error) is later


def test_a_store_that_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    database = tmp_path / "mlflow.db"
    tree = {"name": "shop", "interactions": {"source": "x"}, "warehouse": str(tmp_path)}
    settings = parse_settings({**tree, "tracking": {"uri": f"sqlite:///{database}"}})
    tracking_database.prepare(database)
    holder = sqlite3.connect(database)
    holder.execute("begin exclusive")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tracking_store, "_BUSY", 0.1)
        patch.setattr(tracking_database, "prepare", lambda _: None)
        with pytest.raises(RecsysError, match=rf"{database} cannot be written \(database is locked\)"):
            tracking.open_store(settings)
    holder.close()


def small_settings(disk: Path, tmp_path: Path) -> Settings:
    tree = {"name": "shop", "interactions": {"source": "x"}, "warehouse": str(tmp_path / "warehouse")}
    return parse_settings({**tree, "tracking": {"uri": f"sqlite:///{disk}/mlruns/mlflow.db"}})


def test_a_full_disk_under_a_store_costs_no_work(small_disk: Path, tmp_path: Path, capfd: Any) -> None:
    store, said = opened(small_settings(small_disk, tmp_path))
    run = tracking.start_run(store, "night")
    capfd.readouterr()
    with (small_disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 1024)
    text = "x" * 5000  # more than fits into what a page of the database has left
    for number in range(20):
        store.send("params", run=run, values={f"p{number}": text})
    tracking.log_text(store, run, "report.md", text)
    unsent = store.unsent()
    assert unsent is not None and "full" in unsent["reason"] and len(said) == 1
    assert "Traceback" not in "".join(capfd.readouterr())
    (small_disk / "ballast").unlink()
    assert store.ask() and store.unsent() is None
    assert len(store.client.get_run(run).data.params) == 20
    assert [artifact.path for artifact in store.client.list_artifacts(run)] == ["report.md"]


def test_a_read_only_store_is_said_before_any_work(small_disk: Path, tmp_path: Path) -> None:
    settings = small_settings(small_disk, tmp_path)
    tracking_database.prepare(small_disk / "mlruns" / "mlflow.db")
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    with pytest.raises(RecsysError, match=rf"The MLflow store {small_disk}/mlruns/mlflow.db cannot be written"):
        opened(settings)


def test_a_password_reaches_mlflow_and_nobody_else(
    dead: DeadServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "")
    uri = dead.uri.replace("://", "://ann:my secret@")
    tree = {"name": "shop", "interactions": {"source": "x"}, "warehouse": str(tmp_path), "tracking": {"uri": uri}}
    with pytest.raises(RecsysError) as caught:
        tracking.open_store(parse_settings(tree))
    assert "secret" not in str(caught.value) and "http://***@127.0.0.1" in str(caught.value)
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ann" and os.environ["MLFLOW_TRACKING_PASSWORD"] == "my secret"
