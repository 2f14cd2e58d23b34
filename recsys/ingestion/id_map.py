"""The id map of a catalogue or of users: a file that translates its ids into the log's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl

from recsys.columns import ITEMS, USERS
from recsys.errors import InputError
from recsys.ingestion.contracts import id_text, integer_ids
from recsys.ingestion.quarantine import without_user
from recsys.reading.readers import read_rows, reading
from recsys.reading.reasons import DEFECT, FILE_LINE, FILE_RAW
from recsys.reading.sources import find_files
from recsys.settings import IdMapSettings, SourceSettings

LOG_ID: Final = "__log_id"
OTHER_ID: Final = "__other_id"
_WHOSE: Final = {ITEMS: "catalogue's", USERS: "users'"}


class IdMap(NamedTuple):
    """An id map as it was read: LOG_ID and OTHER_ID, as text; the file's name and digest."""

    ids: pl.DataFrame
    name: str
    digest: str


def read_id_map(table: str, settings: IdMapSettings, data_root: str, scratch: Path) -> IdMap:
    """Read the id map of a table.

    Raises
    ------
    InputError
        It cannot be read, or a line is not two ids.
    """
    source = id_map_source(settings)
    (file,) = find_files(f"{table}.id_map", source, data_root)
    rows = read_rows(file, source, scratch)
    if rows.empty:
        raise InputError(f"{table}.id_map.source is empty: {file.path}; check the file.")
    with reading(file):
        pairs = rows.frame.collect(engine="streaming")
    if file.database is not None:
        pairs = _of_two_columns(file.name, table, pairs, rows.columns)
    if settings.format == "json":  # one object: the other id, the log's
        pairs = pairs.rename(dict(zip(rows.columns, (OTHER_ID, LOG_ID), strict=True)))
    broken = pairs.filter(pl.col(DEFECT).is_not_null())
    if len(broken):
        line, raw = broken.select(FILE_LINE, FILE_RAW).row(0)
        raw = without_user(raw, None) if table == USERS else raw
        raise InputError(
            f"{file.name} line {line}: {raw!r} is not two ids (the log's, the {_WHOSE[table]}) "
            f"with {settings.separator!r} between them; correct it or set {table}.id_map.separator."
        )
    ids = pairs.select(LOG_ID, OTHER_ID).unique(OTHER_ID, keep="last", maintain_order=True)
    return IdMap(ids, file.name, rows.digest)


def _of_two_columns(name: str, table: str, rows: pl.DataFrame, columns: Sequence[str]) -> pl.DataFrame:
    if len(columns) != 2:
        raise InputError(
            f"{name} gives {len(columns)} columns for {table}.id_map, which has two: the log's id, then the "
            f"{_WHOSE[table]}."
        )
    texts = (
        id_text(given, rows.schema[given]).alias(ours) for given, ours in zip(columns, (LOG_ID, OTHER_ID), strict=True)
    )
    return rows.select(*texts, FILE_LINE, FILE_RAW, DEFECT)


def id_map_source(settings: IdMapSettings) -> SourceSettings:
    """An id map as a source of rows with two columns."""
    return SourceSettings(
        source=settings.source,
        format=settings.format or (None if settings.from_database else "csv"),
        separator=settings.separator,
        fields=None if settings.from_database else (LOG_ID, OTHER_ID),
        query=settings.query,
        table=settings.table,
    )


def gives_integers(id_map: pl.DataFrame) -> bool:
    """Return whether all of the log's ids in a map are written as integers."""
    return bool(id_map.select(integer_ids(pl.col(LOG_ID)).is_not_null().all()).item())


def translate(rows: pl.DataFrame, key: str, id_map: pl.DataFrame, id_type: Any) -> tuple[pl.DataFrame, int]:
    """Items or users under the log's ids, and how many the map does not know."""
    log_id = pl.col(LOG_ID) if id_type == pl.String() else integer_ids(pl.col(LOG_ID))
    known = id_map.select(pl.col(OTHER_ID).alias(key), log_id.alias(LOG_ID)).drop_nulls()
    mapped = rows.join(known, on=key, how="inner", maintain_order="left")
    renamed = mapped.select(pl.col(LOG_ID).alias(key), pl.exclude(key, LOG_ID))
    return renamed, len(rows) - len(mapped)
