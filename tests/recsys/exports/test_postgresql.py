"""A real server's table is the old one or the new one, whole, whatever happens; and no password is ever shown."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.errors import InputError, RecsysError
from recsys.exports import postgresql as module
from recsys.exports import rows as shaping
from recsys.exports.base import Candidates
from tests.recsys.exports.targets import ODD, kill_in_the_middle, many, publish, reading, sink_of
from tests.servers import PASSWORD, WRITTEN, Postgresql

OLD, NEW = {"ann": ["x", "y"], "bob": ["z"]}, {"ann": ["w"]}


def target(server: Postgresql, **more: Any) -> dict[str, Any]:
    return {"kind": "postgresql", "address": server.address(), **more}


def items(server: Postgresql, table: str = "public.candidates") -> list[Any]:
    return server.query(f"select user_id, item_id from {table} order by user_id, rank")


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    return publish(tmp_path / "warehouse", OLD)


def test_the_table_holds_the_rows_a_key_and_what_it_is(postgresql: Postgresql, tmp_path: Path) -> None:
    candidates = publish(tmp_path / "warehouse", ODD)
    sink = sink_of(**target(postgresql))
    sink.check()
    assert not sink.present()
    report = sink.write(candidates)
    assert items(postgresql) == [(user, item) for user, items in sorted(ODD.items()) for item in items]
    types = dict(
        postgresql.query(
            "select column_name::text, data_type::text from information_schema.columns "
            "where table_name = 'candidates' order by ordinal_position"
        )
    )
    assert types["user_id"] == "text" and types["rank"] == "integer" and types["score"] == "real"
    assert types["as_of"] == "timestamp with time zone" and list(types) == report.columns
    key = (
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = 'candidates'::regclass and contype = 'p'"
    )
    assert postgresql.query(key) == [("PRIMARY KEY (user_id, rank)",)]
    ((comment,),) = postgresql.query("select obj_description('candidates'::regclass)")
    assert '"run": "r1"' in comment and PASSWORD not in comment and WRITTEN not in comment
    assert (report.rows, report.version, report.kind) == (sum(map(len, ODD.values())), 0, "postgresql")
    assert report.path == f"postgresql://***@127.0.0.1:{postgresql.port}/postgres public.candidates"
    assert sink.present() and sink.holds(candidates)


def test_columns_and_layouts(postgresql: Postgresql, candidates: Candidates) -> None:
    sink_of(**target(postgresql, columns={"item_id": "sku", "user_id": 'the "user"'})).write(candidates)
    assert postgresql.query('select sku, "the ""user""" from candidates order by 1') == [
        ("x", "ann"),
        ("y", "ann"),
        ("z", "bob"),
    ]
    sink_of(**target(postgresql, layout="wide", columns={"user_id": "u", "item_id": "i", "score": "s"})).write(
        candidates
    )
    assert postgresql.query("select * from candidates order by u") == [
        ("ann", ["x", "y"], [1.0, 0.5]),
        ("bob", ["z"], [1.0]),
    ]
    with pytest.raises(InputError, match=r"export\.out\.columns: .* no column 'itme_id'; did you mean 'item_id'"):
        sink_of(**target(postgresql, columns={"itme_id": "x"})).check()


def test_again_older_and_back(postgresql: Postgresql, tmp_path: Path, candidates: Candidates) -> None:
    sink = sink_of(**target(postgresql))
    with pytest.raises(RecsysError, match="none can be taken back"):
        sink.rollback()
    sink.write(candidates)
    newer = publish(tmp_path / "warehouse", NEW, "r2")
    sink.write(newer)
    sink.write(newer)  # doubles no row, and the way back stays
    assert items(postgresql) == [("ann", "w")] and sink.holds(newer) and not sink.holds(candidates)
    assert not sink_of(**target(postgresql, layout="wide")).holds(newer)
    with pytest.raises(
        RecsysError, match=r"holds version 1 .*\(run r2\), which is newer than version 0; nothing was changed"
    ):
        sink.write(candidates)
    assert items(postgresql) == [("ann", "w")]
    back = sink.rollback()
    assert (back.version, back.instead) == (0, 1) and items(postgresql) == [("ann", "x"), ("ann", "y"), ("bob", "z")]
    with pytest.raises(RecsysError, match="keeps no copy older than that of version 0"):
        sink.rollback()
    sink.write(newer)
    sink.write(publish(tmp_path / "warehouse", {"cid": ["v"]}, "r3"), keep=False)
    assert postgresql.query(
        "select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    ) == [("candidates",)]
    with pytest.raises(InputError, match="holds the candidates of the configuration 'shop', and this one is 'other'"):
        sink_of("other", **target(postgresql)).check()


def test_readers_see_whole_tables(postgresql: Postgresql, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping, "BATCH_ROWS", 1_000)
    sink = sink_of(**target(postgresql))
    sink.write(publish(tmp_path / "warehouse", many(1_000, "0"), "r0"))
    read = "select item_id, count(*) from candidates group by item_id"
    with reading(lambda: set(postgresql.query(read))) as seen:
        for number in (1, 2):
            sink.write(publish(tmp_path / "warehouse", many(1_000, str(number)), f"r{number}"))
    assert seen[0] == {("0", 10_000)} and all(found in [{(str(n), 10_000)} for n in range(3)] for found in seen)


KILLS = [0.0, 0.05, 0.15, 0.3]


@pytest.mark.parametrize("moments", [KILLS, pytest.param([n / 20 for n in range(20)], marks=pytest.mark.slow)])
def test_a_kill_leaves_the_old_table_or_the_new_one(
    postgresql: Postgresql, tmp_path: Path, moments: list[float]
) -> None:
    sink = sink_of(**target(postgresql))
    sink.write(publish(tmp_path / "warehouse", many(2_000, "old"), "r0"))
    newer = publish(tmp_path / "warehouse", many(2_000, "new"), "r1")

    def whole() -> None:
        found = postgresql.query("select item_id, count(*) from candidates group by item_id")
        assert found in ([("old", 20_000)], [("new", 20_000)])

    kill_in_the_middle(newer, moments, whole, **target(postgresql))
    for _ in range(100):  # the server needs a moment to find that a client is gone
        with contextlib.suppress(RecsysError):
            sink.write(newer)
            break
        time.sleep(0.1)
    assert postgresql.query("select item_id, count(*) from candidates group by item_id") == [("new", 20_000)]
    assert sink.rollback().version == 0


def test_a_server_that_goes_away_leaves_the_old_table(
    postgresql: Postgresql, tmp_path: Path, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(**target(postgresql))
    sink.write(candidates)
    newer = publish(tmp_path / "warehouse", many(3_000, "new"), "r1")
    monkeypatch.setattr(shaping, "BATCH_ROWS", 1_000)
    real = shaping.long_rows

    def until_it_stops(frame: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
        if frame.height and frame["user_id"][0] > "u001500":
            postgresql.stop()
        return real(frame, columns)

    with monkeypatch.context() as patch:
        patch.setattr(shaping, "long_rows", until_it_stops)
        with pytest.raises(RecsysError, match="failed, and nothing was changed") as caught:
            sink.write(newer)
    assert isinstance(caught.value.__cause__, OSError)  # it may pass: the step is tried again
    with pytest.raises(RecsysError, match=r"cannot be reached: .*Connection refused") as caught:
        sink.check()
    assert isinstance(caught.value.__cause__, OSError) and "p%40ss" not in str(caught.value)
    postgresql.start()
    assert items(postgresql) == [("ann", "x"), ("ann", "y"), ("bob", "z")]
    assert sink.write(newer).rows == 30_000


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("postgresql://owner:s3cret@127.0.0.1:{port}/postgres", r"password authentication failed .*; check the user"),
        ("postgresql://nobody:s3cret@127.0.0.1:{port}/postgres", r"password authentication failed .*; check the user"),
        ("postgresql://owner:" + WRITTEN + "@127.0.0.1:{port}/nothing", r'database "nothing" does not exist'),
        ("postgresql://owner:s3c/ret@127.0.0.1:{port}/postgres", r"leads to no database: .* as %40 and %2F"),
        ("postgresql://owner:s3c@ret@127.0.0.1:{port}/postgres", r"leads to no database: .* as %40 and %2F"),
        ("mysql://owner:s3cret@127.0.0.1/x", r"export\.out\.address is no address of PostgreSQL"),
        ("postgresql://owner:${{NO_SUCH}}@127.0.0.1/x", r"export\.out\.address needs the environment variable NO_SUCH"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_a_password(
    postgresql: Postgresql, address: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        sink_of(kind="postgresql", address=address.format(port=postgresql.port)).check()
    shown = str(caught.value)
    assert "\n" not in shown and not any(word in shown for word in ("s3c", "ret@", WRITTEN, PASSWORD))


def test_the_password_comes_from_the_environment(
    postgresql: Postgresql, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_DB", postgresql.address())
    assert sink_of(kind="postgresql", address="${SHOP_DB}").write(candidates).rows == 3
    monkeypatch.setenv("SHOP_PASSWORD", WRITTEN)
    address = f"postgresql://owner:${{SHOP_PASSWORD}}@127.0.0.1:{postgresql.port}/postgres"
    assert sink_of(kind="postgresql", address=address).holds(candidates)


def test_what_is_somebody_elses_stays(postgresql: Postgresql, candidates: Candidates) -> None:
    sink = sink_of(**target(postgresql))
    for made, removed, sentence in (
        (
            "create table candidates (a int)",
            "drop table candidates",
            "no export has made, with the columns a and not run, user_id",
        ),
        ("create view candidates as select 1 as a", "drop view candidates", "candidates is a view, not a table"),
        (
            "create table candidates__former (a int)",
            "drop table candidates__former",
            "candidates__former is no table of an export",
        ),
        (
            "create table candidates__staging (a int)",
            "drop table candidates__staging",
            "candidates__staging is no table of an export",
        ),
    ):
        postgresql.query(made)
        for act in (sink.check, lambda: sink.write(candidates)):
            with pytest.raises(InputError, match=sentence):
                act()
        postgresql.query(removed)
    sink.write(candidates)
    postgresql.query("comment on table candidates is null")
    with pytest.raises(InputError, match="a table that no export has made, and it has rows"):
        sink.write(candidates)
    postgresql.query("delete from candidates")
    assert sink.write(candidates).rows == 3  # an empty table with the right columns was made for us
    with pytest.raises(InputError, match="has no schema 'nowhere'"):
        sink_of(**target(postgresql, schema_name="nowhere")).check()


def test_grants_and_indexes_go_over_to_the_new_table(
    postgresql: Postgresql, tmp_path: Path, candidates: Candidates
) -> None:
    sink = sink_of(**target(postgresql))
    sink.write(candidates)
    postgresql.query('drop role if exists "Reader\'s %s"', "create role \"Reader's %s\" login password 'r'")
    postgresql.query(
        "grant usage on schema public to public",
        'grant select on candidates to "Reader\'s %s" with grant option',
        "grant update (score) on candidates to public",
        'create index "by item" on candidates (item_id, lower(user_id)) where rank < 3',
    )
    rights = "select relacl::text from pg_class where oid = 'candidates'::regclass"
    before = postgresql.query(rights)
    for number in (2, 3):
        sink.write(publish(tmp_path / "warehouse", NEW, f"r{number}"))
    assert postgresql.query(rights) == before
    columns = "select attname::text, attacl::text from pg_attribute where attacl is not null and attrelid = "
    columns += "'candidates'::regclass"
    assert postgresql.query(columns) == [("score", "{=w/owner}")]
    ((index,),) = postgresql.query(
        "select pg_get_indexdef(indexrelid) from pg_index where indrelid = 'candidates'::regclass and not indisprimary"
    )
    assert "(item_id, lower(user_id)) WHERE (rank < 3)" in index
    sink.rollback()
    assert postgresql.query(rights) == before


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        ("create view top as select * from candidates", "the view public.top hangs on the table"),
        ("alter table candidates enable row level security", "row level security hangs on the table"),
        ("create publication p for table candidates", "the publication p hangs on the table"),
    ],
)
def test_what_a_switch_would_lose_is_refused(
    postgresql: Postgresql, candidates: Candidates, made: str, sentence: str
) -> None:
    sink = sink_of(**target(postgresql))
    sink.write(candidates)
    postgresql.query("drop publication if exists p", made)
    with pytest.raises(InputError, match=sentence):
        sink.check()
    postgresql.query("drop publication if exists p")


def test_names_and_ids_cannot_inject(postgresql: Postgresql, tmp_path: Path) -> None:
    postgresql.query("create table victim as select 1 as a", """create schema "sch""; drop table victim; --" """)
    names = {"schema_name": 'sch"; drop table victim; --', "table": "t'\"; drop table public.victim; $lock$ %s"}
    sink = sink_of(**target(postgresql, **names, columns={"user_id": "u\"'; drop", "item_id": "i"}))
    for number in range(3):
        sink.write(publish(tmp_path / "warehouse", ODD, f"r'{number}\"; drop table victim"))
    sink.rollback()
    assert sink.present() and postgresql.query("select a from victim") == [(1,)]
    postgresql.query("""drop schema "sch""; drop table victim; --" cascade""")


def test_odd_values(postgresql: Postgresql, tmp_path: Path) -> None:
    sink = sink_of(**target(postgresql, columns={"user_id": "u", "rank": "r", "item_id": "i", "score": "s"}))
    nobody = publish(
        tmp_path / "warehouse", {"a": ["x", "y"]}, user_id=pl.Series([None, "a"]), score=[math.nan, math.inf]
    )
    sink.write(nobody)
    rows = postgresql.query("select u, r, i, s from candidates order by u nulls first")
    assert rows[0][:3] == (None, 1, "x") and math.isnan(rows[0][3]) and rows[1] == ("a", 2, "y", math.inf)
    sink.write(publish(tmp_path / "warehouse", {}, "r2"))
    assert postgresql.query("select count(*) from candidates") == [(0,)]
    with pytest.raises(RecsysError, match=r"invalid byte sequence .* 0x00 \(column i\)"):
        sink.write(publish(tmp_path / "warehouse", {"a": ["x\0y"]}, "r3"))
    assert postgresql.query("select count(*) from candidates") == [(0,)]


def test_a_reader_that_does_not_end_holds_up_the_switch_alone(
    postgresql: Postgresql, tmp_path: Path, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    from adbc_driver_postgresql import dbapi

    sink = sink_of(**target(postgresql))
    sink.write(candidates)
    newer = publish(tmp_path / "warehouse", NEW, "r2")
    monkeypatch.setattr(module, "TRIES", 2)
    monkeypatch.setattr(module, "EACH_MS", 100)
    with (
        contextlib.closing(dbapi.connect(postgresql.address())) as reader,
        contextlib.closing(reader.cursor()) as cursor,
    ):
        cursor.execute("select count(*) from candidates")
        cursor.fetchall()  # its transaction goes on, and holds the table
        with pytest.raises(RecsysError, match="readers did not let go of the table") as caught:
            sink.write(newer)
        assert isinstance(caught.value.__cause__, OSError)
        monkeypatch.setattr(module, "TRIES", 300)
        ending = threading.Timer(0.5, reader.rollback)
        ending.start()
        sink.write(newer)
        ending.join()
    assert items(postgresql) == [("ann", "w")]


def test_two_exports_do_not_mix(postgresql: Postgresql, candidates: Candidates) -> None:
    sink = sink_of(**target(postgresql))
    with sink.database(writing=True), pytest.raises(RecsysError, match=r"Another export to .* is running"):
        sink.write(candidates)


def test_a_server_without_room_leaves_the_old_table(
    postgresql: Postgresql, tmp_path: Path, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(**target(postgresql))
    sink.write(candidates)
    monkeypatch.setattr(module, "SORT_MEMORY", "1MB")
    postgresql.query(
        "alter role owner set temp_file_limit = '64kB'", "alter role owner set maintenance_work_mem = '1MB'"
    )
    try:
        with pytest.raises(RecsysError, match="failed, and nothing was changed: temporary file size exceeds") as caught:
            sink.write(publish(tmp_path / "warehouse", many(3_000, "new"), "r1"))
        assert isinstance(caught.value.__cause__, OSError)  # there may be room again
    finally:
        postgresql.query("alter role owner reset all")
    assert items(postgresql) == [("ann", "x"), ("ann", "y"), ("bob", "z")]
