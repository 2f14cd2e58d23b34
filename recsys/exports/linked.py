"""A copy on this machine that is written aside and switched in at the end.

What the path names is a symbolic link to a version beside it, and the switch replaces the link, which is atomic: a
reader opens the old copy or the new one. One that is in the middle of the old copy can finish it, as the last two
versions stay.

    exports/candidates -> .candidates.versions/v7-3f9a01c2     a folder of Parquet files, a CSV file, a database

The copy before the last one is what `rollback` brings back.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import polars as pl

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, RecsysError
from recsys.exports.base import CandidateTable, ExportReport, RollbackReport, Sink
from recsys.exports.copies import Copy, check_newer, copy_of
from recsys.exports.rows import Rows, Shape, chosen_columns, rows_of
from recsys.forgetting.sought import Sought
from recsys.storage.files import file_aside, synchronise, writing
from recsys.storage.locks import Held, lock_file

OWNER: Final = "owner"  # the file beside the versions that names the configuration
FORMER: Final = "former"  # names the copy that `rollback` brings back
COPIES: Final = "copies"  # says of each kept copy what it is


class LinkedSink(Sink):
    """A path that is a link; see the module. A kind says what is written."""

    @property
    def numbered(self) -> bool:
        """Return whether a wide layout has numbered columns instead of lists."""
        return False

    @property
    @abstractmethod
    def shape(self) -> Shape:
        """The settings that say what rows a copy has."""

    @property
    @abstractmethod
    def path(self) -> str | None:
        """Path of the link."""

    @property
    @abstractmethod
    def format(self) -> str:
        """Name of the form, for the report."""

    @abstractmethod
    def write_to(self, path: Path, rows: Rows) -> int:
        """Write a new version; returns the rows."""

    @abstractmethod
    def tables_in(self, path: Path) -> Iterator[pl.LazyFrame]:
        """Rows of a version, in one or several tables."""

    def count(self, sought: Sought) -> int | None:
        target, columns = self.checked()
        found = 0
        for version in sorted(_versions(target).glob("v*-*")):
            for table in self.tables_in(version):
                goes = sought.columns(table.collect_schema(), columns.get(USER_ID), columns.get(ITEM_ID))
                found += int(table.filter(goes).select(pl.len()).collect(engine="streaming").item())
        return found

    def check(self) -> None:
        self.checked()

    def checked(self) -> tuple[Path, dict[str, str]]:
        """Return the copy's place and columns; raises as `check`."""
        where = f"{self.section}.path"
        if self.path is None:
            raise InputError(f"There is no {where}, so there is nowhere to export to; set it.")
        if "://" in self.path:
            raise InputError(
                f'{where} = {self.path}: kind = "{self.kind}" writes local files; use a local path, or kind = "s3" or '
                '"delta" for a URL.'
            )
        columns, target = chosen_columns(self.shape, self.section), Path(self.path)
        if not target.is_symlink() and target.exists() and not _is_empty_folder(target):
            raise InputError(
                f"{where} = {target} holds something that no export has written; move it away or choose another path."
            )
        if target.is_symlink() and target.readlink().parent != Path(_versions(target).name):
            raise InputError(
                f"{where} = {target} is a link to {target.readlink()} that no export has made; choose another path."
            )
        owner = _owner(target)
        if target.is_symlink() and owner not in (None, self.name):
            raise InputError(
                f"{where} = {target} holds the candidates of the configuration {owner!r}, and this one is "
                f"{self.name!r}; choose another path."
            )
        parent = next(folder for folder in target.absolute().parents if folder.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            raise RecsysError(
                f"The export to {target} cannot be written: the folder {parent} is read-only for this user."
            )
        return target, columns

    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        began = time.perf_counter()
        target, _ = self.checked()
        rows = rows_of(candidates, self.shape, section=self.section, numbered=self.numbered)
        copy = copy_of(candidates, rows.files, self.name, self.settings)
        with writing(f"The export to {target}"):
            count = _publish(target, copy, lambda path: self.write_to(path, rows), keep=keep)
        return ExportReport(
            path=str(target),
            rows=count,
            format=self.format,
            layout=self.shape.layout,
            columns=rows.empty.columns,
            version=candidates.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
        )

    def rollback(self) -> RollbackReport:
        target, _ = self.checked()
        if not target.is_symlink():
            raise InputError(f"No export to {target} was made yet, so none can be taken back.")
        versions = _versions(target)
        with writing(f"The link {target}"), _alone(versions / "lock", target):
            seen = target.readlink().name
            chosen = _former(versions, seen)
            if chosen is None:
                raise InputError(
                    f"The export {target} keeps no copy older than that of version {_version_of(seen)}; "
                    "`recsys export CONFIG` writes the newest candidate table."
                )
            _point(target, versions / chosen)
            (versions / FORMER).write_text("", encoding="utf-8")  # doing it again does not undo it
        return RollbackReport(path=str(target), version=_version_of(chosen), instead=_version_of(seen), kind=self.kind)

    def present(self) -> bool:
        if self.path is None or not Path(self.path).is_symlink():
            return False
        return Path(self.path).exists() and not _is_empty_folder(Path(self.path).resolve())

    def held(self) -> Copy | None:
        target, _ = self.checked()
        return _held(target) if self.present() else None


def _publish(target: Path, copy: Copy, write: Callable[[Path], int], *, keep: bool) -> int:
    """Write a new version beside the target and point the target at it, in one step."""
    versions, version = _versions(target), copy.version
    versions.mkdir(parents=True, exist_ok=True)
    with _alone(versions / "lock", target):
        held = _held(target)
        check_newer(held, copy, f"The export {target}")
        seen = target.readlink().name if keep and target.is_symlink() else None  # readers may have it open
        former = seen
        # the same release again: the way back stays
        if seen is not None and (held.is_release_of(copy) if held else _version_of(seen) == version):
            former = _former(versions, seen)
        new = versions / f"v{version}-{uuid.uuid4().hex[:8]}"
        try:
            rows = write(new)
        except BaseException:
            _remove(new)
            raise
        synchronise(new)
        (versions / OWNER).write_text(copy.name, encoding="utf-8")
        synchronise(versions)
        if _is_empty_folder(target):
            target.rmdir()
        kept = {name: text for name, text in _copies(versions).items() if name in (seen, former)}
        with file_aside(versions / COPIES) as aside:
            aside.write_text(json.dumps({**kept, new.name: copy.text()}), encoding="utf-8")
        with file_aside(versions / FORMER) as aside:
            aside.write_text(former or "", encoding="utf-8")
        _point(target, new)
        for old in versions.iterdir():  # also what a killed export left
            if old.name not in (new.name, seen, former, "lock", OWNER, FORMER, COPIES):
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


def _copies(versions: Path) -> dict[str, str]:
    """Return each kept copy's description, by its name; an export of an earlier version of this program did not say."""
    try:
        return dict(json.loads((versions / COPIES).read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}


def _held(target: Path) -> Copy | None:
    """The copy that readers see, where it says what it is."""
    return Copy.read(_copies(_versions(target)).get(target.readlink().name)) if target.is_symlink() else None


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
