"""Offline evaluation: two models of one shop beside the baselines, with paired intervals.

    python examples/compare_models.py [FOLDER]

Both configurations share the warehouse's tables and differ in one key. All items are ranked for each user's last item.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import polars as pl

import recsys
from recsys.datasets.synthetic import generate

METRIC = "test/ndcg_at_10"


def main(folder: Path) -> pl.DataFrame:
    """Train by both objectives and return a row a ranker: NDCG@10, and what the served one has more, with 95%."""
    shop = generate(folder / "shop", users=300, items=320)
    rows = []
    for objective in ("cloze", "next-item"):
        settings = recsys.configure(
            shop.interactions,
            shop.items,
            folder=folder / objective,
            overrides=["train.epochs=4", f"model.objective={objective}"],
        )
        report = recsys.evaluate(settings, recsys.fit(settings))
        rows.append({"objective": objective, "ranker": report.served, "ndcg": report.metrics[METRIC]})
        for name, metrics in report.baselines.items():
            more = report.differences[name][METRIC]
            rows.append({"objective": objective, "ranker": name, "ndcg": metrics[METRIC]} | more)
    table = pl.DataFrame(rows)
    print(table)
    return table


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch))
