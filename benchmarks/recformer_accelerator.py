"""Recformer pre-trained on three shops and fine-tuned on Scientific, on one accelerator.

    .venv/bin/python benchmarks/recformer_accelerator.py --data DATA --seeds 3 --jobs 4

What configs/recformer-pretrain.toml and configs/scientific-recformer.toml ask for, with larger batches and more of
them, as the printed overrides say; protocol and columns are those of scientific.py, and each run also says what each
validated epoch had, so that a stage's worth can be read off. Rows train from the untrained language model or from the
pre-trained one. Before that: tokens a second of fine-tuning in the published form, beside transformers' Longformer (see
recformer_throughput.py), and of this one.

`--pack FILE` reads the data folders and writes what the rest needs as one file; `--packed FILE` goes on from there, on
a machine that has no data. `--init FOLDER` takes an earlier pre-training instead of a new one, `--keep FOLDER` keeps
the new one. `--jobs` trainings run side by side: one leaves most of an accelerator idle.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import common
import numpy as np
import torch
from recformer_throughput import WINDOW, Steps, flops, longformer, ours
from scientific import both, measure
from shops.packed import NIGHT, PRETRAIN, Packed, gather, read, write
from training_throughput import bf16_rate

from recsys.data.splits import HeldOut
from recsys.models.recformer.encode import encode_histories
from recsys.models.recformer.estimator import fine_tune, on_catalogue, repeats_of, with_projection
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.pretrain import ACCURACY, merged, pretrain
from recsys.models.recformer.start import Start, ready
from recsys.models.recformer.weights import load, resized, save
from recsys.retrieval.repeats import with_repeats
from recsys.settings import Settings
from recsys.settings.pretrain import load_pretrain_settings
from recsys.settings.read import load_settings
from recsys.training.validation import PRIMARY

PRETRAINING = (
    "train.steps=800",
    "train.batch_size=256",
    "train.one_catalogue=true",
    "train.evaluate_every=100",
    "train.evaluate_pairs=2048",
    "train.patience=8",
)
TUNING = (
    "recformer.aligned=true",
    "recformer.attribute_tokens=32",
    "recformer.validation_users=none",
    "train.batch_size=128",
    "train.evaluate_every=2",
    "train.patience=4",
)
AS_IT_IS = ("recformer.fine_tune=false",)
# everything learns from the first step on, against items that stand still: the language model and what is new to it
AT_ONCE = (
    "recformer.probe_epochs=0",
    "recformer.transition_maps=false",
    "recformer.live_items=false",
    "recformer.second_stage_epochs=4",
    "model.repeat_bias=false",
    "train.epochs=16",
    "train.learning_rate=0.0001",
)
ON = ("train.epochs=10", "recformer.second_stage_epochs=3")  # after the probe


@dataclass(frozen=True)
class Row:
    """Start of a training, and its settings."""

    pretrained: bool
    overrides: tuple[str, ...] = ()


ROWS: dict[str, Row] = {
    "untrained": Row(False, AS_IT_IS),
    "zero-shot": Row(True, AS_IT_IS),
    "the probe alone": Row(False),
    "the probe, then everything": Row(False, ON),
    "the probe, then everything, items still": Row(False, (*ON, "recformer.live_items=false")),
    "the probe alone, pre-trained": Row(True),
    "the probe, then everything, pre-trained": Row(True, ON),
    "everything at once": Row(False, AT_ONCE),
    "everything at once, pre-trained": Row(True, AT_ONCE),
    "everything at once, no position or type embeddings": Row(False, (*AT_ONCE, "recformer.embeddings=false")),
}
COLUMNS = ("validation", "ndcg", "recall", "mrr", "cold", "cold_recall", "unseen")
QUICK_PRETRAINING = ("recformer.layers=1", "train.steps=2", "train.batch_size=8", "train.evaluate_pairs=16")
QUICK = ("train.epochs=1", "recformer.probe_epochs=1", "recformer.second_stage_epochs=1", "recformer.max_items=2")
QUICK_USERS = 60
STEPS, BATCH = 20, 128


def few(packed: Packed) -> Packed:
    """With some of Scientific's users alone."""
    users = np.arange(QUICK_USERS)
    parts = {}
    for name in ("validation", "test"):
        whole = getattr(packed, name)
        parts[name] = HeldOut(histories=whole.histories.select(users), targets=whole.targets[users])
    return replace(packed, train=packed.train.select(users), **parts)


def night(overrides: tuple[str, ...]) -> Settings:
    """The fine-tuning's settings."""
    return load_settings(common.ROOT / "configs" / f"{NIGHT}.toml", [*TUNING, *overrides])


def pretrained(packed: Packed, overrides: tuple[str, ...], parent: Path) -> tuple[Path, dict[str, Any]]:
    """Pre-train; the folder that holds the result, a value for `recformer.init`, and what happened."""
    settings = load_pretrain_settings(common.ROOT / "configs" / f"{PRETRAIN}.toml", overrides)
    learnt = merged([corpus for name, corpus in packed.corpora.items() if name not in packed.held_out])
    begun = replace(packed.begun, model=ready(packed.begun.model, settings.recformer))
    begun = with_projection(begun, learnt.tokens, settings.recformer)
    began = time.perf_counter()

    def on_look(entry: dict[str, Any]) -> None:
        common.say(f"  {time.perf_counter() - began:.0f} s: {entry}")

    outcome = pretrain(
        begun,
        learnt,
        [packed.corpora[name] for name in packed.held_out],
        settings.train,
        temperature=settings.recformer.temperature,
        accumulate=settings.recformer.accumulate,
        seed=settings.seed,
        on_look=on_look,
    )
    folder = save(parent, PRETRAIN, begun.model, begun.head, begun.tokenizer, {"steps": outcome.steps})
    report = {
        "steps": outcome.steps,
        "best_step": outcome.best_step,
        "seconds": time.perf_counter() - began,
        "tokens_per_second": outcome.history[-1].get("tokens_per_second"),
        "accuracy": [entry[ACCURACY] for entry in outcome.history],
    }
    return folder, report


def prepared(packed: Packed, init: Path | None, settings: Settings) -> Recformer:
    """The model that a fine-tuning begins with."""
    if init is None:
        begun = packed.begun
    else:
        model, head, tokenizer = load(init, dropout=settings.recformer.dropout)
        begun = Start(model=model, head=head, tokenizer=tokenizer, about={})
    wanted = settings.recformer
    sized = resized(begun.model, items=wanted.max_items, tokens=wanted.max_tokens)
    return on_catalogue(replace(begun, model=ready(sized, wanted)), packed.catalogue, settings).model


def run(packed_file: str, init: str | None, overrides: tuple[str, ...], label: str) -> dict[str, Any]:
    """One training and its test figures."""
    packed, settings = read(Path(packed_file)), night(overrides)
    began = time.perf_counter()
    model = prepared(packed, None if init is None else Path(init), settings)
    catalogue, train, held_out = packed.catalogue, packed.train, packed.test

    def on_epoch(entry: dict[str, float]) -> None:
        shown = {name: round(entry[name], 4) for name in ("loss", PRIMARY) if name in entry}
        common.say(f"  {label}, {time.perf_counter() - began:.0f} s, epoch {entry['epoch']}: {shown}")

    training, table = fine_tune(model, catalogue, train, packed.validation, settings, on_epoch)
    found: dict[str, Any] = {}
    if training is not None:
        found["validations"] = [
            [entry["epoch"], entry["stage"], entry[PRIMARY]] for entry in training.history if PRIMARY in entry
        ]
        found |= {"validation": max(of[2] for of in found["validations"]), "best_epoch": training.best_epoch}
    vectors = encode_histories(model, catalogue, held_out.histories.items, held_out.histories.offsets)

    def scores(start: int, stop: int) -> np.ndarray:
        block: np.ndarray = vectors[start:stop] @ table.T
        return block

    bonus = with_repeats(scores, held_out.histories.items, held_out.histories.offsets, repeats_of(model))
    cold = np.bincount(train.items, minlength=catalogue.size + 1)[held_out.targets] == 0
    found |= measure(bonus, catalogue.lengths > 0, held_out, cold)
    return found | {"seconds": time.perf_counter() - began}


def throughput(packed: Packed, batch: int, steps: int) -> dict[str, Any]:
    """Tokens a second and share of the bf16 rate: published form, Longformer beside it, and the form of the rows."""
    wanted = night(()).recformer
    form = packed.begun.model.shape
    published = replace(form, items=50, tokens=1024, window=WINDOW, places="history", apart=None, pooling="first")
    timed = Steps(packed.catalogue, packed.train.items, packed.train.offsets, batch, steps)
    rate, found = bf16_rate(), {}
    forms = {
        "as published": Recformer(published, dropout=wanted.dropout),
        "of the rows": prepared(packed, None, night(())),
    }
    for name, model in forms.items():
        ready(model, wanted)
        lengths = timed.lengths(model.shape.limits)
        seconds = ours(model, timed)
        work = flops(model.shape, lengths)
        found[name] = {"tokens_per_second": lengths.sum() / seconds, "share": work / seconds / rate}
    theirs = longformer(published, wanted.dropout, timed)
    lengths = timed.lengths(published.limits)
    found["Longformer"] = {
        "tokens_per_second": lengths.sum() / theirs,
        "share": flops(published, lengths) / theirs / rate,
    }
    ratio = found["as published"]["tokens_per_second"] / found["Longformer"]["tokens_per_second"]
    return {"bf16_tflops": rate / 1e12, "forms": found, "ratio_to_longformer": ratio}


def table_of(given: argparse.Namespace, packed_file: Path, init: Path | None) -> dict[str, Any]:
    """The rows, so many at a time."""
    overrides = QUICK if given.quick else ()
    chosen = given.only or (["untrained", "the probe, then everything, pre-trained"] if given.quick else list(ROWS))
    jobs = []
    # a fresh process each: an accelerator's state does not survive a fork
    threads = max(1, (os.cpu_count() or 1) // given.jobs)
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(given.jobs, spawn, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        for name in chosen:
            row = ROWS[name]
            for seed in range(1 if row.overrides == AS_IT_IS else given.seeds):
                settings = (*row.overrides, *overrides, f"seed={seed}")
                start = str(init) if row.pretrained else None
                jobs.append((name, pool.submit(run, str(packed_file), start, settings, f"{name}, seed {seed}")))
        found: dict[str, Any] = {name: {"overrides": list(ROWS[name].overrides), "runs": []} for name in chosen}
        for name, job in jobs:
            found[name]["runs"].append(job.result())
            common.say(f"{name}: {found[name]['runs'][-1]}")
    return found


def show(figures: dict[str, Any]) -> None:
    """For readers."""
    speed = figures["throughput"]
    print(f"a plain bf16 product runs at {speed['bf16_tflops']:.1f} TFLOP/s\n")
    print(
        common.table(
            [
                {
                    "form": name,
                    "tokens/s": f"{of['tokens_per_second']:,.0f}",
                    "share of bf16 rate": f"{of['share']:.1%}",
                }
                for name, of in speed["forms"].items()
            ]
        )
    )
    if figures["pretraining"] is not None:
        print("\npre-training: " + ", ".join(f"{name} {value}" for name, value in figures["pretraining"].items()))
    rows = [
        {"row": name, "overrides": " ".join(row["overrides"]) or "-"}
        | {column: both(row["runs"], column) for column in COLUMNS}
        | {"seconds": both(row["runs"], "seconds").partition(" ")[0]}
        for name, row in figures["rows"].items()
    ]
    print(f"\n{' '.join(TUNING)}\n\n{common.table(rows)}")


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--pack", type=Path, help="write what is needed there, and stop")
    parser.add_argument("--packed", type=Path, help="a file that --pack wrote, instead of the data")
    parser.add_argument("--init", type=Path, help="a pre-trained folder, instead of pre-training")
    parser.add_argument("--keep", type=Path, help="where the pre-trained folder goes; nowhere otherwise")
    parser.add_argument("--only", nargs="*", help="rows by name")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="trainings side by side")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.only or ()) - set(ROWS)):
        sys.exit(f"there is no row {unknown[0]!r}; rows: {'; '.join(ROWS)}")
    overrides = (*PRETRAINING, *(QUICK_PRETRAINING if given.quick else ()))
    with tempfile.TemporaryDirectory(prefix="recsys-recformer-") as folder:
        file = given.packed or given.pack or Path(folder) / "packed.npz"
        if given.packed is None:
            write(gather(given.data.resolve(), f"{folder}/warehouse", overrides), file)
            common.say(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")
            if given.pack is not None:
                return
        packed = read(file)
        if given.quick:
            packed, file = few(packed), Path(folder) / "few.npz"
            write(packed, file)
        speed = throughput(packed, 8 if given.quick else BATCH, 2 if given.quick else STEPS)
        common.say(str(speed))
        init, report = given.init, None
        if init is None and any(ROWS[name].pretrained for name in given.only or ROWS):
            init, report = pretrained(packed, overrides, given.keep or Path(folder))
        rows = table_of(given, file, init)
        figures = {"throughput": speed, "pretraining": report, "rows": rows, "overrides": list(TUNING)}
    common.answer(given, figures, show)


if __name__ == "__main__":
    common.from_shell(main)
