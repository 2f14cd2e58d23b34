"""The README's result table: `recsys run` on the ready configurations, metrics beside the untrained baselines.

    .venv/bin/python benchmarks/results.py --data ../shared/datasets

DATA holds the folders ml-1m, ml-latest-small and amazon-beauty. Each configuration runs as a user would run it, in a
folder of its own, one after the other; about an hour on 2 cores. `--quick` runs the smallest for two epochs, `--only`
chooses one, `--json` prints one object instead of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CONFIGURATIONS = ("ml-1m", "ml-latest-small", "amazon-beauty")  # also the names of the data folders
COLUMNS = ("model", "popularity", "transitions", "text+transitions")


def run(name: str, data: Path, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The summary of one `recsys run`, in a working folder of its own."""
    command = [sys.executable, "-m", "pipelines.cli", "run", str(ROOT / "configs" / f"{name}.toml"), "--json"]
    for override in (f"data_root={data / name}", *overrides):
        command += ["--set", override]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    summary: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        sys.exit(f"{name}: {summary['error']}")
    return summary


def row(summary: dict[str, Any]) -> dict[str, str]:
    """HR@10 / NDCG@10 of the model and of each baseline."""

    def both(metrics: dict[str, float]) -> str:
        return f"{metrics['test/hr_at_10']:.4f} / {metrics['test/ndcg_at_10']:.4f}"

    return {"model": both(summary["metrics"])} | {name: both(m) for name, m in summary["baselines"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data folders")
    parser.add_argument("--only", choices=CONFIGURATIONS, help="one configuration instead of all")
    parser.add_argument("--quick", action="store_true", help="ml-latest-small for two epochs: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    arguments = parser.parse_args()
    data = arguments.data.resolve()
    names = (arguments.only,) if arguments.only else CONFIGURATIONS
    overrides: list[str] = []
    if arguments.quick:
        names, overrides = ("ml-latest-small",), ["train.epochs=2", "train.evaluate_every=1"]

    summaries: dict[str, dict[str, Any]] = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="recsys-results-") as folder:
            summaries[name] = run(name, data, Path(folder), overrides)

    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {date.today()}"
    if arguments.json:
        kept = ("metrics", "baselines", "seconds")
        print(json.dumps({"machine": machine} | {n: {k: s[k] for k in kept} for n, s in summaries.items()}))
        return
    print(f"HR@10 / NDCG@10 on test ({machine})\n")
    print("| data | " + " | ".join(COLUMNS) + " | minutes |")
    print("|---" * (len(COLUMNS) + 2) + "|")
    for name, summary in summaries.items():
        cells = row(summary)
        minutes = summary["seconds"]["total"] / 60
        print(f"| {name} | " + " | ".join(cells.get(column, "–") for column in COLUMNS) + f" | {minutes:.1f} |")


if __name__ == "__main__":
    main()
