"""Watermarks: the newest value that was read of each source, kept in the table's commits.

A value is written with the rows that it tells of, so that a reading that fails does not move it. It holds for one
source, query, column and choice of rows; where one of them changes, all is read again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

from recsys.columns import TIMESTAMP
from recsys.errors import InputError
from recsys.reading.readers import Rows
from recsys.reading.sources import SourceFile
from recsys.reading.watermark import Watermark
from recsys.settings import InteractionSettings, SourceSettings
from recsys.storage import warehouse

WATERMARKS: Final = "watermarks"  # key in a commit's metadata: watermarks by source
_MOST: Final = 1000  # that a commit holds, the newest


def begin_at(root: str, table: str, section: SourceSettings, file: SourceFile) -> Watermark | None:
    """The watermark at which a source's next reading begins; None: it is read whole."""
    if section.watermark is None:
        return None
    given = warehouse.commit_metadata(root, table).get(WATERMARKS, {}).get(_key(section, file))
    if given is None:
        return None
    return Watermark.from_json(given).earlier(section.watermark_overlap_hours, f"{table}.watermark")


def reached(
    root: str, table: str, section: SourceSettings, files: Iterable[Rows], now: datetime, *, rebuild: bool = False
) -> dict[str, Mapping[str, Any]]:
    """Return what the next commit of a table says: how far each source has been read.

    A table that is rebuilt forgets the sources that are not read now.
    """
    timezone = section.timezone if isinstance(section, InteractionSettings) else None
    known = {} if rebuild else dict(warehouse.commit_metadata(root, table).get(WATERMARKS, {}))
    for rows in files:
        if section.watermark is not None and rows.newest is not None:
            key = _key(section, rows.file)
            known.pop(key, None)
            known[key] = rows.newest.not_after(now, timezone).to_json()
    return dict(list(known.items())[-_MOST:])


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
