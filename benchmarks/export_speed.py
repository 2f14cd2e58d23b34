"""Speed of the export targets: PostgreSQL beside `COPY` by psql of the same rows, Redis in users a minute.

    python benchmarks/export_speed.py postgresql --rows 10000000
    python benchmarks/export_speed.py redis --users 100000

Servers are started here, on loopback, from Debian's packages, and end with the program. `COPY` reads a CSV file of the
same rows, in the same columns, into an empty table: alone, and followed by the same primary key that the export makes.
The export's time is that of `Sink.write`, from the Delta table to the switch.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl

from recsys.exports.base import Candidates
from recsys.exports.registry import sinks_of
from recsys.settings.read import parse_settings
from recsys.storage.stream import overwrite_streamed
from recsys.storage.warehouse import SCHEMAS, table_path

ITEMS_A_USER = 100
USERS_A_BATCH = 5_000


def candidate_table(root: Path, users: int, run: str) -> Candidates:
    """A candidate table of random items, 100 a user."""
    schema = {**SCHEMAS["candidates"], "user_id": pl.String(), "item_id": pl.String()}
    generator = np.random.default_rng(0)

    def frames() -> Iterator[pl.DataFrame]:
        for first in range(0, users, USERS_A_BATCH):
            count = min(USERS_A_BATCH, users - first)
            names = pl.Series(np.repeat(np.arange(first, first + count), ITEMS_A_USER)).cast(pl.String).str.zfill(9)
            items = generator.integers(0, 1_000_000, count * ITEMS_A_USER)
            yield (
                pl.DataFrame(
                    {
                        "run": run,
                        "user_id": "u" + names,
                        "rank": np.tile(np.arange(1, ITEMS_A_USER + 1), count),
                        "item_id": "i" + pl.Series(items).cast(pl.String),
                        "score": generator.random(count * ITEMS_A_USER),
                        "source": "vector+transitions",
                        "bundle": "shop-3f9a01c27be4",
                        "index": "5d1f0c2e",
                        "as_of": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
                        "interactions_version": 7,
                        "items_version": 3,
                    }
                )
                .cast(schema)
                .select(*schema)
            )  # type: ignore[arg-type]

    version = overwrite_streamed(root, "candidates", schema, frames(), sorted_by="user_id", metadata={"run": run})
    return Candidates(path=table_path(root, "candidates"), version=version, run=run)


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A server with its defaults, but for a size of write-ahead log that takes the rows; yields its address."""
    user = pwd.getpwnam("nobody" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name)
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise SystemExit("There is no PostgreSQL here: apt-get install postgresql.")
    binaries, port = found[-1].parent, free_port()
    as_user: dict[str, Any] = (
        {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []} if os.geteuid() == 0 else {}
    )
    folder.mkdir()
    os.chown(folder, user.pw_uid, user.pw_gid)
    folder.parent.chmod(0o755)
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": folder, **as_user}
    options = ["-A", "trust", "-U", "owner", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run([str(binaries / "initdb"), "-D", str(folder / "data"), *options], check=True, **quiet)
    given = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "max_wal_size=8GB"]
    server = subprocess.Popen(
        [str(binaries / "postgres"), "-D", str(folder / "data"), "-p", str(port), *given], **quiet
    )
    address = f"postgresql://owner@127.0.0.1:{port}/postgres"
    try:
        while subprocess.run(["psql", address, "-qc", "select 1"], capture_output=True, check=False).returncode:
            time.sleep(0.1)
        yield address
    finally:
        server.send_signal(2)
        server.wait()


def psql(address: str, *statements: str) -> float:
    """Run statements by psql; returns the seconds."""
    began = time.perf_counter()
    commands = [word for statement in statements for word in ("-c", statement)]
    subprocess.run(["psql", address, "-qX", "-v", "ON_ERROR_STOP=1", *commands], check=True)
    return time.perf_counter() - began


def settings_of(**export: Any) -> Any:
    """A configuration with one target."""
    return parse_settings({"name": "shop", "interactions": {"source": "log.csv"}, "export": {"out": export}})


def measure_postgresql(folder: Path, rows: int, repeats: int) -> list[dict[str, Any]]:
    """Return the seconds of `COPY` and of the export, the best of several in turn."""
    candidates = candidate_table(folder / "warehouse", rows // ITEMS_A_USER, "r1")
    file = folder / "rows.csv"
    pl.scan_parquet(f"{candidates.path}/*.parquet").sort("user_id", "rank").sink_csv(file)
    file.chmod(0o644)
    seconds: dict[str, list[float]] = {"COPY": [], "COPY and its primary key": [], "the export": []}
    with postgresql(folder / "server") as address:
        columns = (
            "run text, user_id text, rank int, item_id text, score real, source text, bundle text, index text, "
            "as_of timestamptz, interactions_version bigint, items_version bigint"
        )
        for _ in range(repeats):
            psql(address, "drop table if exists peer", f"create table peer ({columns})", "checkpoint")
            copied = psql(address, f"\\copy peer from '{file}' csv header")
            keyed = psql(address, "alter table peer add primary key (user_id, rank)", "analyze peer")
            psql(address, "drop table if exists candidates, candidates__former", "checkpoint")
            (sink,) = sinks_of(settings_of(kind="postgresql", address=address))
            written = sink.write(candidates)
            assert written.rows == rows
            for name, value in zip(seconds, (copied, copied + keyed, written.seconds), strict=True):
                seconds[name].append(value)
    best = {name: min(values) for name, values in seconds.items()}
    return [
        {"what": name, "seconds": value, "rows a second": rows / value, "times COPY": value / best["COPY"]}
        for name, value in best.items()
    ]


def measure_redis(folder: Path, users: int) -> list[dict[str, Any]]:
    """Return the users a minute of a first export and of one that takes another's place."""
    binary = shutil.which("redis-server")
    if binary is None:
        raise SystemExit("There is no Redis here: apt-get install redis-server.")
    port = free_port()
    given = ["--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen([binary, *given], stdout=subprocess.DEVNULL)
    try:
        (sink,) = sinks_of(settings_of(kind="redis", address=f"redis://127.0.0.1:{port}/0"))
        found = []
        for run in ("the first", "the next"):
            report = sink.write(candidate_table(folder / "warehouse", users, run))
            assert report.rows == users
            found.append({"export": run, "seconds": report.seconds, "users a minute": users / report.seconds * 60})
        return found
    finally:
        server.kill()
        server.wait()


def show(found: dict[str, Any]) -> None:
    """Print the table."""
    rows = [
        {name: value if isinstance(value, str) else f"{value:,.2f}" for name, value in row.items()}
        for row in found["measured"]
    ]
    print(common.table(rows))


def main(arguments: list[str] | None = None) -> None:
    """Measure one target."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer rows: does it run?")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of the table")
    parser.add_argument("target", choices=["postgresql", "redis"])
    parser.add_argument("--rows", type=int, default=1_000_000, help="of PostgreSQL")
    parser.add_argument("--users", type=int, default=100_000, help="of Redis, 100 items each")
    parser.add_argument("--repeats", type=int, default=1, help="of PostgreSQL; the best counts")
    given = parser.parse_args(arguments)
    rows, users = (100_000, 1_000) if given.quick else (given.rows, given.users)
    with tempfile.TemporaryDirectory(prefix="recsys-export-") as folder:
        if given.target == "postgresql":
            measured = measure_postgresql(Path(folder), rows, given.repeats)
        else:
            measured = measure_redis(Path(folder), users)
    common.answer(given, {"target": given.target, "rows": rows, "users": users, "measured": measured}, show)


if __name__ == "__main__":
    common.from_shell(main)
