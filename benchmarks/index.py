"""The index that a night would choose: its recall and users a CPU second, beside the searches that compare every item.

    OMP_NUM_THREADS=1 python benchmarks/index.py

Items lie in clusters of many sizes with popularity in their lengths, as those of trained models do; users lie near the
items that they had. Each user gets 100 items of 128 dimensions, 50 seen ones left out; one thread. *Chosen* is what
`retrieve.index = "auto"` serves to a million users by a sample of 512, and is then asked others, whose lists are
compared with the exact ones.
"""

from __future__ import annotations

import argparse
import time
from typing import Any, Final

import candidates
import common
import faiss
import numpy as np
import torch

from recsys.data.sequences import Sequences
from recsys.retrieval.choice import choose_index
from recsys.retrieval.index import build_index
from recsys.retrieval.top_k import top_k
from recsys.settings import RetrieveSettings

WIDTH, K, SEEN = candidates.WIDTH, candidates.K, candidates.SEEN
SIZES: Final = {100_000: (0.98, 2_048), 1_000_000: (0.95, 512)}  # items to wanted recall, and users that are timed
SAMPLE, SERVED = 512, 1_000_000


def shop(items: int, users: int) -> tuple[np.ndarray, np.ndarray, Sequences]:
    """Vectors [V + 1, D], queries [U, D] and histories of generated users."""
    rng = np.random.default_rng(0)
    clusters = int(4 * np.sqrt(items))
    centres = rng.standard_normal((clusters, WIDTH), dtype=np.float32)
    of = (clusters * rng.random(items + 1) ** 2).astype(np.int64)  # some are large
    vectors = centres[of] + 0.6 * rng.standard_normal((items + 1, WIDTH), dtype=np.float32)
    scale = np.float32(1 / np.sqrt(WIDTH))
    vectors *= (1 + 0.1 * rng.standard_normal((items + 1, 1), dtype=np.float32)) * scale
    vectors[0] = 0
    near = rng.integers(1, items + 1, (users, 3))
    queries = vectors[near].mean(axis=1) + 0.3 * scale * rng.standard_normal((users, WIDTH), dtype=np.float32)
    seen = rng.integers(1, items + 1, users * SEEN).astype(np.int32)
    return vectors, queries, Sequences.nameless(seen, np.arange(users + 1) * SEEN)


def measure(items: int, wanted: float, users: int) -> dict[str, Any]:
    """Recall and users a CPU second of each search."""
    common.say(f"{items:,} items")
    vectors, queries, seen = shop(items, SAMPLE + users)
    allowed = np.arange(items + 1) > 0
    settings = RetrieveSettings(index="auto", recall=wanted, k=K)
    sampled = seen.select(np.arange(SAMPLE))
    began = time.process_time()
    index, report = choose_index(settings, vectors, allowed, lambda: (queries[:SAMPLE], sampled), SERVED)
    choosing = time.process_time() - began
    common.say(report.reason)
    asked, had = queries[SAMPLE:], seen.select(np.arange(SAMPLE, SAMPLE + users))
    exact, few = build_index(vectors, allowed), min(users, 64)
    rows = torch.from_numpy(vectors)
    flat = faiss.IndexFlatIP(WIDTH)
    flat.add(vectors[1:])

    def plain() -> None:
        for start in range(0, users, 128):
            (torch.from_numpy(asked[start : start + 128]) @ rows.T).topk(K, dim=1)

    lists, true = top_k(index, asked, had, k=K)[0], top_k(exact, asked, had, k=K)[0]
    found = [len(np.intersect1d(one, best)) / K for one, best in zip(lists, true, strict=True)]
    seconds = candidates.cpu_seconds
    return {
        "items": items,
        "wanted": wanted,
        "factory": report.factory,
        "parameters": report.parameters,
        "recall": float(np.mean(found)),
        "chosen": users / seconds(lambda: top_k(index, asked, had, k=K)),
        "exact": users / seconds(lambda: top_k(exact, asked, had, k=K), times=1),
        "torch": users / seconds(plain, times=1),
        "faiss": few / seconds(lambda: flat.search(asked[:few], K + SEEN), times=1),
        "choosing": choosing,
        "tried": [f"{p.factory} {p.parameters} recall {p.recall:.3f} {1e6 / p.cpu:,.0f}/s" for p in report.points],
    }


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    rows = [
        {
            "items": f"{row['items']:,}",
            "recall asked": row["wanted"],
            "chosen": " ".join([row["factory"], *(f"{name} {value}" for name, value in row["parameters"].items())]),
            "recall": f"{row['recall']:.3f}",
            "users a CPU s": f"{row['chosen']:,.0f}",
            "exact": f"{row['exact']:,.0f}",
            "torch topk": f"{row['torch']:,.0f}",
            "FAISS flat": f"{row['faiss']:,.0f}",
            "choosing, CPU s": f"{row['choosing']:,.0f}",
        }
        for row in figures["rows"]
    ]
    print(common.table(rows))


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="40,000 items: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    torch.set_num_threads(1)
    sizes = {40_000: (0.9, 256)} if given.quick else SIZES
    rows = [measure(items, wanted, users) for items, (wanted, users) in sizes.items()]
    common.answer(given, {"rows": rows}, show)


if __name__ == "__main__":
    common.from_shell(main)
