"""A copy as a table of PostgreSQL: bulk load by ADBC and the switch, in one transaction.

A kill at any moment leaves the old table, as the server then undoes the transaction. The table's comment says which
copy it is. The new table gets the old one's grants and a primary key of user and rank. Readers wait for the switch
alone; the switch waits for readers, at most a minute.

A switch replaces the table, and what hangs on a table is not on the next one: views, triggers, policies, publications
and foreign keys are refused, an index of one's own is made again.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

import polars as pl
import pyarrow as pa
from adbc_driver_manager import Error
from adbc_driver_postgresql import dbapi

from recsys.errors import InputError, RecsysError
from recsys.exports.copies import Copy
from recsys.exports.rows import Rows
from recsys.exports.sql import Database, Found, Key, SqlSink
from recsys.settings import PostgresqlExportSettings
from recsys.storage.addresses import masked
from recsys.storage.environment import expanded
from recsys.storage.postgresql import lasts, no_connection, said, state_of, with_limits

TRIES: Final = 30  # to lock the table that readers see
EACH_MS: Final = 2_000  # a longer wait in one go would keep new readers behind it
ROWS_A_MESSAGE: Final = 4_000  # as many as a socket's buffer takes: the server works while the next are encoded
USERS_A_STATEMENT: Final = 5_000
SORT_MEMORY: Final = "256MB"  # of the server, while it makes the key
_TYPES: Final = {
    pl.String: "text",
    pl.Int64: "bigint",
    pl.Int32: "integer",
    pl.Float32: "real",
    pl.Float64: "double precision",
}
_KINDS: Final = {
    "r": "table", "v": "view", "m": "materialized view", "f": "foreign table", "p": "partitioned table",
    "i": "index", "S": "sequence", "c": "type", "I": "index",
}  # fmt: skip
# what a switch would lose, in words; {oid} is the table
_LOST: Final = """
select 'the view ' || v.oid::regclass from pg_depend d join pg_rewrite r on r.oid = d.objid
  join pg_class v on v.oid = r.ev_class
  where d.refobjid = {oid} and d.classid = 'pg_rewrite'::regclass and v.oid <> {oid}
union all select 'the trigger ' || quote_ident(tgname) from pg_trigger where tgrelid = {oid} and not tgisinternal
union all select 'the policy ' || quote_ident(polname) from pg_policy where polrelid = {oid}
union all select 'row level security' from pg_class where oid = {oid} and (relrowsecurity or relforcerowsecurity)
union all select 'the publication ' || quote_ident(pubname) from pg_publication_rel r
  join pg_publication p on p.oid = r.prpubid where r.prrelid = {oid}
union all select 'the foreign key of ' || conrelid::regclass from pg_constraint
  where contype = 'f' and confrelid = {oid}
union all select 'the table that inherits it, ' || inhrelid::regclass from pg_inherits where inhparent = {oid}
limit 1
"""
_GRANTS: Final = """
select format('grant %s on {new} to %s%s', privilege_type, case grantee when 0 then 'public' else
  quote_ident(pg_get_userbyid(grantee)) end, case when is_grantable then ' with grant option' else '' end)
  from pg_class, aclexplode(relacl) where oid = {old} and grantee <> relowner
union all
select format('grant %s (%I) on {new} to %s%s', privilege_type, attname, case grantee when 0 then 'public' else
  quote_ident(pg_get_userbyid(grantee)) end, case when is_grantable then ' with grant option' else '' end)
  from pg_attribute, aclexplode(attacl) where attrelid = {old} and not attisdropped and attname = any({columns})
"""
_DEFAULTS: Final = """
select distinct format('revoke all on {new} from %s', case grantee when 0 then 'public' else
  quote_ident(pg_get_userbyid(grantee)) end) from pg_class, aclexplode(relacl) where oid = {oid} and grantee <> relowner
"""
_INDEXES: Final = """
select i.indisunique, pg_get_indexdef(i.indexrelid) from pg_index i
  where i.indrelid = {oid} and not i.indisprimary and i.indisvalid
  and obj_description(i.indexrelid, 'pg_class') is distinct from {mark}
"""
_MARK: Final = "made by the export"  # comment of an index of ours


class PostgresqlSink(SqlSink):
    """A table of PostgreSQL; see the module."""

    kind = "postgresql"
    keys = PostgresqlExportSettings

    @property
    def shape(self) -> PostgresqlExportSettings:
        assert isinstance(self.settings, PostgresqlExportSettings)
        return self.settings

    @property
    def address(self) -> str:
        """The address, with its passwords.

        Raises
        ------
        InputError
            A variable is not set, or it is no address of PostgreSQL.
        """
        key = f"{self.section}.address"
        address = expanded(self.shape.address, key)
        if not address.startswith(("postgresql://", "postgres://")):
            raise InputError(
                f"{key} is no address of PostgreSQL: it has the form postgresql://user@host:port/database."
            )
        return address

    @property
    def place(self) -> str:
        return f"{masked(self.address).partition('?')[0]} {self.shape.schema_name}.{self.shape.table}"

    @contextlib.contextmanager
    def database(self, *, writing: bool) -> Iterator[Database]:
        address = self.address
        try:
            with contextlib.closing(dbapi.connect(with_limits(address))) as connection:
                try:
                    with contextlib.closing(connection.cursor()) as cursor:
                        database = _Postgresql(cursor, self.shape.schema_name)
                        database.begin(f"recsys:{self.shape.schema_name}.{self.shape.table}" if writing else None)
                        yield database
                    connection.commit()
                except BaseException:
                    with contextlib.suppress(Error):  # of a connection that is gone
                        connection.rollback()
                    raise
        except _Busy:
            raise RecsysError(f"Another export to {self.place} is running; wait for it to end.") from None
        except Error as error:
            raise self._refusal(error, address) from (None if lasts(error) else ConnectionError(type(error).__name__))

    def refuse(self, database: Database) -> None:
        assert isinstance(database, _Postgresql)
        schema = self.shape.schema_name
        if not database.one(f"select count(*) from pg_namespace where nspname = {_text(schema)}"):
            raise InputError(f"{self.place}: the database has no schema {schema!r}; make it, or choose another.")
        if not database.one(f"select has_schema_privilege({_text(_name(schema))}::regnamespace, 'create')"):
            raise InputError(
                f"{self.place}: the user may make no table in the schema {schema!r}; grant it CREATE on the schema."
            )
        oid = database.oid(self.shape.table)
        if oid is None:
            return
        if not database.one(f"select pg_has_role(relowner, 'usage') from pg_class where oid = {oid}"):
            raise InputError(
                f"{self.place}: the table belongs to another user, so it cannot be switched; change its owner."
            )
        lost = database.one(_LOST.format(oid=oid))
        if lost:
            raise InputError(
                f"{self.place}: {lost} hangs on the table and would stay with the old rows when the new table takes "
                "its place; drop it, and let it read from a table or a query of its own."
            )

    def _refusal(self, error: Error, address: str) -> RecsysError:
        unreached = no_connection(error, address, self.place, f"{self.section}.address")
        if unreached is not None:
            return unreached
        text, state = said(error, address), state_of(error)
        if state == "55P03":
            return RecsysError(f"{self.place}: readers did not let go of the table for a minute; nothing was changed.")
        if state == "42501":
            return InputError(f"{self.place}: {text}; grant it to the user, or choose another place.")
        return RecsysError(f"The export to {self.place} failed, and nothing was changed: {text}.")


class _Busy(Exception):
    """Another export holds the lock."""


class _Postgresql:
    """A transaction."""

    def __init__(self, cursor: Any, schema: str) -> None:
        self.cursor, self.schema = cursor, schema
        self.nameless = False  # whether a user among the loaded rows is null

    def begin(self, lock: str | None) -> None:
        self.do("set local client_encoding = 'UTF8'")
        self.do("set local standard_conforming_strings = on")
        self.do("set local search_path = pg_catalog, pg_temp")
        if lock is not None and not self.one(f"select pg_try_advisory_xact_lock(hashtextextended({_text(lock)}, 0))"):
            raise _Busy

    def do(self, statement: str) -> None:
        self.cursor.execute(statement)

    def all(self, query: str) -> list[Any]:
        self.cursor.execute(query)
        return list(self.cursor.fetchall())

    def one(self, query: str) -> Any:
        rows = self.all(query)
        return rows[0][0] if rows else None

    def at(self, table: str) -> str:
        """The quoted name."""
        return f"{_name(self.schema)}.{_name(table)}"

    def oid(self, table: str) -> int | None:
        found = self.one(
            "select c.oid::bigint from pg_class c join pg_namespace n on n.oid = c.relnamespace "
            f"where n.nspname = {_text(self.schema)} and c.relname = {_text(table)}"
        )
        return None if found is None else int(found)

    def find(self, table: str) -> Found | None:
        oid = self.oid(table)
        if oid is None:
            return None
        kind, comment = self.all(
            f"select relkind::text, obj_description({oid}, 'pg_class') from pg_class where oid = {oid}"
        )[0]
        what = _KINDS.get(kind, "relation")
        copy = Copy.read(comment)
        columns = [
            name
            for (name,) in self.all(
                f"select attname::text from pg_attribute where attrelid = {oid} and attnum > 0 and not attisdropped "
                "order by attnum"
            )
        ]
        empty = (
            what == "table"
            and copy is None
            and bool(self.one(f"select has_table_privilege({oid}::oid, 'select')"))
            and not self.one(f"select exists (select from {self.at(table)})")
        )
        return Found(what=what, columns=columns, copy=copy, empty=empty)

    def create(self, table: str, empty: pl.DataFrame, key: Key, copy: Copy) -> None:
        columns = ", ".join(f"{_name(name)} {_type(dtype)}" for name, dtype in empty.schema.items())
        self.do(f"create table {self.at(table)} ({columns})")
        self.do(f"comment on table {self.at(table)} is {_text(copy.text())}")
        self.user = key.columns[0] if key.columns else None

    def load(self, table: str, empty: pl.DataFrame, frames: Iterator[pl.DataFrame]) -> int:
        schema = empty.to_arrow().schema
        count = 0

        def rows() -> Iterator[pa.RecordBatch]:
            nonlocal count
            for frame in frames:
                count += len(frame)
                self.nameless |= self.user is not None and frame[self.user].null_count() > 0
                yield from frame.to_arrow().cast(schema).to_batches(max_chunksize=ROWS_A_MESSAGE)

        reader = pa.RecordBatchReader.from_batches(schema, rows())
        self.cursor.adbc_ingest(table, reader, mode="append", db_schema_name=self.schema)
        return count

    def finish(self, table: str, key: Key, like: str | None) -> None:
        new, columns = self.at(table), ", ".join(map(_name, key.columns))
        if self.one(f"select pg_size_bytes(current_setting('maintenance_work_mem')) < pg_size_bytes('{SORT_MEMORY}')"):
            self.do(f"set local maintenance_work_mem = '{SORT_MEMORY}'")
        if key.columns and key.unique and not self.nameless:
            self.do(f"alter table {new} add primary key ({columns})")
        elif key.columns:
            self.do(f"create index on {new} ({columns})")
            for (index,) in self.all(
                f"select indexrelid::regclass::text from pg_index where indrelid = {self.oid(table)}"
            ):
                self.do(f"comment on index {index} is {_text(_MARK)}")
        self.do(f"analyze {new}")
        if like is None:
            return
        old, names = self.oid(like), self.find(table)
        assert old is not None and names is not None
        for unique, definition in self.all(_INDEXES.format(oid=old, mark=_text(_MARK))):
            tail = definition.partition(f" ON {self.at_as_shown(old)} USING ")[2]
            if tail:
                self.do(f"create {'unique ' if unique else ''}index on {new} using {tail}")
        for (statement,) in self.all(_DEFAULTS.format(new=_inner(new), oid=self.oid(table))):
            self.do(statement)
        array = f"array[{', '.join(map(_text, names.columns))}]"
        for (statement,) in self.all(_GRANTS.format(new=_inner(new), old=old, columns=array)):
            self.do(statement)
        owner = self.one(f"select quote_ident(pg_get_userbyid(relowner)) from pg_class where oid = {old}")
        if owner != self.one("select quote_ident(current_user)"):
            self.do(f"alter table {new} owner to {owner}")

    def at_as_shown(self, oid: int) -> str:
        """The name as the server writes it."""
        return str(self.one(f"select format('%I.%I', nspname, relname) from pg_class c join pg_namespace n "
                            f"on n.oid = relnamespace where c.oid = {oid}"))  # fmt: skip

    def replace(self, table: str, user: str, users: pl.Series, rows: Rows, copy: Copy) -> int:
        self.do(f"set local lock_timeout = {EACH_MS * TRIES}")
        self.user, kind = None, _type(users.dtype)
        for first in range(0, len(users), USERS_A_STATEMENT):
            part = users.slice(first, USERS_A_STATEMENT)
            given = ", ".join(_text(value) if kind == "text" else str(value) for value in part)
            self.do(f"delete from {self.at(table)} where {_name(user)} = any(array[{given}]::{kind}[])")
        count = self.load(table, rows.empty, rows.frames)
        self.do(f"comment on table {self.at(table)} is {_text(copy.text())}")
        return count

    def count(self, table: str, columns: Mapping[str, tuple[str, bool]], ids: Mapping[str, Collection[str]]) -> int:
        tests = []
        for of, (column, lists) in columns.items():
            known = f"array[{', '.join(map(_text, sorted(ids[of])))}]::text[]"
            tests.append(f"{_name(column)}::text[] && {known}" if lists else f"{_name(column)}::text = any({known})")
        return int(self.one(f"select count(*) from {self.at(table)} where {' or '.join(tests)}"))

    def lock(self, table: str) -> None:
        locking, tag = _text(f"lock table {self.at(table)} in access exclusive mode"), "$lock$"
        while tag in locking:
            tag = f"{tag[:-1]}_$"
        self.do(f"set local lock_timeout = {EACH_MS}")
        self.do(
            f"do {tag} begin for i in 1..{TRIES} loop begin execute {locking}; exit; exception when lock_not_available "
            f"then if i = {TRIES} then raise; end if; perform pg_sleep(0.1); end; end loop; end {tag}"
        )

    def rename(self, table: str, name: str) -> None:
        self.do(f"alter table {self.at(table)} rename to {_name(name)}")

    def drop(self, table: str) -> None:
        self.do(f"drop table if exists {self.at(table)}")


def _name(name: str) -> str:
    """A quoted identifier."""
    return '"' + name.replace('"', '""') + '"'


def _text(value: str) -> str:
    """A quoted literal."""
    return "'" + value.replace("'", "''") + "'"


def _inner(name: str) -> str:
    """A quoted name inside of a literal that `format` reads."""
    return name.replace("'", "''").replace("%", "%%")


def _type(dtype: pl.DataType) -> str:
    if isinstance(dtype, pl.List):
        return f"{_type(dtype.inner)}[]"  # type: ignore[arg-type]
    return "timestamptz" if isinstance(dtype, pl.Datetime) else _TYPES[type(dtype)]
