"""Throughput of the metrics: a million users' lists of 100 items, measured by everything that a report holds.

    .venv/bin/python benchmarks/metrics_throughput.py --data .
    .venv/bin/python benchmarks/metrics_throughput.py --data . --quick --json

The lists and ranks are synthetic and come block by block, as ranking gives them; `seconds` leaves out the time that
making them takes. Measured are accuracy at every cut-off, curves, the measures of lists with one categorical attribute
and text vectors, slices with intervals, intervals of differences to one baseline, values per user, and a paired
comparison of two runs. Peak memory is what the kernel counts (VmHWM, Linux) for a process of its own. The first row
has a tenth of the users. `data_mib` is the peak before any measuring, histories and ranks included, and `lists_mib`
the peak when all lists are measured; the values per user add to it after that.

The data are generated, so `--data` is not read; every benchmark takes it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.evaluation.lists import ListMeasures, serendipity
from recsys.evaluation.metrics import FURTHER, METRICS, MISS, accuracy, curve, per_user
from recsys.evaluation.profiles import item_profiles
from recsys.evaluation.runs import compare_runs
from recsys.evaluation.significance import intervals
from recsys.evaluation.slices import measure_slices, slice_keys
from recsys.evaluation.users import UserValues, to_parquet, user_values

USERS = 1_000_000
ITEMS = 50_000
LENGTH = 20  # events of a history
K = 100
CUTOFFS = (5, 10, 20, 100)
WIDTH = 64  # of text vectors
BLOCK = 4096  # users
SMALLER = 10  # the second row has a tenth of the users
QUICK_USERS = 2000


def block(start: int, users: int, items: int) -> np.ndarray:
    """int32 [users, K] lists: K different items of each user, popular ones more often."""
    rng = np.random.default_rng(start)
    first = (rng.random((users, 1)) ** 2 * (items - 8 * K)).astype(np.int64)
    steps = rng.integers(1, 8, size=(users, K))
    return (1 + first + np.cumsum(steps, axis=1)).astype(np.int32)


def held_out(users: int, items: int) -> tuple[HeldOut, np.ndarray, pl.DataFrame]:
    """Questions of users with an attribute, popularity, and a catalogue with a categorical attribute."""
    rng = np.random.default_rng(0)
    codes = (1 + rng.random(users * LENGTH) ** 2 * (items - 1)).astype(np.int32)
    histories = Sequences(
        users=pl.Series("user_id", np.arange(users)),
        items=codes,
        offsets=np.arange(users + 1, dtype=np.int64) * LENGTH,
        times=np.sort(rng.integers(0, 10**15, users * LENGTH).reshape(users, LENGTH), axis=1).ravel(),
        attributes=pl.DataFrame({"age": rng.integers(18, 70, users).astype(np.float64)}),
    )
    asked = HeldOut(
        histories=histories,
        targets=(1 + rng.random(users) ** 2 * (items - 1)).astype(np.int32),
        times=np.full(users, 10**15, dtype=np.int64),
    )
    genres = pl.Series("genres", rng.integers(0, 18, (items, 2))).cast(pl.List(pl.String))
    catalogue = pl.DataFrame([pl.Series("item_id", np.arange(items)), genres])
    return asked, np.bincount(codes, minlength=items + 1).astype(np.float32), catalogue


def measure(users: int, items: int) -> dict[str, Any]:
    """All measures of one ranker and its comparison with another; seconds without the making of lists."""
    asked, popularity, catalogue = held_out(users, items)
    text = np.random.default_rng(1).standard_normal((items + 1, WIDTH)).astype(np.float32)
    ranks, other = (random_ranks(users, items, seed) for seed in (2, 3))
    before, began, cpu = _peak(), time.perf_counter(), time.process_time()
    making = making_cpu = 0.0
    attributes = catalogue.drop("item_id")
    lists = ListMeasures(item_profiles(popularity, attributes, text), asked.histories, cutoffs=CUTOFFS, k=10)
    for start in range(0, users, BLOCK):
        making -= time.perf_counter()
        making_cpu -= time.process_time()
        made = block(start, min(BLOCK, users - start), items)
        making += time.perf_counter()
        making_cpu += time.process_time()
        lists.add(made)
    lists.flush()
    after_lists, allowed = _peak(), np.arange(items + 1) > 0
    found = accuracy(ranks, CUTOFFS, "test", (*METRICS, *FURTHER)) | lists.coverages(allowed, "test")
    found |= lists.further(allowed, "test")
    found |= {f"serendipity_at_{k}": serendipity(ranks, popularity, asked.targets, k) for k in CUTOFFS}
    for metric in METRICS:
        curve(ranks, metric, range(1, K + 1))
    values = [np.stack([per_user(one, metric, 10) for metric in ("hr", "ndcg")], axis=1) for one in (ranks, other)]
    intervals(np.concatenate([values[0], values[0] - values[1]], axis=1), np.random.default_rng(0))
    keys = slice_keys(asked, popularity, attributes)
    slices = measure_slices(keys, ranks, 10, np.random.default_rng(0))
    runs = {
        name: UserValues(frame=user_values(asked, one, keys, catalogue, 10), about={})
        for name, one in (("a", ranks), ("b", other))
    }
    to_parquet(runs["a"])
    compare_runs(runs)
    seconds = time.perf_counter() - began - making
    return {
        "users": users,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu - making_cpu, 1),
        "users_per_second": round(users / seconds),
        "data_mib": round(before / 1024),
        "lists_mib": round(after_lists / 1024),
        "peak_mib": round(_peak() / 1024),
        "measures": len(found),
        "slices": len(slices),
    }


def random_ranks(users: int, items: int, seed: int) -> np.ndarray:
    """int64 [U] ranks of a model that knows something; a tenth is not ranked."""
    rng = np.random.default_rng(seed)
    ranks = np.minimum(np.exp(rng.normal(4.0, 2.0, users)).astype(np.int64) + 1, items)
    return np.where(rng.random(users) < 0.1, MISS, ranks)


def _peak() -> int:
    """Peak memory of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def show(figures: dict[str, Any]) -> None:
    print(f"\nlists of {K} of {ITEMS:,} items, histories of {LENGTH}\n")
    print(common.table(figures["rows"]))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--users", type=int, default=None, help=f"of the largest row, {USERS:,} if not given")
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)  # one row, in a process of its own
    given = parser.parse_args(arguments)
    if given.alone:
        print(json.dumps(measure(given.alone, ITEMS)))
        return
    users = given.users or (QUICK_USERS if given.quick else USERS)
    rows = []
    for count in (users // SMALLER, users):
        common.say(f"{count:,} users")
        command = [sys.executable, __file__, "--data", str(given.data), "--alone", str(count)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        rows.append(json.loads(done.stdout))
    common.answer(given, {"rows": rows}, show)


if __name__ == "__main__":
    common.from_shell(main)
