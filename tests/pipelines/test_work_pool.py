"""Nights in the processes of a work pool, on a real server of Prefect's: side by side, cancelled, left alone."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import httpx
import pytest
import tomlkit
from mlflow import MlflowClient

from recsys import runs
from recsys.releases.record import releases
from recsys.runs import WarehouseBusy
from recsys.settings import Settings
from recsys.settings.read import load_settings
from tests.prefect_server import Prefect, first_steps_done
from tests.recsys.gate import shop

pytestmark = [pytest.mark.slow, pytest.mark.integration]
DEPLOYMENT = "nightly/shop-a"


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration with relative paths alone, in a folder that no process of Prefect's works in."""
    folder = tmp_path / "shop"
    folder.mkdir()
    tree = shop.tree(folder) | {"name": "shop-a", "gate": {"baselines": False}}
    tree |= {"warehouse": "warehouse", "export": {"path": "export"}, "tracking": {"uri": "sqlite:///mlflow.db"}}
    del tree["data_root"]
    shop.write_log(folder, 10)
    (folder / "recsys.toml").write_text(tomlkit.dumps(tree))
    return folder / "recsys.toml"


def deploy(prefect: Prefect, config: Path) -> None:
    """Register the night in a pool of processes, and start a worker in the server's folder."""
    prefect.command("prefect", "work-pool", "create", "nights", "--type", "process")
    prefect.command("recsys", "deploy", str(config), "--pool", "nights")
    prefect.start("prefect", "worker", "start", "--pool", "nights", "--type", "process")


def stopped(prefect: Prefect, settings: Settings) -> int:
    """Wait for the middle of a night's training, and stop its process there; returns the process."""
    process = int(prefect.until(lambda: first_steps_done(runs.state_folder(settings.warehouse))))
    os.kill(process, signal.SIGSTOP)
    return process


def is_free(settings: Settings) -> bool | None:
    """True where no night holds the warehouse."""
    try:
        with runs.locked(settings.warehouse):
            return True
    except WarehouseBusy:
        return None


def test_nights_of_a_work_pool(config: Path, prefect: Prefect) -> None:
    """The first is published, the second cancelled while a third is skipped, and the fourth takes it up."""
    settings = load_settings(config)
    deploy(prefect, config)
    deployed = httpx.get(f"{prefect.url}/deployments/name/{DEPLOYMENT}", timeout=60).json()
    prefect.ask(f"deployments/{deployed['id']}", method="PATCH", concurrency_limit=1)  # as earlier versions set it
    prefect.command("recsys", "deploy", str(config), "--pool", "nights")
    deployed = httpx.get(f"{prefect.url}/deployments/name/{DEPLOYMENT}", timeout=60).json()
    assert deployed["work_pool_name"] == "nights" and deployed["global_concurrency_limit"] is None

    first = prefect.ended(prefect.night(DEPLOYMENT, "2026-11-25"))
    assert (first["name"], first["state_name"]) == ("shop-a 2026-11-25", "Completed")
    assert first["state"]["message"].startswith("Published: nothing was served before")
    (release,) = releases(settings)
    assert {"recsys", "shop-a", f"run:{release.run[:8]}"} == set(first["tags"])
    (artifact,) = prefect.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [first["id"]]}})
    assert artifact["key"] == "night-shop-a" and f"**{first['state']['message']}**" in artifact["data"]
    tasks = {task["name"]: task for task in prefect.ask("task_runs/filter")}
    assert {task["state_type"] for task in tasks.values()} == {"COMPLETED"}
    reads = {one["id"] for inputs in tasks["judge"]["task_inputs"].values() for one in inputs}
    assert reads == {tasks["evaluate"]["id"], tasks["retrieve"]["id"]}
    lines = prefect.lines(first["id"])
    assert any(line.startswith("The night takes about ") for line in lines)  # of the flow
    assert any(line.startswith("The served bundle learnt from all ") for line in lines)  # of a task
    assert {"warehouse", "export", "mlflow.db"} <= {path.name for path in config.parent.iterdir()}
    assert not {"warehouse", "export", "mlruns", "mlflow.db"} & {path.name for path in prefect.folder.iterdir()}

    shop.write_log(config.parent, 13)
    second = prefect.night(DEPLOYMENT, "2026-11-26")
    process = stopped(prefect, settings)
    third = prefect.ended(prefect.night(DEPLOYMENT, "2026-11-26"))
    assert (third["state_name"], third["state_type"]) == ("Skipped", "COMPLETED")
    assert third["state"]["message"].startswith(f"Another run (process {process}) is writing to the warehouse")
    os.kill(process, signal.SIGCONT)
    prefect.ask(f"flow_runs/{second}/set_state", state={"type": "CANCELLING"})
    assert prefect.ended(second)["state_type"] == "CANCELLED"
    assert prefect.until(lambda: is_free(settings))
    newest = next(runs.states(runs.state_folder(settings.warehouse)))
    assert (newest.status, newest.error) == ("failed", "Stopped from outside.") and len(releases(settings)) == 1
    client = MlflowClient(settings.tracking.uri)
    assert client.get_run(newest.run_id).info.status == "KILLED"

    fourth = prefect.ended(prefect.night(DEPLOYMENT, "2026-11-27"))
    assert fourth["state_name"] == "Completed" and fourth["state"]["message"].startswith("Published: ")
    told = "\n".join(prefect.lines(fourth["id"]))
    assert re.search(r"Going on with the run of .*, which was stopped; done before: represent", told)
    assert [one.run for one in releases(settings)] == [release.run, newest.run_id]
    events = prefect.until(lambda: found if len(found := prefect.events("recsys.night.")) == 3 else None)
    endings = [event["event"].removeprefix("recsys.night.") for event in events]
    assert endings == ["published", "skipped", "published"]


def test_a_night_outlives_prefects_server(config: Path, prefect: Prefect) -> None:
    """The server is killed in the middle of a step and comes back, and is killed and does not."""
    settings = load_settings(config)
    deploy(prefect, config)

    first = prefect.night(DEPLOYMENT, "2026-11-25")
    process = stopped(prefect, settings)
    prefect.kill()
    os.kill(process, signal.SIGCONT)
    prefect.serve()
    ended = prefect.ended(first)
    assert ended["state_name"] == "Completed" and ended["state"]["message"].startswith("Published: ")
    assert len(releases(settings)) == 1
    assert prefect.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [first]}})

    shop.write_log(config.parent, 13)
    second = prefect.night(DEPLOYMENT, "2026-11-26")
    process = stopped(prefect, settings)
    prefect.kill()
    os.kill(process, signal.SIGCONT)
    assert prefect.until(lambda: is_free(settings))
    assert len(releases(settings)) == 2  # published without the server
    os.kill(process, signal.SIGKILL)  # which still tries to tell the server of it, for minutes
    prefect.serve()
    assert prefect.run(second)["state_type"] in ("RUNNING", "CRASHED")  # nobody has told the server of its end

    third = prefect.ended(prefect.night(DEPLOYMENT, "2026-11-27"))
    assert third["state_name"] == "Completed"
