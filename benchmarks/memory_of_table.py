"""Ranking accuracy with the multiplexed table at 1, .5, .25 and .1 of a row an item, on a catalogue of 10^5 items.

    python benchmarks/memory_of_table.py
    python benchmarks/memory_of_table.py --items 200_000 --events 4_000_000
    python benchmarks/memory_of_table.py --quick --json

The shop is generated (`generated_log.py`), because no public log with so many items may be carried along. The first row
has a row of its own for every item. The others share rows: two look-ups an id, each half as wide, so that a share of 1
takes the same memory. Every row is bert4rec of 64 dimensions trained on the same events with the same seed; validation
chooses the epoch, test is read once (leave-one-out, all items ranked, seen items removed, a sample of the users).
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, stdev
from typing import Any, Final

import common
import generated_log
import multiplexing_retrieval

from recsys.data.prepare import prepare
from recsys.ingestion.ingest import ingest
from recsys.settings import Settings
from recsys.settings.read import override_of, parse_settings

WIDTH, LOOKUPS = 64, 2
SHARES: Final = (1.0, 0.5, 0.25, 0.1)
IDS: Final = {"attributes": False, "text": False, "id_dropout": 0.0}
MIB: Final = 2**20


def configuration(folder: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Settings that every row shares."""
    return {
        "name": "memory-of-table",
        "warehouse": str(folder / "warehouse"),
        "interactions": {
            "source": str(folder / "log" / "*.parquet"),
            "columns": {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"},
        },
        "model": {"kind": "bert4rec", "dimensions": WIDTH, "max_length": 50, "blocks": 1, **IDS},
        "train": {
            "epochs": given.epochs,
            "patience": 1000,
            "batch_size": 256,
            "loss": "sampled",
            "validation_users": given.test_users,
        },
        "evaluate": {"users": given.test_users, "baselines": []},
    }


def rows(items: int) -> Iterator[multiplexing_retrieval.Row]:
    """A table without collisions, then the shares of its memory."""
    alone = ("model.id_lookups=1", f"model.table_rows={items}")
    yield multiplexing_retrieval.Row(
        name="a row an item", overrides=alone, change=multiplexing_retrieval.rows_of_their_own
    )
    for share in SHARES:
        overrides = (f"model.id_lookups={LOOKUPS}", f"model.table_rows={max(16, round(share * items * LOOKUPS))}")
        yield multiplexing_retrieval.Row(name=f"{share:g}", overrides=overrides)


def numbers(row: multiplexing_retrieval.Row, items: int) -> int:
    """Numbers of a row's table."""
    count = next(int(text.partition("=")[2]) for text in row.overrides if text.startswith("model.table_rows"))
    return count * WIDTH // (1 if row.name == "a row an item" else LOOKUPS)


def show(figures: dict[str, Any]) -> None:
    """The table for readers."""

    def spread(runs: list[dict[str, float]], name: str, digits: int = 4) -> str:
        values = [run[name] for run in runs]
        return f"{mean(values):.{digits}f}" + (f" ± {stdev(values):.{digits}f}" if len(values) > 1 else "")

    print(f"{figures['items']:,} items, {figures['events']:,} events, {figures['epochs']} epochs, test\n")
    lines = [
        {
            "memory of the table": name,
            "MiB": f"{row['mib']:.1f}",
            "HR@10": spread(row["runs"], "hr"),
            "NDCG@10": spread(row["runs"], "ndcg"),
            "CPU minutes": spread(row["runs"], "cpu_minutes", 1),
        }
        for name, row in figures["rows"].items()
    ]
    print(common.table(lines))


def main(arguments: list[str] | None = None) -> None:
    """Make the shop, train every row, and answer."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny shop and one epoch: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    for name, size in (("users", 200_000), ("items", 100_000), ("events", 2_000_000), ("test-users", 10_000)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args(arguments)
    if given.quick:
        given.users, given.items, given.events, given.test_users, given.epochs = 1_000, 500, 15_000, 200, 1
    with tempfile.TemporaryDirectory(prefix="recsys-memory-of-table-") as name:
        folder = Path(name)
        generated_log.write_log(folder, users=given.users, items=given.items, events=given.events)
        plain = configuration(folder, given)

        def load(*overrides: str) -> Settings:
            tree = {section: dict(values) if isinstance(values, dict) else values for section, values in plain.items()}
            for (*sections, key), value in map(override_of, overrides):
                (tree[sections[0]] if sections else tree)[key] = value
            return parse_settings(tree)

        dataset = prepare(load(), ingest(load()).versions)
        items = dataset.vocabulary.size
        every = list(rows(items))
        found = multiplexing_retrieval.measured(every, dataset, load, given.seeds)
        figures = {
            "items": items,
            "events": len(dataset.split.train.items),
            "epochs": given.epochs,
            "rows": {row.name: found[row.name] | {"mib": 4 * numbers(row, items) / MIB} for row in every},
        }
    common.answer(given, figures, show)


if __name__ == "__main__":
    common.from_shell(main)
