"""The result tables: `recsys run` on the ready configurations, metrics beside the untrained baselines.

    .venv/bin/python benchmarks/results.py --data DATA --only ml-1m amazon-beauty --seeds 3

DATA holds the folders ml-1m, ml-latest-small and amazon-beauty. Each configuration runs as a user would run it, in a
folder of its own, one after the other; all of them take hours on 2 cores. Several seeds give mean ± standard deviation;
the interval is the 95% bootstrap interval over users of the first seed. `--shuffle-ties` puts the rows of a log with
times (ml-latest-small; the others have none) into random order first, so that events of one moment stand in another
order: what then is lost was owed to the order of the file. `--keep FILE` adds each run to a file as it ends and takes
from it what an earlier call ran with the same settings, so hours can be had in parts; after a change of the program,
begin another file. `--quick` runs the smallest for two epochs.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import common

CONFIGURATIONS = {  # and the folders of their data
    "ml-1m": "ml-1m",
    "ml-1m-attributes": "ml-1m",
    "ml-1m-ids": "ml-1m",
    "ml-1m-next-item": "ml-1m",
    "ml-latest-small": "ml-latest-small",
    "amazon-beauty": "amazon-beauty",
    "amazon-beauty-ids": "amazon-beauty",
}
TIMED = {"ml-latest-small": "ratings.csv"}  # configurations whose log has times, and that log
COLUMNS = ("blend", "model", "popularity", "transitions", "text+transitions")


def with_shuffled_ties(source: Path, log: str, folder: Path, seed: int) -> Path:
    """A copy of a data folder in which events of equal time stand in random order."""
    copy = shutil.copytree(source, folder / "data")
    (copy / log).chmod(0o644)
    head, *lines = (source / log).read_text().splitlines()
    random.Random(seed).shuffle(lines)
    (copy / log).write_text("\n".join([head, *lines]) + "\n")
    return copy


def run(name: str, data: Path, folder: Path, overrides: list[str]) -> dict[str, Any]:
    """The summary of one `recsys run`, in a working folder of its own."""
    command = [
        sys.executable,
        "-m",
        "recsys",
        "run",
        str(common.ROOT / "configs" / f"{name}.toml"),
        "--json",
    ]
    for override in (f"data_root={data}", f"state_root={folder}", *overrides):
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


def label(name: str, data: Path, seed: int, overrides: list[str], shuffled: bool) -> str:
    """Name of a run."""
    return " ".join([name, str(data), f"seed={seed}", *overrides, *(["shuffled ties"] if shuffled else [])])


def cells(runs: list[dict[str, Any]]) -> dict[str, str]:
    """HR@10 / NDCG@10 of what is served and of each baseline, over the seeds."""
    found: dict[str, list[dict[str, float]]] = {}
    for summary in runs:
        for name, metrics in ({summary["served"]: summary["metrics"]} | summary["baselines"]).items():
            found.setdefault(name, []).append(metrics)
    return {name: f"{_figure(of, 'test/hr_at_10')} / {_figure(of, 'test/ndcg_at_10')}" for name, of in found.items()}


def _figure(metrics: list[dict[str, float]], name: str) -> str:
    values = [of[name] for of in metrics]
    spread = stdev(values) if len(values) > 1 else 0.0
    return f"{mean(values):.4f}" + (f" ± {spread:.4f}" if spread else "")


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print("HR@10 / NDCG@10 on test" + (", tied events shuffled" if figures["shuffled_ties"] else "") + "\n")
    rows = []
    for name, runs in figures["configurations"].items():
        by_source = cells(runs)
        interval = runs[0]["intervals"]["test/ndcg_at_10"]
        rows.append(
            {"configuration": name, "seeds": len(runs), "served": runs[0]["served"]}
            | {column: by_source.get(column, "–") for column in COLUMNS}
            | {
                "NDCG@10, 95%": f"{interval['low']:.4f} to {interval['high']:.4f}",
                "minutes": f"{mean(run['seconds']['total'] for run in runs) / 60:.1f}",
            }
        )
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, help="some configurations instead of all")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--shuffle-ties", action="store_true", help="random order among events of equal time")
    parser.add_argument("--keep", type=Path, metavar="FILE", help="add runs to this file; take those that are there")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for recsys run")
    given = parser.parse_args(arguments)
    names = given.only or list(TIMED if given.shuffle_ties else CONFIGURATIONS)
    if given.shuffle_ties and (without := [name for name in names if name not in TIMED]):
        sys.exit(f"the log of {without[0]} has no times; --shuffle-ties is for {', '.join(TIMED)}")
    overrides: list[str] = given.set
    if given.quick:
        names, overrides = ["ml-latest-small"], ["train.epochs=2", "train.evaluate_every=1", *given.set]

    figures: dict[str, list[dict[str, Any]]] = {}
    kept = common.Kept(given.keep)
    for name in names:
        for seed in range(given.seeds):

            def measure(name: str = name, seed: int = seed) -> dict[str, Any]:
                with tempfile.TemporaryDirectory(prefix="recsys-results-") as folder:
                    data = given.data.resolve() / CONFIGURATIONS[name]
                    if given.shuffle_ties:
                        data = with_shuffled_ties(data, TIMED[name], Path(folder), seed)
                    summary = run(name, data, Path(folder), [*overrides, f"seed={seed}"])
                return {key: summary[key] for key in ("served", "metrics", "baselines", "intervals", "seconds")}

            found = kept.figures(label(name, given.data.resolve(), seed, overrides, given.shuffle_ties), measure)
            figures.setdefault(name, []).append(found)
            common.say(f"{name}, seed {seed}: {cells([found])}, {found['seconds']['total'] / 60:.1f} minutes")
    common.answer(given, {"set": given.set, "shuffled_ties": given.shuffle_ties, "configurations": figures}, show)


if __name__ == "__main__":
    common.from_shell(main)
