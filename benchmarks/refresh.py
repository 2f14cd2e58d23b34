"""Seconds of `recsys refresh`: some users with new events, a table of many, and PostgreSQL, Redis and files beside it.

    python benchmarks/refresh.py --users 100000 --changed 1000

The shop is generated: 20 events a user, 100 candidates each. The bundle has the default model with the weights it is
born with, as speed does not depend on what they are. Servers are started here, on loopback, from Debian's packages.
Seconds and CPU seconds are this program's; the servers' own are not in the latter.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl
import torch
from export_speed import free_port, postgresql

from recsys.bundles.store import write_bundle
from recsys.data.prepare import prepare
from recsys.exports.base import Candidates
from recsys.exports.several import export
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.bert4rec import SequenceEncoder
from recsys.pipelines.refresh import refresh_alone
from recsys.pipelines.steps import Step
from recsys.releases.switch import described, serve
from recsys.serving.fallback import PART, Popular
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import table_path
from recsys.table import build

EVENTS_A_USER = 20
ITEMS = 20_000
START = 1_700_000_000


def events(users: np.ndarray, count: int, day: int, generator: np.random.Generator) -> pl.DataFrame:
    """So many events of each user in the days after `day`; few items are in most of them."""
    owner = np.repeat(users, count)
    items = np.minimum(generator.zipf(1.2, len(owner)), ITEMS)
    return pl.DataFrame(
        {
            "user_id": "u" + pl.Series(owner).cast(pl.String).str.zfill(9),
            "item_id": "i" + pl.Series(items).cast(pl.String),
            "timestamp": START + day * 86_400 + np.tile(np.arange(count), len(users)) * 3_600,
        }
    )


def shop(folder: Path, users: int, export_to: dict[str, Any], generator: np.random.Generator) -> Settings:
    """A log, a bundle, and a table that is served and exported."""
    (folder / "log").mkdir()
    events(np.arange(users), EVENTS_A_USER, 0, generator).write_parquet(folder / "log" / "day-0.parquet")
    settings = parse_settings(
        {
            "name": "shop",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log/*.parquet"},
            "model": {"max_length": 50},
            "export": export_to,
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        }
    )
    versions = ingest(settings).versions
    dataset = prepare(settings, versions)
    size = dataset.vocabulary.size
    encoder = SequenceEncoder(settings.model)
    vectors = generator.standard_normal((size + 1, settings.model.dimensions + 1)).astype(np.float32)
    vectors[0] = 0
    bundle = write_bundle(
        settings.warehouse,
        settings=settings,
        vocabulary=dataset.vocabulary,
        catalogue=pl.DataFrame({"item_id": dataset.vocabulary.items}),
        features={},
        weights={f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        vectors=vectors,
        allowed=np.arange(size + 1) > 0,
        lineage={},
        more={PART: Popular.fit(dataset.split.serving, size)},
    )
    built = build.build(settings, versions, bundle, "r1", datetime.now(UTC))
    release = described(settings, "r1", bundle, "night")
    served = serve(settings, release, lambda said: build.publish(settings, built, said), exporting=False)
    export(settings, Candidates(path=table_path(settings.warehouse, "candidates"), version=served.version, run="r1"))
    return settings


def measured(settings: Settings, users: np.ndarray, generator: np.random.Generator) -> dict[str, Any]:
    """Let users buy something, and refresh."""
    folder = Path(settings.data_root, "log")
    day = len(list(folder.iterdir())) * 30
    events(users, 2, day, generator).write_parquet(folder / f"day-{day}.parquet")
    steps: dict[str, float] = {}

    def run(step: Step, *arguments: Any) -> dict[str, Any]:
        began = time.perf_counter()
        report: dict[str, Any] = step.fn(*arguments)
        steps[step.fn.__name__] = time.perf_counter() - began
        return report

    before = resource.getrusage(resource.RUSAGE_SELF)
    report = refresh_alone(settings, run)
    after = resource.getrusage(resource.RUSAGE_SELF)
    assert report["users"] == len(users) and report["rows"] == len(users) * settings.retrieve.k
    targets = {f"to {name} (s)": of["seconds"] for name, of in report["targets"].items()}
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "users": report["users"],
        "rows": report["rows"],
        "seconds": report["seconds"],
        "CPU seconds": cpu,
        "reading the log (s)": steps["read"],
        "the table (s)": steps["rows"],
        **targets,
        "peak memory (MB)": after.ru_maxrss / 1_000,
    }


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    rows = [
        {name: f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" for name, value in row.items()}
        for row in found["measured"]
    ]
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    """Measure refreshes of one shop."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer users: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--users", type=int, default=100_000, help="of the table, 100 items each")
    parser.add_argument("--changed", type=int, nargs="+", default=[1, 1_000], help="users of each refresh")
    given = parser.parse_args(arguments)
    users, changed = (1_000, [1, 10]) if given.quick else (given.users, given.changed)
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("There is no Redis here: apt-get install redis-server.")
    torch.manual_seed(0)
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory(prefix="recsys-refresh-") as name:
        folder, port = Path(name), free_port()
        quiet = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", name]
        redis = subprocess.Popen([binary, *quiet], stdout=subprocess.DEVNULL)
        try:
            with postgresql(folder / "server") as address:
                targets = {
                    "postgresql": {"kind": "postgresql", "address": address},
                    "redis": {"kind": "redis", "address": f"redis://127.0.0.1:{port}/0"},
                    "files": {"kind": "files", "path": str(folder / "export")},
                }
                settings = shop(folder, users, targets, generator)
                found = [
                    measured(settings, np.sort(generator.choice(users, count, replace=False)), generator)
                    for count in changed
                ]
        finally:
            redis.kill()
            redis.wait()
    common.answer(given, {"users": users, "measured": found}, show)


if __name__ == "__main__":
    common.from_shell(main)
