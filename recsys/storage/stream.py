"""Replace a table of any size by frames that arrive one after another: Parquet files, then one Delta commit.

Delta's own writer deals batches out to several files in no fixed order. Here rows stay in the order in which
they come, so files of sorted rows can be read back in order and a reader skips what it does not need; and
they are made on the caller's thread, where Ctrl-C reaches them.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable, Schema
from deltalake.exceptions import CommitFailedError, DeltaError
from deltalake.transaction import AddAction, create_table_with_add_actions
from pyarrow import fs

from recsys.errors import RecsysError, first_line
from recsys.storage.files import refusal, synchronise
from recsys.storage.intact import filesystem, note_write
from recsys.storage.warehouse import commit_properties, latest_version, table_path

ROWS_A_GROUP: Final = 131_072  # of a Parquet file: what a reader skips or reads as one
ROWS_A_FILE: Final = 8_000_000


def overwrite_streamed(
    root: str | Path,
    table: str,
    schema: Mapping[str, Any],
    frames: Iterable[pl.DataFrame],
    *,
    sorted_by: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> int:
    """Replace a table's rows. Readers see the old rows until the one commit at the end; old versions stay.

    Parameters
    ----------
    schema
        Column to polars type; every frame has exactly these.
    frames
        The rows; an exception of theirs (and Ctrl-C) leaves the table as it was and comes through unchanged.
    sorted_by
        A column that never descends, of integers or strings: its range goes into the commit, so that a reader
        who asks for some values opens only the files that hold them.
    metadata
        Goes into the commit; `recsys.storage.warehouse.commit_metadata` reads it.

    Returns
    -------
    int
        The new version.

    Raises
    ------
    RecsysError
        The table cannot be written, or another process wrote it in the meantime.
    """
    path = table_path(root, table)
    expected = latest_version(root, table)
    files: list[_File] = []
    store, folder = filesystem(path)

    def drop_files() -> None:
        for file in files:  # no commit names them
            store.delete_file(f"{folder}/{file.name}")

    try:
        store.create_dir(folder, recursive=True)
        _write_files(store, folder, schema, frames, sorted_by, files)
    except BaseException:
        drop_files()
        raise
    try:  # from here on an interrupt may come after the commit, and then its files must stay
        _commit(path, expected, schema, [file.action() for file in files], metadata or {})
    except CommitFailedError:
        drop_files()
        raise RecsysError(
            f"Another process has written the table {path} in the meantime; nothing was replaced, run it again."
        ) from None
    except DeltaError as error:
        raise RecsysError(f"The table {path} cannot be written: {refusal(error) or first_line(error)}.") from None
    note_write(path)
    return 0 if expected is None else expected + 1


@dataclass(kw_only=True)
class _File:
    """A Parquet file that the commit will name."""

    name: str
    rows: int = 0
    size: int = 0
    column: str | None = None
    first: Any = None
    last: Any = None

    def action(self) -> AddAction:
        stats: dict[str, Any] = {"numRecords": self.rows}
        if self.column is not None:
            stats["minValues"], stats["maxValues"] = {self.column: self.first}, {self.column: self.last}
            stats["nullCount"] = {self.column: 0}
        return AddAction(self.name, self.size, {}, int(time.time() * 1000), True, json.dumps(stats))


def _write_files(
    store: fs.FileSystem,
    folder: str,
    schema: Mapping[str, Any],
    frames: Iterable[pl.DataFrame],
    sorted_by: str | None,
    files: list[_File],
) -> None:
    """Write the rows in their order; `files` grows as files are begun."""
    arrow_schema = pl.DataFrame(schema=schema).to_arrow().schema
    token = uuid.uuid4()
    groups = _groups(frames)
    group = next(groups, None)
    while group is not None:
        file = _File(name=f"part-{len(files):05d}-{token}.parquet", column=sorted_by)
        files.append(file)
        with (
            store.open_output_stream(f"{folder}/{file.name}") as stream,
            pq.ParquetWriter(stream, arrow_schema, compression="zstd") as writer,
        ):
            file.first = group[sorted_by][0] if sorted_by else None
            while group is not None and file.rows < ROWS_A_FILE:
                try:
                    writer.write_table(group.select(*schema).to_arrow().cast(arrow_schema))
                except OSError as error:
                    raise RecsysError(f"The table {folder} cannot be written: {first_line(error)}.") from None
                file.rows += len(group)
                file.last = group[sorted_by][-1] if sorted_by else None
                group = next(groups, None)
        if isinstance(store, fs.LocalFileSystem):
            synchronise(Path(folder) / file.name)
        file.size = store.get_file_info(f"{folder}/{file.name}").size


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
    path: str,
    expected: int | None,
    schema: Mapping[str, Any],
    actions: list[AddAction],
    metadata: Mapping[str, Any],
) -> None:
    delta_schema = Schema.from_arrow(pl.DataFrame(schema=schema).to_arrow().schema)
    properties = commit_properties(metadata)
    if expected is None:
        create_table_with_add_actions(path, delta_schema, actions, mode="error", commit_properties=properties)
    else:
        opened = DeltaTable(path, version=expected)
        opened.create_write_transaction(actions, "overwrite", delta_schema, commit_properties=properties)
