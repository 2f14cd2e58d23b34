"""Delta tables under one root: a local folder or a URL (`s3://`, `gs://`, `abfss://`) by the same code.

One place declares each table's schema. A write is one Delta commit, so a reader sees the table before it or
after it, and a commit on top of a version that somebody else has meanwhile replaced fails instead of mixing
with it. Credentials of a cloud store come from its usual environment variables.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

import polars as pl
import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, PostCommitHookProperties, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from recsys.columns import (
    AS_OF,
    BUNDLE,
    CANDIDATE_SOURCE,
    CANDIDATES,
    CONTENT_HASH,
    DIGEST,
    ENCODER,
    EVENT,
    FORGOTTEN,
    FORGOTTEN_AT,
    INDEX,
    INTERACTIONS,
    INTERACTIONS_VERSION,
    ITEM_ID,
    ITEM_VECTORS,
    ITEMS,
    ITEMS_VERSION,
    LINE,
    POSITION,
    QUARANTINE,
    RANK,
    RAW,
    REASON,
    REJECTED_AT,
    RUN,
    SALT,
    SCORE,
    SOURCE,
    TABLE,
    TIMESTAMP,
    USER_ID,
    USERS,
    VECTOR,
    WEIGHT,
)
from recsys.errors import InputError, RecsysError, first_line
from recsys.running import current
from recsys.storage.delta import scan_delta
from recsys.storage.files import refusal
from recsys.storage.history import SEEN, TIDYINGS
from recsys.storage.intact import check_intact, damaged_commit, note_write, repair
from recsys.storage.remote import fail, is_url

MOMENT: Final = pl.Datetime("us", "UTC")
ID: Final = None  # stands in a schema for the type of the ids, Int64 or String, as the user gave them
_METADATA: Final = "recsys"  # our key in a commit's metadata
_TOKEN: Final = "recsys.token"  # another: of this commit alone
BY_RUN: Final = "recsys.run"  # another: the run that committed

# Delta's writer deletes commits of over 30 days by itself, those of a version that a rollback serves, too; which ones
# may go, `recsys.retention.commits` knows
KEEP_LOG: Final = PostCommitHookProperties(cleanup_expired_logs=False)

SCHEMAS: Final[Mapping[str, Mapping[str, Any]]] = {
    INTERACTIONS: {
        USER_ID: ID,
        ITEM_ID: ID,
        TIMESTAMP: MOMENT,
        EVENT: pl.String(),
        WEIGHT: pl.Float64(),
        POSITION: pl.Int64(),
    },
    ITEMS: {ITEM_ID: ID},  # and the attributes as given
    USERS: {USER_ID: ID},  # and the attributes as given
    QUARANTINE: {
        TABLE: pl.String(),
        SOURCE: pl.String(),
        LINE: pl.Int64(),
        REASON: pl.String(),
        RAW: pl.String(),
        REJECTED_AT: MOMENT,
        USER_ID: pl.String(),  # null where it cannot be read; older tables lack the column
    },
    FORGOTTEN: {SALT: pl.String(), DIGEST: pl.String(), FORGOTTEN_AT: MOMENT},
    ITEM_VECTORS: {  # by sentence, not by item: the same words are never encoded twice
        ENCODER: pl.String(),
        CONTENT_HASH: pl.String(),
        VECTOR: pl.List(pl.Float32),
    },
    CANDIDATES: {
        RUN: pl.String(),
        USER_ID: ID,
        RANK: pl.Int32(),
        ITEM_ID: ID,
        SCORE: pl.Float32(),
        CANDIDATE_SOURCE: pl.String(),
        BUNDLE: pl.String(),
        INDEX: pl.String(),
        AS_OF: MOMENT,
        INTERACTIONS_VERSION: pl.Int64(),
        ITEMS_VERSION: pl.Int64(),
    },
}
_APPENDED: Final[Mapping[str, Literal["merge"]]] = {QUARANTINE: "merge"}  # rows may have columns that the table lacks
OPEN_SCHEMAS: Final = frozenset({ITEMS, USERS})  # tables that hold further columns


@dataclass(frozen=True, kw_only=True, slots=True)
class TableVersions:
    """Delta versions that a run reads; None: there is no such table."""

    interactions: int
    items: int | None = None
    users: int | None = None


def table_path(root: str | Path, table: str) -> str:
    """Folder or URL of one table.

    >>> table_path("s3://bucket/warehouse/", "items")
    's3://bucket/warehouse/items'
    """
    return f"{str(root).rstrip('/')}/{table}"


def latest_version(root: str | Path, table: str) -> int | None:
    """The table's newest version; None where there is no table."""
    opened = _open(root, table)
    return None if opened is None else int(opened.version())


def current_versions(root: str | Path) -> TableVersions:
    """Newest versions of the tables that a run reads.

    Raises
    ------
    InputError
        There are no interactions yet.
    RecsysError
        A table is damaged, or its last commit is lost.
    """
    opened = {table: _open(root, table) for table in (INTERACTIONS, ITEMS, USERS)}
    if opened[INTERACTIONS] is None:
        raise _no_table(root, INTERACTIONS)
    for name, table in opened.items():
        if table is not None:
            check_intact(table, table_path(root, name))
    return TableVersions(**{name: None if table is None else int(table.version()) for name, table in opened.items()})  # type: ignore[arg-type]


def scan(root: str | Path, table: str, version: int | None = None) -> pl.LazyFrame:
    """A table, lazily; `version` None is the newest. Rows come in no particular order: sort where it matters.

    Raises
    ------
    InputError
        There is no such table or version.
    RecsysError
        The table is damaged, or its last commit is lost.
    """
    opened = _open(root, table)
    if opened is None:
        raise _no_table(root, table)
    check_intact(opened, table_path(root, table))
    if version is not None and version != opened.version():
        try:
            opened.load_as_version(version)
        except DeltaError:
            raise InputError(
                f"The table {table_path(root, table)} has no version {version}; its newest is {opened.version()}."
            ) from None
    return scan_delta(opened)


def id_type(root: str | Path, table: str, column: str) -> Any | None:
    """Type of an id column (Int64 or String) in the newest version; None where there is no table."""
    if _open(root, table) is None:
        return None
    return scan(root, table).collect_schema()[column]


def append(
    root: str | Path,
    table: str,
    rows: pl.DataFrame | Iterator[pl.DataFrame],
    *,
    expected: int | None,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Add rows in one commit on top of version `expected` (None: the table does not exist yet).

    Parameters
    ----------
    rows
        All of them, or parts of them, at least one, in which case memory does not grow with the rows.

    Returns
    -------
    int
        The new version.

    Raises
    ------
    RecsysError
        Somebody else has committed since `expected`, or the rows do not have the table's schema.
    """
    return _write(root, table, rows, mode="append", expected=expected, metadata=metadata)


def overwrite(
    root: str | Path,
    table: str,
    rows: pl.DataFrame | Iterator[pl.DataFrame],
    *,
    expected: int | None,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Replace the table's rows and attribute columns in one commit; see `append`. Older versions stay."""
    return _write(root, table, rows, mode="overwrite", expected=expected, metadata=metadata)


def restore(
    root: str | Path, table: str, version: int, *, expected: int, metadata: Mapping[str, Any] | None = None
) -> int:
    """Make the rows of an older version the newest ones, in one commit that copies no row; see `append`.

    Raises
    ------
    RecsysError
        The older version, or one of its files, is gone; or somebody else has committed since `expected`.
    """
    path = table_path(root, table)
    try:
        opened = DeltaTable(path)
        if opened.version() != expected:
            raise CommitFailedError
        opened.restore(
            version, commit_properties=commit_properties(metadata or {}), post_commithook_properties=KEEP_LOG
        )
    except CommitFailedError:
        raise _conflict(path) from None
    except (DeltaError, OSError) as error:
        what = f"Version {version} of the table {path} cannot be brought back"
        if is_url(path):
            fail(what, error)
        raise RecsysError(f"{what}: {refusal(error) or first_line(error)}.") from None
    note_write(path)
    return expected + 1


def append_new(root: str | Path, table: str, frame: pl.DataFrame, key: Sequence[str]) -> tuple[int, int | None]:
    """Add the rows whose key the table does not hold; in `frame` the first of a key counts. Nulls are equal.

    Returns
    -------
    tuple
        (rows added, the table's version after; None where nothing was added and there is no table).
    """
    expected = latest_version(root, table)
    new = frame.unique(list(key), keep="first", maintain_order=True)
    if expected is not None:
        held = scan(root, table, expected).select(key)
        new = (
            new.lazy()
            .join(held, on=list(key), how="anti", nulls_equal=True, maintain_order="left")
            .collect(engine="streaming")
        )
    if new.is_empty():
        return 0, expected
    return len(new), append(root, table, new, expected=expected)


def commit_properties(metadata: Mapping[str, Any], token: str | None = None) -> CommitProperties:
    """Return properties that `commit_metadata` reads, and the run at work; without retries, as a commit must land on
    what it knows.
    """
    run = current().run
    own = ({} if token is None else {_TOKEN: token}) | ({} if run is None else {BY_RUN: run})
    return CommitProperties(custom_metadata={_METADATA: json.dumps(dict(metadata)), **own}, max_commit_retries=0)


def commit_metadata(root: str | Path, table: str) -> dict[str, Any]:
    """Return what our newest commit of the table said about itself (`metadata` of `append` and `overwrite`)."""
    opened = _open(root, table)
    if opened is not None:
        for limit in (1, None):  # the newest commit is nearly always ours
            for commit in opened.history(limit):
                if told := told_by(commit):
                    return told
    return {}


def said_last(root: str | Path, table: str) -> dict[str, Any]:
    """Return what the newest commit says, where it is ours; nothing where another program has changed rows since."""
    opened = _open(root, table)
    for commit in [] if opened is None else opened.history(SEEN):
        if told := told_by(commit):
            return told
        if commit.get("operation") not in TIDYINGS:
            break
    return {}


def told_by(commit: Mapping[str, Any]) -> dict[str, Any]:
    """Return the metadata of a commit of a table's history; nothing where it is not ours."""
    return dict(json.loads(commit[_METADATA])) if _METADATA in commit else {}


def _write(
    root: str | Path,
    table: str,
    rows: pl.DataFrame | Iterator[pl.DataFrame],
    *,
    mode: str,
    expected: int | None,
    metadata: Mapping[str, Any] | None,
) -> int:
    data = _conform(table, rows).to_arrow() if isinstance(rows, pl.DataFrame) else _read_on(table, rows)
    path = table_path(root, table)
    target: str | DeltaTable = path
    token, version = uuid.uuid4().hex, 0 if expected is None else expected + 1
    try:
        if expected is not None:
            target = DeltaTable(path)
            if target.version() != expected:
                raise CommitFailedError
        write_deltalake(
            target,
            data,
            mode="error" if expected is None else mode,
            schema_mode=None if expected is None else "overwrite" if mode == "overwrite" else _APPENDED.get(table),
            writer_properties=WriterProperties(compression="ZSTD"),
            commit_properties=commit_properties(metadata or {}, token),
            post_commithook_properties=KEEP_LOG,
        )
    except (DeltaError, OSError) as error:
        if isinstance(error, CommitFailedError) or (isinstance(error, DeltaError) and "already exists" in str(error)):
            if not _landed(path, version, token):
                raise _conflict(path) from None
        elif is_url(path):
            fail(f"The table {path} cannot be written", error)
        else:
            raise RecsysError(f"The table {path} cannot be written: {refusal(error) or first_line(error)}.") from None
    note_write(path)
    return version


def _read_on(table: str, frames: Iterator[pl.DataFrame]) -> pa.RecordBatchReader:
    """Frames of equal columns as the writer takes them, one after another."""
    first = _conform(table, next(frames)).to_arrow()

    def batches() -> Iterator[pa.RecordBatch]:
        yield from first.to_batches()
        for frame in frames:
            yield from _conform(table, frame).to_arrow().cast(first.schema).to_batches()

    return pa.RecordBatchReader.from_batches(first.schema, batches())


def _landed(path: str, version: int, token: str) -> bool:
    """Return whether a commit is there, though a store that is asked again says that somebody was faster."""
    with contextlib.suppress(DeltaError, OSError):
        return bool(DeltaTable(path, version=version).history(1)[0].get(_TOKEN) == token)
    return False


def _conform(table: str, frame: pl.DataFrame) -> pl.DataFrame:
    """The declared columns in the declared order, then the attributes; a wrong type is our fault."""
    schema = SCHEMAS[table]
    for column, dtype in schema.items():
        given = frame.schema.get(column)
        if given is None or (given not in (pl.Int64, pl.String) if dtype is ID else given != dtype):
            wanted = "Int64 or String" if dtype is ID else dtype
            raise RecsysError(f"The column {column} of the table {table} must be {wanted}, not {given}.")
    further = [column for column in frame.columns if column not in schema]
    if further and table not in OPEN_SCHEMAS:
        raise RecsysError(f"The table {table} has no column {further[0]}; its columns are {', '.join(schema)}.")
    return frame.select(*schema, *further)


def _open(root: str | Path, table: str) -> DeltaTable | None:
    path = table_path(root, table)
    try:
        return DeltaTable(path)
    except TableNotFoundError:
        return None
    except (DeltaError, OSError) as error:
        if is_url(path):
            fail(f"The table {path} cannot be opened", error)
        if damage := damaged_commit(path):
            raise RecsysError(f"The table {path} cannot be opened: {damage}; {repair(path)}.") from None
        raise RecsysError(f"The table {path} cannot be opened: {first_line(error)}.") from None


def _no_table(root: str | Path, table: str) -> InputError:
    return InputError(f"There is no table {table_path(root, table)}; run `recsys ingest CONFIG` first.")


def _conflict(path: str) -> RecsysError:
    return RecsysError(
        f"Another process has written the table {path} in the meantime; this one added nothing to it: run it again."
    )
