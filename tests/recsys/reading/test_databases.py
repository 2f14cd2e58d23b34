"""Rows of real databases: types, faults, and what must not be said."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from datetime import time as clock
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pytest

from recsys.errors import InputError, RecsysError
from recsys.pipelines.steps import is_transient
from recsys.reading import databases, drivers
from recsys.reading.id_lists import read_ids
from recsys.reading.readers import Rows, read_rows
from recsys.reading.reasons import BAD_BYTES, DEFECT, FILE_LINE, FILE_RAW
from recsys.reading.sources import find_files, origins
from recsys.settings import IdListSettings, SourceSettings
from tests.recsys.reading.shops import KINDS, Shop, open_shop
from tests.servers import PASSWORD, WRITTEN, Postgresql, free_port


@pytest.fixture(params=KINDS)
def shop(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    return open_shop(request.param, tmp_path, request, monkeypatch)


def opened(root: Path, wanted: list[str] | None = None, **keys: Any) -> Rows:
    settings = SourceSettings(**keys)
    (file,) = find_files("interactions", settings, str(root))
    return read_rows(file, settings, root, wanted)


def read(root: Path, **keys: Any) -> pl.DataFrame:
    return opened(root, **keys).frame.drop(FILE_LINE, FILE_RAW, DEFECT).collect()


def test_a_query_and_a_table_give_the_same_rows(shop: Shop, tmp_path: Path) -> None:
    shop.do(
        'create table "Odd ""name" (user_id integer, item text)',
        """insert into "Odd ""name" values (1, 'a'), (2, null), (7, 'it''s')""",
    )
    table = opened(tmp_path, source=shop.source, table='Odd "name')
    query = opened(tmp_path, source=shop.source, query='select * from "Odd ""name" -- all of it;\n;  ')
    rows = table.frame.drop(FILE_LINE, FILE_RAW, DEFECT).collect()
    assert rows.equals(query.frame.drop(FILE_LINE, FILE_RAW, DEFECT).collect())
    assert rows.with_columns(pl.col("user_id").cast(pl.Int64)).rows() == [(1, "a"), (2, None), (7, "it's")]
    assert table.columns == ("user_id", "item") and table.digest == query.digest
    assert table.file.name.endswith(': Odd "name') and ": query " in query.file.name
    some = opened(tmp_path, ["item", "weight"], source=shop.source, table='Odd "name')
    assert some.frame.drop(FILE_LINE, FILE_RAW, DEFECT).collect().columns == ["item"] and some.columns == table.columns


def test_the_order_of_a_query_is_kept(shop: Shop, tmp_path: Path) -> None:
    shop.do("create table t (n integer)", *(f"insert into t values ({n})" for n in (3, 1, 2, 9, 5)))
    ordered = read(tmp_path, source=shop.source, query="select n from t order by n desc")
    assert ordered["n"].cast(pl.Int64).to_list() == [9, 5, 3, 2, 1]


def test_the_digest_is_of_the_rows_in_any_order(shop: Shop, tmp_path: Path) -> None:
    shop.do("create table t (n integer, s text)", "insert into t values (1, 'a'), (2, 'b')")

    def digest(tail: str) -> str:
        return opened(tmp_path, source=shop.source, query=f"select * from t {tail}").digest

    before = digest("order by n")
    assert digest("order by n desc") == before != digest("where n = 1")
    shop.do("update t set s = 'a'")
    assert digest("order by n") != before
    shop.do("update t set s = 'b' where n = 1", "update t set s = 'a' where n = 2")  # the same values in other rows
    assert digest("order by n") != before


@pytest.mark.parametrize(("rows", "said"), [
    ({"table": "nowhere"}, "nowhere"),
    ({"query": "select nothing from t"}, "nothing"),
    ({"query": "selct * from t"}, "syntax error"),
    ({"query": "delete from t"}, "(?i)from|delete"),
    ({"query": "insert into t values (1) returning n"}, "(?i)insert|into"),
    ({"query": "select 1 as n; drop table t"}, ";|drop"),
    ({"query": "select 1 as n) as x; drop table t; select * from (select 2 as n"}, "(?i)one statement|drop"),
    ({"query": " ; "}, "is empty"),
])  # fmt: skip
def test_what_gives_no_rows_is_one_sentence_and_changes_nothing(
    shop: Shop, tmp_path: Path, rows: dict[str, str], said: str
) -> None:
    shop.do("create table t (n integer)", "insert into t values (1)")
    with pytest.raises(InputError, match=said) as raised:
        read(tmp_path, source=shop.source, **rows)
    assert len(str(raised.value).splitlines()) == 1 and "interactions." in str(raised.value), raised.value
    assert shop.do("select n from t") == [(1,)]


def test_a_query_that_breaks_in_the_middle(shop: Shop, tmp_path: Path) -> None:
    shop.do("create table t (n integer)")
    broken = {
        "postgresql": "select 1 / (60000 - g) as n from generate_series(1, 60000) g",
        "duckdb": "select cast(case when range = 140000 then 'x' else '1' end as integer) as n from range(150000)",
        "sqlite": "with recursive r(n) as (select 1 union all select n + 1 from r where n < 60000) "
        "select case when n = 60000 then abs(-9223372036854775808) end as n from r",
    }[shop.kind]
    with pytest.raises(
        InputError, match=r"(division by zero|Could not convert|integer overflow).*; check interactions\."
    ):
        read(tmp_path, source=shop.source, query=broken)


def test_types_of_postgresql(postgresql: Postgresql, tmp_path: Path) -> None:
    postgresql.query("create type mood as enum ('good', 'bad')", "create domain positive as int check (value > 0)")
    columns = {
        "small": "7::smallint", "big": "9007199254740993", "price": "12.50::numeric(10, 2)",
        "whole": "5::numeric(12, 0)", "long": "12345678901234567890::numeric(20, 0)", "free": "'NaN'::numeric",
        "yes": "true", "word": "'x'::varchar(9)",
        "padded": "'z'::char(4)", "one": "'b2c7cdc2-9a66-4b8f-9d0f-0c1d3a1d4a6e'::uuid", "doc": "'{\"a\": [1]}'::jsonb",
        "zoned": "'2026-03-29 03:30:00+02'::timestamptz", "naive": "'2026-03-29 03:30:00.5'::timestamp",
        "day": "'2026-03-29'::date", "clock": "'10:00'::time", "span": "'1 day'::interval", "mood": "'good'::mood",
        "words": "array['a', 'b', null]", "moods": "array['good', 'bad']::mood[]", "prices": "array[1.5, 2]::numeric[]",
        "raw": "'\\xc3bc'::bytea", "host": "'10.0.0.1'::inet", "paid": "'5.5'::money", "few": "3::positive",
        "span4": "int4range(1, 3)", "nothing": "null", "none": "null::mood",
    }  # fmt: skip
    postgresql.query(f"create table t as select {', '.join(f'{value} as {name}' for name, value in columns.items())}")
    row = read(tmp_path, source=postgresql.address(), table="t").row(0, named=True)
    assert row.pop("free") != row.get("free")  # not a number
    assert row == {
        "small": 7, "big": 9007199254740993, "price": 12.5, "whole": 5, "long": "12345678901234567890", "yes": True,
        "word": "x", "padded": "z", "one": "b2c7cdc2-9a66-4b8f-9d0f-0c1d3a1d4a6e", "doc": '{"a": [1]}',
        "zoned": datetime(2026, 3, 29, 1, 30, tzinfo=UTC), "naive": datetime(2026, 3, 29, 3, 30, 0, 500_000),
        "day": date(2026, 3, 29), "clock": clock(10), "span": "1 day", "mood": "good", "words": ["a", "b", None],
        "moods": ["good", "bad"], "prices": ["1.5", "2"], "raw": "ü", "host": "10.0.0.1/32", "paid": "$5.50", "few": 3,
        "span4": "[1,3)", "nothing": None, "none": None,
    }  # fmt: skip


def test_times_without_an_end_are_none(postgresql: Postgresql, tmp_path: Path) -> None:
    values = ", ".join(
        f"('{value}', '{value}', '{value}')" for value in ("infinity", "-infinity", "2026-01-02", "0044-03-15 BC")
    )
    postgresql.query(
        "create table t (a timestamptz, b timestamp, c date)", f"insert into t values {values}, (null, null, null)"
    )
    rows = read(tmp_path, source=postgresql.address(), table="t")
    assert rows["c"].to_list() == [None, None, date(2026, 1, 2), None, None]
    assert rows["b"].to_list() == [None, None, datetime(2026, 1, 2), None, None]
    assert rows["a"].is_null().to_list() == [True, True, False, True, True]


def test_types_of_duckdb(tmp_path: Path) -> None:
    with contextlib.closing(duckdb.connect(str(tmp_path / "shop.db"))) as made:
        made.execute("create type mood as enum ('good', 'bad')")
        made.execute("set timezone = 'Asia/Tokyo'")
        made.execute(
            "create table t as select 7::hugeint huge, 12.50::decimal(10, 2) price, 'good'::mood mood, uuid() one, "
            "timestamptz '2026-03-29 03:30:00+02' zoned, timestamp_s '2026-03-29 03:30:00' naive, "
            "date '2026-03-29' as day, interval 1 day span, ['a', 'b'] words, "
            "{'a': 1} inside, 'x'::blob raw, null nothing, time '10:00' clock"
        )
    row = read(tmp_path, source="shop.db", table="t").row(0, named=True)
    assert (int(row["huge"]), float(row["price"]), row["mood"], len(row["one"])) == (7, 12.5, "good", 36)
    assert row["zoned"] == datetime(2026, 3, 29, 1, 30, tzinfo=UTC) and row["naive"] == datetime(2026, 3, 29, 3, 30)
    assert (row["day"], row["span"], row["words"], row["inside"]) == (date(2026, 3, 29), "1 day", ["a", "b"], {"a": 1})
    assert row["raw"] == "x" and row["nothing"] is None


def test_values_of_sqlite_are_text_and_bad_bytes_are_a_defect(tmp_path: Path) -> None:
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db")) as made:
        made.execute("create table t (a, b)")
        values = [(1, "x"), (2.5, None), (3.0, b"ra\xc3\xbcw"), ("007", b"\xff\xfe"), (1e300, "ü"), (2**62, "")]
        made.executemany("insert into t values (?, ?)", values)
        made.execute("insert into t values (8, cast(x'636166e9' as text))")
        made.commit()
    rows = opened(tmp_path, source="shop.db", table="t").frame.collect()
    assert rows["a"].to_list() == ["1", "2.5", "3", "007", "1e+300", str(2**62), "8"]
    assert rows["b"].to_list() == ["x", None, "raüw", None, "ü", "", "caf\\xe9"]
    assert rows[DEFECT].cast(pl.String).to_list() == [None] * 6 + [BAD_BYTES]
    assert opened(tmp_path, source="shop.db", query="select * from t where a is null").frame.collect().is_empty()


def test_a_login_is_said_nowhere(postgresql: Postgresql, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for declared in (postgresql.address(), "${SHOP_DB}"):
        monkeypatch.setenv("SHOP_DB", postgresql.address().replace("postgresql:", "postgres:") + "?application_name=x")
        settings = SourceSettings(source=declared, table="t")
        (file,) = find_files("items", settings, ".")
        assert (file.name, file.format) == (f"postgresql://127.0.0.1:{postgresql.port}/postgres: t", "postgresql")
        assert WRITTEN not in repr(file) and PASSWORD not in repr(file)
        assert not any(WRITTEN in origin or "owner" in origin for origin in origins(settings, "."))
    monkeypatch.setenv("SHOP_DB", "nowhere.csv")
    with pytest.raises(InputError, match=r"items\.source = '\$\{SHOP_DB\}' stands for no address of a database"):
        find_files("items", SourceSettings(source="${SHOP_DB}", table="t"), ".")


def test_a_server_that_refuses_or_is_away(postgresql: Postgresql, tmp_path: Path) -> None:
    secret = "s3cr3t/w@rd"
    place = f"127.0.0.1:{postgresql.port}"
    for address, said in (
        (
            f"postgresql://owner:wrong-{WRITTEN}@{place}/postgres",
            "password authentication failed .* check the user and",
        ),
        (
            f"postgresql://owner:{WRITTEN}@{place}/nowhere",
            'database "nowhere" does not exist; check interactions.source',
        ),
        (f"postgresql://owner:{secret}@{place}/postgres", "leads to no database: .* as %40 and %2F"),
    ):
        with pytest.raises(InputError, match=said) as raised:
            read(tmp_path, source=address, table="t")
        assert not any(word in str(raised.value) for word in (WRITTEN, PASSWORD, secret, "s3cr3t", "w@rd")), (
            raised.value
        )
    with pytest.raises(RecsysError, match="cannot be reached") as away:
        read(tmp_path, source=f"postgresql://owner:{WRITTEN}@127.0.0.1:{free_port()}/postgres", table="t")
    assert not isinstance(away.value, InputError) and is_transient(away.value)
    postgresql.query(
        "create table closed (n int)",
        "create role guest login password 'guest-word'",
        "grant usage on schema public to guest",
    )
    with pytest.raises(InputError, match="permission denied for table closed; grant it"):
        read(tmp_path, source=postgresql.address("guest", "guest-word"), table="closed")
    postgresql.query("drop owned by guest", "drop role guest")
    with pytest.raises(InputError, match="2 columns named 'n': name each once"):
        read(tmp_path, source=postgresql.address(), query="select 1 as n, 2 as n")


def test_a_server_that_goes_away_in_the_middle_may_come_back(postgresql: Postgresql, tmp_path: Path) -> None:
    end = (
        "select pg_terminate_backend(pid) from pg_stat_activity "
        "where wait_event = 'PgSleep' and pid <> pg_backend_pid()"
    )

    def ends() -> None:
        for _ in range(100):
            if postgresql.query(end):
                return
            time.sleep(0.05)

    slow = (
        "select g, repeat('x', 1000) as word, case when g = 60000 then pg_sleep(20) end as wait "
        "from generate_series(1, 60000) g"
    )
    thread = threading.Thread(target=ends)
    thread.start()
    with pytest.raises(RecsysError, match=r"Reading postgresql://.* failed: ") as raised:
        read(tmp_path, source=postgresql.address(), query=slow)
    thread.join()
    assert not isinstance(raised.value, InputError) and is_transient(raised.value)


def test_an_sqlite_file_that_is_none_or_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "text.sqlite").write_text("user_id,item_id\n" * 100)
    (tmp_path / "text.db").write_text("user_id,item_id\n" * 100)
    with pytest.raises(InputError, match=r"text\.sqlite: t is not a sound SQLite database .*file is not a database"):
        read(tmp_path, source="text.sqlite", table="t")
    with pytest.raises(InputError, match=r"text\.db is a database neither of SQLite nor of DuckDB"):
        read(tmp_path, source="text.db", table="t")
    with pytest.raises(InputError, match=r"There is no gone\.sqlite for interactions\.source"):
        read(tmp_path, source="gone.sqlite", table="t")
    monkeypatch.setattr(drivers, "WAIT_SECONDS", 0.05)
    with contextlib.closing(sqlite3.connect(tmp_path / "shop.db", isolation_level=None)) as held:
        held.execute("create table t (n)")
        held.execute("begin exclusive")
        with pytest.raises(RecsysError, match="another program did not let go of the database for") as locked:
            read(tmp_path, source="shop.db", table="t")
    assert not isinstance(locked.value, InputError) and is_transient(locked.value)


def test_a_duckdb_file_that_is_none_or_locked(tmp_path: Path) -> None:
    (tmp_path / "text.duckdb").write_text("user_id,item_id\n" * 1000)
    with pytest.raises(InputError, match=r"text\.duckdb: t is not a DuckDB database"):
        read(tmp_path, source="text.duckdb", table="t")
    program = (
        "import duckdb, sys\n"
        f"held = duckdb.connect({str(tmp_path / 'shop.duckdb')!r})\n"
        "held.execute('create table t (n int)')\n"
        "print('ready', flush=True)\nsys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as held:
        assert held.stdout is not None and held.stdout.readline() == b"ready\n"
        with pytest.raises(RecsysError, match=r"shop\.duckdb: t cannot be opened") as locked:
            read(tmp_path, source="shop.duckdb", table="t")
        held.kill()
    assert not isinstance(locked.value, InputError) and is_transient(locked.value)


def test_a_library_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql", None)
    monkeypatch.setitem(sys.modules, "adbc_driver_postgresql.dbapi", None)
    with pytest.raises(
        InputError, match=r"interactions\.source needs the package .*; run `pip install adbc-driver-postgresql`"
    ):
        read(tmp_path, source="postgresql://host/db", table="t")
    with pytest.raises(InputError, match=r"run `pip install adbc-driver-snowflake`"):
        read(tmp_path, source="snowflake://user:word@account/db", table="t")


def test_memory_stays_flat(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are written as they come: no batch is as large as the result."""
    many = {
        "postgresql": "select g as n, repeat('x', 200) as word from generate_series(1, 150000) g",
        "duckdb": "select range as n, repeat('x', 200) as word from range(150000)",
        "sqlite": "with recursive r(n) as (select 1 union all select n + 1 from r where n < 150000) "
        "select n, printf('%200s', n) as word from r",
    }[shop.kind]
    shop.do("create table t (n integer)")
    sizes: list[int] = []
    add = databases._Content.add
    monkeypatch.setattr(databases._Content, "add", lambda self, frame: (sizes.append(len(frame)), add(self, frame))[1])
    assert len(read(tmp_path, source=shop.source, query=many)) == 150_000
    assert sum(sizes) == 150_000 and max(sizes) < 110_000


def test_ids_by_a_query(shop: Shop, tmp_path: Path) -> None:
    shop.do("create table t (name text, user_id integer)", "insert into t values (' a ', 1), (null, 2), ('b', null)")
    given = IdListSettings(source=shop.source, table="t")
    assert read_ids(given, "retrieve.users", str(tmp_path)).to_list() == ["1", "2"]
    given = IdListSettings(source=shop.source, query="select * from t", column="name")
    assert read_ids(given, "retrieve.users", str(tmp_path)).to_list() == ["a", "b"]
    with pytest.raises(InputError, match=r"nowhere.*check retrieve\.users\.table"):
        read_ids(IdListSettings(source=shop.source, table="nowhere"), "retrieve.users", str(tmp_path))
