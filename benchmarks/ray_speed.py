"""Text encoding, candidates and training here and on a Ray cluster of one and of two processes on this machine.

    .venv/bin/python benchmarks/ray_speed.py --data .

Generated sentences, encoded by MiniLM of the offline extra, and candidate lists of a generated shop, by the text model
and its blend. Each side does the same shards, and its results are compared bit by bit with those of this process. Every
process has one thread, and has imported the libraries before the clock runs; that it opens encoder and bundle is in the
times. A training is of generated histories, by one process of the cluster and by two that work on parts of the same
batches: CPU seconds of both, and the bytes that each sends for a step. Beside the wall time stand the CPU seconds of
all processes: other programs disturb them least. Nothing is read from `--data`.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import cache, partial
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl
import psutil

from recsys.columns import SENTENCE
from recsys.compute.base import Engine
from recsys.compute.local import LOCAL
from recsys.data.prepare import prepare
from recsys.datasets.synthetic import generate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.serving.batches import candidate_batches
from recsys.serving.recommender import open_bundle
from recsys.settings import ModelSettings, TrainSettings
from recsys.settings.read import parse_settings
from recsys.text.encoding import Encoding
from recsys.text.known import load
from recsys.text.represent import represent

SENTENCES, CHUNK, BATCH = 8192, 256, 64
QUICK = 1536  # sentences
WARM = 4  # shards of a run before the clock, in which processes import the libraries
# what the libraries read when they are imported: a thread a process, and Ray on loopback alone
ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "NUMBA_NUM_THREADS": "1",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's processes would give way to other programs, and this one would not
}


class Steps:
    """A training of generated histories, in one process of a group; it tells of its cost.

    Attributes
    ----------
    items
        Of the catalogue: below 50,000 with a softmax over all, from there on over a sample and learnt by row.
    length
        Events of each history.
    """

    def __init__(self, items: int, batch: int, length: int, steps: int) -> None:
        self.items, self.batch, self.length, self.steps = items, batch, length, steps

    def __call__(self, tell: Callable[[Any], None]) -> None:
        import torch
        import torch.distributed as dist

        from recsys.features.multiplexed import hash_values
        from recsys.models.sequential.bert4rec import Bert4Rec
        from recsys.models.sequential.item_tower import ItemFeatures
        from recsys.models.sequential.loop import train

        sent, (count, reduce, collect) = [0], (dist.get_world_size(), dist.all_reduce, dist.all_gather)

        def reducing(value: Any, *rest: Any, **more: Any) -> Any:  # a ring: all parts but one go round twice
            sent[0] += 2 * (count - 1) * value.numel() * value.element_size() // count
            return reduce(value, *rest, **more)

        def collecting(values: Any, value: Any) -> Any:
            sent[0] += (count - 1) * value.numel() * value.element_size()
            return collect(values, value)

        rng, users = np.random.default_rng(0), self.batch * self.steps
        codes = (self.items * rng.random(users * self.length) ** 3).astype(np.int32) + 1  # few are popular
        offsets = np.arange(users + 1) * self.length
        of = ItemFeatures(
            id_hashes=torch.from_numpy(hash_values(range(self.items + 1))),
            trained=torch.ones(self.items + 1, dtype=torch.bool),
        )
        torch.manual_seed(0)
        model = Bert4Rec(of, ModelSettings(max_length=self.length), table_rows=4 * self.items)
        settings = TrainSettings(epochs=1, batch_size=self.batch, precision="fp32")
        known = {"seed": 0, "max_length": self.length, "validate": None, "primary": ""}
        train(model, codes[: 2 * self.batch * self.length], offsets[: 2 * self.batch + 1], settings, **known)  # warm
        dist.all_reduce, dist.all_gather = reducing, collecting
        began, before = time.perf_counter(), time.process_time()
        done = train(model, codes, offsets, settings, **known)
        spent = torch.tensor([time.process_time() - before], dtype=torch.float64)
        wall, bytes_sent = time.perf_counter() - began, sent[0]
        dist.all_reduce, dist.all_gather = reduce, collect
        reduce(spent)
        tell({
            "cpu": float(spent), "wall": wall, "load": os.getloadavg()[0], "sent": bytes_sent / self.steps,
            "loss": done.history[-1]["loss"],
        })  # fmt: skip


def shop(folder: Path, quick: bool) -> tuple[Any, Any, str]:
    """Settings, table versions and a bundle of a generated shop."""
    generate(folder, **({"users": 800, "items": 300} if quick else {}))
    settings = parse_settings(
        {
            "name": "speed",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "interactions.csv"},
            "items": {"source": "items.jsonl", "text": ["title"]},
            "model": {"kind": "text"},
            "retrieve": {"k": 100, "batch_size": BATCH},
        }
    )
    versions = ingest(settings).versions
    represent(settings, versions)
    return settings, versions, fit(settings, versions).bundle


def chunks(count: int) -> list[pl.DataFrame]:
    """Generated sentences of about 15 words."""
    rng = np.random.default_rng(0)
    words = [f"{first}{second}" for first in ("tea", "cup", "drill", "cream", "lamp") for second in range(400)]
    texts = [" ".join(rng.choice(words, rng.integers(8, 22))) for _ in range(count)]
    return [pl.DataFrame({SENTENCE: texts[start : start + CHUNK]}) for start in range(0, count, CHUNK)]


def seconds_of_all() -> float:
    """CPU seconds of this process and of those that it has started."""
    mine = psutil.Process()
    spent = 0.0
    for process in (mine, *mine.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        spent += times.user + times.system
    return spent


def timed(work: Callable[[int | None], list[Any]]) -> tuple[list[Any], dict[str, float]]:
    """Results, wall and CPU seconds of work on all shards; work on a few goes before, and is not timed."""
    work(WARM)
    began, before = time.perf_counter(), seconds_of_all()
    found = work(None)
    return found, {"wall": time.perf_counter() - began, "cpu": seconds_of_all() - before, "load": os.getloadavg()[0]}


def side(engine: Engine, settings: Any, texts: list[pl.DataFrame], served: Any, users: Any) -> dict[str, Any]:
    """Both steps by an engine."""
    encoding = Encoding(settings.text, cache(partial(load, settings.text)))
    vectors, encoded = timed(lambda most: [result.vectors for result in engine.map(encoding, texts[:most])])

    def search(most: int | None) -> list[pl.DataFrame]:
        some = users if most is None else users.select(np.arange(most * BATCH))
        batches: Iterator[Any] = candidate_batches(served, some, settings.retrieve, engine=engine)
        return [batch.rows for batch in batches]

    rows, listed = timed(search)
    return {"vectors": np.concatenate(vectors), "rows": pl.concat(rows), "text": encoded, "candidates": listed}


def trainings(quick: bool) -> dict[str, Steps]:
    """A catalogue that is asked whole, and one that is asked by a sample."""
    steps = 10 if quick else 40
    return {
        "4,000 items, 64 histories of 50": Steps(4_000, 64, 50, steps),
        "100,000 items, 256 histories of 20": Steps(100_000, 256, 20, steps),
    }


def figures(quick: bool) -> dict[str, Any]:
    """Seconds of every side."""
    import ray

    from recsys.compute.ray import Ray

    steps: list[dict[str, Any]] = []
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: the paths of Ray's sockets are long
    try:
        settings, versions, bundle = shop(folder, quick)
        users = prepare(settings, versions).split.serving
        served, texts = open_bundle(bundle), chunks(QUICK if quick else SENTENCES)
        common.say("this process")
        sides = {"this process": side(LOCAL, settings, texts, served, users)}
        common.say(f"{sides['this process']['text']} {sides['this process']['candidates']}")
        for workers in (1, 2):
            name = f"Ray, {workers} worker" + "s" * (workers > 1)
            common.say(name)
            ray.init(
                address="local", num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
                object_store_memory=200_000_000, _temp_dir=str(folder / str(workers)),
            )  # fmt: skip
            engine = Ray(address="local", cores=1, retries=0, warehouse=settings.warehouse)
            sides[name] = side(engine, settings, texts, served, users)
            common.say(f"{sides[name]['text']} {sides[name]['candidates']}")
            for kind, work in trainings(quick).items():
                told: list[dict[str, float]] = []
                engine.together(work, workers, told.append, common.say)
                steps.append({"training": kind, "processes": workers, "steps": work.steps, **told[0]})
                common.say(str(steps[-1]))
            ray.shutdown()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    first = sides["this process"]
    told = [
        {
            "side": name,
            "equal": bool((of["vectors"] == first["vectors"]).all()) and of["rows"].equals(first["rows"]),
            "text": of["text"],
            "candidates": of["candidates"],
        }
        for name, of in sides.items()
    ]
    return {"sentences": len(texts) * CHUNK, "users": len(users), "sides": told, "training": steps}


def show(of: dict[str, Any]) -> None:
    """Print the table."""
    rows = [
        {"step": step, "side": side["side"], **{key: f"{side[step][key]:.1f}" for key in ("wall", "cpu", "load")}}
        for step in ("text", "candidates")
        for side in of["sides"]
    ]
    equal = all(side["equal"] for side in of["sides"])
    print(f"{of['sentences']:,} sentences, {of['users']:,} users; {'all' if equal else 'NOT all'} bits are equal")
    print(common.table(rows))
    print(common.table([
        {
            "training": one["training"],
            "processes": one["processes"],
            "steps a CPU second": f"{one['steps'] / one['cpu']:.2f}",
            "sent by each, a step": f"{one['sent'] / 1e6:.2f} MB",
            "loss": f"{one['loss']:.6f}",
            "wall": f"{one['wall']:.1f}",
            "load": f"{one['load']:.1f}",
        }
        for one in of["training"]
    ]))  # fmt: skip


def main() -> None:
    """Run from the shell."""
    given = common.options(__doc__).parse_args()
    if ENVIRONMENT.items() - os.environ.items():
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ENVIRONMENT})
    common.answer(given, figures(given.quick), show)


if __name__ == "__main__":
    common.from_shell(main)
