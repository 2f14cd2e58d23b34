"""Users a CPU second of the exact search and of the blend, by the size of the catalogue, one thread.

    OMP_NUM_THREADS=1 python benchmarks/candidates.py

*Search*: 100 items of 128 dimensions for each user, 50 seen ones left out, beside FAISS's flat index and beside torch's
product and `topk`, on the same generated vectors in the same process. *Blend*: all sources with their ranker, on
generated histories of 50 events in which items close to each other go together, and *one*: the milliseconds of a single
user. Nothing is read but what is generated here. `--quick` leaves out the largest catalogue.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import common
import faiss
import numpy as np
import polars as pl
import torch

from recsys.candidates.base import TrainingData
from recsys.candidates.stage import fit_sources
from recsys.data.sequences import Sequences
from recsys.ranking.blend import Blended, best_items
from recsys.ranking.fit import columns_of
from recsys.ranking.loglinear import LogLinear
from recsys.retrieval.index import build_index
from recsys.retrieval.top_k import top_k

WIDTH, K, SEEN = 128, 100, 50
SEARCHES = {10_000: 4096, 100_000: 512, 1_000_000: 128}  # items to users
BLENDS = {20_000: 512, 100_000: 512, 200_000: 512, 1_000_000: 256}
TRAINED = 20_000  # histories that the sources are fitted on
TIMES = 3  # the fastest counts


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="the smallest catalogue alone: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the tables")
    given = parser.parse_args()
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    searches = dict(list(SEARCHES.items())[:1]) if given.quick else SEARCHES
    blends = {2_000: 64} if given.quick else BLENDS
    searched = [search(items, users) for items, users in searches.items()]
    blended = [blend(items, users, 500 if given.quick else TRAINED) for items, users in blends.items()]
    ratios = {str(row["items"]): round(row["ours"] / row["torch"], 2) for row in searched}
    common.answer(given, {"search": searched, "blend": blended, "ratio_to_torch_topk": ratios}, show)


def show(figures: dict[str, Any]) -> None:
    """Print the tables, in users a CPU second."""
    print("\n| items | exact search | FAISS flat | torch product and topk |\n|---|---|---|---|")
    for row in figures["search"]:
        print(f"| {row['items']:,} | {row['ours']:,.0f} | {row['faiss']:,.0f} | {row['torch']:,.0f} |")
    print("\n| items | blend, users a CPU second | one user, ms |\n|---|---|---|")
    for row in figures["blend"]:
        print(f"| {row['items']:,} | {row['users']:,.0f} | {row['one']:.1f} |")


def search(items: int, users: int) -> dict[str, Any]:
    """Users a CPU second of three ways to the same lists."""
    common.say(f"search among {items:,} items")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((items + 1, WIDTH), dtype=np.float32)
    vectors[0] = 0
    queries = rng.standard_normal((users, WIDTH), dtype=np.float32)
    seen = Sequences.nameless(rng.integers(1, items + 1, users * SEEN).astype(np.int32), np.arange(users + 1) * SEEN)
    index = build_index(vectors, np.arange(items + 1) > 0)
    rows = torch.from_numpy(vectors)

    def plain() -> np.ndarray:
        found = []
        for start in range(0, users, 128):
            scores = torch.from_numpy(queries[start : start + 128]) @ rows.T
            own = seen.items[start * SEEN : (start + len(scores)) * SEEN].astype(np.int64)
            scores[torch.arange(len(scores)).repeat_interleave(SEEN), torch.from_numpy(own)] = -torch.inf
            scores[:, 0] = -torch.inf
            found.append(scores.topk(K, dim=1).indices.numpy())
        return np.concatenate(found)

    def ours() -> np.ndarray:
        return top_k(index, queries, seen, k=K)[0]

    of_faiss = faiss.IndexFlatIP(WIDTH)
    of_faiss.add(vectors[1:])

    def flat() -> np.ndarray:
        found: np.ndarray = of_faiss.search(queries[:few], K + SEEN)[1]
        return found

    few = min(users, 64)  # of FAISS, which takes minutes for all
    same = np.mean([len(np.intersect1d(a, b)) / K for a, b in zip(ours()[:64], plain()[:64], strict=True)])
    assert same > 0.999, f"the lists share {same:.4f}"  # the last bits of float32 may exchange two
    return {
        "items": items,
        "ours": users / cpu_seconds(ours),
        "torch": users / cpu_seconds(plain),
        "faiss": few / cpu_seconds(flat, times=1),
    }


def blend(items: int, users: int, trained: int) -> dict[str, Any]:
    """Users a CPU second of all sources together, and the milliseconds of one user."""
    common.say(f"blend of {items:,} items")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((items + 1, WIDTH // 2), dtype=np.float32)
    text = rng.standard_normal((items + 1, WIDTH // 2), dtype=np.float32) / 8
    vectors[0], text[0] = 0, 0
    words = [f"item w{code % 977} x{code % 89} y{code // 50}" for code in range(items)]
    catalogue = pl.DataFrame({"item_id": np.arange(1, items + 1), "sentence": words})
    data = TrainingData(histories=_walks(rng, items, trained), size=items, catalogue=catalogue, text=text)
    sources = fit_sources(data)
    columns = columns_of(sources)
    features, context = len(columns.features), len(columns.context)
    ranker = LogLinear(
        features=columns.features,
        context=columns.context,
        mean=np.zeros(features + context),
        scale=np.ones(features + context),
        alone=rng.standard_normal(features),
        pairs=np.triu(rng.standard_normal((features, features))) / 10,
        given=rng.standard_normal((context, features)) / 10,
    )
    blended = Blended(sources=sources, ranker=ranker, candidates=K)
    index = build_index(vectors, np.arange(items + 1) > 0)
    asked = _walks(rng, items, users)
    queries = rng.standard_normal((users, WIDTH // 2), dtype=np.float32)
    alone = asked.select(np.array([0]))
    seconds = cpu_seconds(lambda: best_items(index, queries, blended, asked, k=K), times=1)
    one = cpu_seconds(lambda: best_items(index, queries[:1], blended, alone, k=K))
    return {"items": items, "users": users / seconds, "one": 1000 * one}


def _walks(rng: np.random.Generator, items: int, users: int) -> Sequences:
    """Histories: most items lie near the user's own place in the catalogue, the others are the popular, low codes."""
    places = np.repeat(np.exp(rng.random(users) * np.log(items)), SEEN)
    near = places * np.exp(rng.standard_normal(users * SEEN) * 0.3)
    anywhere = np.exp(rng.random(users * SEEN) * np.log(items))
    codes = np.where(rng.random(users * SEEN) < 0.6, near, anywhere)
    return Sequences.nameless(np.clip(codes, 1, items).astype(np.int32), np.arange(users + 1) * SEEN)


def cpu_seconds(work: Callable[[], Any], times: int = TIMES) -> float:
    """Least CPU seconds of a few calls, after one that warms up."""
    work()
    found = []
    for _ in range(times):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


if __name__ == "__main__":
    common.from_shell(main)
