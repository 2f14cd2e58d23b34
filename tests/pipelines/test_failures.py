"""Nights whose MLflow server, or whose own process, dies in the middle: real servers, real signals, minutes."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from recsys.datasets.synthetic import generate
from recsys.storage.warehouse import scan

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
CONFIG = """
name = "shop"
[interactions]
source = "interactions.csv"
[items]
source = "items.jsonl"
text = ["title"]
[text]
dimensions = 16
[model]
max_length = 20
dimensions = 16
[train]
epochs = 6
[evaluate]
baselines = ["popularity"]
[export]
path = "export"
[tracking]
uri = {uri!r}
"""
RUN = [sys.executable, "-m", "recsys"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_API_URL": "", "RECSYS_LOG_FORMAT": "text", **more}


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real server on the loopback, in a session of its own, until the block ends or somebody kills it."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    store = ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", str(folder / "served")]
    server = subprocess.Popen(
        [*command, *store],
        cwd=folder,
        env=environment(MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        while True:
            assert server.poll() is None
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                break
            time.sleep(0.2)
        yield server
    finally:
        kill(server)


def kill(server: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(server.pid, signal.SIGKILL)
    server.wait()


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    generate(tmp_path, users=120, items=400)
    (tmp_path / "recsys.toml").write_text(CONFIG.format(uri="sqlite:///mlruns/mlflow.db"))
    return tmp_path


def started(shop: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*RUN, "run", "recsys.toml", "--no-prefect", "--json", *arguments],
        cwd=shop,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def until(night: subprocess.Popen[str], line: str) -> list[str]:
    """Return a night's stderr up to a line."""
    assert night.stderr is not None
    said: list[str] = []
    for text in night.stderr:
        said.append(text)
        if text.strip() == line:
            return said
    pytest.fail(f"the night ended before {line!r}: {said}")


def test_a_server_that_dies_in_training_costs_no_work(shop: Path) -> None:
    port = free_port()
    uri = f"http://ann:hunter2@127.0.0.1:{port}"
    with mlflow_server(shop, port) as server:
        night = started(shop, "--set", f"tracking.uri={uri}")
        said = until(night, "train ...")
        kill(server)
        answer, rest = night.communicate()
    told = "".join(said) + rest
    assert night.returncode == 0 and "hunter2" not in answer + told
    summary = json.loads(answer)
    assert told.count("does not answer any more") == 1 and summary["mlflow"]["unsent"]["records"] > 10
    assert (shop / "export").exists() and summary["candidates"]["rows"] > 0
    file = shop / summary["mlflow"]["unsent"]["file"]
    assert file.is_file()
    with mlflow_server(shop, port):
        again = subprocess.run(
            [*RUN, "export", "recsys.toml", "--set", f"tracking.uri={uri}", "--json"],
            cwd=shop,
            env=environment(),
            capture_output=True,
            text=True,
            check=True,
        )
        assert "hunter2" not in again.stdout + again.stderr and not file.exists()
        client = MlflowClient(f"http://127.0.0.1:{port}")
        run = client.get_run(summary["run_id"])
        assert run.info.status == "FINISHED" and run.data.metrics["test/ndcg_at_10"] > 0
        children = client.search_runs([run.info.experiment_id], f"tags.mlflow.parentRunId = '{run.info.run_id}'")
        names = ["ingest", "represent", "train", "evaluate", "refit", "retrieve", "export"]
        assert {child.info.status for child in children} == {"FINISHED"}
        assert sorted(child.info.run_name for child in children) == sorted(names)
        (train,) = [child for child in children if child.info.run_name == "train"]
        points = client.get_metric_history(train.info.run_id, "train/loss")
        assert [point.step for point in points] == list(range(1, summary["epochs"] + 1))
        assert client.get_model_version_by_alias("shop", "candidate").run_id == run.info.run_id


@pytest.mark.parametrize("small_disk", [64], indirect=True)
@pytest.mark.parametrize("leave", [0, 200_000, 1_000_000])  # full at the first write, and later
def test_a_full_disk_leaves_the_tables_of_yesterday(shop: Path, small_disk: Path, leave: int) -> None:
    places = [f"warehouse={small_disk}/warehouse", f"export.path={small_disk}/export"]
    common = [part for place in places for part in ("--set", place)]
    first = started(shop, *common)
    summary = json.loads(first.communicate()[0])
    exported = sorted((small_disk / "export").resolve().iterdir())
    with (small_disk / "ballast").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 65_536)
    os.truncate(small_disk / "ballast", (small_disk / "ballast").stat().st_size - leave)
    second = started(shop, *common, "--set", "seed=1")
    answer, told = second.communicate()
    error = json.loads(answer)["error"]
    assert second.returncode == 1 and "Traceback" not in told, told
    assert str(small_disk) in error and "No space left on device" in error
    assert sorted((small_disk / "export").resolve().iterdir()) == exported
    (small_disk / "ballast").unlink()
    table = scan(small_disk / "warehouse", "candidates").collect()
    assert table.height == summary["candidates"]["rows"]
    third = started(shop, *common, "--set", "seed=1")  # goes on where it was
    assert json.loads(third.communicate()[0])["candidates"]["rows"] > 0 and third.returncode == 0


@pytest.mark.parametrize("step", ["ingest", "represent", "train", "evaluate", "publish"])
def test_a_polite_end_closes_every_run(shop: Path, step: str) -> None:
    night = started(shop)
    until(night, f"{step} ...")
    night.terminate()
    answer, told = night.communicate()
    assert night.returncode == 143 and json.loads(answer) == {
        "error": "Stopped from outside; the same command goes on where it was."
    }
    assert "Traceback" not in told
    client = MlflowClient(f"sqlite:///{shop}/mlruns/mlflow.db")
    experiment = client.get_experiment_by_name("shop")
    statuses = {run.info.status for run in client.search_runs([experiment.experiment_id])}
    assert statuses <= {"KILLED", "FINISHED"}
    assert "KILLED" in statuses or step == "ingest"  # that one may end before its run began


@pytest.mark.parametrize("moment", ["Starting ...", "represent ..."])
def test_a_polite_end_ends_prefects_server_too(shop: Path, moment: str) -> None:
    night = subprocess.Popen(
        [*RUN, "run", "recsys.toml", "--prefect"],
        cwd=shop,
        env=environment(PREFECT_HOME=str(shop / "prefect")),
        stderr=subprocess.PIPE,
        text=True,
    )
    until(night, moment)
    while not (shop / "prefect").exists():
        assert night.poll() is None
        time.sleep(0.05)
    night.terminate()
    night.communicate()  # returns when nobody holds stderr any more: the server inherits it
    assert night.returncode == 143


def test_nights_that_are_killed_end_as_others_do() -> None:
    script = [sys.executable, str(ROOT / "benchmarks" / "kills.py"), "--quick", "--kills", "5", "--seed", "1"]
    done = subprocess.run(script, env=environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "| all | 5 | 5 | 5 |" in done.stdout
