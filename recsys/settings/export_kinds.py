"""Keys of the export targets: a class of settings a kind, in `KINDS` under its name."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, Field

from recsys.logins import refuse_login
from recsys.settings.places import IN_STATE
from recsys.settings.section import Section

Layout = Literal["long", "wide"]
# PostgreSQL cuts a name at 63 bytes; the former copy's name is ten longer
TableName = Annotated[str, Field(pattern=r"^[^\x00]+$", min_length=1, max_length=50)]
# ${NAME} in an address stands for an environment variable, so that a configuration holds no password
Address = Annotated[str, Field(min_length=1)]


class ExportSettings(Section):
    """Keys that every export target has; each kind adds its own."""

    kind: str  # which target

    @property
    def wanted(self) -> bool:
        """Return whether anything is exported."""
        return True

    @classmethod
    def variant(cls, given: Any) -> type[Section]:
        """The settings of the kind that a section of plain values names; those of files where it names none."""
        kind = given.get("kind", "files") if isinstance(given, dict) else "files"
        return KINDS.get(kind, FileExportSettings) if isinstance(kind, str) else FileExportSettings

    @classmethod
    def named(cls, given: Any) -> type[Section]:
        """The settings of one of several targets."""
        return cls.variant(given)


class FileExportSettings(ExportSettings):
    """Files on this machine, switched in by a link."""

    kind: Literal["files"] = Field(default="files", exclude=True)  # not written: a section without a kind is this one
    path: Annotated[str | None, IN_STATE] = None  # None: nothing is exported
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    layout: Layout = "long"  # a row a candidate, or a row a user with a list of items
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all

    @property
    def wanted(self) -> bool:
        """Return whether there is a path."""
        return self.path is not None


class PostgresqlExportSettings(ExportSettings):
    """A table of a PostgreSQL database."""

    kind: Literal["postgresql"] = "postgresql"
    address: Address = "${DATABASE_URL}"  # (postgresql://user:${PASSWORD}@host:port/database)
    schema_name: TableName = "public"  # which must exist
    table: TableName = "candidates"
    layout: Layout = "long"  # a row a candidate, or a row a user with arrays
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all


class SqliteExportSettings(ExportSettings):
    """A table of an SQLite database, which may hold others."""

    kind: Literal["sqlite"] = "sqlite"
    path: Annotated[str, IN_STATE]  # (file) of the database
    table: TableName = "candidates"
    layout: Layout = "long"  # a row a candidate, or a row a user with lists in JSON
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all


class DuckdbExportSettings(ExportSettings):
    """A DuckDB database of its own, switched in by a link as files are."""

    kind: Literal["duckdb"] = "duckdb"
    path: Annotated[str, IN_STATE]  # (file) of the database
    table: TableName = "candidates"
    layout: Layout = "long"  # a row a candidate, or a row a user with lists
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all


class RedisExportSettings(ExportSettings):
    """Keys of Redis or Valkey, one a user."""

    kind: Literal["redis"] = "redis"
    address: Address = "${REDIS_URL}"  # (redis://:${PASSWORD}@host:port/number, rediss://, unix://)
    prefix: str | None = Field(default=None, pattern=r"^[^\s*?\[\]\\]+$")  # of all keys; None: the configuration's name
    keep_hours: float = Field(default=48.0, gt=0.0, le=10_000.0)  # (hours) how long the former copy can be brought back
    columns: dict[str, str] = Field(  # ours = theirs: which members a user's JSON object has
        default_factory=lambda: {"item_id": "item_id", "score": "score"}
    )


class S3ExportSettings(ExportSettings):
    """Objects of an S3-compatible store, and a pointer to the newest of them."""

    kind: Literal["s3"] = "s3"
    # (s3://bucket/prefix) gs:// and az:// too
    path: Annotated[str, Field(pattern=r"^[a-z0-9]+://[^/]+/.*[^/]"), AfterValidator(refuse_login)]
    endpoint: str | None = None  # (https://host:port) of a store other than Amazon's
    format: Literal["parquet", "csv", "jsonl"] = "parquet"
    layout: Layout = "long"  # a row a candidate, or a row a user with a list of items
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all


class DeltaExportSettings(ExportSettings):
    """A Delta table elsewhere, a commit a copy."""

    kind: Literal["delta"] = "delta"
    path: Annotated[str, IN_STATE]  # (folder or URL) of the table
    keep_hours: float = Field(default=168.0, ge=0.0, le=100_000.0)  # (hours) how long files of older copies stay
    layout: Layout = "long"  # a row a candidate, or a row a user with lists
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all


KINDS: Final[dict[str, type[ExportSettings]]] = {  # `recsys.exports.registry` adds to it
    "files": FileExportSettings,
    "postgresql": PostgresqlExportSettings,
    "sqlite": SqliteExportSettings,
    "duckdb": DuckdbExportSettings,
    "redis": RedisExportSettings,
    "s3": S3ExportSettings,
    "delta": DeltaExportSettings,
}
