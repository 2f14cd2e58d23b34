"""Check whether a Delta table is what was last written: no commit lost or emptied, no data file missing or cut off.

A lost or emptied commit file leaves an older table that opens without complaint. So every write leaves a note in the
table's folder, `_last_write.json`: the version, and a digest of the names and sizes of the data files. A table that
lies behind its note, or differs from it at the same version, is refused. One that is ahead of it is sound: the process
was killed before the note, or another program has written. Tables without a note are older than notes are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import ArrowException

from recsys.columns import INTERACTIONS, ITEM_VECTORS, ITEMS, USERS
from recsys.errors import RecsysError, first_line, is_panic
from recsys.storage.files import file_aside
from recsys.storage.remote import filesystem, is_url

NOTE: Final = "_last_write.json"  # Delta's clean-up leaves names that begin with an underscore alone
_REPAIRS: Final = {
    **dict.fromkeys(
        (INTERACTIONS, ITEMS, USERS),
        "restore the folder from a backup, or read the sources anew with `recsys ingest CONFIG --rebuild`",
    ),
    ITEM_VECTORS: "remove the folder, and `recsys represent CONFIG` encodes the sentences again",
}
_MAGIC: Final = b"PAR1"  # the last bytes of a Parquet file
_REPAIR: Final = "restore the folder from a backup, or remove it"
_RETRIEVE: Final = "run `recsys retrieve CONFIG` again"


def note_write(path: str) -> None:
    """Note the table's newest version after a write; a note that cannot be written leaves the old one."""
    with contextlib.suppress(OSError, ArrowException, DeltaError):
        table = DeltaTable(path)
        content = json.dumps({"version": table.version(), "files": _digest(_files(table))}).encode()
        if is_url(path):
            store, folder = filesystem(path)
            with store.open_output_stream(f"{folder}/{NOTE}") as stream:
                stream.write(content)
        else:
            with file_aside(Path(path) / NOTE) as aside:
                aside.write_bytes(content)


def check_intact(table: DeltaTable, path: str) -> None:
    """Refuse a damaged table.

    Parameters
    ----------
    table
        Opened at its newest version.
    path
        Its folder or URL, as configured.

    Raises
    ------
    RecsysError
        The table's last commit is lost, or a data file is missing or has another size than its commit says.
    """
    files, version = _files(table), int(table.version())
    if not is_url(path):
        _check_sizes(path, files)
    note = _read_note(path)
    if not isinstance(note.get("version"), int) or version > note["version"]:
        return
    if version < note["version"]:  # perhaps somebody has written since the table was opened
        newest = DeltaTable(path)
        files, version = _files(newest), int(newest.version())
    lost = f"{path}/_delta_log/{note['version']:020d}.json"
    if version < note["version"]:
        raise RecsysError(
            f"The table {path} is at version {version} and was written up to version {note['version']}: the commit "
            f"{lost} is lost; {repair(path)}."
        )
    if version == note["version"] and note.get("files") != _digest(files):
        raise RecsysError(
            f"The table {path} does not hold what its version {version} was written with: {lost} or a commit before it "
            f"is lost or was emptied; {repair(path)}."
        )


def is_kept(path: str, version: int) -> bool:
    """Return whether an older version of a table can be read: its commit and all of its files are there."""
    try:
        table = DeltaTable(path, version=version)
        store, folder = filesystem(path)
        files = _files(table)
        infos = store.get_file_info([f"{folder}/{name}" for name in files["path"]]) if len(files) else []
        return [info.size for info in infos] == files["size_bytes"].to_list()
    except (DeltaError, OSError, ArrowException):
        return False


@contextlib.contextmanager
def naming_damage(root: str) -> Iterator[None]:
    """Name the damaged file of a local warehouse when a library fails inside the block.

    Raises
    ------
    RecsysError
        The table, the file, and what to do.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, pl.exceptions.PolarsError | DeltaError | ArrowException) and not is_panic(error):
            raise
        for log in sorted(Path(root).glob("*/_delta_log")):
            if damage := damaged_commit(str(log.parent)) or _damaged_file(str(log.parent)):
                raise RecsysError(f"The table {log.parent} is damaged: {damage}; {repair(str(log.parent))}.") from error
        raise


def damaged_commit(path: str) -> str | None:
    """Return which commit of a local table is no JSON, in words."""
    for commit in sorted((Path(path) / "_delta_log").glob("*.json")):
        try:
            for line in commit.read_text(encoding="utf-8").splitlines():
                json.loads(line)
        except ValueError:
            return f"its commit {commit} is cut off or holds other bytes than were written"
    return None


def _damaged_file(path: str) -> str | None:
    """Return which data file of a local table cannot be read, in words."""
    for name in _files(DeltaTable(path))["path"]:
        file = Path(path) / name
        try:
            for _ in pl.scan_parquet(file, glob=False).collect_batches(chunk_size=100_000):
                pass
        except BaseException as error:
            if not isinstance(error, pl.exceptions.PolarsError | OSError) and not is_panic(error):
                raise
            return f"its file {file} cannot be read ({first_line(error)})"
    return None


def repair(path: str) -> str:
    """Return the advice for a damaged table."""
    name = path.rstrip("/").rpartition("/")[2]
    return _RETRIEVE if name.startswith("candidates") else _REPAIRS.get(name, _REPAIR)


def _check_sizes(path: str, files: pl.DataFrame) -> None:
    for name, size in files.iter_rows():
        file = Path(path) / name
        try:
            found = file.stat().st_size
        except FileNotFoundError:
            raise RecsysError(f"The table {path} is damaged: its file {file} is missing; {repair(path)}.") from None
        if found != size:
            raise RecsysError(
                f"The table {path} is damaged: its file {file} has {found} bytes and was written with {size}; "
                f"{repair(path)}."
            )
        with file.open("rb") as stream:
            stream.seek(-len(_MAGIC), os.SEEK_END)
            if stream.read() != _MAGIC:
                raise RecsysError(
                    f"The table {path} is damaged: its file {file} is no Parquet file any more; {repair(path)}."
                )


def _files(table: DeltaTable) -> pl.DataFrame:
    """Names and sizes (bytes) of the data files."""
    actions = pl.DataFrame(table.get_add_actions(flatten=True))
    return actions.select("path", "size_bytes").sort("path")


def _digest(files: pl.DataFrame) -> str:
    return hashlib.sha256(json.dumps(files.rows()).encode()).hexdigest()


def _read_note(path: str) -> dict[str, Any]:
    try:
        store, folder = filesystem(path)
        with store.open_input_stream(f"{folder}/{NOTE}") as stream:
            note = json.loads(stream.read())
    except (OSError, ArrowException, ValueError):
        return {}
    return note if isinstance(note, dict) else {}
