"""Replace a table of any size by frames that arrive one after another: Parquet files, then one Delta commit.

Delta's own writer deals batches out to several files in no fixed order. Here rows stay in the order in which
they come, so files of sorted rows can be read back in order and a reader skips what it does not need; and
they are made on the caller's thread, where Ctrl-C reaches them.

Writing and committing are two acts: `stage` writes files that no reader sees, `publish` makes them the table in one
commit, perhaps in another process, and `discard` deletes them.
"""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow import ArrowException, fs

from recsys.errors import RecsysError, first_line
from recsys.storage.files import refusal, synchronise
from recsys.storage.intact import note_write
from recsys.storage.remote import fail, filesystem, is_url, reaching
from recsys.storage.warehouse import KEEP_LOG, commit_properties, latest_version, table_path

ROWS_A_GROUP: Final = 131_072  # of a Parquet file: what a reader skips or reads as one
ROWS_A_FILE: Final = 8_000_000


@dataclass(frozen=True, kw_only=True)
class Staged:
    """Rows beside a table that are not in it yet; JSON-friendly, and without a row's content.

    Attributes
    ----------
    path
        Of the table.
    token
        Part of the names of its files.
    files, rows
        Their numbers.
    expected
        The table's version that the rows will replace; None: there is no table yet.
    schema
        Of the table, as Delta writes it in JSON.
    sorted_by
        See `stage`.
    metadata
        Of the commit.
    """

    path: str
    token: str
    files: int
    rows: int
    expected: int | None
    schema: str
    sorted_by: str | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Names of the files inside of the table's folder, in the order of the rows."""
        return [f"part-{number:05d}-{self.token}.parquet" for number in range(self.files)]


def overwrite_streamed(
    root: str | Path,
    table: str,
    schema: Mapping[str, Any],
    frames: Iterable[pl.DataFrame],
    *,
    sorted_by: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Replace a table's rows: `stage`, then `publish`; returns the new version."""
    return publish(stage(root, table, schema, frames, sorted_by=sorted_by, metadata=metadata))


def stage(
    root: str | Path,
    table: str,
    schema: Mapping[str, Any],
    frames: Iterable[pl.DataFrame],
    *,
    sorted_by: str | None = None,
    metadata: Mapping[str, Any] | None = None,
    token: str | None = None,
) -> Staged:
    """Write rows beside a table. Readers go on with the old rows; memory does not grow with the rows.

    Parameters
    ----------
    schema
        Column to polars type; every frame has exactly these.
    frames
        The rows; an exception of theirs (and Ctrl-C) deletes what was written and comes through unchanged.
    sorted_by
        A column that never descends, of integers or strings: its range goes into the commit, so that a reader
        who asks for some values opens only the files that hold them.
    metadata
        Goes into the commit; `recsys.storage.warehouse.commit_metadata` reads it.
    token
        Part of the files' names, for `discard_unfinished`; None: a new one.

    Raises
    ------
    RecsysError
        The files cannot be written.
    """
    path = table_path(root, table)
    expected = latest_version(root, table)
    token = token or str(uuid.uuid4())
    store, folder = filesystem(path)
    names: list[str] = []
    try:
        with reaching(path, f"The table {path} cannot be written"):
            store.create_dir(folder, recursive=True)
            rows = _write_files(store, folder, schema, frames, token, names)
    except BaseException:
        with contextlib.suppress(OSError) if is_url(path) else contextlib.nullcontext():  # a store may be away
            _delete(store, folder, names)
        raise
    return Staged(
        path=path,
        token=token,
        files=len(names),
        rows=rows,
        expected=expected,
        schema=Schema.from_arrow(_arrow_schema(schema)).to_json(),
        sorted_by=sorted_by,
        metadata=dict(metadata or {}),
    )


def publish(staged: Staged) -> int:
    """Make staged rows the table, in one commit; returns the new version. Older versions stay.

    Raises
    ------
    RecsysError
        The commit cannot be written, files of the rows are missing, or another process wrote the table in the meantime;
        the rows are deleted then.
    """
    path = staged.path
    store, folder = filesystem(path)
    try:
        actions = [_add_action(store, folder, name, staged.sorted_by) for name in staged.names]
    except (OSError, ArrowException) as error:
        if is_url(path) and not isinstance(error, FileNotFoundError):
            fail(f"The rows beside the table {path} cannot be read", error)
        raise RecsysError(f"The rows beside the table {path} cannot be read ({first_line(error)}).") from None
    try:  # from here on an interrupt may come after the commit, and then its files must stay
        _commit(path, staged.expected, Schema.from_json(staged.schema), actions, staged.metadata)
    except CommitFailedError:
        if not _landed(staged):
            _delete(store, folder, staged.names)
            raise RecsysError(
                f"Another process has written the table {path} in the meantime; nothing was replaced, run it again."
            ) from None
    except (DeltaError, OSError) as error:
        if is_url(path):
            fail(f"The table {path} cannot be written", error)
        if isinstance(error, OSError):
            raise
        raise RecsysError(f"The table {path} cannot be written: {refusal(error) or first_line(error)}.") from None
    note_write(path)
    return 0 if staged.expected is None else staged.expected + 1


def published(staged: Staged) -> int | None:
    """The version that the rows are, if they are the table's newest: a kill may come between commit and record."""
    opened = _newest(staged.path)
    return int(opened.version()) if opened is not None and _holds(opened, staged) else None


def is_whole(staged: Staged) -> bool:
    """Return whether `publish` can make the rows the table: all files are there, and nobody has written it since."""
    opened = _newest(staged.path)
    return (None if opened is None else opened.version()) == staged.expected and is_there(staged)


def is_there(staged: Staged) -> bool:
    """Return whether all files of the rows are there, whatever has become of the table since."""
    store, folder = filesystem(staged.path)
    try:
        return sum(_metadata(store, f"{folder}/{name}").num_rows for name in staged.names) == staged.rows
    except (OSError, ArrowException):
        return False


def paths(staged: Staged) -> list[str]:
    """Paths (or URLs) of the files, in the order of the rows."""
    return [f"{staged.path}/{name}" for name in staged.names]


def scan_staged(staged: Staged) -> pl.LazyFrame | None:
    """The rows beside a table, lazily and in their order; None: there are none. For a table in a local folder."""
    return pl.scan_parquet(paths(staged), glob=False) if staged.files else None


def discard(staged: Staged) -> None:
    """Delete rows that will not be published; those of an older version, which is the way back, stay."""
    if not _is_any_there(staged):  # they were discarded before: no version need be opened
        return
    opened, first = _newest(staged.path), 0 if staged.expected is None else staged.expected + 1
    if opened is not None:
        for version in range(first, opened.version() + 1):  # rows that were kept back may be published much later
            with contextlib.suppress(DeltaError):  # a version that was cleaned up is no way back
                opened.load_as_version(version)
                if _holds(opened, staged):
                    return
    store, folder = filesystem(staged.path)
    _delete(store, folder, staged.names)


def _is_any_there(staged: Staged) -> bool:
    store, folder = filesystem(staged.path)
    with reaching(staged.path, f"The rows beside the table {staged.path} cannot be looked at"):
        found = store.get_file_info([f"{folder}/{name}" for name in staged.names])
    return any(info.type != fs.FileType.NotFound for info in found)


def discard_unfinished(path: str, token: str, before: int) -> None:
    """Delete what a process that was killed in `stage` has written beside a table, unless it was published.

    Parameters
    ----------
    token
        Given to `stage`.
    before
        The table's version then.
    """
    opened = _newest(path)
    if opened is not None and _published_since(opened, token, before):
        return
    store, folder = filesystem(path)
    inside = store.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    _delete(store, folder, [info.base_name for info in inside if token in info.base_name])


def _published_since(opened: DeltaTable, token: str, before: int) -> bool:
    for version in range(before + 1, int(opened.version()) + 1):  # which others may have replaced meanwhile
        with contextlib.suppress(DeltaError):  # it was cleaned up
            opened.load_as_version(version)
            if any(token in file for file in opened.file_uris()):
                return True
    return False


def discard_version(path: str, version: int) -> None:
    """Delete the files of an older version; those that the newest one has, too, stay."""
    opened = _newest(path)
    if opened is None:
        return
    kept = set(opened.get_add_actions(flatten=True)["path"].to_pylist())
    with contextlib.suppress(DeltaError):  # it was cleaned up
        opened.load_as_version(version)
        store, folder = filesystem(path)
        _delete(store, folder, sorted(set(opened.get_add_actions(flatten=True)["path"].to_pylist()) - kept))


def _newest(path: str) -> DeltaTable | None:
    with reaching(path, f"The table {path} cannot be opened"):
        return DeltaTable(path) if DeltaTable.is_deltatable(path) else None


def _landed(staged: Staged) -> bool:
    """Return whether the commit is there, though a store that is asked again says that somebody was faster."""
    with contextlib.suppress(DeltaError, OSError):
        opened = DeltaTable(staged.path, version=0 if staged.expected is None else staged.expected + 1)
        return _holds(opened, staged)
    return False


def _holds(table: DeltaTable, staged: Staged) -> bool:
    return any(staged.token in file for file in table.file_uris())


def _delete(store: fs.FileSystem, folder: str, names: Iterable[str]) -> None:
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            store.delete_file(f"{folder}/{name}")


def _arrow_schema(schema: Mapping[str, Any]) -> Any:
    return pl.DataFrame(schema=schema).to_arrow().schema


def _metadata(store: fs.FileSystem, file: str) -> Any:
    with store.open_input_file(file) as stream:
        return pq.read_metadata(stream)


def _add_action(store: fs.FileSystem, folder: str, name: str, column: str | None) -> AddAction:
    """A file as a commit names it, with its rows and the range of the column that it is sorted by."""
    with store.open_input_file(f"{folder}/{name}") as stream:
        size = stream.size()
        file = pq.ParquetFile(stream)
        stats: dict[str, Any] = {"numRecords": file.metadata.num_rows}
        if column is not None:
            ends = (
                file.read_row_group(0, [column])[column][0],
                file.read_row_group(file.num_row_groups - 1, [column])[column][-1],
            )
            stats["minValues"], stats["maxValues"] = ({column: end.as_py()} for end in ends)
            stats["nullCount"] = {column: 0}
    return AddAction(name, size, {}, int(time.time() * 1000), True, json.dumps(stats))


def _write_files(
    store: fs.FileSystem,
    folder: str,
    schema: Mapping[str, Any],
    frames: Iterable[pl.DataFrame],
    token: str,
    names: list[str],
) -> int:
    """Write the rows in their order; returns their number. `names` grows as files are begun."""
    arrow_schema = _arrow_schema(schema)
    repeating = [name for name, dtype in schema.items() if not dtype.is_float()]  # scores hardly do
    groups = _groups(frames)
    group = next(groups, None)
    rows = 0
    while group is not None:
        name = f"part-{len(names):05d}-{token}.parquet"
        names.append(name)
        held = 0
        with (
            store.open_output_stream(f"{folder}/{name}") as stream,
            pq.ParquetWriter(stream, arrow_schema, compression="zstd", use_dictionary=repeating) as writer,
        ):
            while group is not None and held < ROWS_A_FILE:
                try:
                    writer.write_table(group.select(*schema).to_arrow().cast(arrow_schema))
                except OSError as error:
                    if not isinstance(store, fs.LocalFileSystem):
                        raise
                    raise RecsysError(f"The table {folder} cannot be written: {first_line(error)}.") from None
                held += len(group)
                group = next(groups, None)
        rows += held
        if isinstance(store, fs.LocalFileSystem):
            synchronise(Path(folder) / name)
    return rows


def _groups(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows in frames of about `ROWS_A_GROUP`, none empty."""
    waiting: list[pl.DataFrame] = []
    rows = 0
    for frame in frames:
        waiting.append(frame)
        rows += len(frame)
        if rows >= ROWS_A_GROUP:
            yield pl.concat(waiting)
            waiting, rows = [], 0
    if rows:
        yield pl.concat(waiting)


def _commit(
    path: str, expected: int | None, schema: Schema, actions: list[AddAction], metadata: Mapping[str, Any]
) -> None:
    said: dict[str, Any] = {"commit_properties": commit_properties(metadata), "post_commithook_properties": KEEP_LOG}
    if expected is None:
        create_table_with_add_actions(path, schema, actions, mode="error", **said)
    else:
        DeltaTable(path, version=expected).create_write_transaction(actions, "overwrite", schema, **said)
