"""Speed of `recsys serve` on MovieLens-1M: requests a second and their latency, of the blend and of the model alone.

    python benchmarks/serving.py --data DATA --folder served

--data holds `ml-1m/ml-1m.txt`. The bundle is trained here, two epochs of configs/ml-1m-ids.toml, some six minutes: its
weights are poor, and cost what good ones cost. --folder keeps it for a later call. The model alone is the same bundle
without its blend.

Clients are in a process of their own (serving_load.py) and share the processors with the service. Each connection sends
its next request when the one before was answered. What a request asks differs in the history that the model reads:

- user: a user of the log by id, each at most once in a round of all users; his history has 165 events on average;
- newest 20: the newest 20 events of a user, in the request;
- whole: all events of a user, in the request.

Each process keeps the vectors of the histories that it has answered: `again` repeats the requests of `user`, of which
two processes know about half.
Last, requests go on while the service of the model alone switches from one bundle to another and back; none may fail.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import psutil
from common import ROOT, answer, from_shell, options, say, table

from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import BLEND
from recsys.bundles.store import find_bundle, publish_bundle, write_bundle

K = 20
NAME = "ml-1m-ids"
ALONE = "ml-1m-alone"
TWIN = 1  # the seed that the second bundle names: it answers alike and has another id


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--folder", type=Path, help="keep the trained bundle here, or take it from here")
    parser.add_argument("--workers", type=int, default=2, help="processes of the service")
    parser.add_argument("--connections", type=int, default=12, help="of the clients")
    parser.add_argument("--requests", type=int, default=6_000, help="of each row; 0: no rows")
    parser.add_argument("--switching", type=int, default=100_000, help="requests while bundles are switched")
    given = parser.parse_args()
    if given.quick:
        given.requests, given.switching = 200, 400
    with tempfile.TemporaryDirectory(prefix="recsys-serving-") as scratch:
        folder = (given.folder or Path(scratch)).resolve()
        log = read_log(given.data / "ml-1m" / "ml-1m.txt", 200 if given.quick else None)
        bundles = trained(folder, log, given.quick)
        requests = bodies(log, Path(scratch))
        rows = []
        for name, label in ((NAME, "blend"), (ALONE, "model alone")) if given.requests else ():
            with service(bundles / name, given.workers) as (process, port):
                measured(process, port, requests["newest 20"], given, 200)  # what is loaded at first is loaded
                for kind in ("user", "again", "newest 20", "whole"):
                    file = requests["user" if kind == "again" else kind]
                    rows.append({"answers": label, "history": kind, **measured(process, port, file, given)})
                    say(json.dumps(rows[-1]))
        switched = switching(bundles, requests["user"], given)
    answer(given, {"workers": given.workers, "connections": given.connections, "rows": rows, **switched}, show)


def read_log(file: Path, users: int | None) -> pl.DataFrame:
    """`user` and `item`, oldest first inside a user."""
    log = pl.read_csv(file, separator=" ", has_header=False, new_columns=["user", "item"])
    return log if users is None else log.filter(pl.col("user").rle_id() < users)


def trained(folder: Path, log: pl.DataFrame, quick: bool) -> Path:
    """The folder of bundles: one with a blend, and one of the model alone."""
    warehouse = folder / "warehouse"
    bundles = warehouse / "bundles"
    if not (bundles / f"{ALONE}.latest.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        log.write_csv(folder / "ml-1m.txt", separator=" ", include_header=False)
        settings = {
            "data_root": folder,
            "warehouse": warehouse,
            "tracking.uri": f"sqlite:///{folder / 'mlflow.db'}",
            "train.epochs": 1 if quick else 2,
            "train.refit": "none",
            "blend.kind": "always",
            "gate.enabled": "false",
        }
        if quick:
            settings |= {"model.dimensions": 16, "model.max_length": 20}
        say("training the bundle")
        command = [sys.executable, "-m", "recsys", "run", str(ROOT / "configs" / "ml-1m-ids.toml"), "--no-prefect"]
        overrides = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        done = subprocess.run([*command, *overrides], capture_output=True, text=True, check=False, cwd=folder)
        if done.returncode:
            sys.exit(f"the training failed: {done.stderr.strip().splitlines()[-1]}")
        alone(find_bundle(bundles / NAME))
    return bundles


def copy(path: Path, blend: bool, **changed: Any) -> Path:
    """A bundle with other settings, with its blend or without."""
    bundle = read_bundle(path)
    features = bundle.features()
    kept = {name: part for name in (BLEND, "fallback") if (part := bundle.part(name)) is not None}
    if not blend:
        kept.pop(BLEND, None)
    return write_bundle(
        path.parent.parent,
        settings=bundle.settings.model_copy(update=changed),
        vocabulary=bundle.vocabulary,
        catalogue=bundle.catalogue,
        features={name: value for name, value in features.items() if name not in (BLEND, "fallback")},
        weights=bundle.weights(),
        vectors=bundle.vectors,
        allowed=bundle.allowed,
        lineage={},
        bias_dims=bundle.bias_dims,
        more={name: Same(part, features[name]) for name, part in kept.items()},
    )


class Same:
    """A part of a bundle, as it was read."""

    def __init__(self, tensors: dict[str, np.ndarray], declared: dict[str, Any]) -> None:
        self.tensors, self.declared = tensors, declared

    def declaration(self) -> dict[str, Any]:
        return self.declared

    def to_tensors(self) -> dict[str, np.ndarray]:
        return self.tensors


def alone(path: Path) -> None:
    """Publish the model of a bundle without its blend, under a name of its own."""
    publish_bundle(path.parent.parent, copy(path, blend=False, name=ALONE))


def bodies(log: pl.DataFrame, folder: Path) -> dict[str, Path]:
    """Files of requests by kind, a line each, all users in an order of chance."""
    users = log.group_by("user", maintain_order=True).agg("item").sample(fraction=1.0, shuffle=True, seed=0)
    found = {}
    for kind in ("user", "newest 20", "whole"):
        found[kind] = folder / f"{kind.replace(' ', '-')}.jsonl"
        with found[kind].open("w") as file:
            for user, items in users.iter_rows():
                history = items[-20:] if kind == "newest 20" else items
                asked = {"user": user} if kind == "user" else {"history": history}
                file.write(json.dumps({**asked, "k": K}) + "\n")
    return found


@contextmanager
def service(name: Path, workers: int) -> Iterator[tuple[psutil.Process, int]]:
    """`recsys serve` of a bundle's name: its process, and its port."""
    command = [sys.executable, "-m", "recsys", "serve", str(name), "--port", "0", "--poll", "0.5"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    environment.pop("RECSYS_TOKEN", None)
    with subprocess.Popen(
        [*command, "--workers", str(workers)], stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
        if found is None:
            sys.exit("the service did not start; its reason stands above")
        try:
            yield psutil.Process(process.pid), int(found[1])
        finally:
            process.terminate()


def cpu(process: psutil.Process) -> float:
    """Seconds of processor time of a service's processes."""
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


def load(port: int, file: Path, connections: int, requests: int) -> dict[str, Any]:
    """Figures of the clients."""
    job = {"port": port, "path": "/recommend", "file": str(file), "connections": connections, "requests": requests}
    script = Path(__file__).with_name("serving_load.py")
    done = subprocess.run([sys.executable, str(script), json.dumps(job)], capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measured(
    process: psutil.Process, port: int, file: Path, given: argparse.Namespace, requests: int | None = None
) -> dict[str, Any]:
    """One row: speed, latency, and processor time of both sides."""
    before = cpu(process)
    found = load(port, file, given.connections, requests or given.requests)
    return {
        "requests a second": round(found["a_second"]),
        **{f"{name} (ms)": round(found[f"{name}_ms"], 1) for name in ("p50", "p95", "p99")},
        "failed": found["failed"],
        "service (CPU ms)": round(1000 * (cpu(process) - before) / found["requests"], 2),
        "clients (CPU ms)": round(1000 * found["cpu_seconds"] / found["requests"], 2),
    }


def switching(bundles: Path, file: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Requests while the service of the model alone switches to a twin and back, again and again."""
    first = find_bundle(bundles / ALONE).resolve()
    twin = copy(first, blend=False, seed=TWIN)
    over = threading.Event()

    def switch() -> None:
        while not over.wait(3.0):
            publish_bundle(bundles.parent, twin)
            over.wait(3.0)
            publish_bundle(bundles.parent, first)

    thread = threading.Thread(target=switch)
    try:
        with service(bundles / ALONE, given.workers) as (_, port):
            thread.start()
            began = time.perf_counter()
            found = load(port, file, given.connections, given.switching)
            seconds = time.perf_counter() - began
    finally:
        over.set()
        if thread.ident is not None:
            thread.join()
        publish_bundle(bundles.parent, first)
    figures = {name: found[name] for name in ("requests", "failed", "bundles", "a_second", "p99_ms", "slowest_ms")}
    return {"switching": {**figures, "seconds": round(seconds, 1)}}


def show(found: dict[str, Any]) -> None:
    """The tables."""
    print(f"{found['workers']} processes, {found['connections']} connections, k = {K}\n")
    if found["rows"]:
        print(table(found["rows"]))
    of = found["switching"]
    print(
        f"\n{of['requests']:,} requests while bundles were switched: {of['failed']} failed, "
        f"{of['a_second']:.0f} a second, p99 {of['p99_ms']:.1f} ms, slowest {of['slowest_ms']:.0f} ms; answers by "
        f"bundle: {', '.join(f'{name} {count:,}' for name, count in of['bundles'].items())}"
    )


if __name__ == "__main__":
    from_shell(main)
