"""First candidates: two polars frames in, ten items for each user out.

    python examples/first_candidates.py [FOLDER]

FOLDER (default: a temporary one) keeps the warehouse, so a second start re-does only what changed.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import polars as pl

import recsys
from recsys.datasets.synthetic import generate


def main(folder: Path) -> pl.DataFrame:
    """Fit a small model, print the candidates of three users and what is near one item; return all candidates."""
    # stands for your own data: any frame with a user, an item and, if known, a time
    shop = generate(folder / "shop", users=300, items=320)
    events = pl.read_csv(shop.interactions)
    items = pl.read_ndjson(shop.items)

    settings = recsys.configure(events, items, folder=folder, overrides=["train.epochs=3"])
    model = recsys.fit(settings)

    newest_last = events.sort("timestamp").select("user_id", "item_id")
    candidates = model.recommend(newest_last, k=10)
    first = candidates["user_id"].unique(maintain_order=True).head(3)
    print(candidates.filter(pl.col("user_id").is_in(first.implode())))
    print(model.similar(candidates["item_id"][0], k=3))
    return candidates


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch))
