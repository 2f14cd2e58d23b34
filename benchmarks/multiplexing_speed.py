"""Forward, backward and update of the multiplexed table against a table per feature: examples a second, memory.

    .venv/bin/python benchmarks/multiplexing_speed.py

All arms look up the same examples in equally many rows of one width and end in an Adagrad update:

- multiplexed: one table, hashed in the step, sparse gradients, `features.rowwise.RowWiseAdagrad` (one float a row).
- separate: one `nn.Embedding` per feature with `torch.optim.Adagrad`, with sparse gradients (`sparse=True`) and with
  dense ones; `ratio_to_separate_tables` compares with the faster of the two, at 32 features and 10^6 rows.
- bags: one `nn.EmbeddingBag` per feature, likewise sparse or dense.
- torchrec: TorchRec's EmbeddingBagCollection with its fused row-wise Adagrad, of `make peers`.

Ids follow a power law. The peers read dense ids: the vocabulary that gives a value its id costs them nothing here. Each
measurement runs in a process of its own; the arms take turns, `--rounds` times, and the median counts, for a busy
machine's speed moves. Memory is the process's peak above what it held before its tables. `--features 8` measures one
number of features alone.
`--values 4` gives every feature four values an example (a mean over the bag); a table per feature then means bags.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from common import NO_PEERS, answer, ask_peer, say, table
from peers.ids import power_law
from torch import Tensor, nn

from recsys.features.hashing import hash_values
from recsys.features.multiplexed import Feature, FeatureBatch, MultiplexedFeatures, MultiplexedTable
from recsys.features.rowwise import RowWiseAdagrad

WIDTH = 16
BATCHES = 4  # different ones, in turn
ARMS = ("multiplexed", "separate, sparse", "separate, dense", "bags, sparse", "bags, dense", "torchrec")
Step = Callable[[int], Any]  # the number of a batch


@dataclass(frozen=True, kw_only=True)
class Case:
    """One measurement."""

    arm: str
    features: int
    rows: int  # of all tables together
    values: int  # an example and feature
    examples: int  # a batch
    seconds: float  # to measure for


def ids_of(case: Case) -> list[np.ndarray]:
    """int64 [features, examples * values] of each batch."""
    return power_law(rows=case.rows, features=case.features, values=case.examples * case.values, batches=BATCHES)


def multiplexed(case: Case) -> Step:
    """Our table: hashes in, one gather or one bag for all features."""
    kind = "single" if case.values == 1 else "multi"
    features = [Feature(name=f"f{i}", kind=kind) for i in range(case.features)]
    layer = MultiplexedFeatures(features, MultiplexedTable(case.rows, WIDTH, spread=0.05, sparse=True))
    optimizer = RowWiseAdagrad(layer.parameters(), lr=0.01)
    hashes = hash_values(range(case.rows // case.features))
    batches = []
    for ids in ids_of(case):
        hashed = torch.from_numpy(hashes[ids])
        if case.values == 1:
            values, bags, offsets = hashed.T.contiguous(), hashed.new_zeros(0), hashed.new_zeros(1)
        else:
            values, bags = hashed.new_zeros(case.examples, 0), hashed.flatten()
            offsets = torch.arange(0, hashed.numel() + 1, case.values)
        batches.append(FeatureBatch(values=values, bags=bags, offsets=offsets))
    return _step(lambda i: layer(batches[i]), optimizer, case)


def separate(case: Case) -> Step:
    """One `nn.Embedding` per feature."""
    sparse = case.arm.endswith("sparse")
    rows = case.rows // case.features
    tables = nn.ModuleList(nn.Embedding(rows, WIDTH, sparse=sparse) for _ in range(case.features))
    batches = [torch.from_numpy(ids) for ids in ids_of(case)]

    def look_up(i: int) -> Tensor:
        return torch.cat([embed(column) for embed, column in zip(tables, batches[i], strict=True)], dim=1)

    return _step(look_up, torch.optim.Adagrad(tables.parameters(), lr=0.01), case)


def bags(case: Case) -> Step:
    """One `nn.EmbeddingBag` per feature."""
    sparse = case.arm.endswith("sparse")
    rows = case.rows // case.features
    tables = nn.ModuleList(nn.EmbeddingBag(rows, WIDTH, mode="mean", sparse=sparse) for _ in range(case.features))
    batches = [torch.from_numpy(ids) for ids in ids_of(case)]
    offsets = torch.arange(0, case.examples * case.values, case.values)

    def look_up(i: int) -> Tensor:
        return torch.cat([embed(column, offsets) for embed, column in zip(tables, batches[i], strict=True)], dim=1)

    return _step(look_up, torch.optim.Adagrad(tables.parameters(), lr=0.01), case)


def _step(look_up: Callable[[int], Tensor], optimizer: torch.optim.Optimizer, case: Case) -> Step:
    """Forward, backward from a fixed gradient, update."""
    gradient = torch.randn(case.examples, case.features * WIDTH) / case.examples

    def step(batch: int) -> None:
        vectors = look_up(batch)
        vectors.backward(gradient)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def measure(case: Case) -> dict[str, float]:
    """Examples a second and peak memory in MB of one case, in this process."""
    torch.sparse.check_sparse_tensor_invariants.disable()  # unset, the peers' optimizer warns
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    build = {"multiplexed": multiplexed, "separate": separate, "bags": bags}
    step = build[case.arm.partition(",")[0]](case)
    for i in range(2):  # the first step makes the optimizer's state
        step(i % BATCHES)
    laps: list[float] = []
    while (sum(laps) < case.seconds and len(laps) < 200) or len(laps) < 3:
        began = time.perf_counter()
        step(len(laps) % BATCHES)
        laps.append(time.perf_counter() - began)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"examples_per_second": case.examples / float(np.median(laps)), "peak_mb": (peak - before) / 1024}


def in_turns(cases: list[dict[str, Any]], rounds: int) -> list[dict[str, Any]]:
    """Medians of each case, measured so many times in turn; without the cases whose peer is not installed."""
    measured: list[list[dict[str, Any]]] = [[] for _ in cases]
    for _ in range(rounds):
        for place, case in enumerate(cases):
            found = in_a_process(case)
            if found is not None:
                measured[place].append(found)
                say(
                    f"{case['features']} features, {case['rows']:,} rows, {case['arm']}: "
                    f"{found['examples_per_second']:,.0f} examples/s"
                )
    return [
        runs[0] | {key: median(run[key] for run in runs) for key in ("examples_per_second", "peak_mb")}
        for runs in measured
        if runs
    ]


def in_a_process(case: dict[str, Any]) -> dict[str, Any] | None:
    """`measure` in a fresh process; TorchRec's is one of the peers' environment, None where there is none."""
    if case["arm"] == "torchrec":
        answered = ask_peer("with_torchrec", case | {"width": WIDTH, "batches": BATCHES})
        return None if answered is None else case | answered
    done = subprocess.run(
        [sys.executable, __file__, "--case", json.dumps(case)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        sys.exit(f"the case {case} ended with status {done.returncode}; its messages stand above.")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return case | result


def ratios(measured: list[dict[str, Any]]) -> dict[str, dict[str, float]]:
    """For each case that has them: our examples a second over the faster form of each peer."""
    found: dict[str, dict[str, float]] = {}
    for ours in (m for m in measured if m["arm"] == "multiplexed"):
        same = [m for m in measured if all(m[key] == ours[key] for key in ("features", "rows", "values"))]
        for peer in ("separate", "bags", "torchrec"):
            speeds = [m["examples_per_second"] for m in same if m["arm"].partition(",")[0] == peer]
            if speeds:
                key = f"{ours['features']} features, {ours['rows']} rows"
                found.setdefault(key, {})[peer] = ours["examples_per_second"] / max(speeds)
    return found


def show(figures: dict[str, Any]) -> None:
    lines = [
        {
            "features": m["features"],
            "rows": f"{m['rows']:,}",
            "arm": m["arm"],
            "examples/s": f"{m['examples_per_second']:,.0f}",
            "peak MB": f"{m['peak_mb']:,.0f}",
        }
        for m in figures["cases"]
    ]
    print(f"\nwidth {WIDTH}, batches of {figures['batch']} examples, {figures['values']} value(s) a feature\n")
    print(table(lines))
    print("\nour examples a second over the faster form of each peer\n")
    print(table([{"case": key} | {k: f"{v:.1f}" for k, v in r.items()} for key, r in figures["ratios"].items()]))
    if not figures["torchrec"]:
        print(f"\n{NO_PEERS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, help="not read; the ids are generated")
    parser.add_argument("--quick", action="store_true", help="32 features and 10^6 rows alone, under a minute")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--values", type=int, default=1, help="values of a feature an example")
    parser.add_argument("--batch", type=int, default=4096, help="examples a step")
    parser.add_argument("--features", type=int, nargs="+", help="instead of 8, 32 and 128")
    parser.add_argument("--rounds", type=int, default=3, help="turns of all arms; their median counts")
    parser.add_argument("--case", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.case:
        print(json.dumps(measure(Case(**json.loads(given.case)))))
        return
    arms = [arm for arm in ARMS if given.values == 1 or not arm.startswith("separate")]
    sizes = given.features or ([32] if given.quick else [8, 32, 128])
    measured = []
    for features in sizes:
        for rows in (10**6,) if given.quick else (10**5, 10**6, 10**7):
            shared = {"features": features, "rows": rows, "values": given.values, "examples": given.batch}
            cases = [{"arm": arm, **shared, "seconds": 2.0} for arm in arms]
            measured += in_turns(cases, 1 if given.quick else given.rounds)
    compared = ratios(measured)
    headline = next((ratio for key, ratio in compared.items() if key == "32 features, 1000000 rows"), {})
    figures = {
        "batch": given.batch,
        "values": given.values,
        "width": WIDTH,
        "ratio_to_separate_tables": headline.get("separate"),
        "ratios": compared,
        "torchrec": any(m["arm"] == "torchrec" for m in measured),
        "cases": measured,
    }
    answer(given, figures, show)


if __name__ == "__main__":
    main()
