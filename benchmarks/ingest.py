"""CPU seconds and peak memory of reading a log, beside a plain polars scan, sort and write of the same rows.

    python benchmarks/ingest.py
    python benchmarks/ingest.py --events 100_000_000 --users 1_000_000 --items 1_000_000
    python benchmarks/ingest.py --quick --json

The log is generated, in Parquet files by period and, with `--single`, in one Parquet and one CSV file. Each line is a
process of its own: CPU seconds of the work (not of the imports) and the most memory that the kernel counted for the
process. *A further day* is 1% more rows in a file of its own, on top of the whole log; *the whole again* reads a log of
which nothing changed. The folder takes about 30 bytes a row, and as much again while a log is read.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import common
import generated_log
import polars as pl

MIB: Final = 1024  # kibibytes
DAY: Final = 0.01  # of the events


def plain(folder: Path) -> int:
    """Scan, sort by user and time, and write, without a check."""
    target = folder / "plain.parquet"
    pl.scan_parquet(folder / "log" / "*.parquet").sort("user_id", "timestamp").sink_parquet(target)
    rows = int(pl.scan_parquet(target).select(pl.len()).collect().item())
    target.unlink()
    return rows


def reading(folder: Path, warehouse: str, *sources: str) -> int:
    """Read sources into a warehouse as `recsys ingest` does; returns the rows that are new."""
    from recsys.columns import INTERACTIONS
    from recsys.ingestion.ingest import ingest
    from recsys.settings.read import parse_settings

    tree = {"name": "shop", "data_root": str(folder), "warehouse": str(folder / warehouse)}
    report = ingest(parse_settings({**tree, "interactions": {"source": list(sources)}}))
    return report.rows_added[INTERACTIONS]


def child(folder: Path, what: str, *given: str) -> None:
    """Do one piece of work and print its figures."""
    began = time.process_time()
    rows = plain(folder) if what == "plain" else reading(folder, *given)
    spent = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / MIB
    print(json.dumps({"rows": rows, "cpu_seconds": round(spent, 2), "peak_mib": round(peak)}))


def measured(folder: Path, what: str, *given: str) -> dict[str, Any]:
    """The figures of one piece of work in a process of its own."""
    command = [sys.executable, __file__, "--child", str(folder), what, *given]
    paths = os.pathsep.join([str(common.ROOT), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": paths}, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one_file(folder: Path) -> None:
    """Write the log as one Parquet file and as one CSV file."""
    log = pl.scan_parquet(folder / "log" / "*.parquet")
    log.sink_parquet(folder / "log.parquet")
    log.with_columns(pl.col("timestamp").dt.epoch("s")).sink_csv(folder / "log.csv")


def work(folder: Path, events: int, users: int, items: int, single: bool) -> dict[str, Any]:
    """All figures of a log of this size."""
    rows = min(generated_log.ROWS, max(1, events // 4))
    generated_log.write_log(folder, users=users, items=items, events=events, rows=rows)
    lines = {"plain scan, sort, write": measured(folder, "plain")}
    lines["the whole"] = measured(folder, "read", "warehouse", "log")
    lines["the whole again"] = measured(folder, "read", "warehouse", "log")
    last = pl.scan_parquet(folder / "log" / "*.parquet").select(pl.col("timestamp").max()).collect().item()
    day = pl.scan_parquet(folder / "log" / "0000.parquet").head(max(1, round(events * DAY)))
    later = last - generated_log.START + pl.duration(seconds=1)
    day.with_columns(pl.col("timestamp") + later).sink_parquet(folder / "log" / "later.parquet")
    lines["a further day of 1%"] = measured(folder, "read", "warehouse", "log")
    shutil.rmtree(folder / "warehouse")
    if single:
        one_file(folder)
        for name in ("log.parquet", "log.csv"):
            lines[f"one file: {name}"] = measured(folder, "read", "single", name)
            shutil.rmtree(folder / "single")
            (folder / name).unlink()
    base, whole = lines["plain scan, sort, write"]["cpu_seconds"], lines["the whole"]["cpu_seconds"]
    return {
        "events": events,
        "users": users,
        "items": items,
        "lines": lines,
        "ratio_to_plain": round(whole / base, 2),
        "share_of_a_day": round(lines["a further day of 1%"]["cpu_seconds"] / whole, 3),
    }


def main() -> None:
    """Print the table, or one JSON object."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, size in (("events", 10_000_000), ("users", 1_000_000), ("items", 100_000)):
        parser.add_argument(f"--{name}", type=int, default=size)
    parser.add_argument("--data", type=Path, help="folder for the generated log and the warehouse; default: TMPDIR")
    parser.add_argument("--single", action="store_true", help="the same rows as one Parquet and one CSV file, too")
    parser.add_argument("--quick", action="store_true", help="100,000 events, in seconds: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    given = parser.parse_args()
    if given.quick:
        given.events, given.users, given.items = 100_000, 10_000, 5_000
    with tempfile.TemporaryDirectory(prefix="recsys-ingest-", dir=given.data) as folder:
        found = work(Path(folder), given.events, given.users, given.items, given.single or given.quick)
    if given.json:
        print(json.dumps({"machine": common.machine(), **found}))
        return
    print(common.machine())
    print(f"\n{given.events:,} events of {given.users:,} users and {given.items:,} items\n")
    print("| what | new rows | CPU seconds | peak MiB |\n|---|---|---|---|")
    for name, line in found["lines"].items():
        print(f"| {name} | {line['rows']:,} | {line['cpu_seconds']:,.2f} | {line['peak_mib']:,} |")
    print(
        f"\nThe whole costs {found['ratio_to_plain']} times the plain one, "
        f"a further day {found['share_of_a_day']:.1%} of it."
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), *sys.argv[3:])
    else:
        main()
