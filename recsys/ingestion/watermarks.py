"""Watermarks: the newest value that was read of each source, kept in the table's commits.

A value is written with the rows that it tells of, so that a reading that fails does not move it. It holds for one
source, query, column and choice of rows; where one of them changes, all is read again.

A watermark waits for events that are dated a little ahead: it stays at the first of them, so that they are read again
when their moment has passed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final

import polars as pl

from recsys.columns import INTERACTIONS, TIMESTAMP
from recsys.errors import InputError
from recsys.ingestion.staged import StagedFile, StagedLog
from recsys.reading.readers import Rows
from recsys.reading.reasons import DEFECT, FILE_LINE, FUTURE_TIME
from recsys.reading.sources import SourceFile
from recsys.reading.watermark import Newest, Watermark
from recsys.settings import InteractionSettings, SourceSettings
from recsys.storage import warehouse

WATERMARKS: Final = "watermarks"  # key in a commit's metadata: watermarks by source
_MOST: Final = 1000  # that a commit holds, the newest
_AHEAD: Final = timedelta(days=2)  # an event of 2099 must not hold a watermark until then
_WAITING: Final = "waiting"  # key beside a watermark: events that it waits for


def begin_at(root: str, table: str, section: SourceSettings, file: SourceFile) -> Watermark | None:
    """The watermark at which a source's next reading begins; None: it is read whole."""
    if section.watermark is None:
        return None
    given = warehouse.commit_metadata(root, table).get(WATERMARKS, {}).get(_key(section, file))
    if given is None:
        return None
    return Watermark.from_json(given).earlier(section.watermark_overlap_hours, f"{table}.watermark")


def reached(
    root: str,
    table: str,
    section: SourceSettings,
    files: Iterable[Rows],
    now: datetime,
    log: StagedLog | None = None,
    *,
    rebuild: bool = False,
) -> dict[str, Mapping[str, Any]]:
    """Return what the next commit of a table says: how far each source has been read.

    A table that is rebuilt forgets the sources that are not read now.

    Parameters
    ----------
    log
        The judged rows of these files, where the table is the log.
    """
    judged = {} if log is None else {file.rows.file.name: file for file in log.files}
    timezone = section.timezone if isinstance(section, InteractionSettings) else None
    known = {} if rebuild else dict(warehouse.commit_metadata(root, table).get(WATERMARKS, {}))
    for rows in files:
        if section.watermark is not None and rows.newest is not None:
            key = _key(section, rows.file)
            known.pop(key, None)
            mark, waiting = rows.newest.not_after(now, timezone), {}
            lines = _lines_ahead(judged.get(rows.file.name), now)
            if len(lines):
                mark, waiting = mark.least(_first_of(rows, lines, section.watermark)), {_WAITING: len(lines)}
            known[key] = {**mark.to_json(), **waiting}
    return dict(list(known.items())[-_MOST:])


def still_ahead(root: str, section: SourceSettings, log: StagedLog, now: datetime) -> int:
    """Count the rows of a reading that the one before rejected, too, and whose moment has not passed yet."""
    if section.watermark is None:
        return 0
    said = warehouse.commit_metadata(root, INTERACTIONS).get(WATERMARKS, {})
    before = (said.get(_key(section, file.rows.file), {}).get(_WAITING, 0) for file in log.files)
    return sum(min(number, len(_lines_ahead(file, now))) for number, file in zip(before, log.files, strict=True))


def _lines_ahead(file: StagedFile | None, now: datetime) -> pl.Series:
    """Numbers of the rows that were rejected for a time that comes soon."""
    if file is None or FUTURE_TIME not in file.reasons:
        return pl.Series(FILE_LINE, [], dtype=pl.Int64)
    soon = (pl.col(DEFECT).cast(pl.String) == FUTURE_TIME) & (pl.col(TIMESTAMP) <= now + _AHEAD)
    return pl.scan_parquet(file.path, glob=False).filter(soon).select(FILE_LINE).collect(engine="streaming")[FILE_LINE]


def _first_of(rows: Rows, lines: pl.Series, column: str) -> Watermark:
    """The smallest watermark of some rows, at least one."""
    values = rows.frame.filter(pl.col(FILE_LINE).is_in(lines.implode())).select(column).collect(engine="streaming")
    first = Newest(column, rows.file.name)
    first.add(values[column].sort().head(1))
    assert first.watermark is not None
    return first.watermark


def need_times(section: SourceSettings, columns: Mapping[str, str], name: str) -> None:
    """Refuse a log that is read in parts and has no times: its events are known by their place in the whole."""
    if isinstance(section, InteractionSettings) and section.watermark is not None and TIMESTAMP not in columns:
        raise InputError(
            f"{name} has no column of times, so that its events are known by their place in the whole log; leave "
            "interactions.watermark out, or name the times in interactions.columns.timestamp."
        )


def _key(section: SourceSettings, file: SourceFile) -> str:
    chosen = section.model_dump(mode="json", include={"columns", "drop"}, exclude_defaults=True)
    chosen_hash = hashlib.sha256(json.dumps(chosen, sort_keys=True).encode()).hexdigest()[:8]
    return f"{file.name} by {section.watermark} ({chosen_hash})"
