"""Steps that a warm start saves: MovieLens-1M cut by order into three parts.

    .venv/bin/python benchmarks/warm_start.py --data DATA

Every history is cut into thirds. The first day knows the first third and trains from nothing. The second day knows two
thirds, the third day all; both train twice, from nothing and from the bundle of the day before, then for a third of the
epochs (`--warm-set train.warm_epochs=N` for N). Compared are the steps until validation NDCG@10 first reaches the best
that the training from nothing got. A day's catalogue holds the films that somebody has seen by then. DATA holds the
folder ml-1m.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import common
import polars as pl

from recsys.data.prepare import prepare
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.batches import windows
from recsys.night.fit import FitReport, fit
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.warehouse import TableVersions
from recsys.text.represent import represent
from recsys.training.validation import PRIMARY

PARTS = 3
QUICK_USERS = 300
QUICK = ["items=none", "train.epochs=6", "model.max_length=50", "model.dimensions=32"]


def write_day(source: Path, folder: Path, day: int, users: int | None) -> None:
    """The data set as the first `day` thirds of every history have it."""
    folder.mkdir()
    log = pl.read_csv(source / "ml-1m.txt", separator=" ", has_header=False, new_columns=["user", "item"])
    if users is not None:
        log = log.filter(pl.col("user").rle_id() < users)
    place = pl.int_range(pl.len()).over("user")
    log = log.filter(place < (pl.len().over("user") * day / PARTS).ceil())
    log.write_csv(folder / "ml-1m.txt", separator=" ", include_header=False)
    ids = dict(line.split() for line in (source / "item_ids.txt").read_text().splitlines())
    known = {ids[str(item)] for item in log["item"].unique()}
    films = (source / "movies.dat").read_text(encoding="latin-1").splitlines()
    kept = [film for film in films if film.split("::")[0] in known]
    (folder / "movies.dat").write_text("\n".join(kept) + "\n", encoding="latin-1")
    (folder / "item_ids.txt").write_bytes((source / "item_ids.txt").read_bytes())


def settings_of(folder: Path, warehouse: Path, overrides: list[str]) -> Settings:
    """Those of configs/ml-1m.toml on a day's data."""
    own = [f"data_root={folder}", f"warehouse={warehouse}", "train.evaluate_every=1", f"train.patience={10**6}"]
    return load_settings(common.ROOT / "configs" / "ml-1m.toml", [*overrides, *own])


def tables(settings: Settings) -> TableVersions:
    """The day's tables, with the text vectors that training needs."""
    versions = ingest(settings).versions
    represent(settings, versions)
    return versions


def train(settings: Settings, versions: TableVersions, label: str) -> FitReport:
    """One training, its validations told as they come."""

    def told(entry: dict[str, Any]) -> None:
        if PRIMARY in entry:  # epochs that only ask for next items are not validated
            common.say(f"{label}, epoch {entry['epoch']}: NDCG@10 {entry[PRIMARY]:.4f}")

    return fit(settings, versions, told, common.say)


def day_of(number: int, cold: FitReport, warm: FitReport, steps: int) -> dict[str, Any]:
    """The two trainings of a day side by side; `steps` an epoch."""
    of_cold, of_warm = _curve(cold), _curve(warm)
    best = max(of_cold.values())
    reached = [epoch for epoch, value in of_warm.items() if value >= best]
    assert warm.warm_start is not None
    return {
        "day": number,
        "steps_an_epoch": steps,
        "cold_best": best,
        "cold_steps": cold.best_epoch * steps,
        "warm_best": max(of_warm.values()),
        "warm_steps": reached[0] * steps if reached else None,
        "ratio": reached[0] / cold.best_epoch if reached else None,
        "warm_start": warm.warm_start,
        "cold_curve": of_cold,
        "warm_curve": of_warm,
    }


def _curve(report: FitReport) -> dict[int, float]:
    """Validation NDCG@10 by epoch."""
    return {int(entry["epoch"]): entry[PRIMARY] for entry in report.history if PRIMARY in entry}


def show(figures: dict[str, Any]) -> None:
    """The days for readers."""
    print("validation NDCG@10, and the steps until the best of a training from nothing was reached\n")
    rows = [
        {
            "day": day["day"],
            "items copied / new": f"{day['warm_start']['items']['copied']:,} / {day['warm_start']['items']['new']:,}",
            "best from nothing": f"{day['cold_best']:.4f}",
            "best warm": f"{day['warm_best']:.4f}",
            "steps from nothing": f"{day['cold_steps']:,}",
            "steps warm": "never" if day["warm_steps"] is None else f"{day['warm_steps']:,}",
            "ratio": "–" if day["ratio"] is None else f"{day['ratio']:.2f}",
        }
        for day in figures["days"]
    ]
    print(common.table(rows))


def options() -> argparse.ArgumentParser:
    """This script's options."""
    parser = common.options(__doc__)
    parser.add_argument("--users", type=int, help="the first so many users alone")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="a setting of every training")
    parser.add_argument("--warm-set", action="append", default=[], metavar="KEY=VALUE", help="of the warm ones alone")
    return parser


def main(arguments: list[str] | None = None) -> None:
    given = options().parse_args(arguments)
    users = QUICK_USERS if given.quick else given.users
    overrides = [*(QUICK if given.quick else []), *given.set]
    days = []
    with tempfile.TemporaryDirectory(prefix="recsys-warm-") as scratch:
        previous = None
        for day in range(1, PARTS + 1):
            folder = Path(scratch) / f"day-{day}"
            write_day(given.data.resolve() / "ml-1m", folder, day, users)
            cold_settings = settings_of(folder, folder / "warehouse", overrides)
            versions = tables(cold_settings)
            cold = train(cold_settings, versions, f"day {day} from nothing")
            if previous is None:
                previous = cold.bundle
                continue
            warm_settings = settings_of(
                folder, folder / "warehouse", [*overrides, *given.warm_set, f"train.warm_start={previous}"]
            )
            warm = train(warm_settings, versions, f"day {day} warm")
            starts, _ = windows(prepare(warm_settings, versions).split.train.offsets, warm_settings.model.max_length)
            days.append(day_of(day, cold, warm, -(-len(starts) // warm_settings.train.batch_size)))
            previous = warm.bundle
    common.answer(given, {"users": users, "settings": overrides, "days": days}, show)


if __name__ == "__main__":
    common.from_shell(main)
