"""A night on Prefect's schedule: what is refused before anything is registered, and nights on a real server."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest
import tomlkit

from recsys import runs
from recsys.errors import InputError
from recsys.pipelines import cli
from recsys.pipelines.orchestration import deploy, prefect_api
from recsys.pipelines.orchestration.deploy import Plan
from recsys.pipelines.orchestration.titles import title
from recsys.pipelines.steps import _upstream
from recsys.releases.record import releases
from recsys.settings.read import load_settings
from tests.prefect_server import Prefect, first_steps_done
from tests.recsys.gate import shop
from tests.servers import free_port

ROOT = Path(__file__).parents[2]


@pytest.fixture
def config(tmp_path: Path) -> str:
    tree = shop.tree(tmp_path) | {"name": "shop-a"}
    tree["gate"] = {"baselines": False}  # an epoch without a blend is below counting, which the gate says
    tree["export"] = {"path": str(tmp_path / "export")}
    tree["tracking"] = {"uri": f"sqlite:///{tmp_path}/mlflow.db"}
    path = tmp_path / "recsys.toml"
    path.write_text(tomlkit.dumps(tree))
    return str(path)


def plan(config: str, **more: Any) -> Plan:
    return Plan(**({"config": config, "cron": "0 3 * * *", "timezone": "Europe/Berlin"} | more))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ([], "No server of Prefect is named, so there is nowhere to register the night; `prefect server start`"),
        (["--cron", "0 3 * *"], '--cron "0 3 * *" is no schedule; give five fields'),
        (["--cron", "0 25 * * *"], '--cron "0 25 * * *" is no schedule'),
        (["--cron", "0 3 31 2 *"], '--cron "0 3 31 2 *" names a day that never comes'),
        (["--cron", "@daily"], '--cron "@daily" is no schedule'),
        (["--timezone", "Europe/Berlln"], "--timezone Europe/Berlln is no time zone; give a name such as"),
        (["--timezone", "../etc/passwd"], "--timezone ../etc/passwd is no time zone"),
        (["--timezone", ""], "--timezone  is no time zone"),
        (["--set", "train.epoch=3"], "there is no setting train.epoch; did you mean train.epochs?"),
        (["--set", "tracking.uri=postgresql://me:word@db/x"], "has a password, which Prefect would store"),
        (["--serve", "--pool", "night"], "--serve runs the nights here, --pool night on its workers; give one"),
        (["--image", "shop:1"], "--image shop:1 goes with --pool"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_nothing_is_registered(
    config: str, options: list[str], sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deploy, "_deployment", lambda *_: pytest.fail("went on"))
    assert cli.execute(["deploy", config, *options]) == 2
    told = capsys.readouterr().err
    assert sentence in told and told.count("\n") == 1 and ":word@" not in told
    assert not (Path(config).parent / "warehouse").exists()


def test_a_server_that_is_away_is_one_sentence(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.setattr(prefect_api, "named", lambda: True)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        assert cli.execute(["deploy", config]) == 1
    told = capsys.readouterr().err
    assert "does not answer (" in told and "start it with `prefect server start`" in told and told.count("\n") == 1


def test_a_wrong_key_or_address_of_a_server_is_one_sentence(
    config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    class NoPrefect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    monkeypatch.setattr(prefect_api, "named", lambda: True)
    with served(NoPrefect) as address, temporary_settings({PREFECT_API_URL: address}):
        assert cli.execute(["deploy", config]) == 1
    told = capsys.readouterr().err
    assert f"Prefect's server at {address} answers 404 Not Found;" in told.replace("/ answers", " answers")


@pytest.mark.parametrize(
    ("scheduled", "timezone", "date"),
    [
        ("2026-11-28T02:00:00+00:00", "Europe/Berlin", "2026-11-28"),
        ("2026-11-27T23:30:00+00:00", "Europe/Berlin", "2026-11-28"),  # already tomorrow there
        ("2026-11-28T02:00:00+00:00", "America/New_York", "2026-11-27"),
        ("2026-03-29T01:00:00+00:00", "Europe/Berlin", "2026-03-29"),  # the hour that the clock leaves out
    ],
)
def test_a_run_is_called_by_configuration_and_date(config: str, scheduled: str, timezone: str, date: str) -> None:
    when = datetime.fromisoformat(scheduled)
    assert title(config, None, when, timezone) == f"shop-a {date}"
    assert title(config, ["name=shop-b"], when, timezone) == f"shop-b {date}"
    assert title("/gone/recsys.toml", None, when, timezone) == f"recsys {date}"
    assert title(config, None, when, "Mars") == f"shop-a {when.astimezone():%Y-%m-%d}"


def test_the_next_night_keeps_its_hour_when_the_clock_changes(config: str) -> None:
    found = deploy._next_night(plan(config))
    assert (found.hour, found.minute) == (3, 0) and found.tzinfo == ZoneInfo("Europe/Berlin")
    assert found > datetime.now(UTC)


def test_a_step_waits_for_those_that_it_reads_of_or_for_theirs() -> None:
    done: dict[str, Any] = {name: name for name in ("ingest", "represent", "train", "evaluate", "retrieve")}
    assert _upstream("ingest", done) == []
    assert _upstream("train", done) == ["represent"]
    assert _upstream("judge", done) == ["evaluate", "retrieve"]
    del done["evaluate"], done["train"], done["represent"]  # an earlier run did them
    assert _upstream("judge", done) == ["ingest", "retrieve"]


def test_of_prefects_errors_only_those_that_end_no_run_are_gone_on_without() -> None:
    from prefect._internal.concurrency.cancellation import CancelledError
    from prefect.exceptions import Abort, CancelledRun, TerminationSignal

    assert all(map(prefect_api.failed, [httpx.ConnectError("gone"), CancelledError()]))
    stopped = [TerminationSignal(signal=15), Abort(), CancelledRun()]
    assert not any(map(prefect_api.failed, [*stopped, InputError("bad."), KeyboardInterrupt()]))


@contextmanager
def served(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """A server of one's own on loopback; yields its address."""
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


# ---- a real server


class Messages(BaseHTTPRequestHandler):
    """Takes what an automation sends."""

    got: list[dict[str, Any]]

    def do_POST(self) -> None:
        self.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def notify(prefect: Prefect, address: str) -> None:
    """Make the automation of docs/how-to/schedule.md, with a web hook of ours as the block."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock
    from prefect.settings import PREFECT_API_URL, temporary_settings

    hook = CustomWebhookNotificationBlock(
        name="ours", url=address, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    with temporary_settings({PREFECT_API_URL: prefect.url}):
        block = hook.save("ours", overwrite=True)
    page = (ROOT / "docs" / "how-to" / "schedule.md").read_text(encoding="utf-8")
    (automation,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    file = prefect.folder / "automation.yaml"
    file.write_text(automation.replace("block_document_id: ID", f"block_document_id: {block}"))
    prefect.command("prefect", "automation", "create", "--from-file", str(file))


@pytest.mark.slow
@pytest.mark.integration
def test_nights_of_a_deployment_on_a_clock_that_is_moved(config: str, prefect: Prefect, tmp_path: Path) -> None:
    """The first is published, the second kept back, the third killed, and the fourth takes it up."""
    shop.write_log(tmp_path, 10)
    ordered = ["--cron", "0 3 * * *", "--timezone", "Europe/Berlin"]
    made = json.loads(prefect.command("recsys", "deploy", config, *ordered, "--json"))
    assert made["deployment"] == "nightly/shop-a" and made["schedule"] == "0 3 * * * (Europe/Berlin)"
    assert made["next night"].endswith(("T03:00+01:00", "T03:00+02:00"))
    deployed = httpx.get(f"{prefect.url}/deployments/name/nightly/shop-a", timeout=60).json()
    assert deployed["tags"] == ["recsys", "shop-a"] and deployed["entrypoint"] == "recsys.pipelines.flows.nightly"
    assert deployed["parameters"] == {"config": config, "timezone": "Europe/Berlin"}
    assert deployed["parameter_openapi_schema"]["properties"]["config"]["type"] == "string"
    (schedule,) = deployed["schedules"]
    assert schedule["schedule"]["cron"] == "0 3 * * *" and schedule["schedule"]["timezone"] == "Europe/Berlin"
    assert not (tmp_path / "warehouse").exists()
    planned = prefect.until(lambda: prefect.ask("flow_runs/filter", sort="EXPECTED_START_TIME_ASC") or None)
    assert {run["auto_scheduled"] for run in planned} == {True}  # the server's own clock starts nights
    assert datetime.fromisoformat(made["next night"]) == datetime.fromisoformat(planned[0]["expected_start_time"])

    settings = load_settings(config)
    states = runs.state_folder(settings.warehouse)
    Messages.got = []
    with served(Messages) as address:
        notify(prefect, address)
        prefect.start("recsys", "deploy", config, *ordered, "--serve")

        first = prefect.ended(prefect.night("nightly/shop-a", "2026-11-25"))
        assert (first["name"], first["state_name"]) == ("shop-a 2026-11-25", "Completed")
        assert first["state"]["message"].startswith("Published: nothing was served before")
        assert {"recsys", "shop-a"} < set(first["tags"])  # and its run
        lines = prefect.until(lambda: found if (found := prefect.lines(first["id"])) else None)
        assert any(line.startswith("The night takes about ") for line in lines)
        (artifact,) = prefect.ask("artifacts/filter", artifacts={"flow_run_id": {"any_": [first["id"]]}})
        assert artifact["key"] == "night-shop-a" and f"**{first['state']['message']}**" in artifact["data"]
        assert str(tmp_path / "warehouse" / "reports") in artifact["data"]
        tasks = {task["name"]: task for task in prefect.ask("task_runs/filter", sort="EXPECTED_START_TIME_ASC")}
        ids = {name: task["id"] for name, task in tasks.items()}
        reads_of = {
            name: sorted(one["id"] for inputs in task["task_inputs"].values() for one in inputs)
            for name, task in tasks.items()
        }
        assert reads_of["evaluate"] == reads_of["refit"] == [ids["train"]] and reads_of["ingest"] == []
        assert reads_of["judge"] == sorted([ids["evaluate"], ids["retrieve"]])

        shop.write_log(tmp_path, 11)  # a day on which everybody did less than ever
        kept = prefect.ended(prefect.night("nightly/shop-a", "2026-11-26"))
        assert (kept["name"], kept["state_name"], kept["state_type"]) == ("shop-a 2026-11-26", "KeptBack", "COMPLETED")
        assert kept["state"]["message"].startswith("Kept back: drift of events of a user on a day")
        assert len(releases(settings)) == 1

        shop.write_log(tmp_path, 13)
        killed = prefect.night("nightly/shop-a", "2026-11-27")
        process = prefect.until(lambda: first_steps_done(states))
        os.kill(process, signal.SIGSTOP)
        meanwhile = prefect.ended(prefect.night("nightly/shop-a", "2026-11-27"))
        assert (meanwhile["state_name"], meanwhile["state_type"]) == ("Skipped", "COMPLETED")
        assert meanwhile["state"]["message"].startswith(f"Another run (process {process}) is writing to the warehouse")
        os.kill(process, signal.SIGKILL)
        crashed = prefect.ended(killed)
        assert (crashed["name"], crashed["state_type"]) == ("shop-a 2026-11-27", "CRASHED")

        with runs.locked(settings.warehouse):  # as a run by hand
            skipped = prefect.ended(prefect.night("nightly/shop-a", "2026-11-28"))
        assert (skipped["state_name"], skipped["state_type"]) == ("Skipped", "COMPLETED")
        assert skipped["state"]["message"].startswith(f"Another run (process {os.getpid()}) is writing to the ware")

        last = prefect.ended(prefect.night("nightly/shop-a", "2026-11-29"))
        assert last["state_name"] == "Completed" and last["state"]["message"].startswith("Published: ")
        told = "\n".join(prefect.lines(last["id"]))
        assert re.search(r"Going on with the run of .*, which was stopped; done before: represent", told)
        newest = next(runs.states(states))
        assert newest.status == "finished" and newest.run_id == releases(settings)[-1].run
        assert len(releases(settings)) == 2

        wanted = ["published", "kept-back", "skipped", "skipped", "published"]
        events = prefect.until(lambda: found if len(found := prefect.events("recsys.night.")) == len(wanted) else None)
        assert [event["event"].removeprefix("recsys.night.") for event in events] == wanted
        assert events[0]["payload"]["mlflow"] and events[1]["payload"]["sentence"] == kept["state"]["message"]
        sent = prefect.until(lambda: Messages.got if len(Messages.got) == 2 else None)
        assert sent[0] == {"subject": "recsys.night.kept-back shop-a", "body": kept["state"]["message"]}
        assert sent[1]["subject"] == "prefect.flow-run.Crashed shop-a 2026-11-27"
