"""A real MLflow server that keeps the files, too: old runs lose them, are marked as deleted, and others stay."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from recsys.pipelines.retention import gc
from recsys.tracking import log as tracking
from recsys.tracking.operations import NAME_TAG, PARENT_TAG, STEP_TAG
from recsys.tracking.retention import REMOVED_TAG
from recsys.tracking.store import Store
from tests.recsys.releases.shop import Shop
from tests.servers import free_port, until

pytestmark = pytest.mark.slow


class Server:
    """The server, its database and the folder of its artifacts."""

    def __init__(self, folder: Path, database: Path) -> None:
        self.folder, self.uri = folder, f"http://127.0.0.1:{free_port()}"
        shutil.copy(database, folder / "server.db")
        command = [sys.executable, "-m", "mlflow", "server", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
        command += ["--artifacts-destination", str(folder / "artifacts"), "--workers", "1", "--host", "127.0.0.1"]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen(
                [*command, "--port", self.uri.rpartition(":")[2]], stdout=log, stderr=log, start_new_session=True
            )
        until(self._answers, self.process, folder / "log")

    def _answers(self) -> bool:
        with urllib.request.urlopen(f"{self.uri}/health", timeout=5) as response:
            return bool(response.status == 200)

    def files(self) -> list[str]:
        return sorted(path.name for path in (self.folder / "artifacts").rglob("*") if path.is_file())

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, 15)
            self.process.wait(30)


@pytest.fixture
def server(tmp_path: Path, database: Path) -> Iterator[Server]:
    found = Server(tmp_path, database)
    yield found
    found.close()


def night(store: Store, name: str, days: float, shop: str = "shop") -> str:
    """A night of some days ago with a step, each with a file."""
    client, at = store.client, int((datetime.now(UTC) - timedelta(days=days)).timestamp() * 1000)
    top: Any = client.create_run(store.experiment_id, run_name=name, start_time=at, tags={NAME_TAG: shop})
    tags = {PARENT_TAG: top.info.run_id, STEP_TAG: "train"}
    step = client.create_run(store.experiment_id, run_name=f"{name} step", start_time=at, tags=tags)
    for run, file in ((step, f"{name}-step.md"), (top, f"{name}.md")):
        client.log_text(run.info.run_id, "text", file)
        client.set_terminated(run.info.run_id)
    return str(top.info.run_id)


def test_files_go_over_http_and_a_server_that_stops_keeps_nothing_else(server: Server, tmp_path: Path) -> None:
    retention = {"nights": 1, "days": 30, "records_days": 400}
    tracked = {"uri": server.uri, "experiment": "shops"}
    shop = Shop(tmp_path / "warehouse", retention=retention, tracking=tracked)
    shop.night("served")
    store = tracking.open_store(shop.settings)
    ancient, old = night(store, "ancient", 500), night(store, "old", 40)
    night(store, "young", 1)
    night(store, "other", 500, shop="other")
    assert len(server.files()) == 8
    report = gc(shop.settings, dry_run=False)
    assert report["removed"] == {"MLflow run's files": 4, "deleted MLflow run": 2} and not report["failed"]
    assert server.files() == ["other-step.md", "other.md", "young-step.md", "young.md"]
    assert store.client.get_run(ancient).info.lifecycle_stage == "deleted"
    assert REMOVED_TAG in store.client.get_run(old).data.tags
    assert gc(shop.settings, dry_run=False)["removed"] == {}
    night(store, "late", 40)
    server.close()
    report = gc(shop.settings, dry_run=False)
    (failed,) = report["failed"]
    assert failed.startswith(f"The MLflow store {server.uri} does not answer") and report["removed"] == {}
