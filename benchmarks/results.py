"""The README's result table: `recsys run` on the ready configurations, metrics beside the untrained baselines.

    .venv/bin/python benchmarks/results.py --data ../shared/datasets

DATA holds the folders ml-1m, ml-latest-small and amazon-beauty. Each configuration runs as a user would run it, in a
folder of its own, one after the other; about an hour on 2 cores. `--quick` runs the smallest for two epochs, `--only`
chooses one, `--json` prints one object instead of the table.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import common

CONFIGURATIONS = ("ml-1m", "ml-latest-small", "amazon-beauty")  # also the names of the data folders
COLUMNS = ("blend", "model", "popularity", "transitions", "text+transitions")


def run(name: str, data: Path, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The summary of one `recsys run`, in a working folder of its own."""
    command = [sys.executable, "-m", "pipelines.cli", "run", str(common.ROOT / "configs" / f"{name}.toml"), "--json"]
    for override in (f"data_root={data / name}", *overrides):
        command += ["--set", override]
    done = subprocess.run(
        command,
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(common.ROOT)},
    )
    summary: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        sys.exit(f"{name}: {summary['error']}")
    return summary


def row(summary: dict[str, Any]) -> dict[str, str]:
    """HR@10 / NDCG@10 of what is served and of each baseline."""

    def both(metrics: dict[str, float]) -> str:
        return f"{metrics['test/hr_at_10']:.4f} / {metrics['test/ndcg_at_10']:.4f}"

    return {summary["served"]: both(summary["metrics"])} | {name: both(m) for name, m in summary["baselines"].items()}


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print("HR@10 / NDCG@10 on test\n")
    rows = []
    for name in [name for name in CONFIGURATIONS if name in figures]:
        cells = row(figures[name])
        minutes = figures[name]["seconds"]["total"] / 60
        rows.append(
            {"data": name} | {column: cells.get(column, "–") for column in COLUMNS} | {"minutes": f"{minutes:.1f}"}
        )
    print(common.table(rows))


def main() -> None:
    parser = common.options(__doc__)
    parser.add_argument("--only", choices=CONFIGURATIONS, help="one configuration instead of all")
    given = parser.parse_args()
    names = (given.only,) if given.only else CONFIGURATIONS
    overrides: list[str] = []
    if given.quick:
        names, overrides = ("ml-latest-small",), ["train.epochs=2", "train.evaluate_every=1"]

    figures: dict[str, Any] = {}
    for name in names:
        with tempfile.TemporaryDirectory(prefix="recsys-results-") as folder:
            summary = run(name, given.data.resolve(), Path(folder), overrides)
        figures[name] = {key: summary[key] for key in ("served", "metrics", "baselines", "seconds")}
    common.answer(given, figures, show)


if __name__ == "__main__":
    main()
