"""Evaluation throughput in users a second: every item ranked, seen items removed; beside RecTools and plain torch.

    make peers
    .venv/bin/python benchmarks/evaluation_throughput.py --data DATA

Histories are those of ml-1m's test part. Two tables, each with the same work on both sides:

- *encoding and ranking*: from histories to lists (and, ours, the rank of the held-out item). RecTools is `recommend` of
  its BERT4Rec and SASRec, as a user calls it; ours is the encoder and `rank_targets`, or the encoder and the
  candidates' `top_k`. Same width, blocks, heads, length and feed-forward (4 D wide in BERT4Rec, D in SASRec); weights
  nobody trained, which takes as long.
- *ranking alone*: from given vectors to lists. RecTools is its two rankers, the plain torch is one product, seen items
  set to minus infinity and `torch.topk` in blocks of users.

One run is the warm-up, the figure is the median of the others. `agreement` is the share of users whose list equals
that of plain torch as a set.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import common
import numpy as np
import torch

from recsys.data.splits import HeldOut, leave_one_out
from recsys.evaluation.ranking import rank_targets
from recsys.features.precision import activation_dtype
from recsys.models.sequential.bert4rec import encode_queries
from recsys.retrieval.index import build_index
from recsys.retrieval.top_k import top_k
from recsys.settings import ModelSettings

MODEL = ModelSettings(dimensions=64, blocks=2, heads=2, max_length=200, rotary=False, temperature=None)
PEERS = {"BERT4RecModel": "cloze", "SASRecModel": "next-item"}
WIDENING = {"cloze": 4, "next-item": 1}  # of the feed-forward, in multiples of D, as those two have it
QUICK_USERS = 500
BLOCK = 1024  # users that plain torch ranks at once


def times(runs: int, work: Callable[[], Any]) -> tuple[list[float], Any]:
    """Seconds of each run, after one that is not counted, and the last result."""
    seconds, result = [], work()
    for _ in range(runs):
        began = time.perf_counter()
        result = work()
        seconds.append(time.perf_counter() - began)
    return seconds, result


def plain_torch(queries: np.ndarray, vectors: np.ndarray, held_out: HeldOut, k: int) -> np.ndarray:
    """int [U, k] codes by one product and `torch.topk`; row 0 of the vectors is padding."""
    items, offsets = held_out.histories.items, held_out.histories.offsets
    table = torch.from_numpy(vectors)
    lists = []
    for start in range(0, len(queries), BLOCK):
        stop = min(start + BLOCK, len(queries))
        scores = torch.from_numpy(queries[start:stop]) @ table.T
        scores[:, 0] = -torch.inf
        rows = np.repeat(np.arange(stop - start), np.diff(offsets[start : stop + 1]))
        scores[torch.from_numpy(rows), torch.from_numpy(items[offsets[start] : offsets[stop]]).long()] = -torch.inf
        lists.append(scores.topk(k, dim=1).indices.numpy())
    return np.concatenate(lists)


def agreement(lists: np.ndarray, reference: np.ndarray) -> float:
    """Share of users with the same k items."""
    return float((np.sort(lists, axis=1) == np.sort(reference, axis=1)).all(axis=1).mean())


def measure(held_out: HeldOut, k: int, runs: int) -> dict[str, Any]:
    """All figures, JSON-friendly."""
    histories, users = held_out.histories, len(held_out)
    items = int(histories.items.max())
    figures: dict[str, Any] = {"users": users, "items": items, "k": k, "full": {}, "ranking": {}, "ratios": {}}

    def ranked(queries: np.ndarray, vectors: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return rank_targets(lambda a, b: queries[a:b] @ vectors.T, held_out, allowed, top_k=k).top

    def candidates(queries: np.ndarray, vectors: np.ndarray, allowed: np.ndarray) -> np.ndarray:
        return top_k(build_index(vectors, allowed), queries, histories, k=k)[0]

    def encoded(objective: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        vectors, allowed = models[objective].item_vectors()
        table = torch.from_numpy(vectors[:, :-1]).to(activation_dtype("auto"))
        queries = encode_queries(models[objective].encoder, table, histories.items, histories.offsets, MODEL.max_length)
        return queries, vectors, allowed

    def add(part: str, name: str, seconds: list[float], **more: Any) -> float:
        figures[part][name] = {"seconds": seconds, "users_per_second": users / median(seconds), **more}
        return users / median(seconds)

    models = {
        objective: common.id_model(
            items, MODEL.model_copy(update={"objective": objective, "feed_forward_multiple": widening})
        )
        for objective, widening in WIDENING.items()
    }
    own: dict[str, float] = {}
    for objective in models:
        common.say(f"ours, {objective}: encoding and ranking {users} users, {runs + 1} times")
        own[objective] = add(
            "full", f"ours, {objective}, rank_targets", times(runs, lambda o=objective: ranked(*encoded(o)))[0]
        )
        add("full", f"ours, {objective}, top_k", times(runs, lambda o=objective: candidates(*encoded(o)))[0])
    for peer, objective in PEERS.items():
        common.say(f"RecTools {peer}: recommend")
        answer = common.ask_peer(
            "with_rectools",
            {
                "task": "recommend",
                "model": peer,
                "k": k,
                "runs": runs,
                "arguments": {
                    "n_factors": MODEL.dimensions,
                    "n_blocks": MODEL.blocks,
                    "n_heads": MODEL.heads,
                    "session_max_len": MODEL.max_length,
                },
            },
            items=histories.items,
            offsets=histories.offsets,
        )
        if answer:
            figures["rectools"] = answer["rectools"]
            figures["ratios"][peer] = own[objective] / add("full", f"RecTools {peer}.recommend", answer["seconds"])

    queries, vectors, allowed = encoded("cloze")
    common.say("ranking alone")
    seconds, reference = times(runs, lambda: plain_torch(queries, vectors, held_out, k))
    plain = add("ranking", "plain torch.topk", seconds, agreement=1.0)
    seconds, lists = times(runs, lambda: ranked(queries, vectors, allowed))
    rate = add("ranking", "ours, rank_targets", seconds, agreement=agreement(lists, reference))
    figures["ratio_to_plain_torch"] = rate / plain
    seconds, lists = times(runs, lambda: candidates(queries, vectors, allowed))
    add("ranking", "ours, top_k", seconds, agreement=agreement(lists, reference))
    answer = common.ask_peer(
        "with_rectools",
        {"task": "rank", "k": k, "runs": runs},
        queries=queries,
        vectors=vectors,
        items=histories.items,
        offsets=histories.offsets,
    )
    for ranker in ("TorchRanker", "ImplicitRanker"):
        if answer:
            lists = np.array(answer[ranker]["lists"])
            add("ranking", f"RecTools {ranker}", answer[ranker]["seconds"], agreement=agreement(lists, reference))
    if figures["ratios"]:
        figures["ratio_to_rectools"] = min(figures["ratios"].values())
    return figures


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    print(f"{figures['users']:,} users, {figures['items']:,} items, lists of {figures['k']}, seen items removed")
    for part, title in (("full", "encoding and ranking"), ("ranking", "ranking alone")):
        print(f"\n{title}\n")
        rows = []
        for name, of in figures[part].items():
            row = {"way": name, "users/s": f"{of['users_per_second']:,.0f}"}
            if part == "ranking":
                row["agreement"] = f"{of['agreement']:.1%}"
            rows.append(row)
        print(common.table(rows))
    print(f"\nrank_targets runs at {figures['ratio_to_plain_torch']:.2f} times the speed of plain torch.topk")
    for peer, ratio in figures["ratios"].items():
        print(f"encoding and rank_targets: {ratio:.1f} times RecTools' {peer}.recommend")
    print(f"RecTools {figures['rectools']}" if "rectools" in figures else common.NO_PEERS)


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--k", type=int, default=10, help="length of the lists")
    parser.add_argument("--runs", type=int, default=5, help="timed runs of each way, after one of warm-up")
    given: argparse.Namespace = parser.parse_args(arguments)
    file = given.data / "ml-1m" / "ml-1m.txt"
    everything = common.histories(file, QUICK_USERS if given.quick else None)
    test = leave_one_out(everything).test
    # RecTools recommends what it has seen in a history; a target beyond those is a miss on our side as well
    histories = common.renumbered(test.histories)
    known = np.unique(test.histories.items, return_index=True)
    codes = np.zeros(int(everything.items.max()) + 1, dtype=np.int32)
    codes[known[0]] = histories.items[known[1]]
    common.answer(
        given, measure(replace(test, histories=histories, targets=codes[test.targets]), given.k, given.runs), show
    )


if __name__ == "__main__":
    common.from_shell(main)
