"""A copy as objects of an S3-compatible store (Google's and Azure's by the same code), and a pointer to the newest.

    s3://bucket/prefix/v7-3f9a01c2/part-00000-v7-3f9a01c2.parquet
    s3://bucket/prefix/latest.json    {"folder": "v7-3f9a01c2", "files": [...], "format": ..., "rows": ..., ...}

Objects are written aside, under a folder of their own. The pointer is written last and on condition: it must be as it
was read, or not be there, so of two exports at once one fails and changes nothing. The former folder stays for
`rollback`. The folder of the pointer before stays until the next export (`left`), for readers that have just read that
pointer; a refresh leaves it, too. Credentials come from the store's usual environment variables.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import obstore
import polars as pl
from obstore import exceptions as failures

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, RecsysError
from recsys.exports.base import CandidateTable, ExportReport, RollbackReport, Sink
from recsys.exports.copies import Copy, check_newer, check_owner, copy_of
from recsys.exports.rows import Rows, chosen_columns, rows_of
from recsys.exports.writers import ENDINGS, WRITERS, scan_text
from recsys.forgetting.sought import Sought
from recsys.settings import S3ExportSettings
from recsys.storage import objects
from recsys.storage.addresses import masked
from recsys.storage.files import ABANDONED_AFTER

POINTER: Final = "latest.json"
_OURS: Final = re.compile(r"v\d+-[0-9a-f]{8}(?=/)")  # names of folders


class S3Sink(Sink):
    """Objects and a pointer; see the module."""

    kind = "s3"
    keys = S3ExportSettings

    @property
    def shape(self) -> S3ExportSettings:
        """The settings."""
        assert isinstance(self.settings, S3ExportSettings)
        return self.settings

    @property
    def place(self) -> str:
        """The prefix, without a secret."""
        return masked(self.shape.path).rstrip("/")

    def check(self) -> None:
        chosen_columns(self.shape, self.section)
        with self._store() as store:
            self._pointer(store)

    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        began = time.perf_counter()
        rows = rows_of(candidates, self.shape, section=self.section, numbered=self.shape.format == "csv")
        copy = copy_of(candidates, rows.files, self.name, self.settings)
        with self._store() as store:
            before, tag = self._pointer(store)
            held = Copy.read(before["copy"]) if before else None
            check_newer(held, copy, self.place)
            folder = f"v{copy.version}-{uuid.uuid4().hex[:8]}"
            files: list[str] = []
            try:
                count = self._write_objects(store, folder, rows, files)
                former = before
                if before and held and held.is_release_of(copy):  # the same release again: the way back stays
                    former = before["former"]
                pointer = {
                    "folder": folder,
                    "files": files,
                    "format": self.shape.format,
                    "layout": self.shape.layout,
                    "rows": count,
                    "version": copy.version,
                    "run": copy.run,
                    "written_at": datetime.now(UTC).isoformat(timespec="seconds"),
                    "copy": copy.text(),
                    "former": {**former, "former": None} if former and keep else None,
                    "left": before["folder"] if before and keep else None,
                }
                self._point(store, pointer, tag)
            except BaseException:
                with contextlib.suppress(failures.BaseError, OSError):
                    found = objects.read(store, POINTER)  # an answer may be lost, and readers be at the new copy
                    if found is None or folder.encode() not in found[0]:
                        self._delete(store, {folder})
                raise
            self._tidy(store, pointer, before, keep)
        return ExportReport(
            path=f"{self.place}/{POINTER}",
            rows=count,
            format=self.shape.format,
            layout=self.shape.layout,
            columns=rows.empty.columns,
            version=copy.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
        )

    def rollback(self) -> RollbackReport:
        with self._store() as store:
            seen, tag = self._pointer(store)
            if seen is None:
                raise InputError(f"No export to {self.place} was made yet, so none can be taken back.")
            if seen["former"] is None:
                raise InputError(
                    f"{self.place} keeps no copy older than that of version {seen['version']}; `recsys export CONFIG` "
                    "writes the newest candidate table."
                )
            self._point(store, seen["former"], tag)
        return RollbackReport(
            path=f"{self.place}/{POINTER}", version=seen["former"]["version"], instead=seen["version"], kind=self.kind
        )

    def present(self) -> bool:
        with self._store() as store:
            return self._pointer(store)[0] is not None

    def held(self) -> Copy | None:
        with self._store() as store:
            seen, _ = self._pointer(store)
        return None if seen is None else Copy.read(seen["copy"])

    def count(self, sought: Sought) -> int | None:
        columns, found = chosen_columns(self.shape, self.section), 0
        with self._store() as store:
            self._pointer(store)
            for name in [held["path"] for batch in obstore.list(store) for held in batch if _OURS.match(held["path"])]:
                content = bytes(obstore.get(store, name).bytes())
                ending = name.rpartition(".")[2]
                rows = pl.scan_parquet(content) if ending == "parquet" else scan_text(ending, content)
                if content:
                    goes = sought.columns(rows.collect_schema(), columns.get(USER_ID), columns.get(ITEM_ID))
                    found += int(rows.filter(goes).select(pl.len()).collect().item())
        return found

    def _write_objects(self, store: Any, folder: str, rows: Rows, files: list[str]) -> int:
        @contextlib.contextmanager
        def opened(number: int) -> Iterator[Any]:
            files.append(f"{folder}/part-{number:05d}-{folder}.{ENDINGS[self.shape.format]}")
            upload = _Upload(obstore.open_writer(store, files[-1]))
            yield upload
            upload.finish()  # not after an error: what is not finished is no object

        return WRITERS[self.shape.format](opened, rows.empty, rows.frames)

    def _pointer(self, store: Any) -> tuple[dict[str, Any] | None, str | None]:
        """The pointer and its tag; refuses one that is not ours."""
        found = objects.read(store, POINTER)
        if found is None:
            return None, None
        content, tag = found
        try:
            pointer = dict(json.loads(content))
            copy = Copy.read(pointer["copy"])
        except (ValueError, KeyError, TypeError):
            copy = None
        if copy is None:
            raise InputError(
                f"{self.place}/{POINTER} is something that no export has written; choose another {self.section}.path."
            )
        check_owner(copy, self.name, self.place, f"{self.section}.path")
        return pointer, tag

    def _point(self, store: Any, pointer: dict[str, Any], tag: str | None) -> None:
        """Write the pointer, if it still is what it was."""
        content = json.dumps(pointer, indent=2, ensure_ascii=False).encode()
        if not objects.replace(store, POINTER, content, tag):
            raise RecsysError(
                f"Another export to {self.place} has ended in the meantime; this one changed nothing: run it again."
            )

    def _tidy(self, store: Any, pointer: dict[str, Any], before: dict[str, Any] | None, keep: bool) -> None:
        """Delete folders that the pointer does not name: those of before, and what killed exports left a day ago."""
        kept = _folders(pointer)
        gone = (_folders(before) if before else set()) - kept
        late = datetime.now(UTC) - timedelta(seconds=ABANDONED_AFTER)
        for batch in obstore.list(store):
            for held in batch:
                name = _OURS.match(held["path"])
                if name and name[0] not in kept and (not keep or held["last_modified"] < late):
                    gone.add(name[0])
        self._delete(store, gone)

    def _delete(self, store: Any, folders: set[str]) -> None:
        for folder in folders:
            for batch in obstore.list(store, prefix=f"{folder}/"):
                if paths := [held["path"] for held in batch]:
                    obstore.delete(store, paths)

    def _store(self) -> contextlib.AbstractContextManager[Any]:
        what = f"The export to {self.place} failed, and readers see the old copy"
        return objects.opened(self.shape.path, what, self.shape.endpoint)


def _folders(pointer: dict[str, Any]) -> set[str]:
    """Folders that a pointer names: of its copy, of the former copy, and of the pointer before."""
    named = (pointer["folder"], (pointer["former"] or {}).get("folder"), pointer.get("left"))
    return {folder for folder in named if folder}


class _Upload(io.RawIOBase):
    """An upload as a file that only grows."""

    def __init__(self, writer: Any) -> None:
        self.writer, self.length, self.whole = writer, 0, True

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        if not self.whole:  # Parquet's writer ends its file after an error, too, and obstore would panic
            raise OSError("the upload has failed")
        data = bytes(content)
        with self._failing():
            self.writer.write(data)
        self.length += len(data)
        return len(data)

    def tell(self) -> int:
        return self.length

    def finish(self) -> None:
        """Make it an object."""
        with self._failing():
            self.writer.close()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.whole = False
            raise
