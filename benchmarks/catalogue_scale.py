"""Training step and peak memory for catalogues of 10^4, 10^5 and 10^6 generated items.

    .venv/bin/python benchmarks/catalogue_scale.py --data DATA

Each row is a process of its own that trains a few steps on generated histories and reports its peak resident memory.
*State* is what grows with the catalogue alone, by design: weights, gradients, the optimizer's two moments and the copy
of the best weights. *Rest* is everything else beyond an idle process. *Scores* is what one float32 score for each pair
of label and item would take: the memory that neither loss ever holds. A larger batch makes scores grow with batch x
catalogue; the rest must not.

The histories are generated, so `--data` is not read; every benchmark takes it.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from statistics import median
from typing import Any

import common
import numpy as np
import polars as pl

from recsys.data.sequences import Sequences
from recsys.settings import ModelSettings, TrainSettings

SIZES, BATCHES = (10_000, 100_000, 1_000_000), (64, 256)
LOSSES = ("full", "sampled")
LENGTH = 50
MASKED = 0.2
MIB = 2**20
STATE_COPIES = 5  # float32 copies of the weights: themselves, gradients, two moments, the best so far


def generated(items: int, users: int) -> Sequences:
    """Histories of one length in which an item's frequency falls as one over its code."""
    rng = np.random.default_rng(0)
    codes = np.exp(rng.random(users * LENGTH) * np.log(items))  # log-uniform from 1 to V
    return Sequences(
        users=pl.Series(np.arange(users)),
        items=np.clip(codes, 1, items).astype(np.int32),
        offsets=np.arange(users + 1, dtype=np.int64) * LENGTH,
    )


def peak_memory() -> int:
    """Most bytes this process has had resident."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def train_steps(items: int, batch: int, loss: str, steps: int) -> dict[str, Any]:
    """Seconds of a step and peak memory; the first epoch is the warm-up."""
    idle = peak_memory()
    train = TrainSettings(epochs=3, batch_size=batch, loss=loss, mask_probability=MASKED, **common.PLAIN)  # type: ignore[arg-type]
    model = common.id_model(
        items, ModelSettings(max_length=LENGTH, dimensions=64, heads=2, head=True, temperature=None)
    )
    seconds = common.epoch_seconds(model, generated(items, batch * steps), train, LENGTH)[1:]
    state = STATE_COPIES * sum(4 * parameter.numel() for parameter in model.parameters())
    return {
        "items": items,
        "batch": batch,
        "loss": loss,
        "step_seconds": median(seconds) / steps,
        "peak": peak_memory(),
        "state": state,
        "rest": peak_memory() - idle - state,
        "scores": int(batch * LENGTH * MASKED) * items * 4,
    }


def in_a_process(**of: Any) -> dict[str, Any]:
    """`train_steps` where nothing else has used memory."""
    common.say(f"{of['items']:,} items, batch {of['batch']}, {of['loss']} softmax")
    done = subprocess.run(
        [sys.executable, __file__, "--data", ".", "--row", json.dumps(of)],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"Training on {of['items']:,} items in batches of {of['batch']} ended with status {done.returncode}.")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def growth(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For each loss and size: what the larger batch adds to the rest, and what it would add to the scores."""
    found = []
    for loss in dict.fromkeys(row["loss"] for row in rows):
        for items in dict.fromkeys(row["items"] for row in rows):
            same = sorted((r for r in rows if (r["loss"], r["items"]) == (loss, items)), key=lambda r: r["batch"])
            added = {key: same[-1][key] - same[0][key] for key in ("rest", "scores")}
            found.append({"loss": loss, "items": items, "added_rest": added["rest"], "added_scores": added["scores"]})
    return found


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print(f"histories of {LENGTH} generated events, {MASKED:.0%} hidden, D 64, 2 blocks; memory in MiB\n")
    rows = [
        {
            "loss": row["loss"],
            "items": f"{row['items']:,}",
            "batch": row["batch"],
            "ms/step": f"{1000 * row['step_seconds']:,.0f}",
            **{key: f"{row[key] / MIB:,.0f}" for key in ("peak", "state", "rest", "scores")},
        }
        for row in figures["rows"]
    ]
    print(common.table(rows))
    small, large = figures["batches"]
    print(f"\nfrom batch {small} to batch {large}, in MiB\n")
    rows = [
        {
            "loss": row["loss"],
            "items": f"{row['items']:,}",
            "the rest grows by": f"{row['added_rest'] / MIB:,.0f}",
            "scores would grow by": f"{row['added_scores'] / MIB:,.0f}",
        }
        for row in figures["growth"]
    ]
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--steps", type=int, default=4, help="steps of an epoch; two epochs are timed")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)  # one row, in a process of its own
    given = parser.parse_args(arguments)
    if given.row:
        print(json.dumps(train_steps(**given.row)))
        return
    sizes, steps = (SIZES[:2], 1) if given.quick else (SIZES, given.steps)
    rows = [
        in_a_process(items=items, batch=batch, loss=loss, steps=steps)
        for loss in LOSSES
        for items in sizes
        for batch in BATCHES
    ]
    common.answer(given, {"batches": BATCHES, "rows": rows, "growth": growth(rows)}, show)


if __name__ == "__main__":
    common.from_shell(main)
