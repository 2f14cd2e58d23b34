"""Sources opened, read and judged: everything that ingest knows before it compares anything with a table."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from tempfile import gettempdir
from typing import Any

import polars as pl

from recsys.columns import INTERACTIONS
from recsys.errors import InputError
from recsys.forgetting.forgotten import Forgotten
from recsys.ingestion.checking import OpenedFile, check_attributes, check_log, id_columns, id_types, open_file, wanted
from recsys.ingestion.id_map import read_id_map
from recsys.ingestion.merge import open_ends
from recsys.ingestion.provenance import check_rules, declared
from recsys.ingestion.quarantine import Checked
from recsys.ingestion.read_before import KnownFile, Look, look_at
from recsys.ingestion.staged import StagedLog
from recsys.ingestion.watermarks import begin_at
from recsys.reading.readers import Rows, read_rows
from recsys.reading.sources import SourceFile
from recsys.settings import AttributedSettings, InteractionSettings, Settings
from recsys.storage.files import writing

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(kw_only=True)
class Reading:
    """The material of one reading of the sources."""

    settings: Settings
    found: Mapping[str, Sequence[SourceFile]]
    forgotten: Forgotten | None  # users who are to stay out
    scratch: Path
    now: datetime
    rebuild: bool
    progress: Progress | None = None
    started: float = field(default_factory=time.monotonic)
    done: int = 0  # steps

    def step(self, what: str) -> None:
        """Tell what is done next."""
        if self.progress is not None:
            self.progress(what, self.done, sum(map(len, self.found.values())) + 2 * len(self.found))
        self.done += 1

    @contextmanager
    def copying(self) -> Iterator[None]:
        """Say in one sentence that the disk of the copies is full."""
        with writing(f"A copy of the sources in {gettempdir()}", "set TMPDIR to a larger place"):
            yield


@dataclass(frozen=True, kw_only=True)
class Opened:
    """Sources that were read and judged."""

    checked: dict[str, Checked]  # by table, the log first
    rows: dict[str, list[Rows]]  # by table: of files with rows
    known: Mapping[str, KnownFile]  # files of the log that were not read again
    looks: dict[str, Look]  # by file of the log: its size and times before it was read
    empty: dict[str, str]  # by file of the log without rows: its digest
    ends: list[dict[str, Any]]
    begins: dict[str, dict[str, str]]
    digests: dict[str, str]
    skipped: list[str]


def read_sources(reading: Reading, known: Mapping[str, KnownFile]) -> Opened:
    """Read and judge all sources but the known files of the log.

    Raises
    ------
    InputError
        A column is not there, a source has no rows, or the log was read by other rules.
    """
    settings, root, scratch = reading.settings, reading.settings.warehouse, reading.scratch
    sources, found = declared(settings), reading.found
    reading.done = 0
    ends = [] if reading.rebuild else open_ends(root)
    files: dict[str, list[OpenedFile]] = {}
    begins: dict[str, dict[str, str]] = {}
    looks: dict[str, Look] = {}
    empty: dict[str, str] = {}
    skipped: list[str] = []
    with reading.copying():
        for table, section in sources.items():
            marks = [end["size"] for end in ends] if table == INTERACTIONS else []
            files[table] = []
            for file in found[table]:
                reading.step(f"reading {file.name}")
                if table == INTERACTIONS and file.name in known:
                    continue
                if table == INTERACTIONS:
                    looks[file.name] = look_at(file)
                since = None if reading.rebuild else begin_at(root, table, section, file)
                rows = read_rows(
                    file, section, scratch, wanted(table, section), marks, id_columns(table, section), since
                )
                if since is not None:
                    begins.setdefault(table, {})[file.name] = f"{section.watermark} = {since}"
                if rows.empty:
                    skipped.append(file.name)
                    if table == INTERACTIONS:
                        empty[file.name] = rows.digest
                else:
                    files[table].append(open_file(table, section, rows))
            _need_rows(table, found[table], bool(files[table]) or (table == INTERACTIONS and bool(known)))
        if not reading.rebuild:  # after the columns: one that is misspelt is the better word for a rule that changed
            check_rules(settings)
        digests = {name: file.sha256 for name, file in known.items() if file.read}
        digests |= {file.rows.file.name: file.rows.digest for opened in files.values() for file in opened}
        id_maps: dict[str, pl.DataFrame] = {}
        for table, section in sources.items():
            if isinstance(section, AttributedSettings) and section.id_map is not None:
                read = read_id_map(table, section.id_map, settings.data_root, scratch)
                id_maps[table], digests[read.name] = read.ids, read.digest
        types = id_types(None if reading.rebuild else root, sources, files, id_maps, reading.now)
        checked: dict[str, Checked] = {}
        for table, section in sources.items():
            reading.step(f"checking {table}")
            if isinstance(section, InteractionSettings):
                checked[table] = check_log(section, files[table], types, reading.now, scratch, known.values())
            else:
                assert isinstance(section, AttributedSettings)
                checked[table] = check_attributes(table, section, files[table], types, reading.now, id_maps.get(table))
            _need_rows(table, found[table], checked[table].read > 0 or checked[table].partial)
    return Opened(
        checked=checked,
        rows={table: [file.rows for file in opened] for table, opened in files.items()},
        known=known,
        looks=looks,
        empty=empty,
        ends=ends,
        begins=begins,
        digests=digests,
        skipped=[
            *skipped,
            *(name for name, file in known.items() if not file.read),
            *(name for rows in checked.values() for name in rows.skipped),
        ],
    )


def known_now(reading: Reading, opened: Opened, before: StagedLog, log: StagedLog) -> dict[str, KnownFile]:
    """The files of this reading as the next one will know them, in the order of the log.

    Parameters
    ----------
    before, log
        What was read of them, with and without the users who are to stay out.
    """
    read = {
        ours.rows.file.name: KnownFile(
            sha256=ours.rows.digest,
            timed=log.timed,
            weighted=ours.weighted,
            accepted=ours.count,
            withdrawals=ours.withdrawals,
            forgotten=whole.count - ours.count,
            reasons=ours.reasons,
            dropped=ours.dropped,
        )
        for ours, whole in zip(log.files, before.files, strict=True)
    }
    read |= {name: KnownFile(sha256=digest, timed=log.timed) for name, digest in opened.empty.items()}
    files: dict[str, KnownFile] = {}
    for file in reading.found[INTERACTIONS]:
        if file.name in opened.known:
            files[file.name] = opened.known[file.name]
        elif file.database is None and look_at(file) == opened.looks[file.name]:  # else it changed meanwhile
            look = opened.looks[file.name]
            files[file.name] = replace(read[file.name], size=look.size, times=look.settled)
    return files


def _need_rows(table: str, found: Sequence[SourceFile], there: bool) -> None:
    if not there:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        database = found[0].database is not None
        place, what = (found[0].name, "table or query") if database else (found[0].path, "file")
        raise InputError(f"{table}.source has no rows: {place}{more} is empty; check the {what}.")
