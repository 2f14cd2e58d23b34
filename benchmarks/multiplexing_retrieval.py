"""Effect of features and of the multiplexed table's size in retrieval: ids, attributes, text; memory; cold items.

    .venv/bin/python benchmarks/multiplexing_retrieval.py --data DATA --base ml-1m --seeds 3

Three parts, each a table (`--part a b c`, by default all):

a   ids alone; ids and attributes of items; of users, where the data have them; text; all of them
b   ids alone, with the table at 1.0, 0.5, 0.25 and 0.1 of the memory of a table without collisions, and 1, 2 and 4
    look-ups an id; beside them that table itself, a row an item, and a hashed one so large that few ids meet
c   cold items: a tenth of the items, drawn once, is taken out of the training histories, so that only attributes and
    text tell what they are. They are ranked among all items. Ids alone cannot place them and leave them out; the others
    hide ids in training (id dropout), so that content learns to stand alone, and do not take as negatives what no
    training event can ever make a positive (train.cold_negatives).

Every row is a short training of the configuration with the overrides that it prints: validation chooses the epoch, test
is read once (leave-one-out, all items ranked, seen items removed). `--base ml-1m` reads users.dat and the films' years,
too (configs/ml-1m-attributes.toml). DATA holds a folder of the base's name.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from statistics import mean, stdev
from typing import Any

import ablations
import common
import numpy as np
import torch

from recsys.data.prepare import Dataset, prepare
from recsys.ingestion.ingest import ingest
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.text.represent import represent

EPOCHS = 36
CONFIGURATIONS = {"ml-1m": "ml-1m-attributes"}  # where it is not the base's own
IDS = ("model.attributes=false", "model.user_attributes=false", "model.text=false", "model.id_dropout=0")
SHARES = (1.0, 0.5, 0.25, 0.1)
LOOKUPS = (1, 2, 4)
AMPLE = 32  # times the memory: of the ids 3% share their row
COLD_SHARE = 0.1
ID_DROPOUT = 0.2  # of part c
QUICK = ("model.dimensions=16", "model.max_length=20", "model.blocks=1", "train.batch_size=128")
QUICK_USERS = 200


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table: its name, what it overrides, and what is done to its untrained model."""

    name: str
    overrides: tuple[str, ...]
    change: Callable[[Bert4Rec], None] = lambda model: None


def channels(settings: Settings) -> Iterator[Row]:
    """Part a."""
    users = settings.users is not None
    yield Row(name="ids", overrides=IDS)
    yield Row(name="+ attributes", overrides=(*IDS, "model.attributes=true"))
    if users:
        yield Row(name="+ user attributes", overrides=(*IDS, "model.user_attributes=true"))
    yield Row(name="+ text", overrides=(*IDS, "model.text=true"))
    every = ("model.attributes=true", "model.text=true", *(["model.user_attributes=true"] if users else []))
    yield Row(name="+ all", overrides=(*IDS, *every))


def budgets(settings: Settings, items: int) -> Iterator[Row]:
    """Part b: a look-up reads rows of width D / look-ups, so that with k look-ups k times the rows fit."""
    alone = (*IDS, "model.id_lookups=1", f"model.table_rows={items}")
    yield Row(name="without collisions", overrides=alone, change=rows_of_their_own)
    ample = (*IDS, "model.id_lookups=1", f"model.table_rows={AMPLE * items}")
    yield Row(name=f"{AMPLE}, 1 look-up", overrides=ample)
    for share in SHARES:
        for lookups in LOOKUPS:
            rows = max(16, round(share * items * lookups))
            overrides = (*IDS, f"model.id_lookups={lookups}", f"model.table_rows={rows}")
            yield Row(name=f"{share:g}, {lookups} look-up{'s' * (lookups > 1)}", overrides=overrides)


def rows_of_their_own(model: Bert4Rec) -> None:
    """Item `i` reads row `i - 1` of the table and no other item does."""
    items = len(model.tower.id_rows) - 1
    assert model.tower.table is not None and model.tower.table.rows == items and model.tower.id_rows.shape[1] == 1
    own = torch.arange(-1, items)[:, None]
    own[0] = items  # padding
    model.tower.id_rows.copy_(own)


def cold(settings: Settings) -> Iterator[Row]:
    """Part c."""
    hidden, fair = f"model.id_dropout={ID_DROPOUT}", "train.cold_negatives=false"
    yield Row(name="ids", overrides=IDS)
    yield Row(name="attributes", overrides=(*IDS, "model.attributes=true", hidden, fair))
    yield Row(name="text", overrides=(*IDS, "model.text=true", hidden, fair))
    both = (*IDS, "model.attributes=true", "model.text=true")
    yield Row(name="attributes and text", overrides=(*both, hidden, fair))
    yield Row(name="attributes and text, ids never hidden", overrides=(*both, fair))
    yield Row(name="attributes and text, cold items as negatives", overrides=(*both, hidden))


def without_some(dataset: Dataset, share: float) -> Dataset:
    """The data set without training events of a share of the trained items, drawn by a seed of its own.

    Histories to ask from, and what came next, stay as they are.
    """
    trained = np.flatnonzero(dataset.trained_items())
    chosen = np.random.default_rng(0).permutation(trained)[: round(share * len(trained))]
    hidden = np.zeros(dataset.vocabulary.size + 1, dtype=bool)
    hidden[chosen] = True
    train = dataset.split.train
    return replace(dataset, split=replace(dataset.split, train=train.keep(~hidden[train.items])))


def measured(rows: list[Row], dataset: Dataset, load: Callable[..., Settings], seeds: int) -> dict[str, dict[str, Any]]:
    """Figures of each seed of each row."""
    found = {}
    for row in rows:
        runs = []
        for seed in range(seeds):
            settings = load(*row.overrides, f"seed={seed}")
            runs.append(ablations.measure(settings, dataset, row.name, row.change))
            common.say(f"{row.name}, seed {seed}: {runs[-1]}")
        found[row.name] = {"overrides": list(row.overrides), "runs": runs}
    return found


def show(figures: dict[str, Any]) -> None:
    """The tables for readers."""

    def spread(runs: list[dict[str, float]], name: str) -> str:
        values = [run[name] for run in runs]
        return f"{mean(values):.4f}" + (f" ± {stdev(values):.4f}" if len(values) > 1 else "")

    columns = {"HR@10": "hr", "NDCG@10": "ndcg"}
    of_cold = {"cold HR@10": "cold_hr", "cold NDCG@10": "cold_ndcg"}
    print(f"{figures['configuration']}, {figures['epochs']} epochs, {figures['items']:,} items, test")
    for part, rows in figures["parts"].items():
        print(f"\npart {part}\n")
        shown = columns | (of_cold if part == "c" else {})
        lines = [
            {"row": name} | {title: spread(row["runs"], key) for title, key in shown.items()}
            for name, row in rows.items()
        ]
        print(common.table(lines))
    if "c" in figures["parts"]:
        print(f"\n{figures['cold_targets']:,} test users came to an item that training did not have")


def options() -> argparse.ArgumentParser:
    """This script's options."""
    parser = common.options(__doc__)
    parser.add_argument("--base", default="ml-1m", help="a configuration in configs/, and the data folder's name")
    parser.add_argument("--part", nargs="*", choices=["a", "b", "c"], default=["a", "b", "c"])
    parser.add_argument("--only", nargs="*", help="rows by name")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--set", nargs="*", action="extend", default=[], help="overrides for every row")
    return parser


def some_users(dataset: Dataset, users: int) -> Dataset:
    """The data set of its first users."""
    split, first = dataset.split, np.arange(users)

    def part(of: Any) -> Any:
        return replace(of, histories=of.histories.select(first), targets=of.targets[first], times=None)

    train = split.train.select(first)
    return replace(dataset, split=replace(split, train=train, validation=part(split.validation), test=part(split.test)))


def prepared(load: Callable[..., Settings], text: bool, users: int | None) -> Dataset:
    """The prepared data, with text vectors in the warehouse where a row reads them."""
    settings = load()
    versions = ingest(settings).versions
    if text:
        represent(settings, versions)
    dataset = prepare(settings, versions)
    return dataset if users is None else some_users(dataset, users)


def main(arguments: list[str] | None = None) -> None:
    given = options().parse_args(arguments)
    name = CONFIGURATIONS.get(given.base, given.base)
    epochs, seeds = (1, 1) if given.quick else (given.epochs, given.seeds)
    with tempfile.TemporaryDirectory(prefix="recsys-multiplexing-") as folder:
        every = [
            f"data_root={(given.data / given.base).resolve()}",
            f"warehouse={folder}",
            f"train.epochs={epochs}",
            "train.patience=1000",
            "evaluate.baselines=[]",
            *(QUICK if given.quick else ()),
            *given.set,
        ]

        def load(*overrides: str) -> Settings:
            return load_settings(common.ROOT / "configs" / f"{name}.toml", [*every, *overrides])

        reads_text = not given.quick and bool({"a", "c"} & set(given.part))
        dataset = prepared(load, reads_text, QUICK_USERS if given.quick else None)
        settings, items = load(), dataset.vocabulary.size
        parts = {"a": list(channels(settings)), "b": list(budgets(settings, items)), "c": list(cold(settings))}
        unknown = set(given.only or ()) - {row.name for part in given.part for row in parts[part]}
        if unknown:
            sys.exit(f"there is no row {sorted(unknown)[0]!r} in part {' or '.join(given.part)}")
        fewer = without_some(dataset, COLD_SHARE)
        lacking = ~fewer.trained_items()[fewer.split.test.targets] & (fewer.split.test.targets > 0)
        figures: dict[str, Any] = {"configuration": name, "epochs": epochs, "items": items, "parts": {}}
        figures["cold_targets"] = int(lacking.sum())
        for part in given.part:
            rows = [row for row in parts[part] if not given.only or row.name in given.only]
            if given.quick:  # the first rows that need no text
                rows = [row for row in rows if "model.text=true" not in row.overrides][:3]
            if rows:
                figures["parts"][part] = measured(rows, fewer if part == "c" else dataset, load, seeds)
    common.answer(given, figures, show)


if __name__ == "__main__":
    common.from_shell(main)
