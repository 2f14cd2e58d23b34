"""Preparing a log for training: CPU seconds and peak memory by size, the first time and from what the first time wrote.

    .venv/bin/python benchmarks/prepare.py --data .
    .venv/bin/python benchmarks/prepare.py --data . --quick --json
    .venv/bin/python benchmarks/prepare.py --data . --size 1_000_000,1_000_000,100_000_000 --core 2

Each call is a process of its own. "peak" is the most that it had in memory at once (VmHWM, so it needs Linux): pages of
mapped files count there, though the system takes them back whenever something else needs room. "own" is the most that
was its own (RssAnon, by samples), which nothing can take back. Both hold the program, some 200 MiB.

The logs are generated, so `--data` is not read; every benchmark takes it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import common
import generated_log
import polars as pl

SIZES = ((100_000, 50_000, 1_000_000), (1_000_000, 200_000, 10_000_000))  # users, items, events
QUICK = ((10_000, 5_000, 200_000),)
MIB = 2**20
EVERY = 0.01  # seconds between samples


def size(text: str) -> tuple[int, int, int]:
    """Users, items and events, as the command line has them."""
    users, items, events = (int(part) for part in text.split(","))
    return users, items, events


def written(folder: Path, users: int, items: int, events: int) -> None:
    """The table of a generated log, as `recsys ingest` leaves it: one commit a file."""
    from recsys.columns import INTERACTIONS
    from recsys.storage.warehouse import MOMENT, SCHEMAS, append

    rows, version = 0, None
    for path in generated_log.write_log(folder, users=users, items=items, events=events):
        frame = pl.read_parquet(path).with_columns(
            pl.col("timestamp").cast(MOMENT),
            pl.lit("").alias("event"),
            pl.lit(None, pl.Float64).alias("weight"),
            pl.int_range(rows, rows + pl.len(), dtype=pl.Int64).alias("position"),
        )
        path.unlink()
        version = append(
            str(folder / "warehouse"), INTERACTIONS, frame.select(*SCHEMAS[INTERACTIONS]), expected=version
        )
        rows += len(frame)


def settings_of(folder: Path, core: int, strategy: str) -> Any:
    """Settings that read that table."""
    from recsys.settings.read import parse_settings

    return parse_settings(
        {
            "name": "prepare",
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": str(folder / "log" / "*.parquet")},
            "filter": {"min_user_interactions": core, "min_item_interactions": core},
            "split": {"strategy": strategy},
        }
    )


def held(what: str) -> int:
    """Bytes of this process, by their name in the kernel's status of it; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(what)), 0)


class Own:
    """Follows the memory that is the process's own."""

    def __init__(self) -> None:
        self.most, self._ended = held("RssAnon"), threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def _follow(self) -> None:
        while not self._ended.wait(EVERY):
            self.most = max(self.most, held("RssAnon"))

    def end(self) -> int:
        """The most bytes so far."""
        self._ended.set()
        self._thread.join()
        return self.most


def call(folder: Path, core: int, strategy: str) -> dict[str, Any]:
    """One call in this process: what it costs, and what it returns."""
    from recsys.data.prepare import prepare
    from recsys.storage.warehouse import current_versions

    settings = settings_of(folder, core, strategy)
    own, cpu, wall = Own(), time.process_time(), time.perf_counter()
    dataset = prepare(settings, current_versions(settings.warehouse))
    spent, waited = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "cpu_seconds": spent,
        "seconds": waited,
        "own_bytes": own.end(),
        "peak_bytes": held("VmHWM"),
        "interactions": dataset.report["interactions"],
        "digest": dataset.digest,
    }


def in_a_process(folder: Path, core: int, strategy: str) -> dict[str, Any]:
    """`call` where nothing else has used memory."""
    row = {"folder": str(folder), "core": core, "strategy": strategy}
    command = [sys.executable, __file__, "--data", ".", "--row", json.dumps(row)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(f"Preparing {folder} ended with status {done.returncode}; its messages stand above.")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(sizes: tuple[int, int, int], core: int, strategy: str, parent: Path | None) -> dict[str, Any]:
    """A log of one size: the first call, and the next one."""
    with tempfile.TemporaryDirectory(prefix="recsys-prepare-", dir=parent) as name:
        common.say(f"{sizes[2]:,} events: writing the table")
        written(Path(name), *sizes)
        common.say(f"{sizes[2]:,} events: preparing")
        first, again = (in_a_process(Path(name), core, strategy) for _ in range(2))
        if first["digest"] != again["digest"]:
            sys.exit("The second call has given other data than the first.")
        bytes_kept = sum(path.stat().st_size for path in (Path(name) / "warehouse" / "prepared").rglob("*.*"))
    users, items, events = sizes
    return {"users": users, "items": items, "events": events, "disk_bytes": bytes_kept, "first": first, "again": again}


def show(figures: dict[str, Any]) -> None:
    """The figures for readers."""
    rows = [
        {
            "events": f"{row['events']:,}",
            "users": f"{row['users']:,}",
            "items": f"{row['items']:,}",
            **{
                f"{label}: {what}": f"{row[call][key] / unit:,.1f}" if unit == 1 else f"{row[call][key] / unit:,.0f}"
                for call, label in (("first", "first"), ("again", "next"))
                for what, key, unit in (
                    ("CPU s", "cpu_seconds", 1),
                    ("own MiB", "own_bytes", MIB),
                    ("peak MiB", "peak_bytes", MIB),
                )
            },
            "disk MiB": f"{row['disk_bytes'] / MIB:,.0f}",
        }
        for row in figures["rows"]
    ]
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    parser = common.options(__doc__)
    parser.add_argument("--size", type=size, action="append", help="USERS,ITEMS,EVENTS; may be given again")
    parser.add_argument("--core", type=int, default=1, help="least interactions of a user and of an item")
    parser.add_argument("--strategy", choices=("leave-one-out", "time"), default="leave-one-out")
    parser.add_argument("--folder", type=Path, help="where the generated tables lie while they are needed")
    parser.add_argument("--row", type=json.loads, help=argparse.SUPPRESS)  # one call, in a process of its own
    given = parser.parse_args(arguments)
    if given.row:
        print(json.dumps(call(Path(given.row["folder"]), given.row["core"], given.row["strategy"])))
        return
    sizes = given.size or (QUICK if given.quick else SIZES)
    rows = [measured(of, given.core, given.strategy, given.folder) for of in sizes]
    common.answer(given, {"rows": rows}, show)


if __name__ == "__main__":
    common.from_shell(main)
