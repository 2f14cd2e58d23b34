"""Reach of the linear source's regressions and of the counted tables where the catalogue is large.

    OMP_NUM_THREADS=1 python benchmarks/regressions.py --data DATA

DATA holds amazon-beauty/Beauty.txt and, if wanted, amazon-games/Games.inter.json. Of each log, and of generated ones
(generated_log.py), each user's event before the last is asked, after the events before it. *Capped*: only the 6,000
most frequent items take part, as in former versions; *full*: all items at once, where that fits into memory; *nearest*:
the program's own way. Reach is the share of the training events whose items say something, and of the items asked that
can be proposed. Each line is measured in a process of its own: CPU seconds of the fit, and its peak of memory above the
data's. NDCG@10 ranks the whole catalogue without what was seen, by this source alone.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import common
import numpy as np
import polars as pl
from generated_log import write_log
from scipy import sparse

from recsys.candidates import linear, regressions, tables
from recsys.candidates.co_occurrence import TOGETHER, user_cosines
from recsys.candidates.transitions import SMOOTHING, transitions
from recsys.data.recency import DECAY, LAST, WHOLE, mean_weights, recency_weights
from recsys.machine import held_by_process, peak_memory

CAP: Final = 6_000  # items of the capped regression
FULL: Final = 20_000  # items up to which the full one is measured
ASKED: Final = 5_000  # users that are ranked, drawn at random
GENERATED: Final = ((1_000_000, 200_000, 10_000_000), (1_000_000, 1_000_000, 10_000_000))  # users, items, events
QUICK: Final = (10_000, 12_000, 200_000)
MILLIONS: Final = 1_000_000
Log = tuple[np.ndarray, np.ndarray, int, np.ndarray]  # training items and offsets, V, the item asked of each user


def main() -> None:
    """Print the figures."""
    parser = common.options(__doc__)
    parser.add_argument("--only", nargs="*", help="names of logs, such as beauty, games or 200000")
    given = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory(prefix="recsys-regressions-") as folder:
        for name, log in _logs(given.data, Path(folder), given.quick, given.only):
            path = Path(folder) / f"{name}.npz"
            np.savez(path, items=log[0], offsets=log[1], size=log[2], asked=log[3])
            for table, way in _ways(log[2], given.quick):
                common.say(f"{name}, {table}, {way}")
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    rows.append({"log": name} | pool.apply(measured, (path, table, way)))
    common.answer(given, {"regressions": rows}, show)


def show(figures: dict[str, Any]) -> None:
    """Print the table."""
    print(common.table(figures["regressions"]))


def measured(path: Path, table: str, way: str) -> dict[str, Any]:
    """A line of the table."""
    with np.load(path) as arrays:
        items, offsets, size, asked = arrays["items"], arrays["offsets"], int(arrays["size"]), arrays["asked"]
    fitted_on = items
    if way == "capped":
        counts = np.bincount(items, minlength=size + 1)
        best = np.argsort(-counts[1:], kind="stable")[:CAP] + 1
        fitted_on = np.where(np.isin(np.arange(size + 1), best)[items], items, 0).astype(np.int32)
    if way == "full":
        regressions.MOST = size  # type: ignore[misc]
    before, began = held_by_process(), time.process_time()
    with peak_memory(0.02) as peak:
        found, weights = _fit(table, fitted_on, offsets, size)
        seconds = time.process_time() - began
    speaks, proposed = tables.reach(found)
    rng = np.random.default_rng(0)
    users = np.sort(rng.permutation(len(asked))[:ASKED])
    return {
        "items": size,
        "events": len(items),
        "table": table,
        "way": way,
        "events reached": round(float(speaks[items].mean()), 3),
        "asked reached": round(float(proposed[asked].mean()), 3),
        "NDCG@10": round(_ndcg(found, weights, items, offsets, asked, users), 4),
        "CPU s": round(seconds, 1),
        "peak MB": round((max(peak.look(), before) - before) / MILLIONS),
        "kept MB": round((found.data.nbytes + found.indices.nbytes + found.indptr.nbytes) / MILLIONS),
    }


def _fit(table: str, items: np.ndarray, offsets: np.ndarray, size: int) -> tuple[sparse.csr_array, dict[str, Any]]:
    """The table, and how it weighs a history."""
    if table == "within":
        return linear.fit_within(items, offsets, size), {"last": WHOLE, "decay": 1.0}
    if table == "after":
        return linear.fit_after(items, offsets, size), {"last": linear.PAST, "decay": linear.FADING}
    if table == "together":
        return user_cosines(items, offsets, size, kept=tables.KEPT), {"last": TOGETHER, "decay": 1.0, "mean": True}
    found = transitions(items, offsets, size, smoothing=SMOOTHING, kept=tables.KEPT)
    return found, {"last": LAST, "decay": DECAY, "mean": True}


def _ways(size: int, quick: bool) -> Iterator[tuple[str, str]]:
    for table in ("within", "after"):
        yield table, "capped"
        if size <= FULL and not quick:
            yield table, "full"
        yield table, "nearest"
    for table in ("together", "followed"):
        yield table, "counted"


def _logs(data: Path, folder: Path, quick: bool, only: list[str] | None) -> Iterator[tuple[str, Log]]:
    if not quick and (not only or "beauty" in only):
        lines = (data / "amazon-beauty" / "Beauty.txt").read_text().splitlines()
        yield "beauty", _asked([[int(code) for code in line.split()[1:]] for line in lines])
    games = data / "amazon-games" / "Games.inter.json"
    if games.is_file() and not quick and (not only or "games" in only):
        yield "games", _asked(list(json.loads(games.read_text()).values()))
    for users, items, events in (QUICK,) if quick else GENERATED:
        if not only or str(items) in only:
            common.say(f"a log of {users:,} users, {items:,} items and {events:,} events")
            yield str(items), _generated(folder / str(items), users, items, events)


def _generated(folder: Path, users: int, items: int, events: int) -> Log:
    paths = write_log(folder, users=users, items=items, events=events)
    log = pl.concat([pl.read_parquet(path) for path in paths]).sort("user_id", "timestamp", maintain_order=True)
    for path in paths:
        path.unlink()
    log = log.filter(pl.len().over("user_id") >= 3)
    lengths = log["user_id"].rle().struct.field("len").to_numpy()
    return _without_last(log["item_id"].to_numpy().astype(np.int32), lengths, items)


def _asked(lists: list[list[int]]) -> Log:
    lists = [own for own in lists if len(own) >= 3]
    codes = np.unique(np.concatenate(lists), return_inverse=True)[1] + 1
    return _without_last(codes.astype(np.int32), np.array([len(own) for own in lists]), int(codes.max()))


def _without_last(items: np.ndarray, lengths: np.ndarray, size: int) -> Log:
    """The log without each user's last two events, and the first of these."""
    ends = np.cumsum(lengths)
    stays = np.ones(len(items), dtype=bool)
    stays[ends - 1] = stays[ends - 2] = False
    offsets = np.concatenate([[0], np.cumsum(lengths - 2)]).astype(np.int64)
    return items[stays], offsets, size, items[ends - 2]


def _ndcg(
    table: sparse.csr_array,
    weights: dict[str, Any],
    items: np.ndarray,
    offsets: np.ndarray,
    asked: np.ndarray,
    users: np.ndarray,
) -> float:
    """NDCG@10 of some users; what the table says nothing of is no hit."""
    size, found = table.shape[1] - 1, 0.0
    weigh = mean_weights if weights.pop("mean", False) else recency_weights
    for user in users:
        own, bounds = items[offsets[user] : offsets[user + 1]], np.array([0, offsets[user + 1] - offsets[user]])
        scores = (weigh(own, bounds, size, **weights) @ table).toarray()[0]
        value, code = scores[asked[user]], int(asked[user])
        scores[own] = -np.inf
        rank = 1 + np.count_nonzero(scores > value) + np.count_nonzero(scores[:code] == value)
        found += 1 / math.log2(1 + rank) if value > 0 and rank <= 10 else 0.0
    return found / len(users)


if __name__ == "__main__":
    common.from_shell(main)
