"""Sources into the warehouse: read, check, quarantine, and add what is new in one commit a table.

Everything is read, checked and compared before the first table changes. Reading the same files again adds
nothing; what makes a row the same row is told in `recsys.data.merge`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
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
)
from recsys.config import AttributedSettings, IdMapSettings, InteractionSettings, Settings, SourceSettings
from recsys.data import warehouse
from recsys.data.attributes import need_attributes, nested_names
from recsys.data.contracts import (
    DEFECT,
    FILE_LINE,
    FILE_RAW,
    all_integers,
    check_attributes,
    check_interactions,
    check_timezone,
    integer_ids,
    nearest,
)
from recsys.data.merge import OPEN_END, commit, concat_alike, merge_attributes, merge_interactions, open_ends
from recsys.data.quarantine import Checked, by_reason, quarantine, refuse
from recsys.data.readers import Rows, read_rows, reading
from recsys.data.sources import SourceFile, find_files
from recsys.data.times import check_formats, refuse_disguise
from recsys.data.warehouse import TableVersions
from recsys.errors import InputError

Progress = Callable[[str, int, int], None]  # what is being done, steps done, steps in all

_KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    INTERACTIONS: (USER_ID, ITEM_ID),
    ITEMS: (ITEM_ID,),
    USERS: (USER_ID,),
}
_OPTIONAL: Final = (TIMESTAMP, EVENT, WEIGHT)
_LOG_ID: Final = "__log_id"
_OTHER_ID: Final = "__other_id"
_WHOSE: Final = {ITEMS: "catalogue's", USERS: "users'"}


@dataclass(frozen=True, kw_only=True, slots=True)
class IngestReport:
    """What one reading of the sources did; plain values by `dataclasses.asdict`."""

    versions: TableVersions
    rows_read: dict[str, int]  # by table; a line of sequences counts once for each of its events
    rows_added: dict[str, int]  # by table; of items and users the rows that are new or changed
    rows_rejected: dict[str, int]  # by table
    reasons: dict[str, dict[str, int]]  # rejected rows by table and reason
    duplicates: dict[str, int]  # by table: rows of this reading that say what another one of it says
    unmapped: int  # items and users whose id is not in the id_map; they are left out
    tied_share: float | None  # of the log's events: share whose user and time another one has too
    digests: dict[str, str]  # by file: sha256 (hex)
    seconds: float


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _File:
    """One opened file and the columns that it has of ours (ours = theirs)."""

    rows: Rows
    columns: dict[str, str]


def ingest(settings: Settings, progress: Progress | None = None, now: datetime | None = None) -> IngestReport:
    """Read the configured sources into the warehouse's tables.

    Parameters
    ----------
    progress
        Called with what is being done, the steps done and the steps in all.
    now
        Interactions later than this are rejected; by default the present moment.

    Raises
    ------
    InputError
        A source or a column is not there, too many rows are rejected, or a log without time contradicts the
        table; interactions, items and users are then as they were.
    RecsysError
        Another process has written a table at the same time.
    """
    started = time.monotonic()
    now = (now or datetime.now(UTC)).astimezone(UTC)
    root = settings.warehouse
    check_timezone(settings.interactions.timezone)
    check_formats(settings.interactions.time_formats)
    declared = {INTERACTIONS: settings.interactions, ITEMS: settings.items, USERS: settings.users}
    sources: dict[str, SourceSettings] = {table: section for table, section in declared.items() if section is not None}
    found = {table: find_files(table, section, settings.data_root) for table, section in sources.items()}
    total, done = sum(map(len, found.values())) + 2 * len(found), 0

    def step(what: str) -> None:
        nonlocal done
        if progress is not None:
            progress(what, done, total)
        done += 1

    ends = open_ends(root)
    with TemporaryDirectory(prefix="recsys-") as scratch:
        files: dict[str, list[_File]] = {}
        for table, section in sources.items():
            marks = [end["size"] for end in ends] if table == INTERACTIONS else []
            files[table] = []
            for file in found[table]:
                step(f"reading {file.name}")
                rows = read_rows(file, section, Path(scratch), _wanted(table, section), marks)
                if rows.size != 0:
                    files[table].append(_File(rows=rows, columns=_match_columns(table, section, rows)))
            _need_rows(table, found[table], bool(files[table]))
        digests = {file.rows.file.name: file.rows.digest for opened in files.values() for file in opened}
        id_maps: dict[str, pl.DataFrame] = {}
        for table, section in sources.items():
            if isinstance(section, AttributedSettings) and section.id_map is not None:
                id_maps[table], digests[section.id_map.source] = _read_id_map(
                    table, section.id_map, settings.data_root, Path(scratch)
                )
        types = _id_types(root, files, id_maps)
        checked = []
        for table, section in sources.items():
            step(f"checking {table}")
            checked.append(_check(table, section, files[table], types, now, id_maps.get(table)))
            _need_rows(table, found[table], checked[-1].read > 0)
    for rows_now in checked:
        if isinstance(rows_now.settings, AttributedSettings):
            need_attributes(rows_now.table, rows_now.settings, rows_now.good.columns)
    quarantine(root, checked, now)
    for rows_now in checked:
        refuse(root, rows_now)
    if ITEMS in sources:
        _need_known_items(root, checked[0].good, checked[1].good, found[ITEMS][0].name)
    changes = [merge_interactions(root, checked[0].good, [file.rows for file in files[INTERACTIONS]], ends)]
    changes += [merge_attributes(root, c.table, _KEYS[c.table][0], c.good) for c in checked[1:]]
    for change in reversed(changes):  # the log last: a new event's item is in the catalogue before it
        step(f"writing {change.table}")
        commit(root, change)
    versions = warehouse.current_versions(root)
    return IngestReport(
        versions=versions,
        rows_read={c.table: c.read for c in checked},
        rows_added={change.table: change.added for change in changes},
        rows_rejected={c.table: len(c.rejected) for c in checked},
        reasons={c.table: by_reason(c.rejected) for c in checked},
        duplicates={change.table: change.duplicates for change in changes},
        unmapped=sum(c.unmapped for c in checked),
        tied_share=_tied_share(root, versions.interactions),
        digests=digests,
        seconds=time.monotonic() - started,
    )


# --- files and columns ----------------------------------------------------------------------------


def _columns_of(section: SourceSettings) -> Mapping[str, str]:
    return getattr(section, "columns", {})


def _wanted(table: str, section: SourceSettings) -> list[str] | None:
    """The file's columns that the log reads; None: all of them."""
    if table != INTERACTIONS:
        return None
    return [_columns_of(section).get(name, name) for name in (*_KEYS[table], *_OPTIONAL)]


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
            one = " (its only one; is the separator right?)" if alone else ""
            raise InputError(
                f"{rows.file.name} has no column {theirs!r} for {table}.columns.{ours}; "
                f"the nearest that it has: {nearest(theirs, rows.columns)}{one}."
            )
    return matched


def _need_rows(table: str, found: Sequence[SourceFile], there: bool) -> None:
    if not there:
        more = f" and {len(found) - 1} more" if len(found) > 1 else ""
        raise InputError(f"{table}.source has no rows: {found[0].path}{more} is empty; check the file.")


def _need_known_items(root: str, log: pl.DataFrame, items: pl.DataFrame, name: str) -> None:
    """A first catalogue without one item of the log is another one, or names its items in another way."""
    if warehouse.latest_version(root, ITEMS) is not None:
        return  # what is read now may be new items alone
    logs = [log.lazy()]
    if warehouse.latest_version(root, INTERACTIONS) is not None:
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


def _read_id_map(table: str, settings: IdMapSettings, data_root: str, scratch: Path) -> tuple[pl.DataFrame, str]:
    """_LOG_ID and _OTHER_ID, as text, and the file's digest."""
    source = SourceSettings(
        source=settings.source, format=settings.format, separator=settings.separator, fields=(_LOG_ID, _OTHER_ID)
    )
    (file,) = find_files(f"{table}.id_map", source, data_root)
    rows = read_rows(file, source, scratch)
    with reading(file):
        pairs = rows.frame.collect(engine="streaming")
    if settings.format == "json":  # one object: the other id, the log's
        pairs = pairs.rename(dict(zip(rows.columns, (_OTHER_ID, _LOG_ID), strict=True)))
    broken = pairs.filter(pl.col(DEFECT).is_not_null())
    if len(broken):
        line, raw = broken.select(FILE_LINE, FILE_RAW).row(0)
        raise InputError(
            f"{file.name} line {line}: {raw!r} is not two ids (the log's, the {_WHOSE[table]}) "
            f"with {settings.separator!r} between them; correct it or set {table}.id_map.separator."
        )
    ids = pairs.select(_LOG_ID, _OTHER_ID).unique(_OTHER_ID, keep="last", maintain_order=True)
    return ids, rows.digest


def _id_types(root: str, files: Mapping[str, list[_File]], id_maps: Mapping[str, pl.DataFrame]) -> dict[str, Any]:
    """Int64 or String for user_id and item_id: what the tables hold, else what every id of the sources is."""
    types: dict[str, Any] = {}
    for column, other in ((USER_ID, USERS), (ITEM_ID, ITEMS)):
        held = [warehouse.id_type(root, table, column) for table in (INTERACTIONS, other)]
        known = next((dtype for dtype in held if dtype is not None), None)
        if known is None:
            given = [*files[INTERACTIONS], *files.get(other, [])]
            whole = True
            if other in id_maps:
                given = files[INTERACTIONS]
                whole = bool(id_maps[other].select(integer_ids(pl.col(_LOG_ID)).is_not_null().all()).item())
            known = pl.Int64() if whole and all(_are_integers(file, column) for file in given) else pl.String()
        types[column] = known
    return types


def _are_integers(file: _File, column: str) -> bool:
    with reading(file.rows.file):
        return all_integers(file.rows.frame, file.columns[column])


# --- rows -----------------------------------------------------------------------------------------


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
    good, rejected = [], []
    for index, file in enumerate(files):
        if isinstance(section, InteractionSettings):
            if TIMESTAMP in file.columns and section.time_unit == "auto" and not section.time_formats:
                with reading(file.rows.file):
                    refuse_disguise(file.rows.frame, file.columns[TIMESTAMP], file.rows.file.name)
            lazy = check_interactions(
                file.rows.frame,
                file.columns,
                id_types=types,
                now=now,
                time_unit=section.time_unit,
                timezone=section.timezone,
                time_formats=section.time_formats,
                decimal=section.decimal if file.rows.file.format == "csv" else ".",
            )
        else:
            (key,) = _KEYS[table]
            id_type = types[key] if id_map is None else pl.String()
            nested = nested_names(section) if isinstance(section, AttributedSettings) else []
            lazy = check_attributes(
                file.rows.frame,
                key,
                file.columns[key],
                id_type=id_type,
                columns=file.rows.columns,
                nested=nested,
            )
        with reading(file.rows.file):
            ours, broken = pl.collect_all(lazy, engine="streaming")
        if not ours[FILE_LINE].is_sorted():  # records of several lines come last
            ours = ours.sort(FILE_LINE, maintain_order=True)
        if table == INTERACTIONS:
            ours = _mark_open_end(ours, broken, index, file.rows.open_end)
        good.append(ours.drop(FILE_LINE))
        rejected.append(broken.with_columns(pl.lit(file.rows.file.name).alias(SOURCE)))
    rows = pl.concat(good) if table == INTERACTIONS else concat_alike(good)
    unmapped = 0
    if id_map is not None:
        (key,) = _KEYS[table]
        rows, unmapped = _translate(rows, key, id_map, types[key])
    return Checked(
        table=table,
        settings=section,
        good=rows,
        rejected=pl.concat(rejected).sort(SOURCE, LINE),
        unmapped=unmapped,
    )


def try_rows(section: InteractionSettings, rows: Rows, now: datetime) -> Checked:
    """Judge the rows of one file of a log as `ingest` does, with no warehouse.

    Raises
    ------
    InputError
        A column is not there, or holds what cannot be read.
    """
    file = _File(rows=rows, columns=_match_columns(INTERACTIONS, section, rows))
    types = {name: pl.Int64() if _are_integers(file, name) else pl.String() for name in (USER_ID, ITEM_ID)}
    return _check(INTERACTIONS, section, [file], types, now, None)


def _mark_open_end(ours: pl.DataFrame, broken: pl.DataFrame, index: int, open_end: bool) -> pl.DataFrame:
    """OPEN_END: the file's index in the rows of its last line when that line has no end, else null."""
    if not open_end:
        return ours.with_columns(pl.lit(None, dtype=pl.Int32).alias(OPEN_END))
    last = max(lines.max() or 0 for lines in (ours[FILE_LINE], broken[LINE]))
    return ours.with_columns(pl.when(pl.col(FILE_LINE) == last).then(pl.lit(index, dtype=pl.Int32)).alias(OPEN_END))


def _translate(rows: pl.DataFrame, key: str, id_map: pl.DataFrame, id_type: Any) -> tuple[pl.DataFrame, int]:
    """Items or users under the log's ids, and how many the map does not know."""
    log_id = pl.col(_LOG_ID) if id_type == pl.String() else integer_ids(pl.col(_LOG_ID))
    known = id_map.select(pl.col(_OTHER_ID).alias(key), log_id.alias(_LOG_ID)).drop_nulls()
    mapped = rows.join(known, on=key, how="inner", maintain_order="left")
    renamed = mapped.select(pl.col(_LOG_ID).alias(key), pl.exclude(key, _LOG_ID))
    return renamed, len(rows) - len(mapped)


def _tied_share(root: str, version: int) -> float | None:
    """Share of the events with a time that have user and time in common with another event."""
    tied = pl.col("len").filter(pl.col("len") > 1).sum() / pl.col("len").sum()
    moments = warehouse.scan(root, INTERACTIONS, version).filter(pl.col(TIMESTAMP).is_not_null())
    counts = moments.group_by(USER_ID, TIMESTAMP).len()
    share = counts.select(tied, pl.len().alias("moments")).collect(engine="streaming")
    return share.item(0, 0) if share.item(0, "moments") else None
