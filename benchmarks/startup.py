"""CPU seconds that a command takes beyond its work: imports, MLflow's store, and what else comes before and after.

    .venv/bin/python benchmarks/startup.py

A small generated shop, one thread, no server of Prefect. Each command runs in a process of its own, as often as
`--runs` says, and the median of user and system time is shown. A step's work is what happens inside its MLflow run; a
module that is imported there counts as work, one that is imported before counts as start-up. `recommend` is cold: a
process opens a bundle, answers once and ends; all of it is shown. `with Prefect` is a step that a flow records on the
temporary server that Prefect starts where no server is named.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import common
import tomlkit

from recsys.datasets.synthetic import generate

RUNS = 5
BARE = ("--help", "releases")  # no step: nothing of it is work
LIBRARIES = ("torch", "mlflow", "prefect", "transformers")
QUICK = ("--help", "releases", "ingest", "represent", "recommend")

# runs a command, and says how much of its CPU time was inside of a step's MLflow run, and what it has imported
CHILD = f"""
import contextlib, json, sys, time
out, arguments = sys.argv[1], sys.argv[2:]
inside = [0.0]
if arguments and arguments[0] not in {BARE!r} + ("recommend", "similar"):
    import recsys.pipelines  # switches telemetry off
    from recsys.tracking import log
    real = log.step_run
    @contextlib.contextmanager
    def timed(*given, **options):
        with real(*given, **options) as run:
            began = time.process_time()
            try:
                yield run
            finally:
                inside[0] += time.process_time() - began
    log.step_run = timed
from recsys.pipelines import cli
import gc
from recsys.pipelines import collecting
collecting.rarely()  # as `cli.main`
code = cli.execute(arguments)
there = [name for name in {LIBRARIES!r} if name in sys.modules]
gc.freeze()  # as `cli.main`
open(out, "w").write(json.dumps({{"code": code, "work": inside[0], "imported": there}}))
"""

FLOW = """
import sys
from recsys.pipelines.flows import ingest_flow
ingest_flow(sys.argv[1])
"""


def shop(folder: Path) -> str:
    """A generated shop's configuration: small, and trained for an epoch."""
    generate(folder / "data", users=400, items=300)
    settings: dict[str, Any] = {
        "name": "startup",
        "data_root": str(folder / "data"),
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "interactions.csv"},
        "items": {"source": "items.jsonl", "text": ["title"]},
        "model": {"dimensions": 32, "max_length": 20},
        "train": {"epochs": 1},
        "export": {"path": str(folder / "export")},
        "tracking": {"uri": f"sqlite:///{folder / 'mlruns' / 'mlflow.db'}"},
    }
    path = folder / "recsys.toml"
    path.write_text(tomlkit.dumps(settings), encoding="utf-8")
    return str(path)


def measured(command: list[str], folder: Path) -> float:
    """CPU seconds of a process and of all that it started."""
    environment = {"OMP_NUM_THREADS": "1", "PREFECT_API_URL": "", "PREFECT_HOME": str(folder / "prefect")}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        command, env={**os.environ, **environment}, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def of_command(arguments: list[str], folder: Path, runs: int) -> dict[str, Any]:
    """Medians of a command's CPU seconds: in all, of its work, and beyond it; and which heavy libraries it imported."""
    every: list[tuple[float, float]] = []
    told: dict[str, Any] = {}
    for _ in range(runs):
        out = folder / "told.json"
        out.unlink(missing_ok=True)
        total = measured([sys.executable, "-c", CHILD, str(out), *arguments], folder)
        told = json.loads(out.read_text()) if out.exists() else {"code": None}
        if told["code"] != 0:
            raise SystemExit(f"`recsys {' '.join(arguments)}` failed (exit code {told['code']}).")
        every.append((total, told["work"]))
    return {
        "cpu_seconds": median(total for total, _ in every),
        "work": median(work for _, work in every),
        "beyond_work": median(total - work for total, work in every),
        "imported": told["imported"],
    }


def figures(runs: int, quick: bool) -> dict[str, Any]:
    """All figures, JSON-friendly."""
    with tempfile.TemporaryDirectory(prefix="recsys-startup-") as place:
        folder = Path(place)
        config = shop(folder)
        commands: dict[str, list[str]] = {"--help": ["--help"]}
        for step in ("ingest", "represent", "train", "evaluate", "retrieve", "export"):  # the first of each does work
            of_command([step, config], folder, 1)
            commands[step] = [step, config]
        (bundle, *_) = (folder / "warehouse" / "bundles").glob("startup-*")
        item = json.loads((folder / "data" / "items.jsonl").read_text().splitlines()[0])["item_id"]
        commands["releases"] = ["releases", config]
        commands["recommend"] = ["recommend", str(bundle), "--history", item]
        found = {}
        for name, arguments in commands.items():
            if not quick or name in QUICK:
                common.say(f"recsys {name}")
                found[name] = of_command(arguments, folder, runs)
        answer: dict[str, Any] = {"runs": runs, "commands": found}
        if not quick:
            answer["ingest_with_prefect"] = measured([sys.executable, "-c", FLOW, config], folder)
        return answer


def show(found: dict[str, Any]) -> None:
    """For readers."""
    rows = [
        {
            "command": f"recsys {name}",
            "CPU s": f"{of['cpu_seconds']:.2f}",
            "of it work": f"{of['work']:.2f}",
            "beyond": f"{of['beyond_work']:.2f}",
            "imports": ", ".join(of["imported"]) or "none of " + ", ".join(LIBRARIES),
        }
        for name, of in found["commands"].items()
    ]
    print(common.table(rows))
    if "ingest_with_prefect" in found:
        print(f"ingest as a flow, on Prefect's temporary server: {found['ingest_with_prefect']:.2f} CPU s")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one run of a few commands: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("--runs", type=int, default=RUNS, help="processes a command, of which the median is shown")
    given = parser.parse_args(arguments)
    common.answer(given, figures(1 if given.quick else given.runs, given.quick), show)


if __name__ == "__main__":
    main()
