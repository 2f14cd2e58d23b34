"""A generated shop of any size, to measure speed and memory on: a log in Parquet files by period, and a catalogue.

    python benchmarks/generated_log.py FOLDER --users 1_000_000 --items 1_000_000 --events 100_000_000

Each user has a place in the catalogue; six of ten items lie near it, the others are drawn by popularity, so that models
have something to learn. Files follow each other in time. Each is made from the seed and its number alone, so memory
stays flat, and a longer log begins as a shorter one with files of the same size.
"""

from __future__ import annotations

import argparse
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl

ROWS: Final = 2_500_000  # of a file
START: Final = datetime(2025, 1, 1, tzinfo=UTC)
SPAN: Final = timedelta(days=365)
NEAR: Final = 0.6  # share of the events near the user's place
SPREAD: Final = 0.3  # of the logarithm of the code, around the place
CATEGORIES, BRANDS, WORDS = 400, 5_000, 20_000


def write_log(folder: Path, *, users: int, items: int, events: int, seed: int = 0, rows: int = ROWS) -> list[Path]:
    """Write `log/NNNN.parquet` with the columns user_id, item_id, timestamp; about `events` rows in all.

    Users differ in activity by a factor of about 20; user and item ids are integers from 1.
    """
    (folder / "log").mkdir(parents=True, exist_ok=True)
    files = -(-events // rows)
    span = int(SPAN.total_seconds() * 1_000_000)
    paths = []
    for number in range(files):
        rng = np.random.default_rng((seed, 1, number))
        count = min(rows, events - number * rows)
        owners = (users * rng.random(count) ** 1.5).astype(np.int64)
        places = np.exp(_unit(owners, seed) * np.log(items))
        near = places * np.exp(SPREAD * rng.standard_normal(count))
        anywhere = np.exp(rng.random(count) * np.log(items))
        codes = np.where(rng.random(count) < NEAR, near, anywhere)
        moments = np.sort(rng.integers(span * number // files, span * (number + 1) // files, count))
        frame = pl.DataFrame(
            {
                "user_id": owners + 1,
                "item_id": np.clip(codes, 1, items).astype(np.int64),
                "timestamp": int(START.timestamp() * 1_000_000) + moments,
            }
        ).with_columns(pl.col("timestamp").cast(pl.Datetime("us", "UTC")))
        path = folder / "log" / f"{number:04}.parquet"
        frame.write_parquet(path)
        paths.append(path)
    return paths


def write_catalogue(folder: Path, *, items: int, seed: int = 0) -> Path:
    """Write `items.parquet` with the columns item_id, title, category, brand; neighbours share words and category."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng((seed, 2))
    codes = np.arange(1, items + 1)
    bands = np.log(codes) / np.log(items + 1)
    frame = pl.DataFrame(
        {
            "item_id": codes,
            "title": [
                f"w{a} w{b} x{c}"
                for a, b, c in zip(
                    (bands * WORDS).astype(int).tolist(),
                    rng.integers(0, WORDS, items).tolist(),
                    codes.tolist(),
                    strict=True,
                )
            ],
            "category": [f"c{number}" for number in (bands * CATEGORIES).astype(int).tolist()],
            "brand": [f"b{number}" for number in rng.integers(0, BRANDS, items).tolist()],
        }
    )
    path = folder / "items.parquet"
    frame.write_parquet(path)
    return path


def _unit(owners: np.ndarray, seed: int) -> np.ndarray:
    """A number from [0, 1) for each user, always the same: splitmix64's finalizer."""
    mixed = owners.astype(np.uint64) + np.uint64((seed + 1) * 0x9E3779B97F4A7C15 % 2**64)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return (mixed ^ (mixed >> np.uint64(31))).astype(np.float64) / 2.0**64


def main() -> None:
    """Write the shop that the command line asks for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path)
    for name, size in (("users", 100_000), ("items", 50_000), ("events", 1_000_000)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    write_catalogue(given.folder, items=given.items, seed=given.seed)
    write_log(given.folder, users=given.users, items=given.items, events=given.events, seed=given.seed)


if __name__ == "__main__":
    main()
