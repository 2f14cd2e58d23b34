"""The blind check: each user's last event is taken out of the file, and a whole night's table is scored against it.

    .venv/bin/python benchmarks/blind.py --data DATA --only ml-1m amazon-beauty-text

DATA holds the folders ml-1m, amazon-beauty and ml-latest-small. A night runs on what is left of the log, as a user
would run it; withheld.py, which imports nothing of the program, scores the candidate table. The measured bundle is
trained once; then `recsys refit` and `recsys retrieve` make the table of each way to refit. What the night said of
itself is of the events before those that were taken. `--folder` keeps what was done, also what a call that was stopped
had done, so hours can be had in parts; `--quick` runs the smallest for two epochs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import common
import polars as pl
from withheld import scored, take_last

MODES: Final = ("none", "counts", "all")
# the configuration, the folder under DATA, its log, and settings besides the file's
CONFIGURATIONS: Final[dict[str, tuple[str, str, str, tuple[str, ...]]]] = {
    "ml-1m": ("ml-1m", "ml-1m", "ml-1m.txt", ()),
    "amazon-beauty": ("amazon-beauty", "amazon-beauty", "Beauty.txt", ()),
    "amazon-beauty-text": ("amazon-beauty", "amazon-beauty", "Beauty.txt", ("model.kind=text",)),
    "ml-latest-small": ("ml-latest-small", "ml-latest-small", "ratings.csv", ()),
}
QUICK: Final = ("train.epochs=2", "train.evaluate_every=1", "items=none")
SAID: Final = ("test/hr_at_10", "test/ndcg_at_10")


def recsys(command: str, name: str, folder: Path, overrides: list[str], bundle: str | None = None) -> dict[str, Any]:
    """The report of a command, in the working folder of the configuration."""
    call = [sys.executable, "-m", "recsys", command, str(common.ROOT / "configs" / f"{name}.toml"), "--json"]
    call += ["--bundle", bundle] if bundle else []
    for override in overrides:
        call += ["--set", override]
    environment = {**os.environ, "PYTHONPATH": str(common.ROOT)}
    done = subprocess.run(call, cwd=folder, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    report: dict[str, Any] = json.loads(done.stdout)
    if done.returncode:
        sys.exit(f"{name}: {report['error']}")
    return report


def once(path: Path, make: Any) -> dict[str, Any]:
    """Return the file's content, or that of `make`, which is written to it."""
    if not path.exists():
        found = make()
        path.write_text(json.dumps(found))
    report: dict[str, Any] = json.loads(path.read_text())
    return report


def blind(name: str, data: Path, folder: Path, overrides: list[str], modes: list[str]) -> dict[str, Any]:
    """Run a night on what is left, refit its bundle in each way, and score the tables."""
    config, source, log, more = CONFIGURATIONS[name]
    folder.mkdir(parents=True, exist_ok=True)
    taken = folder / "taken.parquet"
    if not taken.exists():
        take_last(data / source, log, folder / "data").write_parquet(taken)
    settings = ["data_root=data", "state_root=.", *more, *overrides]
    night = once(folder / "night.json", lambda: recsys("run", config, folder, [*settings, "train.refit=none"]))
    found: dict[str, Any] = {"said": [night["metrics"][metric] for metric in SAID], "night": night["seconds"]["total"]}
    measured = night["bundle"]

    def served(mode: str) -> dict[str, Any]:
        asked = [*settings, f"train.refit={mode}"]
        refitted = recsys("refit", config, folder, asked, measured)
        table = recsys("retrieve", config, folder, asked, refitted["bundle"])
        hit, gain = scored(pl.read_delta(str(folder / table["path"])), pl.read_parquet(taken))
        told = {key: refitted.get(key) for key in ("kind", "reason", "epochs")}
        return {"hr": hit, "ndcg": gain, "seconds": refitted["seconds"], "bundle": table["bundle"], **told}

    found["modes"] = {mode: once(folder / f"{mode}.json", lambda m=mode: served(m)) for mode in modes}
    return found


def cell(values: list[float]) -> str:
    """The mean, and the standard deviation where there are several."""
    return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print("HR@10 / NDCG@10 on each user's last event, which no part of the night has seen\n")
    rows = []
    for name, runs in figures["configurations"].items():
        said = " / ".join(cell([run["said"][at] for run in runs]) for at in (0, 1))
        row = {"configuration": name, "seeds": len(runs), "the night said": said}
        for mode in runs[0]["modes"]:
            row[f"refit {mode}"] = " / ".join(cell([run["modes"][mode][key] for run in runs]) for key in ("hr", "ndcg"))
        for mode in runs[0]["modes"]:
            if mode != "none":
                row[f"{mode}, minutes"] = f"{mean(run['modes'][mode]['seconds'] for run in runs) / 60:.1f}"
        rows.append(row | {"night, minutes": f"{mean(run['night'] for run in runs) / 60:.1f}"})
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--only", nargs="*", choices=CONFIGURATIONS, help="some configurations instead of all")
    parser.add_argument("--modes", nargs="*", choices=MODES, default=list(MODES), help="ways to refit")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep everything here, and take from it what is there")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for recsys run")
    given = parser.parse_args(arguments)
    names = given.only or list(CONFIGURATIONS)
    overrides: list[str] = given.set
    if given.quick:
        names, overrides = ["ml-latest-small"], [*QUICK, *given.set]
    figures: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory(prefix="recsys-blind-") as temporary:
        root = (given.folder or Path(temporary)).resolve()
        for name in names:
            for seed in range(given.seeds):
                asked = [*overrides, f"seed={seed}"]
                found = blind(name, given.data.resolve(), root / f"{name}-{seed}", asked, given.modes)
                figures.setdefault(name, []).append(found)
                common.say(f"{name}, seed {seed}: {json.dumps(found)}")
    common.answer(given, {"set": given.set, "configurations": figures}, show)


if __name__ == "__main__":
    common.from_shell(main)
