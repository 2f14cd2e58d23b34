"""Items a second of the text encoder, beside sentence-transformers' own `encode` on the same sentences.

    .venv/bin/python benchmarks/text_throughput.py --data DATA

The distinct sentences of amazon-beauty, MiniLM of the offline extra. All sides encode the same sentences, drawn anew in
each round, to the same limit of tokens, tokenising included; they take turns, so that other programs slow down all of
them. The library runs as it comes, batches of 32: in fp32, and under bf16 autocast. Ratios are of CPU time, which
other programs disturb least; that of wall time, the median of the rounds, stands beside. The least cosine is that of
our vectors with the library's in fp32.

What a plain product of the network's size reaches in fp32 and in bf16 bounds how much bf16 can give: both are printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

import common
import numpy as np
import polars as pl
import torch

from recsys.features.sentences import sentences
from recsys.features.text import Encoder, encode, load_encoder

ATTRIBUTES = ("title", "attributes")
ROUNDS, COUNT = 6, 1024
QUICK_ROUNDS, QUICK_COUNT = 2, 192
LIBRARY, AUTOCAST, OURS = "sentence-transformers, fp32", "sentence-transformers, bf16 autocast", "ours"

Encode = Callable[[list[str]], np.ndarray]


def sides(ours: Encoder) -> dict[str, Encode]:
    """Each way to encode: sentences in, float32 [n, E] out."""
    library = load_encoder(precision="fp32").network
    library.max_seq_length = ours.max_tokens

    def theirs(bf16: bool) -> Encode:
        def run(texts: list[str]) -> np.ndarray:
            with torch.autocast(library.device.type, torch.bfloat16) if bf16 else nullcontext():
                return np.asarray(library.encode(texts, show_progress_bar=False), dtype=np.float32)

        return run

    return {LIBRARY: theirs(False), AUTOCAST: theirs(True), OURS: lambda texts: encode(ours, texts).vectors}


def rate(dtype: torch.dtype, seconds: float = 0.5) -> float:
    """FLOPs a second of a product like the network's widest: the best of some tries."""
    a, b = torch.randn(2048, 384).to(dtype), torch.randn(384, 1536).to(dtype)
    best, until = 0.0, time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        for _ in range(4):
            torch.matmul(a, b)
        best = max(best, 4 * 2 * 2048 * 384 * 1536 / (time.perf_counter() - began))
    return best


def figures(file: Path, quick: bool) -> dict[str, Any]:
    """All figures, JSON-friendly."""
    every = sentences(pl.read_ndjson(file), ATTRIBUTES).unique().sort().to_list()
    rounds, count = (QUICK_ROUNDS, QUICK_COUNT) if quick else (ROUNDS, COUNT)
    ours = load_encoder()
    ways = sides(ours)
    rng = np.random.default_rng(0)
    wall: dict[str, list[float]] = {name: [] for name in ways}
    cpu = dict.fromkeys(ways, 0.0)
    least = 1.0
    for number in range(-1, rounds):  # the first one warms up
        chosen = [
            every[i] for i in rng.choice(len(every), min(count if number >= 0 else 32, len(every)), replace=False)
        ]
        vectors = {}
        names = list(ways)
        for name in names[number % 3 :] + names[: number % 3]:
            began, used = time.perf_counter(), time.process_time()
            vectors[name] = ways[name](chosen)
            if number >= 0:
                wall[name].append(time.perf_counter() - began)
                cpu[name] += time.process_time() - used
        least = min(least, float((vectors[OURS] * vectors[LIBRARY]).sum(1).min()))
        common.say(f"round {number + 1} of {rounds}")
    items = rounds * min(count, len(every))
    return {
        "sentences": items,
        "precision": ours.precision,
        "sides": {
            name: {"items_per_second": items / sum(wall[name]), "items_per_cpu_second": items / cpu[name]}
            for name in ways
        },
        "ratio_to_sentence_transformers": cpu[LIBRARY] / cpu[OURS],
        "ratio_to_autocast": cpu[AUTOCAST] / cpu[OURS],
        "wall_ratio_to_sentence_transformers": median(a / b for a, b in zip(wall[LIBRARY], wall[OURS], strict=True)),
        "least_cosine": least,
        "fp32_gflops": rate(torch.float32) / 1e9,
        "bf16_gflops": rate(torch.bfloat16) / 1e9,
    }


def show(found: dict[str, Any]) -> None:
    """For readers."""
    rows = [
        {
            "encoder": f"{name}, {found['precision']}" if name == OURS else name,
            "items/s": f"{of['items_per_second']:,.0f}",
            "items/s of CPU time": f"{of['items_per_cpu_second']:,.0f}",
        }
        for name, of in found["sides"].items()
    ]
    print(common.table(rows))
    print(
        f"ratio to sentence-transformers in fp32: {found['ratio_to_sentence_transformers']:.2f} in CPU time, "
        f"{found['wall_ratio_to_sentence_transformers']:.2f} in wall time; to its autocast "
        f"{found['ratio_to_autocast']:.2f}; least cosine {found['least_cosine']:.5f}"
    )
    print(f"a plain product: {found['fp32_gflops']:,.0f} GFLOP/s in fp32, {found['bf16_gflops']:,.0f} in bf16")


def main(arguments: list[str] | None = None) -> None:
    given = common.options(__doc__).parse_args(arguments)
    common.answer(given, figures(given.data / "amazon-beauty" / "items.jsonl", given.quick), show)


if __name__ == "__main__":
    common.from_shell(main)
