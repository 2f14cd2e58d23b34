"""Kill nights at random moments with SIGKILL, start them again, and compare what they end with.

Each night begins in a new folder: no MLflow store, no database of Prefect, no warehouse. It is killed several times,
in random steps and at random moments inside of them, and then left to end. Its tables, its bundle and its export must
equal those of a night that nobody disturbed, no MLflow run may stay open and no temporary folder or server may stay.

    python benchmarks/kills.py                       60 kills; about 20 minutes on two cores
    python benchmarks/kills.py --kills 6 --quick     one night, without Prefect
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from recsys.datasets.synthetic import generate
from recsys.storage.warehouse import scan

ROOT = Path(__file__).parent.parent
STEPS = ("ingest", "represent", "train", "evaluate", "retrieve", "publish", "export")
PHASES = ("mlflow", "prefect", *STEPS)  # in the order in which a first night comes to them
PATIENCE = 600  # seconds after which a night counts as hanging
CONFIG = """
name = "kills"
data_root = {data!r}
[interactions]
source = "interactions.csv"
[items]
source = "items.jsonl"
text = ["title"]
categorical = {{ brand = {{}}, category = {{}} }}
[filter]
min_user_interactions = 5
repeats = "first"
[text]
dimensions = 16
[model]
max_length = 20
dimensions = 16
[train]
epochs = 6
evaluate_every = 2
checkpoint_minutes = 0.001
[evaluate]
cutoffs = [5, 10]
baselines = ["popularity", "transitions"]
[retrieve]
k = 10
[export]
path = "export"
"""


@dataclass
class Night:
    """A start of the command, and what it has said so far."""

    folder: Path
    prefect: bool
    lines: list[str] = field(default_factory=list)
    times: dict[str, float] = field(default_factory=dict)  # step to the moment when it began

    def __post_init__(self) -> None:
        environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
            "TMPDIR": str(self.folder / "temporary"),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": "",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "RECSYS_LOG_FORMAT": "text",
        }
        command = [sys.executable, "-m", "recsys", "run", "recsys.toml", "--json"]
        self.began = time.monotonic()
        self.process = subprocess.Popen(
            [*command, "--prefect" if self.prefect else "--no-prefect"],
            cwd=self.folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self.answer: list[str] = []
        self._threads = [threading.Thread(target=read, daemon=True) for read in (self._listen, self._read)]
        for thread in self._threads:
            thread.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())
            step = line.strip().removesuffix(" ...")
            if line.strip().endswith(" ...") and step in (*STEPS, "Starting"):
                self.times[step] = time.monotonic()

    def _read(self) -> None:
        assert self.process.stdout is not None
        self.answer.append(self.process.stdout.read())

    def wait_for(self, phase: str) -> bool:
        """Wait until a phase has begun; False where the process ends before, or the phase is not to come."""
        while self.process.poll() is None and time.monotonic() - self.began < PATIENCE:
            if phase == "mlflow" and any((self.folder / "mlruns").glob(".*writing-*")):
                return True
            if phase == "prefect" and self.prefect and "Starting" in self.times:
                return True
            if phase in self.times:
                return True
            if STEPS[-1] in self.times or (phase in ("mlflow", "prefect") and "ingest" in self.times):
                return False
            time.sleep(0.01)
        return False

    def reached(self) -> str:
        """The step that the night was in."""
        steps = [step for step in STEPS if step in self.times]
        if steps:
            return max(steps, key=self.times.__getitem__)
        return "start"

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def end(self) -> dict[str, Any] | None:
        """The summary; None where the night failed or hung."""
        try:
            code = self.process.wait(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return None
        for thread in self._threads:
            thread.join(timeout=10)
        return json.loads(self.answer[0]) if code == 0 else None


def new_folder(parent: Path, data: Path, name: str) -> Path:
    folder = parent / name
    (folder / "temporary").mkdir(parents=True)
    (folder / "recsys.toml").write_text(CONFIG.format(data=str(data)))
    return folder


def result(folder: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Return a night's results, without its times and its run."""
    warehouse = folder / "warehouse"
    candidates = scan(warehouse, "candidates", summary["candidates"]["version"]).collect()
    exported = pl.read_parquet(folder / "export" / "*.parquet")
    columns = ["user_id", "rank", "item_id", "score"]
    tables = {name: scan(warehouse, name).collect() for name in ("interactions", "items", "item_vectors")}
    return {
        "bundle": summary["bundle_id"],
        "metrics": summary["metrics"],
        "candidates": candidates.select(columns).sort("user_id", "rank").rows(),
        "export": exported.select(columns).sort("user_id", "rank").rows(),
        **{name: sorted(map(str, table.rows())) for name, table in tables.items()},
    }


def left_over(folder: Path) -> list[str]:
    """Return left-overs that should have been cleared away."""
    with closing(sqlite3.connect(folder / "mlruns" / "mlflow.db")) as database:
        (running,) = database.execute("select count(*) from runs where status = 'RUNNING'").fetchone()
    found = [f"{running} MLflow runs in state RUNNING"] if running else []
    # other programs' folders, such as caches, are not ours to delete
    found += [path.name for path in (folder / "temporary").iterdir() if path.name.startswith(("recsys-", "tmp"))]
    found += [path.name for path in (folder / "mlruns").glob(".*making*")]
    mark = f"PREFECT_HOME={folder / 'prefect'}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # gone, or somebody else's
            if mark in (process / "environ").read_bytes().split(b"\0"):
                found.append(f"process {process.name}")
    return found + [path.name for path in (folder / "warehouse" / "runs" / "processes").iterdir()]


def durations(night: Night, ended: float) -> dict[str, float]:
    """Seconds that each phase of an undisturbed night took."""
    order = ["Starting", *(step for step in STEPS if step in night.times)]
    moments = [night.times.get(name, night.began) for name in order] + [ended]
    took = {name: after - before for name, before, after in zip(order, moments, moments[1:], strict=False)}
    return {**took, "prefect": took["Starting"], "mlflow": min(3.0, took["Starting"])}


def main(arguments: list[str] | None = None) -> int:
    """Print a table of kills by phase; returns 1 where a restart failed or a table differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, help="60, or 5 with --quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--a-night", type=int, default=6, help="kills in one night")
    parser.add_argument("--quick", action="store_true", help="without Prefect, whose start takes 10 s each time")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout; progress on stderr")
    parser.add_argument("--folder", help="where the nights' folders go; kept")
    given = parser.parse_args(arguments)
    given.kills = given.kills or (5 if given.quick else 60)
    rng = random.Random(given.seed)
    parent = Path(given.folder or tempfile.mkdtemp(prefix="kills-"))
    parent.mkdir(parents=True, exist_ok=True)
    data = parent / "data"
    generate(data, users=120, items=400)
    phases = [phase for phase in PHASES if not (given.quick and phase == "prefect")]

    reference_folder = new_folder(parent, data, "undisturbed")
    undisturbed = Night(reference_folder, prefect=not given.quick)
    summary = undisturbed.end()
    if summary is None:
        print("\n".join(undisturbed.lines))
        return 1
    took = durations(undisturbed, time.monotonic())
    wanted = result(reference_folder, summary)
    told = sys.stderr
    print("undisturbed:", ", ".join(f"{name} {seconds:.1f} s" for name, seconds in took.items()), file=told, flush=True)

    kills: dict[str, int] = defaultdict(int)
    worked: dict[str, int] = defaultdict(int)
    equal: dict[str, int] = defaultdict(int)
    problems: list[str] = []
    number = total = 0
    while total < given.kills:
        number += 1
        folder = new_folder(parent, data, f"night-{number}")
        planned = sorted(rng.choices(phases, k=min(given.a_night, given.kills - total)), key=phases.index)
        planned[0] = phases[(number - 1) % len(phases)]  # so that each has its turn
        planned.sort(key=phases.index)
        hit: list[str] = []
        night = Night(folder, prefect="prefect" in planned)
        for phase in planned:
            if night.wait_for(phase):
                time.sleep(rng.uniform(0, took.get(phase, 1.0)))
            if night.process.poll() is not None:
                break  # it was faster
            night.kill()
            place = phase if phase in ("mlflow", "prefect") and night.reached() == "start" else night.reached()
            hit.append(place)
            kills[place] += 1
            total += 1
            night = Night(folder, prefect=night.prefect and rng.random() < 0.5)
        summary = night.end()
        if summary is None:
            problems.append(f"night {number}, killed in {', '.join(hit)}: {' | '.join(night.lines[-3:])}")
            for place in hit[:-1]:
                worked[place] += 1
            continue
        if any("Prefect does not answer" in line for line in night.lines):
            problems.append(f"night {number}, killed in {', '.join(hit)}: went on without Prefect")
        same = result(folder, summary)
        differing = [name for name in wanted if wanted[name] != same[name]]
        problems += [f"night {number}, killed in {', '.join(hit)}: {name} differs" for name in differing]
        problems += [f"night {number}, killed in {', '.join(hit)}: left {name}" for name in left_over(folder)]
        for place in hit:
            worked[place] += 1
            equal[place] += not differing
        ending = "differs" if differing else "equal"
        print(f"night {number}: killed in {', '.join(hit)}; {ending}", file=told, flush=True)
        shutil.rmtree(folder)

    rows = [
        {"killed_in": place, "kills": kills[place], "restarts": worked[place], "equal": equal[place]}
        for place in ("start", *PHASES)
        if kills[place]
    ]
    rows.append(
        {"killed_in": "all", **{name: sum(row[name] for row in rows) for name in ("kills", "restarts", "equal")}}
    )
    if given.json:
        print(json.dumps({"rows": rows, "problems": problems}))
    else:
        print("| killed in | kills | restarts that worked | equal tables |", "| --- | ---: | ---: | ---: |", sep="\n")
        print(*(f"| {' | '.join(map(str, row.values()))} |" for row in rows), *problems, sep="\n")
    if not given.folder and not problems:
        shutil.rmtree(parent)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
