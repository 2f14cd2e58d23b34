"""A real server of Prefect's on loopback, which a test starts, asks, kills and starts again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import httpx
import pytest

from recsys import runs
from tests.servers import end, free_port, until

ROOT = Path(__file__).parents[1]


@dataclass
class Prefect:
    """A server of Prefect's on loopback, and the processes that work for it."""

    folder: Path
    port: int
    processes: list[subprocess.Popen[Any]] = field(default_factory=list)
    server: subprocess.Popen[Any] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def serve(self) -> None:
        """Start the server, on the same port and database as before."""
        self.server = self.start("prefect", "server", "start", "--port", str(self.port), "--no-ui", session=True)
        until(lambda: httpx.get(f"{self.url}/health").is_success, self.server, self.folder / f"{self.port}.log")

    def kill(self) -> None:
        """Kill the server, with all that it has started."""
        assert self.server is not None
        self.processes.remove(self.server)
        os.killpg(self.server.pid, signal.SIGKILL)
        self.server.wait()

    @property
    def environment(self) -> dict[str, str]:
        own = {"PREFECT_HOME": str(self.folder), "PREFECT_API_URL": self.url, "PYTHONPATH": str(ROOT)}
        return {**os.environ, "OMP_NUM_THREADS": "1", "PREFECT_RUNNER_POLL_FREQUENCY": "1", **own}

    def start(self, *command: str, session: bool = False) -> subprocess.Popen[Any]:
        with (self.folder / f"{command[-1].strip('-')}.log").open("ab") as log:
            started = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                cwd=self.folder,
                stdout=log,
                stderr=log,
                start_new_session=session,
            )
        self.processes.append(started)
        return started

    def command(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", *command],
            env=self.environment,
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def ask(self, path: str, method: str = "POST", **body: Any) -> Any:
        for _ in range(5):  # where its database is locked it answers 503; Prefect's own client waits, too
            answer = httpx.request(method, f"{self.url}/{path}", json=body, timeout=60)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                break
            time.sleep(2)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def night(self, deployment: str, date: str) -> str:
        """Schedule a night for 3 o'clock of a date, which the run's process takes for its own; returns the run's id."""
        when = datetime.fromisoformat(f"{date}T03:00").replace(tzinfo=ZoneInfo("Europe/Berlin"))
        found = httpx.get(f"{self.url}/deployments/name/{deployment}", timeout=60).json()
        state = {"type": "SCHEDULED", "state_details": {"scheduled_time": when.isoformat()}}
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", state=state)["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        return dict(httpx.get(f"{self.url}/flow_runs/{run_id}", timeout=60).json())

    def ended(self, run_id: str) -> dict[str, Any]:
        """Wait for the end of a run."""
        return self.until(
            lambda: (
                run
                if (run := self.run(run_id))["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
                else None
            )
        )

    def until(self, found: Callable[[], Any]) -> Any:
        for _ in range(6_000):
            if (value := found()) is not None:
                return value
            assert all(process.poll() is None for process in self.processes)
            time.sleep(0.1)
        raise AssertionError([path.read_text()[-3_000:] for path in self.folder.glob("*.log")])

    def lines(self, run_id: str) -> list[str]:
        """A run's log on the server, once its last line has come."""
        found = self.ask("logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_ASC")
        return [line["message"] for line in found]

    def events(self, name: str) -> list[dict[str, Any]]:
        found = self.ask("events/filter", filter={"event": {"prefix": [name]}, "order": "ASC"})
        return list(found["events"])


@pytest.fixture
def prefect(tmp_path: Path) -> Iterator[Prefect]:
    """A server in a folder of its own, which is the working directory of what a test starts, too."""
    (tmp_path / "prefect").mkdir()
    server = Prefect(tmp_path / "prefect", free_port())
    server.serve()
    yield server
    for process in reversed(server.processes):  # who serves ends what it has started
        process.send_signal(signal.SIGINT)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            end(process)


def first_steps_done(folder: Path) -> int | None:
    """The process of a night that runs and has its vectors, and not yet its candidates."""
    for state in runs.states(folder):
        if state.status == "running" and "represent" in state.steps and "retrieve" not in state.steps:
            return int((folder / "lock").read_text())
    return None
