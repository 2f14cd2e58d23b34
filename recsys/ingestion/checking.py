"""Rows of opened files judged: which columns are ours, which type the ids have, which rows are good.

Nothing here is written; `recsys.ingestion.ingest` does that.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
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
    RAW,
    REASON,
    SOURCE,
    TIMESTAMP,
    USER_ID,
    USERS,
    WEIGHT,
)
from recsys.errors import InputError
from recsys.ingestion.attribute_merge import concat_alike
from recsys.ingestion.conditions import any_met, columns_of, counted, left_out, need_columns
from recsys.ingestion.contracts import (
    accepted,
    all_integers,
    broken,
    columns_said,
    integer_ids,
    judge_attributes,
    judge_interactions,
)
from recsys.ingestion.declared_attributes import need_attributes, nested_names
from recsys.ingestion.doubtful_times import time_warnings
from recsys.ingestion.id_map import gives_integers, translate
from recsys.ingestion.quarantine import KEPT, Checked, by_reason, most_first
from recsys.ingestion.read_before import KnownFile, total
from recsys.ingestion.staged import StagedFile, StagedLog, stage_rows
from recsys.ingestion.sums import with_sums
from recsys.ingestion.watermarks import need_times
from recsys.reading.literals import with_lists
from recsys.reading.readers import Rows, reading
from recsys.reading.reasons import FILE_LINE
from recsys.reading.times import refuse_coarse, refuse_disguise
from recsys.settings import (
    AttributedSettings,
    Condition,
    InteractionSettings,
    SourceSettings,
)
from recsys.storage import warehouse

KEYS: Final[Mapping[str, tuple[str, ...]]] = {
    INTERACTIONS: (USER_ID, ITEM_ID),
    ITEMS: (ITEM_ID,),
    USERS: (USER_ID,),
}
_OPTIONAL: Final = (TIMESTAMP, EVENT, WEIGHT)
_REJECTED: Final = {LINE: pl.Int64, REASON: pl.String, RAW: pl.String, USER_ID: pl.String, SOURCE: pl.String}


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class OpenedFile:
    """One opened file and the columns that it has of ours (ours = theirs)."""

    rows: Rows
    columns: dict[str, str]
    dropped: pl.LazyFrame | None = None  # rows left out, by the place of the condition


def _columns_of(section: SourceSettings) -> Mapping[str, str]:
    return getattr(section, "columns", {})


def id_columns(table: str, section: SourceSettings) -> list[str]:
    """The file's columns that hold the table's ids."""
    return [_columns_of(section).get(name, name) for name in KEYS[table]]


def wanted(table: str, section: SourceSettings) -> list[str] | None:
    """The file's columns that the log reads; None: all of them."""
    if table != INTERACTIONS:
        return None
    ours = [_columns_of(section).get(name, name) for name in (*KEYS[table], *_OPTIONAL)]
    return list(dict.fromkeys([*ours, *columns_of((*section.drop, *_withdraw_of(section)))]))


def _withdraw_of(section: SourceSettings) -> tuple[Condition, ...]:
    return section.withdraw if isinstance(section, InteractionSettings) else ()


def _decimal(section: SourceSettings, rows: Rows) -> str:
    """Return the sign before the fraction of a file's numbers that are text."""
    return section.decimal if rows.file.format == "csv" else "."


def open_file(table: str, section: SourceSettings, rows: Rows) -> OpenedFile:
    """A file whose columns are there, without the rows that the settings leave out."""
    columns = _match_columns(table, section, rows)
    need_times(section, columns, rows.file.name)
    need_columns(f"{table}.drop", section.drop, rows)
    need_columns(f"{table}.withdraw", _withdraw_of(section), rows)
    kept, dropped = left_out(rows, section.drop, _decimal(section, rows))
    return OpenedFile(rows=kept, columns=columns, dropped=dropped)


def _match_columns(table: str, section: SourceSettings, rows: Rows) -> dict[str, str]:
    """ours = theirs, of the columns that a file has; a declared or needed one that it has not is an error."""
    if not rows.columns:
        raise InputError(f"{rows.file.name} has no row that can be read as {rows.file.format} ({rows.file.path}).")
    declared = _columns_of(section)
    optional = _OPTIONAL if table == INTERACTIONS else ()
    matched = {}
    for ours in (*KEYS[table], *optional):
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


def id_types(
    root: str | None,
    sources: Mapping[str, SourceSettings],
    files: Mapping[str, list[OpenedFile]],
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


def _are_integers(table: str, section: SourceSettings, file: OpenedFile, column: str, now: datetime) -> bool | None:
    """Return whether every id in an accepted row is written as an integer; None where no row is accepted."""
    with reading(file.rows.file):
        if all_integers(file.rows.frame, file.columns[column]):
            return True
        as_text = dict.fromkeys((USER_ID, ITEM_ID), pl.String())
        good = accepted(_judge(table, section, file, as_text, now))
        whole = integer_ids(pl.col(column)).is_not_null().all()
        rows, integers = good.select(pl.len(), whole.alias("whole")).collect(engine="streaming").row(0)
        return bool(integers) if rows else None


# --- rows -----------------------------------------------------------------------------------------


def _judge(
    table: str, section: SourceSettings, file: OpenedFile, types: Mapping[str, Any], now: datetime
) -> pl.LazyFrame:
    """The rows of one file, each with what is wrong with it."""
    if isinstance(section, InteractionSettings):
        schema, decimal = file.rows.frame.collect_schema(), _decimal(section, file.rows)
        return judge_interactions(
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
    (key,) = KEYS[table]
    return judge_attributes(
        file.rows.frame,
        key,
        file.columns[key],
        id_type=types[key],
        columns=file.rows.columns,
        nested=nested_names(section) if isinstance(section, AttributedSettings) else [],
    )


def _refuse_times(section: InteractionSettings, file: OpenedFile) -> None:
    if TIMESTAMP not in file.columns:
        return
    frame, column, name = file.rows.frame, file.columns[TIMESTAMP], file.rows.file.name
    with reading(file.rows.file):
        if section.time_unit == "auto" and not section.time_formats:
            refuse_disguise(frame, column, name)
        refuse_coarse(frame, column, name, "s" if section.time_formats else section.time_unit)


def check_log(
    section: InteractionSettings,
    files: Sequence[OpenedFile],
    types: Mapping[str, Any],
    now: datetime,
    scratch: Path,
    known: Collection[KnownFile] = (),
) -> Checked:
    """Judge the rows of the log's files, in the order of the files; the accepted ones lie in `scratch`.

    Parameters
    ----------
    known
        Files of the log that are in the table whole; they are counted and no more.
    """
    timed = all(TIMESTAMP in file.columns for file in files)
    if not timed and any(TIMESTAMP in file.columns for file in files):
        without = next(file.rows.file.name for file in files if TIMESTAMP not in file.columns)
        raise InputError(
            f"{without} has no timestamps and other files of the log have; a log has them all or not at all."
        )
    staged = []
    for index, file in enumerate(files):
        _refuse_times(section, file)
        judged = _judge(INTERACTIONS, section, file, types, now)
        path = scratch / f"log-{index:05}.parquet"
        with reading(file.rows.file):
            one, counts = stage_rows(file.rows, judged, path, timed=timed, counts=file.dropped)
        one = replace(one, dropped=counted(section.drop, [] if counts is None else [counts]))
        if section.withdraw and {TIMESTAMP, WEIGHT} <= file.columns.keys():
            one = with_sums(one)
        staged.append(one)
    log = StagedLog(files=tuple(staged), timed=timed, id_types={name: types[name] for name in KEYS[INTERACTIONS]})
    checked = Checked(
        table=INTERACTIONS,
        settings=section,
        good=log,
        rejected=pl.DataFrame(schema=_REJECTED),
        reasons=most_first(total([*(one.reasons for one in known), *(one.reasons for one in staged)])),
        skipped=tuple(one.rows.file.name for one in staged if not one.judged and not one.rows.partial),
        dropped=total([counted(section.drop, []), *(one.dropped for one in known), *(one.dropped for one in staged)]),
        earlier=sum(one.accepted for one in known),
        partial=any(file.rows.partial for file in files),
    )
    rejected = []
    wanted = KEPT if checked.too_many else checked.refused
    for file, one in sorted(zip(files, staged, strict=True), key=lambda pair: pair[0].rows.file.name):
        if one.reasons and wanted > 0:
            rejected.append(_rejected(section, file, one, types, now, wanted))
            wanted -= len(rejected[-1])
    warnings: tuple[str, ...] = ()
    if files:
        column = files[0].columns.get(TIMESTAMP)
        warnings = time_warnings(section, files[0].rows, column, log, now, files[0].columns.values())
    return replace(checked, rejected=pl.concat([checked.rejected, *rejected]), warnings=warnings)


def _rejected(
    section: InteractionSettings, file: OpenedFile, one: StagedFile, types: Mapping[str, Any], now: datetime, most: int
) -> pl.DataFrame:
    """The first rejected rows of a file, by line."""
    lines = one.broken_lines(most)
    near = pl.col(FILE_LINE).is_in(lines.implode())
    with reading(file.rows.file):
        part = replace(file, rows=replace(file.rows, frame=file.rows.frame.filter(near)))
        rows = broken(_judge(INTERACTIONS, section, part, types, now)).collect(engine="streaming")
    return _of(file, rows).sort(LINE, maintain_order=True).head(most)


def _of(file: OpenedFile, rows: pl.DataFrame) -> pl.DataFrame:
    """Rejected rows with their source; those of a database may be at another place the next time."""
    if file.rows.file.database is not None:
        rows = rows.with_columns(pl.lit(None, dtype=pl.Int64).alias(LINE))
    return rows.with_columns(pl.lit(file.rows.file.name).alias(SOURCE))


def check_attributes(
    table: str,
    section: AttributedSettings,
    files: Sequence[OpenedFile],
    types: Mapping[str, Any],
    now: datetime,
    id_map: pl.DataFrame | None,
) -> Checked:
    """Judge the rows of items or users, in the order of the files."""
    good, rejected, skipped, dropped = [], [], [], []
    for file in files:
        as_given = types if id_map is None else dict.fromkeys(KEYS[table], pl.String())
        judged = _judge(table, section, file, as_given, now)
        lazy = [accepted(judged), broken(judged), *([] if file.dropped is None else [file.dropped])]
        with reading(file.rows.file):
            ours, theirs, *counts = pl.collect_all(lazy, engine="streaming")
        dropped += counts
        if not ours[FILE_LINE].is_sorted():  # records of several lines come last
            ours = ours.sort(FILE_LINE, maintain_order=True)
        if file.rows.file.format == "csv" or file.rows.file.database is not None:
            ours = with_lists(ours, KEYS[table][0])
        if ours.is_empty() and theirs.is_empty() and not file.rows.partial:
            skipped.append(file.rows.file.name)
        good.append(ours.drop(FILE_LINE))
        rejected.append(_of(file, theirs))
    rows, unmapped = concat_alike(good), 0
    if id_map is not None:
        (key,) = KEYS[table]
        rows, unmapped = translate(rows, key, id_map, types[key])
    refused = pl.concat(rejected).sort(SOURCE, LINE)
    return Checked(
        table=table,
        settings=section,
        good=rows,
        rejected=refused,
        reasons=by_reason(refused),
        unmapped=unmapped,
        skipped=tuple(skipped),
        dropped=counted(section.drop, dropped),
        partial=any(file.rows.partial for file in files),
    )


def try_rows(table: str, section: SourceSettings, rows: Rows, now: datetime) -> Checked:
    """Judge the rows of one file of a table as `ingest` does, with no warehouse; the good rows of a log are gone after.

    Raises
    ------
    InputError
        A column is not there, or holds what cannot be read.
    """
    file = open_file(table, section, rows)
    types = {
        name: pl.Int64() if _are_integers(table, section, file, name, now) else pl.String() for name in KEYS[table]
    }
    if isinstance(section, InteractionSettings):
        with TemporaryDirectory(prefix="recsys-") as scratch:
            return check_log(section, [file], types, now, Path(scratch))
    assert isinstance(section, AttributedSettings)
    checked = check_attributes(table, section, [file], types, now, None)
    assert isinstance(checked.good, pl.DataFrame)
    need_attributes(table, section, checked.good.columns)
    return checked
