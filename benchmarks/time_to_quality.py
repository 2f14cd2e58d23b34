"""Minutes from a cold start until validation NDCG@10 is within 2% of where training ends.

    .venv/bin/python benchmarks/time_to_quality.py --data DATA

Trains configs/ml-1m.toml as it stands, and with ids as its only channel, in a warehouse of its own. The clock starts
before the log is read and runs through text encoding, training and every validation. Where training ends is the value
of the weights that it hands back, the best validated ones. The schedule of the learning rate spans all epochs of the
configuration, so fewer epochs give another curve, not the beginning of this one.

`--alone` trains on the histories as they stand in the log, by ids, with no tables around them: the clock then starts
with training, on an accelerator if there is one, and model FLOPs are set beside the rate of a plain bf16 product.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import common
from training_throughput import bf16_rate, flops

from recsys.data.splits import leave_one_out
from recsys.features.device import best_device
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.batches import windows
from recsys.models.sequential.estimator import validation
from recsys.models.sequential.loop import train
from recsys.models.sequential.objectives import objective_at
from recsys.night.fit import fit
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.text.represent import represent
from recsys.training.validation import PRIMARY

CHANNELS = {"as configured": [], "ids only": ["model.attributes=false", "model.text=false"]}
SHARE = 0.98  # of the final value


def alone(name: str, log: Path, overrides: list[str], every: int) -> dict[str, Any]:
    """The curve of a training by ids on a log of lines "user item"; minutes of training and validation."""
    histories = common.histories(log)
    split = leave_one_out(histories)
    settings = load_settings(common.ROOT / "configs" / f"{name}.toml", [*CHANNELS["ids only"], *overrides])
    settings = looked_at(settings, every)
    items = int(histories.items.max())
    model = common.id_model(items, settings.model).to(best_device())
    curve: list[dict[str, float]] = []

    def on_epoch(entry: dict[str, float]) -> None:
        told(curve, entry, began)

    began = time.perf_counter()
    training = train(
        model,
        split.train.items,
        split.train.offsets,
        settings.train,
        seed=settings.seed,
        max_length=settings.model.max_length,
        validate=validation(settings, split.validation),
        primary=PRIMARY,
        on_epoch=on_epoch,
    )
    total = (time.perf_counter() - began) / 60
    speeds = [entry["tokens_per_second"] for entry in training.history]
    starts, ends = windows(split.train.offsets, settings.model.max_length)
    seconds = [entry["seconds"] for entry in training.history]
    work = 0.0
    for epoch in range(1, training.epochs + 1):
        objective = objective_at(epoch, settings.train, settings.model.objective)
        asked = settings.model.model_copy(update={"objective": objective})
        work += flops(asked, ends - starts, items, settings.train.mask_probability)
    return summary(curve) | {
        "epochs": training.epochs,
        "total_minutes": total,
        "tokens_per_second": median(speeds),
        "share_of_bf16": work / sum(seconds) / bf16_rate(),
    }


def looked_at(settings: Settings, every: int) -> Settings:
    """Validated every so many epochs, with as many epochs of patience as configured."""
    patience = -(-settings.train.patience * settings.train.evaluate_every // every)
    train = settings.train.model_copy(update={"evaluate_every": every, "patience": patience})
    return settings.model_copy(update={"train": train})


def told(curve: list[dict[str, float]], entry: dict[str, float], began: float) -> None:
    """Add a validated epoch to the curve."""
    if PRIMARY in entry:
        minutes = (time.perf_counter() - began) / 60
        curve.append({"epoch": int(entry["epoch"]), "minutes": minutes, "ndcg_at_10": entry[PRIMARY]})
        common.say(f"epoch {int(entry['epoch'])}, {minutes:.1f} minutes, NDCG@10 {entry[PRIMARY]:.4f}")


def run(name: str, data: Path, overrides: list[str], every: int) -> dict[str, Any]:
    """The curve of one training: epoch, minutes since the cold start and validation NDCG@10."""
    began = time.perf_counter()
    curve: list[dict[str, float]] = []

    def on_epoch(entry: dict[str, float]) -> None:
        told(curve, entry, began)

    with tempfile.TemporaryDirectory(prefix="recsys-time-") as folder:
        config = common.ROOT / "configs" / f"{name}.toml"
        places = [f"data_root={data.resolve() / name}", f"warehouse={Path(folder) / 'warehouse'}"]
        settings = load_settings(config, [*places, *overrides])
        settings = looked_at(settings, every)
        versions = ingest(settings).versions
        if settings.model.text:
            represent(settings, versions)
        report = fit(settings, versions, on_epoch)
    return summary(curve) | {"epochs": report.epochs, "total_minutes": (time.perf_counter() - began) / 60}


def summary(curve: list[dict[str, float]]) -> dict[str, Any]:
    """The curve, where it ends (its best value), and the first place within 2% of that."""
    final = max(place["ndcg_at_10"] for place in curve)
    return {"final": final, "reached": next(p for p in curve if p["ndcg_at_10"] >= SHARE * final), "curve": curve}


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print(f"{figures['configuration']}, validation NDCG@10 looked at every {figures['every']} epochs\n")
    rows = [
        {
            "channels": name,
            "final NDCG@10": f"{of['final']:.4f}",
            "within 2% after": f"{of['reached']['minutes']:.1f} minutes",
            "epoch": int(of["reached"]["epoch"]),
            "epochs": of["epochs"],
            "minutes in all": f"{of['total_minutes']:.1f}",
        }
        | (
            {"tokens/s": f"{of['tokens_per_second']:,.0f}", "share of bf16 rate": f"{of['share_of_bf16']:.1%}"}
            if "share_of_bf16" in of
            else {}
        )
        for name, of in figures["channels"].items()
    ]
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--every", type=int, default=2, metavar="EPOCHS", help="epochs between validations")
    parser.add_argument("--only", choices=CHANNELS, help="one choice of channels instead of both")
    parser.add_argument("--alone", action="store_true", help="training alone, by ids, on the log as it stands")
    parser.add_argument("--config", default="ml-1m", help="another configuration of configs/, its data in DATA/CONFIG")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as for recsys run")
    given: argparse.Namespace = parser.parse_args(arguments)
    name, overrides = given.config, list(given.set)
    names = [given.only] if given.only else list(CHANNELS)
    if given.quick:  # without the minute that encoding the text takes
        name, names, overrides = "ml-latest-small", ["ids only"], ["train.epochs=8", *overrides]
    found = {}
    if given.alone:
        if name != "ml-1m":
            sys.exit(f"--alone reads a log of lines 'user item', which {name} is not; leave --quick or --config out")
        names, found["ids only"] = [], alone(name, given.data / name / f"{name}.txt", overrides, given.every)
    for channels in names:
        common.say(f"{name}, {channels}")
        found[channels] = run(name, given.data, [*CHANNELS[channels], *overrides], given.every)
    common.answer(given, {"configuration": name, "every": given.every, "channels": found}, show)


if __name__ == "__main__":
    common.from_shell(main)
