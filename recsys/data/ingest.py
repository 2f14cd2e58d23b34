"""Sources into the warehouse: read, check, quarantine, and add what is new in one commit a table.

Everything is read, checked and compared before the first table changes. Reading the same files again adds
nothing; what makes a row the same row is told in `recsys.data.merge`, whose tables they may enter in
`recsys.data.provenance`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory, gettempdir
from typing import Any, Final

import polars as pl

from recsys.columns import (
    EVENT,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    LINE,
    SOURCE,
    TIMESTAMP,
    USER_ID,
    USERS,
    WEIGHT,
    WITHDRAWAL,
)
from recsys.data.attributes import need_attributes, nested_names
from recsys.data.conditions import any_met, columns_of, counted, left_out, need_columns
from recsys.data.contracts import (
    all_integers,
    check_attributes,
    check_interactions,
    check_timezone,
    columns_said,
    integer_ids,
)
from recsys.data.doubtful_times import time_warnings
from recsys.data.forgotten import read_forgotten
from recsys.data.id_map import gives_integers, read_id_map, translate
from recsys.data.merge import OPEN_END, commit, concat_alike, merge_attributes, merge_interactions, open_ends, summed
from recsys.data.provenance import FILLED, check_filled, check_rules, declared, next_record
from recsys.data.quarantine import Checked, by_reason, quarantine, refuse
from recsys.data.watermarks import WATERMARKS, begin_at, need_times, reached
from recsys.datasets.advice import how_to_get
from recsys.errors import InputError
from recsys.reading.literals import with_lists
from recsys.reading.readers import Rows, read_rows, reading
from recsys.reading.reasons import FILE_LINE
from recsys.reading.sources import MissingSource, SourceFile, find_files
from recsys.reading.times import check_formats, refuse_coarse, refuse_disguise
from recsys.settings import (
    AttributedSettings,
    Condition,
    InteractionSettings,
    Settings,
    SourceSettings,
)
from recsys.storage import warehouse
from recsys.storage.files import writing
from recsys.storage.warehouse import TableVersions

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    INTERACTIONS: (USER_ID, ITEM_ID),
    ITEMS: (ITEM_ID,),
    USERS: (USER_ID,),
}
_OPTIONAL: Final = (TIMESTAMP, EVENT, WEIGHT)


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
    tied_share: float | None  # of the log's events: share whose user and time another one has too
    begins: dict[str, str]  # by source that was not read whole: the watermark and where the reading began
    digests: dict[str, str]  # by file: sha256 (hex)
    skipped: list[str]  # files without rows
    seconds: float
    warnings: list[str] = field(default_factory=list)  # sentences that must be seen


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _File:
    """One opened file and the columns that it has of ours (ours = theirs)."""

    rows: Rows
    columns: dict[str, str]
    dropped: pl.LazyFrame | None = None  # rows left out, by the place of the condition


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
    begins: dict[str, str] = {}
    with writing(f"A copy of the sources in {gettempdir()}", "set TMPDIR to a larger place"), TemporaryDirectory(
        prefix="recsys-"
    ) as scratch:  # fmt: skip
        files: dict[str, list[_File]] = {}
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
                    begins[file.name] = f"{section.watermark} = {since}"
                if rows.empty:
                    skipped.append(file.name)
                else:
                    files[table].append(_open_file(table, section, rows))
            _need_rows(table, found[table], bool(files[table]))
        if not rebuild:  # after the columns: one that is misspelt is the better word for a rule that changed
            check_rules(settings)
        digests = {file.rows.file.name: file.rows.digest for opened in files.values() for file in opened}
        id_maps: dict[str, pl.DataFrame] = {}
        for table, section in sources.items():
            if isinstance(section, AttributedSettings) and section.id_map is not None:
                read = read_id_map(table, section.id_map, settings.data_root, Path(scratch))
                id_maps[table], digests[read.name] = read.ids, read.digest
        types = _id_types(None if rebuild else root, sources, files, id_maps, now)
        checked = []
        for table, section in sources.items():
            step(f"checking {table}")
            checked.append(_check(table, section, files[table], types, now, id_maps.get(table)))
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
        known = [replace(c, good=forgotten.without(c.good)) if USER_ID in _KEYS[c.table] else c for c in checked]
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
            _KEYS[c.table][0],
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
        tied_share=_tied_share(root, versions.interactions),
        begins=begins,
        digests=digests,
        skipped=[*skipped, *(name for c in checked for name in c.skipped)],
        seconds=time.monotonic() - started,
        warnings=[*(w for c in checked for w in c.warnings), *(w for change in changes for w in change.warnings)],
    )


# --- files and columns ----------------------------------------------------------------------------


def _find_files(table: str, section: SourceSettings, data_root: str) -> list[SourceFile]:
    """The files of a table's source; where one of a public data set is missing, the error says how to get it."""
    try:
        return find_files(table, section, data_root)
    except MissingSource as error:
        advice = how_to_get(table, error.path)
        if advice is None:
            raise
        raise InputError(f"{error} {advice}") from None


def _columns_of(section: SourceSettings) -> Mapping[str, str]:
    return getattr(section, "columns", {})


def id_columns(table: str, section: SourceSettings) -> list[str]:
    """The file's columns that hold the table's ids."""
    return [_columns_of(section).get(name, name) for name in _KEYS[table]]


def wanted(table: str, section: SourceSettings) -> list[str] | None:
    """The file's columns that the log reads; None: all of them."""
    if table != INTERACTIONS:
        return None
    ours = [_columns_of(section).get(name, name) for name in (*_KEYS[table], *_OPTIONAL)]
    return list(dict.fromkeys([*ours, *columns_of((*section.drop, *_withdraw_of(section)))]))


def _withdraw_of(section: SourceSettings) -> tuple[Condition, ...]:
    return section.withdraw if isinstance(section, InteractionSettings) else ()


def _decimal(section: SourceSettings, rows: Rows) -> str:
    """Return the sign before the fraction of a file's numbers that are text."""
    return section.decimal if rows.file.format == "csv" else "."


def _open_file(table: str, section: SourceSettings, rows: Rows) -> _File:
    """A file whose columns are there, without the rows that the settings leave out."""
    columns = _match_columns(table, section, rows)
    need_times(section, columns, rows.file.name)
    need_columns(f"{table}.drop", section.drop, rows)
    need_columns(f"{table}.withdraw", _withdraw_of(section), rows)
    kept, dropped = left_out(rows, section.drop, _decimal(section, rows))
    return _File(rows=kept, columns=columns, dropped=dropped)


def _match_columns(table: str, section: SourceSettings, rows: Rows) -> dict[str, str]:
    """ours = theirs, of the columns that a file has; a declared or needed one that it has not is an error."""
    if not rows.columns:
        raise InputError(f"{rows.file.name} has no row that can be read as {rows.file.format} ({rows.file.path}).")
    declared = _columns_of(section)
    optional = _OPTIONAL if table == INTERACTIONS else ()
    matched = {}
    for ours in (*_KEYS[table], *optional):
        theirs = declared.get(ours, ours)
        if theirs in rows.columns:
            matched[ours] = theirs
        elif ours in declared or ours not in optional:
            alone = len(rows.columns) == 1 and rows.file.format == "csv"
            one = " Is the separator right?" if alone else ""
            raise InputError(
                f"{rows.file.name} has no column {theirs!r} for {table}.columns.{ours}; "
                f"{columns_said(theirs, rows.columns)}{one}"
            )
    return matched


def _need_rows(table: str, found: Sequence[SourceFile], there: bool) -> None:
    if not there:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise InputError(f"{table}.source has no rows: {found[0].path}{more} is empty; check the file.")


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


def _id_types(
    root: str | None,
    sources: Mapping[str, SourceSettings],
    files: Mapping[str, list[_File]],
    id_maps: Mapping[str, pl.DataFrame],
    now: datetime,
) -> dict[str, Any]:
    """Int64 or String for user_id and item_id: what the tables hold, else what the ids of all accepted rows are."""
    types: dict[str, Any] = {}
    for column, other in ((USER_ID, USERS), (ITEM_ID, ITEMS)):
        held = [] if root is None else [warehouse.id_type(root, table, column) for table in (INTERACTIONS, other)]
        known = next((dtype for dtype in held if dtype is not None), None)
        if known is None:
            given = {table: files.get(table, []) for table in (INTERACTIONS, other)}
            whole = True
            if other in id_maps:
                given[other] = []
                whole = gives_integers(id_maps[other])
            told = [_are_integers(table, sources[table], file, column, now) for table in given for file in given[table]]
            # where no row of any file is accepted, ids stay text, and rows are rejected for what is wrong with them
            whole = whole and any(said is not None for said in told) and False not in told
            known = pl.Int64() if whole else pl.String()
        types[column] = known
    return types


def _are_integers(table: str, section: SourceSettings, file: _File, column: str, now: datetime) -> bool | None:
    """Return whether every id in an accepted row is written as an integer; None where no row is accepted."""
    with reading(file.rows.file):
        if all_integers(file.rows.frame, file.columns[column]):
            return True
        as_text = dict.fromkeys((USER_ID, ITEM_ID), pl.String())
        accepted, _ = _judge(table, section, file, as_text, now)
        whole = integer_ids(pl.col(column)).is_not_null().all()
        rows, integers = accepted.select(pl.len(), whole.alias("whole")).collect(engine="streaming").row(0)
        return bool(integers) if rows else None


# --- rows -----------------------------------------------------------------------------------------


def _judge(
    table: str, section: SourceSettings, file: _File, types: Mapping[str, Any], now: datetime
) -> tuple[pl.LazyFrame, pl.LazyFrame]:
    """Accepted and rejected rows of one file."""
    if isinstance(section, InteractionSettings):
        schema, decimal = file.rows.frame.collect_schema(), _decimal(section, file.rows)
        return check_interactions(
            file.rows.frame,
            file.columns,
            id_types=types,
            now=now,
            time_unit=section.time_unit,
            timezone=section.timezone,
            time_formats=section.time_formats,
            decimal=decimal,
            withdrawn=any_met(section.withdraw, schema, decimal) if section.withdraw else None,
        )
    (key,) = _KEYS[table]
    return check_attributes(
        file.rows.frame,
        key,
        file.columns[key],
        id_type=types[key],
        columns=file.rows.columns,
        nested=nested_names(section) if isinstance(section, AttributedSettings) else [],
    )


def _refuse_times(section: InteractionSettings, file: _File) -> None:
    if TIMESTAMP not in file.columns:
        return
    frame, column, name = file.rows.frame, file.columns[TIMESTAMP], file.rows.file.name
    with reading(file.rows.file):
        if section.time_unit == "auto" and not section.time_formats:
            refuse_disguise(frame, column, name)
        refuse_coarse(frame, column, name, "s" if section.time_formats else section.time_unit)


def _check(
    table: str,
    section: SourceSettings,
    files: Sequence[_File],
    types: Mapping[str, Any],
    now: datetime,
    id_map: pl.DataFrame | None,
) -> Checked:
    """Judge the rows of a table's files, in the order of the files."""
    if table == INTERACTIONS and len({TIMESTAMP in file.columns for file in files}) > 1:
        without = next(file.rows.file.name for file in files if TIMESTAMP not in file.columns)
        raise InputError(
            f"{without} has no timestamps and other files of the log have; a log has them all or not at all."
        )
    good, rejected, skipped, dropped = [], [], [], []
    for index, file in enumerate(files):
        as_given = types if id_map is None else dict.fromkeys(_KEYS[table], pl.String())
        if isinstance(section, InteractionSettings):
            _refuse_times(section, file)
        lazy = _judge(table, section, file, as_given, now)
        with reading(file.rows.file):
            ours, broken, *counts = pl.collect_all(
                [*lazy, *([] if file.dropped is None else [file.dropped])], engine="streaming"
            )
        dropped += counts
        if not ours[FILE_LINE].is_sorted():  # records of several lines come last
            ours = ours.sort(FILE_LINE, maintain_order=True)
        if table == INTERACTIONS:
            ours = _mark_open_end(ours, broken, index, file.rows.open_end)
            if _withdraw_of(section) and {TIMESTAMP, WEIGHT} <= file.columns.keys():
                ours = summed(ours)
        elif file.rows.file.format == "csv" or file.rows.file.database is not None:
            ours = with_lists(ours, _KEYS[table][0])
        if ours.is_empty() and broken.is_empty() and not file.rows.partial:
            skipped.append(file.rows.file.name)
        good.append(ours.drop(FILE_LINE))
        if file.rows.file.database is not None:  # the same row may be at another place the next time
            broken = broken.with_columns(pl.lit(None, dtype=pl.Int64).alias(LINE))
        rejected.append(broken.with_columns(pl.lit(file.rows.file.name).alias(SOURCE)))
    rows = pl.concat(good) if table == INTERACTIONS else concat_alike(good)
    unmapped = 0
    if id_map is not None:
        (key,) = _KEYS[table]
        rows, unmapped = translate(rows, key, id_map, types[key])
    warnings: tuple[str, ...] = ()
    if isinstance(section, InteractionSettings) and files:
        column = files[0].columns.get(TIMESTAMP)
        warnings = time_warnings(section, files[0].rows, column, rows[TIMESTAMP], now)
    return Checked(
        table=table,
        settings=section,
        good=rows,
        rejected=pl.concat(rejected).sort(SOURCE, LINE),
        unmapped=unmapped,
        skipped=tuple(skipped),
        dropped=counted(section.drop, dropped),
        warnings=warnings,
        partial=any(file.rows.partial for file in files),
    )


def try_rows(table: str, section: SourceSettings, rows: Rows, now: datetime) -> Checked:
    """Judge the rows of one file of a table as `ingest` does, with no warehouse.

    Raises
    ------
    InputError
        A column is not there, or holds what cannot be read.
    """
    file = _open_file(table, section, rows)
    types = {
        name: pl.Int64() if _are_integers(table, section, file, name, now) else pl.String() for name in _KEYS[table]
    }
    checked = _check(table, section, [file], types, now, None)
    if isinstance(section, AttributedSettings):
        need_attributes(table, section, checked.good.columns)
    return checked


def _mark_open_end(ours: pl.DataFrame, broken: pl.DataFrame, index: int, open_end: bool) -> pl.DataFrame:
    """OPEN_END: the file's index in the rows of its last line when that line has no end, else null."""
    if not open_end:
        return ours.with_columns(pl.lit(None, dtype=pl.Int32).alias(OPEN_END))
    last = max(lines.max() or 0 for lines in (ours[FILE_LINE], broken[LINE]))
    return ours.with_columns(pl.when(pl.col(FILE_LINE) == last).then(pl.lit(index, dtype=pl.Int32)).alias(OPEN_END))


def _tied_share(root: str, version: int) -> float | None:
    """Share of the events with a time that have user and time in common with another event."""
    tied = pl.col("len").filter(pl.col("len") > 1).sum() / pl.col("len").sum()
    moments = warehouse.scan(root, INTERACTIONS, version).filter(
        pl.col(TIMESTAMP).is_not_null() & (pl.col(EVENT) != WITHDRAWAL)
    )
    counts = moments.group_by(USER_ID, TIMESTAMP).len()
    share = counts.select(tied, pl.len().alias("moments")).collect(engine="streaming")
    return share.item(0, 0) if share.item(0, "moments") else None
