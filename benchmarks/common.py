"""Shared parts of the benchmark scripts: options, the machine, tables, histories, models and the peers' environment."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from recsys.data.sequences import Sequences
from recsys.errors import RecsysError, first_line
from recsys.features.precision import KERNELS
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.models.sequential.build import table_rows
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import train
from recsys.settings import ModelSettings, TrainSettings

ROOT = Path(__file__).resolve().parent.parent
PLAIN: dict[str, Any] = {"mask_last_share": 0.0, "next_item_share": 0.0, "average_decay": 0.0}  # the objective, no more
PEERS_PYTHON = ROOT / ".venv-peers" / "bin" / "python"  # of `make peers`; NumPy 1.26 lives there, not here
LOAD = os.getloadavg()[0]  # before any work of ours: above about half a core, other programs blur the figures
NO_PEERS = "The peers are not installed, so only our figures are here; `make peers` installs them."


def options(doc: str | None) -> argparse.ArgumentParser:
    """The options of every script; `doc` is its docstring."""
    parser = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data folders")
    parser.add_argument("--quick", action="store_true", help="fewer rows, under a minute on 2 cores: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    return parser


def from_shell(main: Callable[[], None]) -> None:
    """A script from the shell: what it misses is said in one sentence."""
    try:
        main()
    except RecsysError as error:
        sys.exit(str(error))
    except FileNotFoundError as error:
        missing = f"{error.filename} is not there" if error.filename else first_line(error)  # polars names it in words
        sys.exit(f"{missing}; the script's head says what --data holds.")


def settled() -> None:
    """Return when the accelerator has done what it was asked for: it works behind the program's back."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> dict[str, Any]:
    """Circumstances that figures depend on besides the code."""
    return {
        "cpu": _cpu(),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(LOAD, 1),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }


def machine_line(of: dict[str, Any]) -> str:
    """`machine()` for readers."""
    cores = f"{of['cores']} cores, {of['threads']} threads, load {of['load_before']} before"
    accelerator = f"{of['accelerator']}, " if of["accelerator"] else ""
    return f"{accelerator}{of['cpu']}, {cores}, torch {of['torch']}, Python {of['python']}, {of['date']}"


def say(text: str) -> None:
    """Progress, away from the answer."""
    print(text, file=sys.stderr, flush=True)


def answer(given: argparse.Namespace, figures: dict[str, Any], show: Callable[[dict[str, Any]], None]) -> None:
    """The script's answer: one JSON object, or the machine and what `show` prints."""
    of = machine()
    if given.json:
        print(json.dumps({"machine": of, "quick": given.quick} | figures))
        return
    print(machine_line(of))
    show(figures)


class Kept:
    """Figures of long runs in a file of JSON lines, so that hours can be had in parts; without a file nothing is kept.

    After a change of the program, begin another file.
    """

    def __init__(self, file: Path | None) -> None:
        self.file = file
        self.known: dict[str, Any] = {}
        for line in file.read_text().splitlines() if file is not None and file.is_file() else ():
            with suppress(ValueError):  # half a line, of a call that was killed
                entry = json.loads(line)
                self.known[entry["run"]] = entry["figures"]

    def figures(self, run: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Those of the run of this name: an earlier call's, or what `measure` gives, which is added."""
        if run not in self.known:
            self.known[run] = measure()
            if self.file is not None:
                with self.file.open("a") as file:
                    file.write("\n" + json.dumps({"run": run, "figures": self.known[run]}))
        found: dict[str, Any] = self.known[run]
        return found


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of equal keys as a Markdown table; a word where there is none, as of a run that was stopped early."""
    if not rows:
        return "(none)"
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


def histories(file: Path, users: int | None = None) -> Sequences:
    """Histories of a file of lines "user item", oldest first inside a user; `users`: the first so many.

    Items are numbered anew, from 1 to their count.
    """
    frame = pl.read_csv(file, separator=" ", has_header=False, new_columns=["user", "item"])
    frame = frame.with_columns(pl.col("user").rle_id().alias("place"))
    if users is not None:
        frame = frame.filter(pl.col("place") < users)
    lengths = frame["place"].rle().struct.field("len").to_numpy()
    return renumbered(
        Sequences(
            users=frame["user"].unique(maintain_order=True),
            items=frame["item"].to_numpy().astype(np.int32),
            offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        )
    )


def renumbered(sequences: Sequences) -> Sequences:
    """The same histories, with the items that occur numbered from 1."""
    codes = np.unique(sequences.items, return_inverse=True)[1] + 1
    return Sequences(users=sequences.users, items=codes.astype(np.int32), offsets=sequences.offsets)


def newest(sequences: Sequences, length: int) -> Sequences:
    """The last `length` events of each history."""
    starts, ends = sequences.offsets[:-1], sequences.offsets[1:]
    return sequences.crop(np.arange(len(sequences)), np.maximum(starts, ends - length), ends)


def id_model(items: int, settings: ModelSettings) -> Bert4Rec:
    """An untrained model of a catalogue of ids alone; the same weights every time."""
    rng = np.random.default_rng(0)
    features = ItemFeatures(
        id_hashes=torch.from_numpy(np.concatenate([[0], rng.integers(0, 2**62, items)])),
        trained=torch.ones(items + 1, dtype=torch.bool),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Bert4Rec(features, settings, settings.table_rows or table_rows(features, settings))


def epoch_seconds(model: Bert4Rec, sequences: Sequences, settings: TrainSettings, max_length: int) -> list[float]:
    """Seconds of each epoch of a training without validation."""
    training = train(
        model,
        sequences.items,
        sequences.offsets,
        settings.model_copy(update={"evaluate_every": settings.epochs}),
        seed=0,
        max_length=max_length,
        validate=lambda model: {"none": 0.0},
        primary="none",
    )
    return [entry["seconds"] for entry in training.history]


def ask_peer(script: str, job: dict[str, Any], **arrays: np.ndarray) -> dict[str, Any] | None:
    """Return what a script of peers/ answers in the peers' environment; None where that is not installed.

    Parameters
    ----------
    script
        Its name, without the suffix.
    job
        What it is asked, JSON-friendly.
    arrays
        Handed over in a file.
    """
    if not (PEERS_PYTHON.parent.parent / ".installed").exists():
        return None
    with tempfile.TemporaryDirectory(prefix="recsys-peers-") as folder:
        path = Path(folder) / "arrays.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        done = subprocess.run(
            [str(PEERS_PYTHON), str(ROOT / "benchmarks" / "peers" / f"{script}.py")],
            input=json.dumps({"arrays": str(path), **job}),
            stdout=subprocess.PIPE,
            text=True,
            check=False,
            cwd=folder,  # the peers write beside themselves
            env={name: value for name, value in os.environ.items() if name != KERNELS},  # which is ours
        )
    if done.returncode:
        sys.exit(f"{script}.py did not finish (exit status {done.returncode}); its messages stand above.")
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


def _cpu() -> str:
    """The processor's name; Linux knows it best."""
    info = Path("/proc/cpuinfo")
    names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
