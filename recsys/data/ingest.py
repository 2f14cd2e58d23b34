"""Sources into the warehouse: read, check, quarantine, and add what is new in one commit a table.

Everything is read, checked and compared before the first table changes. Reading the same files again adds
nothing; what makes a row the same row is told in `recsys.data.merge`, whose tables they may enter in
`recsys.data.provenance`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir

import polars as pl

from recsys.columns import (
    EVENT,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    USER_ID,
    WITHDRAWAL,
)
from recsys.data.attributes import need_attributes
from recsys.data.checking import KEYS, OpenedFile, check, id_columns, id_types, open_file, wanted
from recsys.data.contracts import (
    check_timezone,
)
from recsys.data.forgotten import read_forgotten
from recsys.data.id_map import read_id_map
from recsys.data.merge import commit, merge_attributes, merge_interactions, open_ends
from recsys.data.provenance import FILLED, check_filled, check_rules, declared, next_record
from recsys.data.quarantine import by_reason, quarantine, refuse
from recsys.data.watermarks import WATERMARKS, begin_at, reached
from recsys.datasets.advice import how_to_get
from recsys.errors import InputError
from recsys.reading.readers import read_rows
from recsys.reading.sources import MissingSource, SourceFile, find_files
from recsys.reading.times import check_formats
from recsys.settings import (
    AttributedSettings,
    Settings,
    SourceSettings,
)
from recsys.storage import warehouse
from recsys.storage.files import writing
from recsys.storage.warehouse import TableVersions

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestReport:
    """What one reading of the sources did; plain values by `dataclasses.asdict`."""

    versions: TableVersions
    rows_read: dict[str, int]  # by table; a line of sequences counts once for each of its events
    rows_added: dict[str, int]  # by table; of items and users the rows that are new or changed
    rows_rejected: dict[str, int]  # by table
    reasons: dict[str, dict[str, int]]  # rejected rows by table and reason
    rows_dropped: dict[str, dict[str, int]]  # by table and condition of its `drop`: rows left out, not judged
    withdrawals: int  # rows of this reading that take an earlier event back
    duplicates: dict[str, int]  # by table: rows of this reading that say what another one of it says
    corrected: dict[str, int]  # by table: events that were there and whose weight this reading changes
    forgotten: int  # rows of users who are to stay out (`recsys forget`)
    listed: int | None  # items of this reading of the catalogue; None: there is no catalogue
    delisted: int  # items of the reading of the catalogue before that this one lacks
    unmapped: int  # items and users whose id is not in the id_map; they are left out
    begins: dict[str, dict[str, str]]  # by table and source that was not read whole: watermark = where it began
    digests: dict[str, str]  # by file: sha256 (hex)
    skipped: list[str]  # files without rows
    seconds: float
    warnings: list[str] = field(default_factory=list)  # sentences that must be seen


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
    started = time.monotonic()
    now = (now or datetime.now(UTC)).astimezone(UTC)
    root = settings.warehouse
    check_timezone(settings.interactions.timezone)
    check_formats(settings.interactions.time_formats)
    check_filled(settings, rules=False)
    sources = declared(settings)
    found = {table: _find_files(table, section, settings.data_root) for table, section in sources.items()}
    total, done = sum(map(len, found.values())) + 2 * len(found), 0

    def step(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(what, done, total)
        done += 1

    ends = [] if rebuild else open_ends(root)
    begins: dict[str, dict[str, str]] = {}
    with writing(f"A copy of the sources in {gettempdir()}", "set TMPDIR to a larger place"), TemporaryDirectory(
        prefix="recsys-"
    ) as scratch:  # fmt: skip
        files: dict[str, list[OpenedFile]] = {}
        skipped: list[str] = []
        for table, section in sources.items():
            marks = [end["size"] for end in ends] if table == INTERACTIONS else []
            files[table] = []
            for file in found[table]:
                step(f"reading {file.name}")
                ids = id_columns(table, section)
                since = None if rebuild else begin_at(root, table, section, file)
                rows = read_rows(file, section, Path(scratch), wanted(table, section), marks, ids, since)
                if since is not None:
                    begins.setdefault(table, {})[file.name] = f"{section.watermark} = {since}"
                if rows.empty:
                    skipped.append(file.name)
                else:
                    files[table].append(open_file(table, section, rows))
            _need_rows(table, found[table], bool(files[table]))
        if not rebuild:  # after the columns: one that is misspelt is the better word for a rule that changed
            check_rules(settings)
        digests = {file.rows.file.name: file.rows.digest for opened in files.values() for file in opened}
        id_maps: dict[str, pl.DataFrame] = {}
        for table, section in sources.items():
            if isinstance(section, AttributedSettings) and section.id_map is not None:
                read = read_id_map(table, section.id_map, settings.data_root, Path(scratch))
                id_maps[table], digests[read.name] = read.ids, read.digest
        types = id_types(None if rebuild else root, sources, files, id_maps, now)
        checked = []
        for table, section in sources.items():
            step(f"checking {table}")
            checked.append(check(table, section, files[table], types, now, id_maps.get(table)))
            _need_rows(table, found[table], checked[-1].read > 0 or checked[-1].partial)
    for rows_now in checked:
        if isinstance(rows_now.settings, AttributedSettings):
            need_attributes(rows_now.table, rows_now.settings, rows_now.good.columns)
    forgotten = read_forgotten(root)
    quarantine(root, checked, now, forgotten)
    for rows_now in checked:
        refuse(root, rows_now)
    left_out = 0
    if forgotten is not None:
        known = [replace(c, good=forgotten.without(c.good)) if USER_ID in KEYS[c.table] else c for c in checked]
        left_out = sum(c.read for c in checked) - sum(c.read for c in known)
        checked = known
    if ITEMS in sources:
        _need_known_items(None if rebuild else root, checked[0].good, checked[1].good, found[ITEMS][0].name)
    opened = {table: [file.rows for file in files[table]] for table in sources}
    records = {
        table: {
            FILLED: next_record(settings, table),
            WATERMARKS: reached(root, table, section, opened[table], now, rebuild=rebuild),
        }
        for table, section in sources.items()
    }
    logs = opened[INTERACTIONS]
    changes = [merge_interactions(root, checked[0].good, logs, ends, records[INTERACTIONS], rebuild=rebuild)]
    changes += [
        merge_attributes(
            root,
            c.table,
            KEYS[c.table][0],
            c.good,
            records[c.table],
            c.settings.several,
            rebuild=rebuild,
            partial=c.partial,
        )
        for c in checked[1:]
        if isinstance(c.settings, AttributedSettings)
    ]
    for change in reversed(changes):  # the log last: a new event's item is in the catalogue before it
        step(f"writing {change.table}")
        commit(root, change)
    versions = warehouse.current_versions(root)
    catalogue = next((change for change in changes if change.table == ITEMS), None)
    return IngestReport(
        versions=versions,
        rows_read={c.table: c.read for c in checked},
        rows_added={change.table: change.added for change in changes},
        rows_rejected={c.table: len(c.rejected) for c in checked},
        reasons={c.table: by_reason(c.rejected) for c in checked},
        rows_dropped={c.table: dict(c.dropped) for c in checked if c.dropped},
        withdrawals=int((checked[0].good[EVENT] == WITHDRAWAL).sum()),
        duplicates={change.table: change.duplicates for change in changes},
        corrected={INTERACTIONS: changes[0].corrected},
        forgotten=left_out,
        listed=catalogue.listed if catalogue else None,
        delisted=catalogue.delisted if catalogue else 0,
        unmapped=sum(c.unmapped for c in checked),
        begins=begins,
        digests=digests,
        skipped=[*skipped, *(name for c in checked for name in c.skipped)],
        seconds=time.monotonic() - started,
        warnings=[*(w for c in checked for w in c.warnings), *(w for change in changes for w in change.warnings)],
    )


def _find_files(table: str, section: SourceSettings, data_root: str) -> list[SourceFile]:
    """The files of a table's source; where one of a public data set is missing, the error says how to get it."""
    try:
        return find_files(table, section, data_root)
    except MissingSource as error:
        advice = how_to_get(table, error.path)
        if advice is None:
            raise
        raise InputError(f"{error} {advice}") from None


def _need_rows(table: str, found: Sequence[SourceFile], there: bool) -> None:
    if not there:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        database = found[0].database is not None
        place, what = (found[0].name, "table or query") if database else (found[0].path, "file")
        raise InputError(f"{table}.source has no rows: {place}{more} is empty; check the {what}.")


def _need_known_items(root: str | None, log: pl.DataFrame, items: pl.DataFrame, name: str) -> None:
    """A first catalogue without one item of the log is another one, or names its items in another way.

    `root` None: what the warehouse holds does not count.
    """
    if root is not None and warehouse.latest_version(root, ITEMS) is not None:
        return  # what is read now may be new items alone
    logs = [log.lazy()]
    if root is not None and warehouse.latest_version(root, INTERACTIONS) is not None:
        logs.append(warehouse.scan(root, INTERACTIONS))
    for seen in logs:
        ids = seen.select(ITEM_ID).unique().collect(engine="streaming")[ITEM_ID]
        if items[ITEM_ID].is_in(ids.implode()).any():
            return
    raise InputError(
        f"None of the {len(items)} items of {name} is in the log, whose ids look like {log[ITEM_ID].min()!r} and the "
        f"catalogue's like {items[ITEM_ID].min()!r}; check items.columns.item_id, name a file of the two ids in "
        "items.id_map, or leave the catalogue out with --set items=none."
    )
