"""A copy as a Delta table elsewhere, a folder or a URL: a commit a copy.

Readers see the commit before or the one after. The commit says which copy it is. `rollback` is a commit that restores
the former one. Files of older copies are deleted after `keep_hours`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, RecsysError, first_line
from recsys.exports.base import CandidateTable, ExportReport, RollbackReport, Sink
from recsys.exports.copies import Copy, check_newer, check_owner, copy_of
from recsys.exports.rows import Rows, chosen_columns, rows_of
from recsys.forgetting.sought import Sought
from recsys.settings import DeltaExportSettings
from recsys.storage.addresses import masked
from recsys.storage.files import refusal
from recsys.storage.purge import count_in_files, purge
from recsys.storage.remote import fail, is_url
from recsys.storage.warehouse import commit_properties, told_by

_COPY = "export"  # key in a commit's metadata
_BACK = "back"  # in that of a rollback


class DeltaSink(Sink):
    """A Delta table; see the module."""

    kind = "delta"
    keys = DeltaExportSettings

    @property
    def shape(self) -> DeltaExportSettings:
        """The settings."""
        assert isinstance(self.settings, DeltaExportSettings)
        return self.settings

    @property
    def place(self) -> str:
        """The table, without a secret."""
        return masked(self.shape.path)

    def check(self) -> None:
        chosen_columns(self.shape, self.section)
        with self._table() as table:
            self._seen(table)

    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        began = time.perf_counter()
        rows = rows_of(candidates, self.shape, section=self.section)
        copy = copy_of(candidates, rows.files, self.name, self.settings)
        with self._table() as table:
            check_newer(self._seen(table), copy, self.place)
            count = self._commit(table, rows, copy)
            if keep:
                hours = int(self.shape.keep_hours)
                DeltaTable(self.shape.path).vacuum(
                    retention_hours=hours, dry_run=False, enforce_retention_duration=False
                )
            else:
                purge(self.shape.path, {_COPY: copy.text()}, shared=True)
        return ExportReport(
            path=self.place,
            rows=count,
            format="delta",
            layout=self.shape.layout,
            columns=rows.empty.columns,
            version=copy.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
        )

    def rollback(self) -> RollbackReport:
        with self._table() as table:
            seen = self._seen(table)
            if table is None or seen is None:
                raise InputError(f"No export to {self.place} was made yet, so none can be taken back.")
            nothing = InputError(
                f"{self.place} keeps no copy older than that of version {seen.version}; `recsys export CONFIG` writes "
                "the newest candidate table."
            )
            commits = [(commit["version"], told) for commit in table.history() if _COPY in (told := told_by(commit))]
            former = (
                None
                if commits[0][1].get(_BACK)
                else next(
                    (
                        (number, copy)
                        for number, told in commits
                        if (copy := Copy.read(told[_COPY])) and not copy.is_release_of(seen)
                    ),
                    None,
                )
            )
            if former is None:
                raise nothing
            told, before = {_COPY: former[1].text(), _BACK: True}, int(table.version())
            try:
                table.restore(int(former[0]), commit_properties=commit_properties(told))
            except CommitFailedError:
                if not self._landed(before + 1, told):
                    raise
            except DeltaError as error:  # its files are deleted
                raise nothing from error
        return RollbackReport(path=self.place, version=former[1].version, instead=seen.version, kind=self.kind)

    def present(self) -> bool:
        with self._table() as table:
            return self._seen(table) is not None

    def held(self) -> Copy | None:
        with self._table() as table:
            return self._seen(table)

    def count(self, sought: Sought) -> int | None:
        columns = chosen_columns(self.shape, self.section)
        with self._table() as table:
            if self._seen(table) is None:
                return 0
            return count_in_files(
                self.shape.path, lambda schema: sought.columns(schema, columns.get(USER_ID), columns.get(ITEM_ID))
            )

    def _commit(self, table: DeltaTable | None, rows: Rows, copy: Copy) -> int:
        schema = rows.empty.to_arrow().schema
        count = 0

        def batches() -> Iterator[pa.RecordBatch]:
            nonlocal count
            for frame in rows.frames:
                count += len(frame)
                yield from frame.to_arrow().cast(schema).to_batches()

        before = -1 if table is None else int(table.version())
        try:
            write_deltalake(
                self.shape.path if table is None else table,
                pa.RecordBatchReader.from_batches(schema, batches()),
                mode="error" if table is None else "overwrite",
                schema_mode=None if table is None else "overwrite",
                writer_properties=WriterProperties(compression="ZSTD"),
                commit_properties=commit_properties({_COPY: copy.text()}),
            )
        except CommitFailedError:
            if not self._landed(before + 1, {_COPY: copy.text()}):
                raise
        return count

    def _landed(self, version: int, told: dict[str, Any]) -> bool:
        """Return whether a commit is there, though a store that is asked again says that somebody was faster."""
        with contextlib.suppress(DeltaError, OSError):
            return told_by(DeltaTable(self.shape.path, version=version).history(1)[0]) == told
        return False

    def _seen(self, table: DeltaTable | None) -> Copy | None:
        """The copy that readers see; refuses a table that is not ours."""
        if table is None:
            return None
        told = next((told for commit in table.history() if (told := told_by(commit))), {})
        copy = Copy.read(told.get(_COPY))
        if copy is None:
            raise InputError(
                f"{self.place} is a Delta table that no export has written; choose another {self.section}.path."
            )
        check_owner(copy, self.name, self.place, f"{self.section}.path")
        return copy

    def _check_folder(self) -> None:
        """Refuse a file in the place of a local folder, or above it."""
        path = Path(self.shape.path)
        for above in () if is_url(self.shape.path) else (path, *path.parents):
            if above.is_file():
                raise InputError(f"{self.place}: {above} is a file, no folder; choose another {self.section}.path.")

    @contextlib.contextmanager
    def _table(self) -> Iterator[DeltaTable | None]:
        """The table at its newest version; None where there is none yet."""
        try:
            table: Any = None
            self._check_folder()
            with contextlib.suppress(TableNotFoundError):
                table = DeltaTable(self.shape.path)
            yield table
        except CommitFailedError:
            raise RecsysError(
                f"Another export to {self.place} has ended in the meantime; this one changed nothing: run it again."
            ) from None
        except (DeltaError, OSError) as error:
            if isinstance(error, DeltaError) and "already exists" in str(error):
                raise RecsysError(f"Another export to {self.place} has ended in the meantime; run it again.") from None
            if is_url(self.shape.path):
                fail(f"The export to {self.place} failed, and readers see the old copy", error)
            said = masked(refusal(error) or first_line(error))
            raise RecsysError(f"The export to {self.place} failed, and readers see the old copy: {said}.") from error
