"""A copy of the candidate table as files: Parquet or CSV, a row a candidate or a row a user.

The copy is written aside and switched in at the end. What `export.path` names is a symbolic link to a version
beside it, and the switch replaces the link, which is atomic: a reader opens the old copy or the new one. One
that is in the middle of the old copy can finish it, as the last two versions stay. Names of Parquet files
hold the version, so a reader that listed one version never opens a file of another.

    exports/candidates -> .candidates.versions/v7-3f9a01c2     a folder of Parquet files, or a CSV file

Layout "wide": `item_id`, `score` and `source` become lists in Parquet and numbered columns in CSV
(`item_id_1` to `item_id_<k>`, empty where a list is short). The place in the list is the rank: there is no
column `rank`. All else (user, run, bundle, ...) is the same for all rows of a user and stays one column.

Rows pass through in batches in the order (user_id, rank), so memory does not grow with the table. A further
target, such as a database, is one more function like `_write_parquet`: it takes frames.
"""

from __future__ import annotations

import contextlib
import difflib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Protocol

import polars as pl
import pyarrow.parquet as pq
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from recsys.columns import CANDIDATE_SOURCE, CANDIDATES, ITEM_ID, RANK, SCORE, USER_ID
from recsys.errors import InputError, RecsysError
from recsys.settings import ExportSettings, Settings
from recsys.storage.delta import data_files, scan_delta
from recsys.storage.files import synchronise, writing
from recsys.storage.intact import check_intact
from recsys.storage.locks import Held, lock_file
from recsys.storage.warehouse import SCHEMAS

BATCH_ROWS: Final = 200_000
ROWS_A_FILE: Final = 5_000_000
LISTED: Final = (ITEM_ID, SCORE, CANDIDATE_SOURCE)  # what differs between the candidates of one user
OWNER: Final = "owner"  # the file beside the versions that names the configuration
MOMENT_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"


class CandidateTable(Protocol):
    """Anything that says where a candidate table is: a `CandidatesReport`, or `Candidates`."""

    @property
    def path(self) -> str:
        """Of the Delta table."""

    @property
    def version(self) -> int:
        """Of the Delta table."""


@dataclass(frozen=True, kw_only=True)
class Candidates:
    """A version of a candidate table."""

    path: str
    version: int


@dataclass(frozen=True, kw_only=True)
class ExportReport:
    """What was exported; JSON-friendly."""

    path: str  # what readers open
    rows: int  # of the copy: candidates, or users in the wide layout
    format: str
    layout: str
    columns: list[str]  # their names in the copy
    version: int  # of the candidate table
    seconds: float


def export(settings: Settings, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
    """Copy a version of the candidate table to `export.path`.

    Parameters
    ----------
    keep
        Let the copy before this one stay for readers that have it open.

    Raises
    ------
    InputError
        No path, a URL, an unknown column, two columns of one name, a path that holds something that no export
        has written or another configuration's copy, or no such table.
    RecsysError
        Another export to the same path is running, the table is damaged, or the disk does not take the files.
    """
    began = time.perf_counter()
    target, columns = check(settings.export, settings.name)
    wanted = settings.export
    files, schema = _open(candidates)
    frames = _batches(files)
    if wanted.layout == "wide":
        width = _longest_list(files) if wanted.format == "csv" else None
        shape = partial(_wide, columns=columns, width=width)
        frames = _whole_users(frames)
    else:
        shape = partial(_long, columns=columns)
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
            settings.name,
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
    )


def check(wanted: ExportSettings, name: str) -> tuple[Path, dict[str, str]]:
    """Where the copy goes and its columns (see `chosen_columns`): all that can be wrong before there is a table.

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


def chosen_columns(wanted: ExportSettings) -> dict[str, str]:
    """Column of the candidate table to its name in the copy, in the copy's order.

    Raises
    ------
    InputError
        An unknown column, with the nearest one; `rank` in the wide layout; two columns of one name.
    """
    known = [name for name in SCHEMAS[CANDIDATES] if wanted.layout == "long" or name != RANK]
    columns = dict(wanted.columns) or {name: name for name in known}
    for ours in columns:
        if ours == RANK and wanted.layout == "wide":
            raise InputError(
                "export.columns.rank: a wide export has no rank, the place in the list says it; "
                'leave it out, or set export.layout = "long".'
            )
        if ours not in known:
            near = difflib.get_close_matches(ours, known, n=1, cutoff=0.0)[0]
            raise InputError(f"export.columns: the candidate table has no column {ours!r}; did you mean {near!r}?")
    names = list(columns.values())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"export.columns gives the name {twice!r} to more than one column; choose different names.")
    return columns


def _open(candidates: CandidateTable) -> tuple[list[str], pl.Schema]:
    """The table's Parquet files in the order of their names, which is that of the rows, and its schema."""
    try:
        check_intact(DeltaTable(candidates.path), candidates.path)
        table = DeltaTable(candidates.path, version=candidates.version)
        files, schema = data_files(table), scan_delta(table).collect_schema()
    except (TableNotFoundError, DeltaError):
        raise InputError(
            f"There is no version {candidates.version} of a candidate table {candidates.path}; "
            "run `recsys retrieve` first."
        ) from None
    missing = [name for name in SCHEMAS[CANDIDATES] if name not in schema]
    if missing:
        raise InputError(f"{candidates.path} is not a candidate table: it has no column {missing[0]}.")
    return files, schema


def _batches(files: list[str]) -> Iterator[pl.DataFrame]:
    """The rows, checked to ascend by (user_id, rank)."""
    if not files:
        return
    before: pl.DataFrame | None = None
    for frame in pl.scan_parquet(files).collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        keys = frame.select(USER_ID, RANK)
        keys = keys if before is None else pl.concat([before, keys])
        user, rank = pl.col(USER_ID), pl.col(RANK)
        late = (user < user.shift()) | ((user == user.shift()) & (rank <= rank.shift()))
        if keys.select(late.any()).item():
            raise RecsysError(
                "The rows of the candidate table are not in the order in which they were published "
                "(was the table compacted?); run `recsys retrieve` again."
            )
        before = keys.tail(1)
        yield frame


def _long(frame: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    return frame.select(pl.col(ours).alias(theirs) for ours, theirs in columns.items())


def _whole_users(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, cut so that no user is spread over two frames."""
    rest: pl.DataFrame | None = None
    for frame in frames:
        whole = frame if rest is None else pl.concat([rest, frame])
        complete = whole[USER_ID] != whole[USER_ID][-1] if len(whole) else pl.Series([], dtype=pl.Boolean)
        yield whole.filter(complete)
        rest = whole.filter(~complete)
    if rest is not None:
        yield rest


def _wide(frame: pl.DataFrame, columns: dict[str, str], width: int | None) -> pl.DataFrame:
    """A row a user; `width` numbered columns instead of a list where it is given."""
    ours = [name for name in columns if name != USER_ID]
    users = frame.group_by(USER_ID, maintain_order=True).agg(
        pl.col(name) if name in LISTED else pl.col(name).first() for name in ours
    )
    shaped: list[pl.Expr] = []
    for name, theirs in columns.items():
        if name in LISTED and width is not None:
            places = range(width)
            shaped += [pl.col(name).list.get(i, null_on_oob=True).alias(f"{theirs}_{i + 1}") for i in places]
        else:
            shaped.append(pl.col(name).alias(theirs))
    return users.select(shaped)


def _longest_list(files: list[str]) -> int:
    if not files:
        return 0
    return int(pl.scan_parquet(files).select(pl.col(RANK).max()).collect(engine="streaming").item() or 0)


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
        before = target.readlink().name if keep and target.is_symlink() else None
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
        link = versions / "link"
        link.unlink(missing_ok=True)
        link.symlink_to(Path(versions.name) / new.name)  # as seen from where it moves to
        link.replace(target)
        synchronise(target.parent)
        for old in versions.iterdir():  # also what a killed export left
            if old.name not in (new.name, before, "lock", OWNER):
                _remove(old)
    return rows


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
