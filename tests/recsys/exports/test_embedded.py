"""Databases in files: SQLite's table among others, DuckDB's file behind a link."""

from __future__ import annotations

import contextlib
import json
import math
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from recsys.errors import InputError, RecsysError
from recsys.exports import rows as shaping
from recsys.exports import sqlite as module
from tests.recsys.exports.targets import ODD, ROOT, kill_in_the_middle, many, publish, reading, sink_of

OLD, NEW = {"ann": ["x", "y"], "bob": ["z"]}, {"ann": ["w"]}
KINDS = ["sqlite", "duckdb"]


def query(kind: str, path: Path, sql: str) -> list[Any]:
    if kind == "sqlite":
        with contextlib.closing(sqlite3.connect(path, timeout=60)) as connection:
            rows = connection.execute(sql).fetchall()
            connection.commit()
            return rows
    with contextlib.closing(duckdb.connect(str(path), read_only=True)) as connection:
        return list(connection.execute(sql).fetchall())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_layouts_and_columns(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    candidates = publish(tmp_path / "warehouse", ODD)
    sink = sink_of(kind=kind, path=str(path))
    sink.check()
    assert not sink.present() and not path.exists()
    report = sink.write(candidates)
    rows = query(kind, path, "select user_id, item_id from candidates order by user_id, rank")
    assert rows == [(user, item) for user, items in sorted(ODD.items()) for item in items]
    assert report.rows == len(rows) and sink.present() and sink.holds(candidates)
    named = {"user_id": "the 'user\"", "item_id": "i", "score": "s"}
    sink_of(kind=kind, path=str(path), layout="wide", columns=named, table='t"; drop table x; --').write(candidates)
    found = query(kind, path, 'select "the \'user""", i, s from "t""; drop table x; --" order by 1 limit 1')[0]
    lists = [json.loads(value) if kind == "sqlite" else value for value in found[1:]]
    assert found[0] == "a" and lists[0] == ODD["a"] and lists[1] == pytest.approx([1, 1 / 2, 1 / 3])
    with pytest.raises(InputError, match=r"export\.out\.columns: .* did you mean 'item_id'"):
        sink_of(kind=kind, path=str(path), columns={"itme_id": "x"}).check()


@pytest.mark.parametrize("kind", KINDS)
def test_again_older_and_back(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    sink = sink_of(kind=kind, path=str(path))
    with pytest.raises(RecsysError, match="none can be taken back"):
        sink.rollback()
    older, newer = publish(tmp_path / "warehouse", OLD), publish(tmp_path / "warehouse", NEW, "r2")
    sink.write(older)
    sink.write(newer)
    sink.write(newer)
    count = "select count(*) from candidates"
    assert query(kind, path, count) == [(1,)] and sink.holds(newer) and not sink.holds(older)
    with pytest.raises(RecsysError, match="which is newer than version 0; nothing was changed"):
        sink.write(older)
    back = sink.rollback()
    assert (back.version, back.instead) == (0, 1) and query(kind, path, count) == [(3,)]
    with pytest.raises(RecsysError, match="keeps no copy older than that of version 0"):
        sink.rollback()
    sink.write(newer)
    sink.write(publish(tmp_path / "warehouse", {}, "r3"), keep=False)
    assert query(kind, path, count) == [(0,)]
    with pytest.raises(RecsysError, match="keeps no copy older"):
        sink.rollback()
    with pytest.raises(InputError, match="the configuration 'shop', and this one is 'other'"):
        sink_of("other", kind=kind, path=str(path)).check()


@pytest.mark.parametrize("kind", KINDS)
def test_readers_see_whole_tables(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping, "BATCH_ROWS", 1_000)
    path = tmp_path / "shop.db"
    sink = sink_of(kind=kind, path=str(path))
    sink.write(publish(tmp_path / "warehouse", many(500, "0"), "r0"))
    read = "select item_id, count(*) from candidates group by item_id"
    with reading(lambda: set(query(kind, path, read))) as seen:
        for number in (1, 2):
            sink.write(publish(tmp_path / "warehouse", many(500, str(number)), f"r{number}"))
    assert seen[0] == {("0", 5_000)} and all(found in [{(str(n), 5_000)} for n in range(3)] for found in seen)


def rows(kind: str, path: Path) -> list[Any]:
    """Counts of each item in the copy."""
    if kind == "files":
        return list(pl.read_parquet(path / "*.parquet")["item_id"].value_counts().rows())
    return query(kind, path, "select item_id, count(*) from candidates group by item_id")


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("files", marks=pytest.mark.slow)])
@pytest.mark.parametrize("moments", [[0.02, 0.1], pytest.param([n / 40 for n in range(20)], marks=pytest.mark.slow)])
def test_a_kill_leaves_the_old_table_or_the_new_one(kind: str, tmp_path: Path, moments: list[float]) -> None:
    path = tmp_path / "shop.db"
    given = {"kind": kind, "path": str(path)}
    sink = sink_of(**given)
    sink.write(publish(tmp_path / "warehouse", many(2_000, "old"), "r0"))
    newer = publish(tmp_path / "warehouse", many(2_000, "new"), "r1")

    def whole() -> None:
        assert rows(kind, path) in ([("old", 20_000)], [("new", 20_000)])

    kill_in_the_middle(newer, moments, whole, **given)
    sink.write(newer)
    assert rows(kind, path) == [("new", 20_000)]
    assert sink.rollback().version == 0
    whole()


def test_an_sqlite_database_keeps_what_else_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    sink = sink_of(kind="sqlite", path=str(path))
    query("sqlite", path, "create table orders as select 1 as a")
    sink.write(publish(tmp_path / "warehouse", OLD))
    query("sqlite", path, "create view top as select user_id, item_id from candidates where rank = 1")
    sink.write(publish(tmp_path / "warehouse", NEW, "r2"))
    assert query("sqlite", path, "select * from top") == [("ann", "w")]  # the view follows the name
    assert query("sqlite", path, "select a from orders") == [(1,)]
    plan = query("sqlite", path, "explain query plan select * from candidates where user_id = 'ann' order by rank")
    assert "USING INDEX" in plan[0][3]
    query("sqlite", path, "create trigger t after insert on candidates begin select 1; end")
    with pytest.raises(InputError, match="the trigger t hangs on the table"):
        sink.check()


def test_what_is_somebody_elses_stays(tmp_path: Path) -> None:
    path, candidates = tmp_path / "shop.db", publish(tmp_path / "warehouse", OLD)
    sink = sink_of(kind="sqlite", path=str(path))
    for made, removed, sentence in (
        ("create table candidates (a int)", "drop table candidates", "with the columns a and not run, user_id"),
        ("create view candidates as select 1 as a", "drop view candidates", "candidates is a view, not a table"),
        ("create table candidates__staging (a int)", "drop table candidates__staging", "is no table of an export"),
    ):
        query("sqlite", path, made)
        with pytest.raises(InputError, match=sentence):
            sink.write(candidates)
        query("sqlite", path, removed)
    (tmp_path / "text").write_text("no database, but a text that is long enough to be told from an empty file\n" * 9)
    for kind, where, sentence in (
        ("sqlite", tmp_path / "text", "is not an SQLite database"),
        ("duckdb", tmp_path / "text", "holds something that no export has written"),
        ("sqlite", tmp_path / "text" / "such" / "x.db", "text is a file, no folder"),
        ("sqlite", "s3://bucket/x.db", "is a URL"),
        ("duckdb", "s3://bucket/x.db", "is a URL|writes local files"),
    ):
        with pytest.raises(InputError, match=sentence):
            sink_of(kind=kind, path=str(where)).write(candidates)


def test_a_reader_that_does_not_end_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "shop.db"
    sink = sink_of(kind="sqlite", path=str(path))
    sink.write(publish(tmp_path / "warehouse", OLD))
    monkeypatch.setattr(module, "WAIT_SECONDS", 0.1)
    with contextlib.closing(sqlite3.connect(path)) as reader:
        rows = reader.execute("select * from candidates a, candidates b, candidates c")
        rows.fetchone()
        with pytest.raises(RecsysError, match="did not let go of the database") as caught:
            sink.write(publish(tmp_path / "warehouse", NEW, "r2"))
        assert isinstance(caught.value.__cause__, OSError)
    assert query("sqlite", path, "select count(*) from candidates") == [(3,)]


@pytest.mark.parametrize("kind", KINDS)
def test_odd_values(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "shop.db"
    sink = sink_of(kind=kind, path=str(path), columns={"user_id": "u", "rank": "r", "score": "s"})
    lists = {"a": ["x", "y"]}
    sink.write(publish(tmp_path / "warehouse", lists, user_id=pl.Series([None, "a"]), score=[math.nan, math.inf]))
    rows = query(kind, path, "select u, r, s from candidates order by u nulls first")
    assert rows[0][:2] == (None, 1) and rows[1] == ("a", 2, math.inf)
    assert rows[0][2] is None if kind == "sqlite" else math.isnan(rows[0][2])


FULL = """
import json, resource, sys
sys.path.insert(0, sys.argv[1])
from recsys.errors import RecsysError
from recsys.exports.base import Candidates
from tests.recsys.exports.targets import sink_of
sink, candidates = sink_of(**json.loads(sys.argv[2])), Candidates(path=sys.argv[3], version=1, run="r1")
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]), int(sys.argv[4])))
try:
    sink.write(candidates)
except RecsysError as error:
    print(error)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_a_disk_that_takes_no_more_leaves_the_old_table(kind: str, tmp_path: Path) -> None:
    given = {"kind": kind, "path": str(tmp_path / "shop.db")}
    sink = sink_of(**given)
    sink.write(publish(tmp_path / "warehouse", OLD, "r0"))
    newer = publish(tmp_path / "warehouse", many(3_000, "new"), "r1")
    command = [sys.executable, "-c", FULL, str(ROOT), json.dumps(given), newer.path, str(100_000)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert (
        re.fullmatch(r"The export to .* (failed|cannot be written).*\.\n", done.stdout)
        and "Traceback" not in done.stderr
    )
    read = "select user_id, item_id from candidates order by user_id, rank"
    assert query(kind, tmp_path / "shop.db", read) == [("ann", "x"), ("ann", "y"), ("bob", "z")]
    assert sink.write(newer).rows == 30_000 and sink.rollback().version == 0


@pytest.mark.parametrize("kind", KINDS)
def test_names_and_ids_cannot_inject(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a 'quoted' \"name\".db"
    if kind == "sqlite":
        query("sqlite", path, "create table victim as select 1 as a")
    names = {"table": "t'\"; drop table victim; --", "columns": {"user_id": "u\"'; drop", "item_id": "i"}}
    sink = sink_of(kind=kind, path=str(path), **names)
    for number in range(3):
        sink.write(publish(tmp_path / "warehouse", ODD, f"r'{number}\"; drop table victim"))
    if kind == "sqlite":
        old = publish(tmp_path / "warehouse", ODD, "r2")
        sink.write(old)
        sink.update(publish(tmp_path / "warehouse", ODD, "r2"), pl.Series("user_id", list(ODD)), old)
        assert query(kind, path, "select a from victim") == [(1,)]
    table = '"t\'""; drop table victim; --"'
    rows = query(kind, path, f'select "u""\'; drop", i from {table}')
    assert sorted(rows) == sorted((user, item) for user, items in ODD.items() for item in items)


def test_what_is_forgotten_is_not_in_the_free_pages_of_sqlite(tmp_path: Path) -> None:
    sink = sink_of(kind="sqlite", path=str(tmp_path / "shop.db"))
    sink.write(publish(tmp_path / "warehouse", {**many(500, "x"), "zoe@example.org": ["y"]}, "r0"))
    sink.write(publish(tmp_path / "warehouse", many(1, "x"), "r1"))
    assert b"zoe@" in (tmp_path / "shop.db").read_bytes()
    sink.write(publish(tmp_path / "warehouse", many(1, "x"), "r1"), keep=False)
    assert b"zoe@" not in (tmp_path / "shop.db").read_bytes()
