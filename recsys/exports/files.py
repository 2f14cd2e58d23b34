"""A copy of the candidate table as files: Parquet, CSV or JSON lines, a row a candidate or a row a user.

Names of Parquet files hold the version, so a reader that listed one version never opens a file of another. In the
wide layout the place in the list is the rank: there is no column `rank`. All else (user, run, bundle, ...) is the same
for all rows of a user and stays one column.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from recsys.exports.base import Candidates, CandidateTable, ExportReport
from recsys.exports.linked import LinkedSink
from recsys.exports.rows import Rows, chosen_columns
from recsys.exports.writers import WRITERS, scan_text
from recsys.settings import FileExportSettings, Settings
from recsys.storage.files import synchronise

__all__ = ["Candidates", "ExportReport", "FileSink", "chosen_columns", "export"]


class FileSink(LinkedSink):
    """Files beside a link; see `recsys.exports.linked`."""

    kind = "files"
    keys = FileExportSettings

    @property
    def shape(self) -> FileExportSettings:
        assert isinstance(self.settings, FileExportSettings)
        return self.settings

    @property
    def path(self) -> str | None:
        return self.shape.path

    @property
    def format(self) -> str:
        return self.shape.format

    @property
    def numbered(self) -> bool:
        return self.format == "csv"

    def tables_in(self, path: Path) -> Iterator[pl.LazyFrame]:
        if self.format == "parquet":
            yield from (pl.scan_parquet(file, glob=False) for file in sorted(path.glob("*.parquet")))
        elif path.stat().st_size:
            yield scan_text(self.format, path)

    def write_to(self, path: Path, rows: Rows) -> int:
        if self.format == "parquet":
            path.mkdir()

        @contextmanager
        def opened(number: int) -> Iterator[Any]:
            file = path / f"part-{number:05d}-{path.name}.parquet" if self.format == "parquet" else path
            with file.open("wb") as stream:
                yield stream
            synchronise(file)

        return WRITERS[self.format](opened, rows.empty, rows.frames)


def export(settings: Settings, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
    """Copy a version of the candidate table to `export.path`; see `FileSink.write`."""
    assert isinstance(settings.export, FileExportSettings)
    return FileSink(settings.export, settings.name).write(candidates, keep=keep)
