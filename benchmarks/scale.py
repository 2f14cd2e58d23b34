"""CPU seconds and peak memory of a night by step, up to a million users, a million items and a hundred million events.

    python benchmarks/scale.py
    python benchmarks/scale.py --only large --share 0.01
    python benchmarks/scale.py --quick --json

Each row is a shop that the script generates and a night over it in a process of its own, through `night`, with MLflow
and without Prefect: bert4rec of width 64, three epochs of sampled softmax, all sources, 100 items for every user.
Memory is what the kernel counts (VmHWM), set back before each step, so it needs Linux.

A night of the larger shops takes hours. So two nights are run in which a share of the users, and twice that share, is
learnt from and gets rows. What a step takes in both gives its fixed cost and its cost by user, and so the whole:
`= a + b * 1` in place of `a + b * share`. Reading, preparing and the catalogue are whole in both. `--share 1` runs the
night as it is. Peaks of memory are those of the second night.

*Search*: users a CPU second at 10^5 items of 128 dimensions, 100 items each, 50 seen ones left out, one thread, beside
RecTools' two rankers (one of them is implicit's) and torch's product and `topk` on the same vectors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import candidates
import common
import generated_log
import numpy as np
import polars as pl

SHOPS: Final[dict[str, dict[str, Any]]] = {
    "small": {"users": 100_000, "items": 50_000, "events": 1_000_000, "share": 1.0},
    "medium": {"users": 1_000_000, "items": 200_000, "events": 10_000_000, "share": 0.02},
    "large": {"users": 1_000_000, "items": 1_000_000, "events": 100_000_000, "share": 0.01},
}
QUICK: Final = {"quick": {"users": 2_000, "items": 1_000, "events": 20_000, "share": 0.25}}
STEPS: Final = ("ingest", "represent", "train", "evaluate", "refit", "retrieve", "judge", "publish", "report")
BY_USER: Final = ("train", "refit", "retrieve", "judge", "publish")  # the others do the same work in both nights
MIB: Final = 2**20


def configuration(folder: Path, share: float, number: int, text: bool) -> Any:
    """Settings of a night in which this share of the users counts."""
    from recsys.settings.read import parse_settings

    retrieve: dict[str, Any] = {"k": 100}
    if share < 1:
        users = pl.scan_parquet(folder / "log" / "*.parquet").select("user_id").unique().collect(engine="streaming")
        drawn = users["user_id"].sort().sample(fraction=share, seed=0)
        listed = folder / f"users-{number}.csv"
        pl.DataFrame({"user_id": drawn}).write_csv(listed)
        retrieve["users"] = str(listed)
    return parse_settings(
        {
            "name": "scale",
            "warehouse": str(folder / "warehouse"),
            "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
            "interactions": {
                "source": str(folder / "log" / "*.parquet"),
                "columns": {"user_id": "user_id", "item_id": "item_id", "timestamp": "timestamp"},
            },
            "items": {
                "source": str(folder / "items.parquet"),
                "columns": {"item_id": "item_id"},
                "categorical": {"category": {}, "brand": {}},
                "text": ["title"] if text else [],
            },
            "model": {"kind": "bert4rec", "dimensions": 64, "max_length": 50},
            "train": {"epochs": 3, "evaluate_every": 3, "batch_size": 256, "loss": "sampled", "users": share},
            "retrieve": retrieve,
            "gate": {"enabled": False},
        }
    )


def used() -> float:
    """CPU seconds of this process and of those that it has waited for."""
    own, others = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return own.ru_utime + own.ru_stime + others.ru_utime + others.ru_stime


def most() -> int:
    """Bytes that this process has held at most since it was last asked; what it holds from now on counts anew."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(lines["VmHWM"].split()[0])


def night(folder: str, share: float, number: int, text: bool) -> dict[str, Any]:
    """CPU seconds and peak bytes of each step of one night."""
    from recsys.pipelines import nightly
    from recsys.pipelines.watch import WATCH, Watch

    logging.disable()
    seconds: dict[str, float] = {}
    peaks: dict[str, int] = {}

    class Looking(Watch):
        @contextlib.contextmanager
        def step(self, name: str) -> Iterator[None]:
            most()
            began = used()
            yield
            seconds[name], peaks[name] = used() - began, most()

        def say(self, text: str) -> None:
            common.say(text)

        warn = say

    settings = configuration(Path(folder), share, number, text)
    token = WATCH.set(Looking())
    with contextlib.redirect_stdout(sys.stderr):
        summary = nightly.night(settings)
    WATCH.reset(token)
    listed = (summary["candidates"]["rows"], summary["candidates"]["users"])
    return {"seconds": seconds, "peaks": peaks, "rows": listed[0], "users": listed[1], "ndcg": summary["metrics"]}


def shop(name: str, of: dict[str, Any], text: bool, folder: Path | None) -> dict[str, Any]:
    """A row of the table: a shop, and its night by step."""
    share = of["share"]
    with tempfile.TemporaryDirectory(prefix="recsys-scale-", dir=folder) as made:
        common.say(f"{name}: generating {of['events']:,} events")
        generated_log.write_catalogue(Path(made), items=of["items"])
        generated_log.write_log(Path(made), users=of["users"], items=of["items"], events=of["events"])
        nights = []
        for number, part in enumerate([share] if share == 1 else [share, 2 * share]):
            common.say(f"{name}: a night with {part:.0%} of the users")
            nights.append(in_a_process({"folder": made, "share": part, "number": number, "text": text}))
    first, last = nights[0], nights[-1]
    steps = {}
    for step in (step for step in STEPS if step in first["seconds"]):
        spent = first["seconds"][step]
        whole = spent
        if share < 1 and step in BY_USER:
            by_user = max(0.0, last["seconds"][step] - spent) / share
            whole = max(0.0, spent - by_user * share) + by_user
        steps[step] = {"measured": spent, "whole": whole, "peak": max(n["peaks"][step] for n in nights)}
    return {
        "shop": name,
        **{key: of[key] for key in ("users", "items", "events", "share")},
        "text": text,
        "steps": steps,
        "total": sum(step["whole"] for step in steps.values()),
        "peak": max(step["peak"] for step in steps.values()),
        "nights": nights,
    }


def in_a_process(of: dict[str, Any]) -> dict[str, Any]:
    """`night` where nothing else has used memory."""
    command = [sys.executable, __file__, "--row", json.dumps(of)]
    began = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"The night of {of} ended with status {done.returncode}; its messages stand above.")
    common.say(f"done in {time.perf_counter() - began:.0f} s")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def searches(users: int) -> dict[str, Any]:
    """Users a CPU second among 10^5 items: ours, torch's, and RecTools' where it is installed."""
    ours = candidates.search(100_000, users)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((100_001, candidates.WIDTH), dtype=np.float32)
    vectors[0] = 0
    queries = rng.standard_normal((users, candidates.WIDTH), dtype=np.float32)
    seen = rng.integers(1, 100_001, users * candidates.SEEN).astype(np.int32)
    answer = common.ask_peer(
        "with_rectools",
        {"task": "rank", "k": candidates.K, "runs": 2},
        queries=queries,
        vectors=vectors,
        items=seen,
        offsets=np.arange(users + 1) * candidates.SEEN,
    )
    peers = {}
    if answer is not None:
        peers = {name: users / min(answer[name]["cpu"]) for name in ("TorchRanker", "ImplicitRanker")}
    best = max(peers.values(), default=None)
    return {
        "ours": ours["ours"],
        "torch": ours["torch"],
        "faiss": ours["faiss"],
        **peers,
        "ratio_to_torch_topk": ours["ours"] / ours["torch"],
        "ratio_to_rectools": None if best is None else ours["ours"] / best,
    }


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    found = figures["search"]
    print("\nsearch at 10^5 items, users a CPU second\n")
    ways = ("ours", "torch", "faiss", "TorchRanker", "ImplicitRanker")
    print(common.table([{way: f"{found[way]:,.0f}" for way in ways if way in found}]))
    print(f"\nto torch's topk: {found['ratio_to_torch_topk']:.1f} times")
    if found["ratio_to_rectools"] is None:
        print(common.NO_PEERS)
    else:
        print(f"to the faster ranker of RecTools: {found['ratio_to_rectools']:.1f} times")
    if not figures["rows"]:
        return
    print("\na night, CPU seconds and peak MiB by step; where a share was measured, its figure in brackets\n")
    rows = []
    for row in figures["rows"]:
        cells = {}
        for step in STEPS:
            if step in row["steps"]:
                of = row["steps"][step]
                measured = f" [{of['measured']:,.0f}]" if row["share"] < 1 and step in BY_USER else ""
                cells[step] = f"{of['whole']:,.0f}{measured} s, {of['peak'] / MIB:,.0f}"
        rows.append(
            {
                "users, items, events": f"{row['users']:,}, {row['items']:,}, {row['events']:,}",
                "share": f"{row['share']:.2g}",
                **cells,
                "night": f"{row['total'] / 3600:.2f} CPU h, {row['peak'] / MIB:,.0f}",
            }
        )
    print(common.table(rows))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a tiny shop and few searches: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    parser.add_argument("--only", choices=[*SHOPS, "search"], help="one shop, or the search alone")
    parser.add_argument("--share", type=float, help="of the users, in place of the shop's own")
    parser.add_argument("--text", action="store_true", help="titles are encoded by the default encoder, too")
    parser.add_argument("--folder", type=Path, help="where shops are generated; by default the folder for temporaries")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)  # one night, in a process of its own
    given = parser.parse_args()
    if given.row:
        print(json.dumps(night(**given.row)))
        return
    shops = QUICK if given.quick else {n: of for n, of in SHOPS.items() if given.only in (None, n)}
    if given.share:
        shops = {name: of | {"share": given.share} for name, of in shops.items()}
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found = searches(64 if given.quick else candidates.SEARCHES[100_000])
    rows = [shop(name, of, given.text, given.folder) for name, of in shops.items()]
    ratios = {name: found[name] for name in ("ratio_to_rectools", "ratio_to_torch_topk")}
    common.answer(given, {**ratios, "search": found, "rows": rows}, show)


if __name__ == "__main__":
    common.from_shell(main)
