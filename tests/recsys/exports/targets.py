"""Shared by the tests of the targets: candidate tables, settings, kills and readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.exports.base import Candidates, Sink
from recsys.exports.registry import sinks_of
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.stream import overwrite_streamed
from recsys.storage.warehouse import SCHEMAS, table_path

ROOT = Path(__file__).resolve().parents[3]
ODD = {"a": ["x 1", 'y,"2', "z'; drop table candidates; --"], "b c": ["ünï\ncode"], "d:*\\": ["{}", "%s"]}


def publish(root: Path, lists: dict[Any, list[Any]], run: str = "r1", **columns: Any) -> Candidates:
    """A version of a candidate table."""
    schema = {**SCHEMAS["candidates"], "user_id": pl.String(), "item_id": pl.String()}
    length = sum(map(len, lists.values()))
    users = [user for user, items in lists.items() for _ in items]
    given = {
        "run": run,
        "user_id": pl.Series(users, dtype=pl.String),
        "rank": pl.Series([rank for items in lists.values() for rank in range(1, len(items) + 1)], dtype=pl.Int32),
        "item_id": pl.Series([item for items in lists.values() for item in items], dtype=pl.String),
        "score": pl.Series([1 / rank for items in lists.values() for rank in range(1, len(items) + 1)]),
        "source": "vector",
        "bundle": "tiny-0123",
        "index": "abcd",
        "as_of": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        "interactions_version": 3,
        "items_version": None,
        **columns,
    }
    frame = pl.DataFrame(given).cast(schema).select(*schema) if length else pl.DataFrame(schema=schema)
    metadata = {"name": "shop", "run": run}
    version = overwrite_streamed(root, "candidates", schema, iter([frame]), sorted_by="user_id", metadata=metadata)
    return Candidates(path=table_path(root, "candidates"), version=version, run=run)


def many(users: int, item: str) -> dict[str, list[str]]:
    """Ten times the same item for each of many users."""
    return {f"u{number:06d}": [item] * 10 for number in range(users)}


def settings_of(name: str = "shop", **export: Any) -> Settings:
    """A configuration whose only target is called "out"."""
    return parse_settings({"name": name, "interactions": {"source": "log.csv"}, "export": {"out": export}})


def sink_of(name: str = "shop", **export: Any) -> Sink:
    (sink,) = sinks_of(settings_of(name, **export))
    return sink


KILLED = """
import json, sys, time, threading, os
import polars as pl
sys.path.insert(0, sys.argv[1])
from recsys.exports import rows
from recsys.exports.base import Candidates
from tests.recsys.exports.targets import sink_of
rows.BATCH_ROWS = 500
sink = sink_of(**json.loads(sys.argv[2]))
candidates, since = (Candidates(path=sys.argv[3], version=int(sys.argv[n]), run=sys.argv[5]) for n in (4, 6))
users = pl.Series("user_id", json.loads(sys.argv[7]))
print("begin", flush=True)
if len(users):
    assert sink.update(candidates, users, since).updated
else:
    sink.write(candidates)
print("end", flush=True)
"""


def kill_in_the_middle(
    candidates: Candidates,
    moments: list[float],
    check: Callable[[], None],
    users: Iterable[str] = (),
    since: Candidates | None = None,
    **export: Any,
) -> int:
    """Export in a process that is killed so many seconds after it began, then `check`; returns who ended before.

    With `users` it is an update of their rows, from the version `since`.
    """
    arguments = [str(ROOT), json.dumps(export), candidates.path, str(candidates.version), str(candidates.run)]
    arguments += [str((since or candidates).version), json.dumps(list(users))]
    ended = 0
    for moment in moments:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, *arguments],
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert process.stdout is not None and process.stdout.readline() == "begin\n"
        time.sleep(moment)
        process.kill()
        ended += "end" in process.stdout.read()
        process.wait()
        process.stdout.close()
        check()
    return ended


@contextmanager
def reading(read: Callable[[], set[Any]]) -> Iterator[list[set[Any]]]:
    """Read again and again while the block works; what was seen, at the end, without repetitions."""
    seen: list[set[Any]] = []
    stop = threading.Event()
    failed: list[BaseException] = []

    def loop() -> None:
        try:
            while not stop.is_set():
                found = read()
                if not seen or seen[-1] != found:
                    seen.append(found)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=loop)
    thread.start()
    try:
        while not seen and not failed:
            time.sleep(0.01)
        yield seen
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
