"""Rows of opened files judged: which columns are ours, which type the ids have, which rows are good.

Nothing here is written; `recsys.data.ingest` does that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
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
from recsys.data.attributes import need_attributes, nested_names
from recsys.data.conditions import any_met, columns_of, counted, left_out, need_columns
from recsys.data.contracts import (
    all_integers,
    check_attributes,
    check_interactions,
    columns_said,
    integer_ids,
)
from recsys.data.doubtful_times import time_warnings
from recsys.data.id_map import gives_integers, translate
from recsys.data.merge import OPEN_END, concat_alike, summed
from recsys.data.quarantine import Checked
from recsys.data.watermarks import need_times
from recsys.errors import InputError
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
        accepted, _ = _judge(table, section, file, as_text, now)
        whole = integer_ids(pl.col(column)).is_not_null().all()
        rows, integers = accepted.select(pl.len(), whole.alias("whole")).collect(engine="streaming").row(0)
        return bool(integers) if rows else None


# --- rows -----------------------------------------------------------------------------------------


def _judge(
    table: str, section: SourceSettings, file: OpenedFile, types: Mapping[str, Any], now: datetime
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
    (key,) = KEYS[table]
    return check_attributes(
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


def check(
    table: str,
    section: SourceSettings,
    files: Sequence[OpenedFile],
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
        as_given = types if id_map is None else dict.fromkeys(KEYS[table], pl.String())
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
            ours = with_lists(ours, KEYS[table][0])
        if ours.is_empty() and broken.is_empty() and not file.rows.partial:
            skipped.append(file.rows.file.name)
        good.append(ours.drop(FILE_LINE))
        if file.rows.file.database is not None:  # the same row may be at another place the next time
            broken = broken.with_columns(pl.lit(None, dtype=pl.Int64).alias(LINE))
        rejected.append(broken.with_columns(pl.lit(file.rows.file.name).alias(SOURCE)))
    rows = pl.concat(good) if table == INTERACTIONS else concat_alike(good)
    unmapped = 0
    if id_map is not None:
        (key,) = KEYS[table]
        rows, unmapped = translate(rows, key, id_map, types[key])
    warnings: tuple[str, ...] = ()
    if isinstance(section, InteractionSettings) and files:
        column = files[0].columns.get(TIMESTAMP)
        read = files[0].columns.values()
        warnings = time_warnings(section, files[0].rows, column, rows[TIMESTAMP], now, read)
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
    file = open_file(table, section, rows)
    types = {
        name: pl.Int64() if _are_integers(table, section, file, name, now) else pl.String() for name in KEYS[table]
    }
    checked = check(table, section, [file], types, now, None)
    if isinstance(section, AttributedSettings):
        need_attributes(table, section, checked.good.columns)
    return checked


def _mark_open_end(ours: pl.DataFrame, broken: pl.DataFrame, index: int, open_end: bool) -> pl.DataFrame:
    """OPEN_END: the file's index in the rows of its last line when that line has no end, else null."""
    if not open_end:
        return ours.with_columns(pl.lit(None, dtype=pl.Int32).alias(OPEN_END))
    last = max(lines.max() or 0 for lines in (ours[FILE_LINE], broken[LINE]))
    return ours.with_columns(pl.when(pl.col(FILE_LINE) == last).then(pl.lit(index, dtype=pl.Int32)).alias(OPEN_END))
