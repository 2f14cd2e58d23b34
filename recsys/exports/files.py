"""A copy of the candidate table as files: Parquet or CSV, a row a candidate or a row a user.

The copy is written aside and switched in at the end. What `export.path` names is a symbolic link to a version
beside it, and the switch replaces the link, which is atomic: a reader opens the old copy or the new one. One
that is in the middle of the old copy can finish it, as the last two versions stay. Names of Parquet files
hold the version, so a reader that listed one version never opens a file of another.

    exports/candidates -> .candidates.versions/v7-3f9a01c2     a folder of Parquet files, or a CSV file

Layout "wide": `item_id`, `score` and `source` become lists in Parquet and numbered columns in CSV
(`item_id_1` to `item_id_<k>`, empty where a list is short). The place in the list is the rank: there is no
column `rank`. All else (user, run, bundle, ...) is the same for all rows of a user and stays one column.

The copy before the last one is what `rollback` brings back.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl
import pyarrow.parquet as pq

from recsys.errors import InputError, RecsysError
from recsys.exports.base import Candidates, CandidateTable, ExportReport, RollbackReport, Sink
from recsys.exports.rows import batches, chosen_columns, long_rows, longest_list, open_table, whole_users, wide_rows
from recsys.settings import ExportSettings, FileExportSettings, Settings
from recsys.storage.files import file_aside, synchronise, writing
from recsys.storage.locks import Held, lock_file

__all__ = ["Candidates", "ExportReport", "FileSink", "check", "chosen_columns", "export"]

ROWS_A_FILE: Final = 5_000_000
OWNER: Final = "owner"  # the file beside the versions that names the configuration
FORMER: Final = "former"  # names the copy that `rollback` brings back
MOMENT_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"


class FileSink(Sink):
    """Files beside a link; see the module."""

    kind = "files"
    keys = FileExportSettings

    def check(self) -> None:
        check(_files(self.settings), self.name)

    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        began = time.perf_counter()
        wanted = _files(self.settings)
        target, columns = check(wanted, self.name)
        files, schema = open_table(candidates)
        frames = batches(files)
        if wanted.layout == "wide":
            width = longest_list(files) if wanted.format == "csv" else None
            shape = partial(wide_rows, columns=columns, width=width)
            frames = whole_users(frames)
        else:
            shape = partial(long_rows, columns=columns)
        try:
            empty = shape(pl.DataFrame(schema=schema))
        except pl.exceptions.DuplicateError:
            raise InputError(
                "export.columns gives two columns of the numbered layout one name; choose different names."
            ) from None
        write = _write_parquet if wanted.format == "parquet" else _write_csv
        with writing(f"The export to {target}"):
            rows = _publish(
                target,
                candidates.version,
                self.name,
                lambda path: write(path, empty, map(shape, frames)),
                keep=keep,
            )
        return ExportReport(
            path=str(target),
            rows=rows,
            format=wanted.format,
            layout=wanted.layout,
            columns=empty.columns,
            version=candidates.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
        )

    def rollback(self) -> RollbackReport:
        target, _ = check(_files(self.settings), self.name)
        if not self.present():
            raise RecsysError(f"No export to {target} was made yet, so none can be taken back.")
        versions = _versions(target)
        with writing(f"The link {target}"), _alone(versions / "lock", target):
            seen = target.readlink().name
            chosen = _former(versions, seen)
            if chosen is None:
                raise RecsysError(
                    f"The export {target} keeps no copy older than that of version {_version_of(seen)}; "
                    "`recsys export CONFIG` writes the newest candidate table."
                )
            _point(target, versions / chosen)
            (versions / FORMER).write_text("", encoding="utf-8")  # doing it again does not undo it
        return RollbackReport(path=str(target), version=_version_of(chosen), instead=_version_of(seen), kind=self.kind)

    def present(self) -> bool:
        path = _files(self.settings).path
        return path is not None and Path(path).is_symlink()


def export(settings: Settings, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
    """Copy a version of the candidate table to `export.path`; see `FileSink.write`."""
    return FileSink(settings.export, settings.name).write(candidates, keep=keep)


def _files(settings: ExportSettings) -> FileExportSettings:
    assert isinstance(settings, FileExportSettings)
    return settings


def check(wanted: FileExportSettings, name: str) -> tuple[Path, dict[str, str]]:
    """Return the copy's place and columns (see `chosen_columns`); find all that can be wrong before there is a table.

    Parameters
    ----------
    name
        Of the configuration.

    Raises
    ------
    InputError
        No path, a URL, a path that holds something that no export has written or the copy of another name, or wrong
        columns.
    RecsysError
        The folder is read-only.
    """
    if wanted.path is None:
        raise InputError("There is no export.path, so there is nowhere to export to; set it.")
    if "://" in wanted.path:
        raise InputError(f"export.path = {wanted.path}: exporting to a URL is not yet supported; use a local path.")
    columns, target = chosen_columns(wanted), Path(wanted.path)
    if not target.is_symlink() and target.exists() and not _is_empty_folder(target):
        raise InputError(
            f"export.path = {target} holds something that no export has written; move it away or choose another path."
        )
    if target.is_symlink() and target.readlink().parent != Path(_versions(target).name):
        raise InputError(
            f"export.path = {target} is a link to {target.readlink()} that no export has made; choose another path."
        )
    owner = _owner(target)
    if target.is_symlink() and owner not in (None, name):
        raise InputError(
            f"export.path = {target} holds the candidates of the configuration {owner!r}, and this one is {name!r}; "
            "choose another path."
        )
    parent = next(folder for folder in target.absolute().parents if folder.exists())
    if not os.access(parent, os.W_OK | os.X_OK):
        raise RecsysError(f"The export to {target} cannot be written: the folder {parent} is read-only for this user.")
    return target, columns


def _write_parquet(path: Path, empty: pl.DataFrame, frames: Iterable[pl.DataFrame]) -> int:
    """A folder of Parquet files, at least one; returns the rows."""
    path.mkdir()
    schema = empty.to_arrow().schema
    rows = 0
    remaining = iter(frames)
    frame: pl.DataFrame | None = empty
    number = 0
    while frame is not None:
        file = path / f"part-{number:05d}-{path.name}.parquet"
        with pq.ParquetWriter(file, schema, compression="zstd") as writer:
            held = 0
            while frame is not None and held < ROWS_A_FILE:
                if len(frame):
                    writer.write_table(frame.to_arrow().cast(schema))
                held += len(frame)
                frame = next(remaining, None)
        synchronise(file)
        rows += held
        number += 1
    return rows


def _write_csv(path: Path, empty: pl.DataFrame, frames: Iterable[pl.DataFrame]) -> int:
    """One CSV file, UTF-8, with a header; times in UTC; returns the rows."""
    rows = 0
    with path.open("wb") as file:
        empty.write_csv(file, datetime_format=MOMENT_FORMAT)
        for frame in frames:
            frame.write_csv(file, include_header=False, datetime_format=MOMENT_FORMAT)
            rows += len(frame)
    synchronise(path)
    return rows


def _publish(target: Path, version: int, name: str, write: Callable[[Path], int], *, keep: bool) -> int:
    """Write a new version beside the target and point the target at it, in one step."""
    versions = _versions(target)
    versions.mkdir(parents=True, exist_ok=True)
    with _alone(versions / "lock", target):
        seen = target.readlink().name if keep and target.is_symlink() else None  # readers may have it open
        former = seen
        if seen is not None and _version_of(seen) == version:  # the same again: the way back stays
            former = _former(versions, seen)
        new = versions / f"v{version}-{uuid.uuid4().hex[:8]}"
        try:
            rows = write(new)
        except BaseException:
            _remove(new)
            raise
        synchronise(new)
        (versions / OWNER).write_text(name, encoding="utf-8")
        synchronise(versions)
        if _is_empty_folder(target):
            target.rmdir()
        with file_aside(versions / FORMER) as aside:
            aside.write_text(former or "", encoding="utf-8")
        _point(target, new)
        for old in versions.iterdir():  # also what a killed export left
            if old.name not in (new.name, seen, former, "lock", OWNER, FORMER):
                _remove(old)
    return rows


def _point(target: Path, version: Path) -> None:
    """Make the target a link to a version, in one step."""
    link = version.parent / "link"
    link.unlink(missing_ok=True)
    link.symlink_to(Path(version.parent.name) / version.name)  # as seen from where it moves to
    link.replace(target)
    synchronise(target.parent)


def _version_of(copy: str) -> int:
    """Version of the candidate table that a copy's name tells."""
    return int(copy[1:].partition("-")[0])


def _former(versions: Path, seen: str) -> str | None:
    """Name of the copy that readers saw before the one that they see, if it is kept."""
    try:
        name = (versions / FORMER).read_text(encoding="utf-8")
    except FileNotFoundError:  # an export of an earlier version of this program: it keeps one other copy
        others = [path.name for path in versions.glob("v*-*") if path.name != seen]
        name = others[0] if len(others) == 1 and _version_of(others[0]) < _version_of(seen) else ""
    return name if name and name != seen and (versions / name).exists() else None


def _owner(target: Path) -> str | None:
    """Name of the configuration whose copy lies there; None where none says so."""
    try:
        return (_versions(target) / OWNER).read_text(encoding="utf-8") or None
    except FileNotFoundError:
        return None


def _versions(target: Path) -> Path:
    """The folder beside the target that holds its versions."""
    return target.with_name(f".{target.name}.versions")


@contextlib.contextmanager
def _alone(lock: Path, target: Path) -> Iterator[None]:
    """Only one export to a target at a time; a killed one frees the lock."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(lock_file(lock))
        except Held:
            raise RecsysError(f"Another export to {target} is running; wait for it to end.") from None
        yield


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink() and not any(path.iterdir())


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
