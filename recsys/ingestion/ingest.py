"""Sources into the warehouse: read, check, quarantine, and add what is new in one commit a table.

Everything is read, checked and compared before the first table changes. Reading the same files again adds
nothing; what makes a row the same row is told in `recsys.ingestion.merge`, whose tables they may enter in
`recsys.ingestion.provenance`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import polars as pl

from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS
from recsys.datasets.advice import how_to_get
from recsys.errors import InputError
from recsys.forgetting.forgotten import read_forgotten
from recsys.ingestion.attribute_merge import merge_attributes
from recsys.ingestion.change import commit
from recsys.ingestion.checking import KEYS
from recsys.ingestion.contracts import check_timezone
from recsys.ingestion.declared_attributes import need_attributes
from recsys.ingestion.merge import merge_interactions
from recsys.ingestion.notes import notes_of
from recsys.ingestion.opening import Opened, Progress, Reading, known_now, read_sources
from recsys.ingestion.provenance import FILLED, check_filled, declared, next_record
from recsys.ingestion.quarantine import attributes, quarantine, refuse, staged, without_forgotten
from recsys.ingestion.read_before import FILES, files_before, known_files, record_of, shorter_than, unchanged
from recsys.ingestion.staged import StagedLog
from recsys.ingestion.watermarks import WATERMARKS, reached, still_ahead
from recsys.reading.sources import MissingSource, SourceFile, find_files
from recsys.reading.times import check_formats
from recsys.settings import AttributedSettings, Settings, SourceSettings
from recsys.storage import warehouse
from recsys.storage.warehouse import TableVersions

__all__ = ["IngestReport", "Progress", "ingest"]


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestReport:
    """Report of one reading of the sources; plain values by `dataclasses.asdict`."""

    versions: TableVersions
    rows_read: dict[str, int]  # by table; a line of sequences counts once for each of its events
    rows_added: dict[str, int]  # by table; of items and users the rows that are new or changed
    rows_rejected: dict[str, int]  # by table
    reasons: dict[str, dict[str, int]]  # rejected rows by table and reason
    rows_dropped: dict[str, dict[str, int]]  # by table and condition of its `drop`: rows left out, not judged
    withdrawals: int  # rows of this reading that take an earlier event back
    duplicates: dict[str, int]  # by table: rows of this reading that say what another one of it says
    corrected: dict[str, int]  # by table: events that were there and whose weight this reading changes
    late: dict[str, int]  # by table: new events older than the newest one before by more than interactions.late_hours
    # by table: rows of files with new names that say what the table says already, such as a day's file sent again
    repeated: dict[str, int]
    forgotten: int  # rows of users who are to stay out (`recsys forget`)
    listed: int | None  # items of this reading of the catalogue; None: there is no catalogue
    delisted: int  # items of the reading of the catalogue before that this one lacks
    unmapped: int  # items and users whose id is not in the id_map; they are left out
    # by table: files that an earlier reading put into the table whole and that were not read again, and their rows
    already: dict[str, dict[str, int]]
    begins: dict[str, dict[str, str]]  # by table and source that was not read whole: watermark = where it began
    digests: dict[str, str]  # by file: sha256 (hex)
    skipped: list[str]  # files without rows
    seconds: float
    warnings: list[str] = field(default_factory=list)  # sentences that must be seen
    notes: list[str] = field(default_factory=list)  # sentences on late, corrected, repeated and missing rows


def ingest(
    settings: Settings, progress: Progress | None = None, now: datetime | None = None, *, rebuild: bool = False
) -> IngestReport:
    """Read the configured sources into the warehouse's tables.

    Parameters
    ----------
    progress
        Called with what is being done, the steps done and the steps in all.
    now
        Interactions later than this are rejected; by default the present moment.
    rebuild
        Replace the tables by what the sources hold now; without it, what a table holds stays.

    Raises
    ------
    InputError
        A source or a column is not there, too many rows are rejected, a log without time contradicts the table,
        another configuration filled a table, or the log was read by other rules; interactions, items and users are
        then as they were.
    RecsysError
        Another process has written a table at the same time.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    check_timezone(settings.interactions.timezone)
    check_formats(settings.interactions.time_formats)
    check_filled(settings, rules=False)
    sources = declared(settings)
    found = {table: files_of(table, section, settings.data_root) for table, section in sources.items()}
    with TemporaryDirectory(prefix="recsys-") as scratch:
        reading = Reading(
            settings=settings,
            found=found,
            forgotten=read_forgotten(settings.warehouse),
            scratch=Path(scratch),
            now=now,
            rebuild=rebuild,
            progress=progress,
        )
        before = {} if rebuild else known_files(settings.warehouse, settings.interactions, reading.forgotten)
        known = unchanged(found[INTERACTIONS], before)
        opened = read_sources(reading, known)
        if known and opened.checked[INTERACTIONS].too_many:  # all of the rejected rows are to be shown
            opened = read_sources(reading, {})
        return _written(reading, opened)


def _written(reading: Reading, opened: Opened) -> IngestReport:
    """Compare what was read with the tables, write what is new, and tell of it."""
    settings, rebuild, root, now = reading.settings, reading.rebuild, reading.settings.warehouse, reading.now
    checked = list(opened.checked.values())
    if not rebuild:
        known_ahead = still_ahead(root, settings.interactions, staged(checked[0]), now)
        checked[0] = replace(checked[0], rejected_before=known_ahead)
    for rows in checked:
        if isinstance(rows.settings, AttributedSettings):
            need_attributes(rows.table, rows.settings, attributes(rows).columns)
    forgotten = reading.forgotten
    quarantine(root, checked, now, forgotten)
    for rows in checked:
        refuse(root, rows)
    known = opened.known
    left_out = sum(file.forgotten for file in known.values())
    if forgotten is not None:
        before = checked
        with reading.copying():
            checked = [without_forgotten(rows, forgotten) for rows in checked]
        left_out += sum(c.read for c in before) - sum(c.read for c in checked)
    log = staged(checked[0])
    if ITEMS in opened.checked:
        _need_known_items(
            None if rebuild else root, log, attributes(checked[1]), reading.found[ITEMS][0].name, bool(known)
        )
    records: dict[str, dict[str, Any]] = {
        c.table: {
            FILLED: next_record(settings, c.table),
            WATERMARKS: reached(
                root,
                c.table,
                c.settings,
                opened.rows[c.table],
                now,
                log if c.table == INTERACTIONS else None,
                rebuild=rebuild,
            ),
        }
        for c in checked
    }
    files = known_now(reading, opened, staged(opened.checked[INTERACTIONS]), log)
    records[INTERACTIONS][FILES] = record_of(settings.interactions, forgotten, files)
    former = {} if rebuild else files_before(root)
    changes = [
        merge_interactions(root, log, opened.ends, records[INTERACTIONS], settings.interactions, rebuild=rebuild)
    ]
    changes += [
        merge_attributes(
            root,
            c.table,
            KEYS[c.table][0],
            attributes(c),
            records[c.table],
            c.settings.several,
            rebuild=rebuild,
            partial=c.partial,
        )
        for c in checked[1:]
        if isinstance(c.settings, AttributedSettings)
    ]
    for change in reversed(changes):  # the log last: a new event's item is in the catalogue before it
        reading.step(f"writing {change.table}")
        commit(root, change)
    catalogue = next((change for change in changes if change.table == ITEMS), None)
    repeated = {name: rows for name, rows in changes[0].known.items() if former and name not in former}
    gone = sorted(former.keys() - {file.name for file in reading.found[INTERACTIONS]})
    already = {"files": len(known), "rows": sum(file.read for file in known.values())}
    return IngestReport(
        versions=warehouse.current_versions(root),
        rows_read={c.table: c.read for c in checked},
        rows_added={change.table: change.added for change in changes},
        rows_rejected={c.table: c.refused for c in checked},
        reasons={c.table: dict(c.reasons) for c in checked},
        rows_dropped={c.table: dict(c.dropped) for c in checked if c.dropped},
        withdrawals=log.withdrawals + sum(file.withdrawals for file in known.values()),
        duplicates={change.table: change.duplicates for change in changes},
        corrected={INTERACTIONS: changes[0].corrected},
        late={INTERACTIONS: changes[0].late},
        repeated={INTERACTIONS: sum(repeated.values())},
        forgotten=left_out,
        listed=catalogue.listed if catalogue else None,
        delisted=catalogue.delisted if catalogue else 0,
        unmapped=sum(c.unmapped for c in checked),
        begins=opened.begins,
        digests=opened.digests,
        skipped=opened.skipped,
        already={INTERACTIONS: already} if known else {},
        seconds=time.monotonic() - reading.started,
        warnings=[*(w for c in checked for w in c.warnings), *(w for change in changes for w in change.warnings)],
        notes=notes_of(changes[0], repeated, settings.interactions, gone, shorter_than(former, files)),
    )


def files_of(table: str, section: SourceSettings, data_root: str) -> list[SourceFile]:
    """The files of a table's source; where one of a public data set is missing, the error says how to get it."""
    try:
        return find_files(table, section, data_root)
    except MissingSource as error:
        advice = how_to_get(table, error.path)
        if advice is None:
            raise
        raise InputError(f"{error} {advice}") from None


def _need_known_items(root: str | None, log: StagedLog, items: pl.DataFrame, name: str, more: bool) -> None:
    """A first catalogue without one item of the log is another one, or names its items in another way.

    `root` None: what the warehouse holds does not count. `more`: it holds events of files that were not read again.
    """
    if root is not None and warehouse.latest_version(root, ITEMS) is not None:
        return  # what is read now may be new items alone
    logs = [log.frame()]
    if root is not None and warehouse.latest_version(root, INTERACTIONS) is not None:
        logs.append(warehouse.scan(root, INTERACTIONS))
    for seen in logs:
        ids = seen.select(ITEM_ID).unique().collect(engine="streaming")[ITEM_ID]
        if items[ITEM_ID].is_in(ids.implode()).any():
            return
    example = logs[-1 if more else 0].select(pl.col(ITEM_ID).min()).collect(engine="streaming").item()
    raise InputError(
        f"None of the {len(items)} items of {name} is in the log, whose ids look like {example!r} and the "
        f"catalogue's like {items[ITEM_ID].min()!r}; check items.columns.item_id, name a file of the two ids in "
        "items.id_map, or leave the catalogue out with --set items=none."
    )
