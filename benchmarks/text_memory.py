"""Memory of a large catalogue's text: while it is encoded, and where a step reads its vectors.

    python benchmarks/text_memory.py --data .
    python benchmarks/text_memory.py --data . --items 1_000_000

Vectors are drawn and not encoded, 384 wide: speed is `text_throughput.py`'s. *Encoding* is stopped half-way and begun
again; the peaks (VmHWM, so it needs Linux) are those of the process that goes on, when a tenth and when all of its
sentences are in the table. *Reading* whitens all vectors for the blend, as a training step and an evaluation do: from
the file in half precision that the first one makes (`recsys/text/mapped.py`), or from the table in float32, as small
catalogues do. Each line is a process of its own, and its peak is above what it held before.

The sentences are generated, so `--data` is not read; every benchmark takes it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

import common
import generated_log
import numpy as np
import polars as pl

WIDTH: Final = 384
ITEMS: Final = 200_000
QUICK: Final = 20_000
MIB: Final = 2**20
WAYS: Final = ("mapped, made", "mapped", "in memory")


def settings_of(folder: Path) -> Any:
    """Settings whose items have a title."""
    from recsys.settings.read import parse_settings

    tree = {
        "name": "text",
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "items": {"source": "items.parquet", "text": ["title"]},
    }
    return parse_settings(tree)


def without_encoder() -> None:
    """Let vectors be drawn by the number of the chunk, and the encoder be known."""
    from recsys.features.text import Encoded
    from recsys.text import encoding, represent
    from recsys.text.known import KnownEncoder

    told = KnownEncoder(id="drawn", model="drawn", dimensions=WIDTH, precision="fp32")
    rng = np.random.default_rng(0)

    def drawn(_: Any, sentences: list[str], **__: Any) -> Encoded:
        vectors = rng.standard_normal((len(sentences), WIDTH), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return Encoded(vectors=vectors, truncated=np.zeros(len(sentences), dtype=bool))

    encoding.encode = drawn
    represent.known = lambda *_: told
    represent.load = lambda _: SimpleNamespace(id=told.id)  # type: ignore[assignment,return-value]


def held(what: str) -> int:
    """Bytes of this process, by their name in the kernel's status of it."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[what].split()[0])


def encoded(folder: Path, stop: int | None) -> dict[str, Any]:
    """Encode what the table lacks, up to a stop; peaks above what was held before."""
    from recsys.storage.warehouse import TableVersions
    from recsys.text.represent import represent

    without_encoder()
    settings, peaks = settings_of(folder), {}
    versions = TableVersions(interactions=0, items=0)
    before, began = held("VmRSS"), time.process_time()

    def follow(done: int, wanted: int) -> None:
        if stop is not None and done >= stop:
            raise KeyboardInterrupt
        for part in (0.1, 1.0):
            if part not in peaks and done >= part * wanted:
                peaks[part] = held("VmHWM") - before

    try:
        report = represent(settings, versions, follow)
    except KeyboardInterrupt:
        return {}
    return {
        "encoded": report.encoded,
        "reused": report.reused,
        "peak_at_a_tenth": peaks[0.1],
        "peak": held("VmHWM") - before,
        "cpu_seconds": time.process_time() - began,
    }


def read(folder: Path, way: str) -> dict[str, Any]:
    """Whiten all vectors; the peak above what was held before, and what is held afterwards."""
    from recsys.candidates.text import whitened_text
    from recsys.columns import ITEMS as TABLE
    from recsys.storage.warehouse import scan
    from recsys.text import mapped

    without_encoder()
    if way == "in memory":
        mapped.LEAST = sys.maxsize  # type: ignore[misc]
    else:
        mapped.LEAST = 1  # type: ignore[misc]
    settings = settings_of(folder)
    titles = scan(settings.warehouse, TABLE).select(pl.lit("title: ") + pl.col("title")).collect().to_series()
    before, began = held("VmRSS"), time.process_time()
    vectors = whitened_text(settings, titles)
    assert vectors is not None
    return {
        "peak": held("VmHWM") - before,
        "own_after": held("RssAnon"),
        "cpu_seconds": time.process_time() - began,
        "lengths": float((vectors[1:] ** 2).sum(axis=1).mean()),
    }


def in_a_process(**row: Any) -> dict[str, Any]:
    """`encoded` or `read` where nothing else has used memory."""
    command = [sys.executable, __file__, "--data", ".", "--row", json.dumps(row)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"{row} ended with status {done.returncode}; its messages stand above.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def figures(items: int) -> dict[str, Any]:
    """All figures, JSON-friendly."""
    from recsys.columns import ITEMS as TABLE
    from recsys.storage.warehouse import append

    with tempfile.TemporaryDirectory(prefix="recsys-text-") as name:
        catalogue = pl.read_parquet(generated_log.write_catalogue(Path(name), items=items))
        append(str(Path(name, "warehouse")), TABLE, catalogue.select("item_id", "title"), expected=None)
        common.say("encoding, and a stop half-way")
        in_a_process(task="encode", folder=name, stop=items // 2)
        again = in_a_process(task="encode", folder=name, stop=None)
        ways = {}
        for way in WAYS:
            common.say(f"reading, {way}")
            ways[way] = in_a_process(task="read", folder=name, way=way)
    return {"items": items, "encoding": again, "reading": ways}


def show(found: dict[str, Any]) -> None:
    """For readers."""
    of = found["encoding"]
    print(
        f"{found['items']:,} sentences, stopped half-way: {of['reused']:,} are there, {of['encoded']:,} follow, "
        f"with a peak above the program's of {of['peak_at_a_tenth'] / MIB:,.0f} MiB at a tenth of these, "
        f"{of['peak'] / MIB:,.0f} MiB at the end"
    )
    rows = [
        {"reading": way, "peak MiB": f"{way_of['peak'] / MIB:,.0f}", "CPU s": f"{way_of['cpu_seconds']:.1f}"}
        for way, way_of in found["reading"].items()
    ]
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)  # one line, in a process of its own
    given = parser.parse_args(arguments)
    if given.row:
        folder = Path(given.row["folder"])
        row = encoded(folder, given.row["stop"]) if given.row["task"] == "encode" else read(folder, given.row["way"])
        print(json.dumps(row))
        return
    common.answer(given, figures(QUICK if given.quick else given.items), show)


if __name__ == "__main__":
    common.from_shell(main)
