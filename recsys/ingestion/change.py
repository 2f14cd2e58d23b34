"""One commit to come: what a reading makes of a table, decided before anything is written."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from recsys.ingestion.provenance import FILLED
from recsys.ingestion.watermarks import WATERMARKS
from recsys.storage import warehouse


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Change:
    """One commit to come; `frames` gives its rows in parts, at least one; None: there is nothing to write."""

    table: str
    frames: Callable[[], Iterator[pl.DataFrame]] | None
    mode: str  # "append" or "overwrite"
    expected: int | None  # the version that was compared with
    added: int  # rows that are new or say something new
    duplicates: int  # rows of the reading that say what another one of it says
    corrected: int = 0  # events of the table whose weight the reading changes
    known: dict[str, int] = field(default_factory=dict)  # by file: rows that say what the table says
    late: int = 0  # new events that are older than the table's newest one by more than the settings allow
    left_out: dict[str, int] = field(default_factory=dict)  # late events and corrections that are counted and no more
    listed: int | None = None  # items of the newest reading of the catalogue
    delisted: int = 0  # items of the reading before that the newest one lacks
    warnings: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)


def commit(root: str, change: Change) -> None:
    """Write a change in one commit.

    Raises
    ------
    RecsysError
        Another process has written the table since it was compared with.
    """
    if change.frames is not None:
        write = warehouse.overwrite if change.mode == "overwrite" else warehouse.append
        write(root, change.table, change.frames(), expected=change.expected, metadata=change.metadata)


def tells_more(root: str, table: str, record: Mapping[str, Any]) -> bool:
    """Return whether a record is worth a commit without rows: of an origin, or a source, that the table lacks."""
    known = warehouse.commit_metadata(root, table)
    return FILLED not in known or not record.get(WATERMARKS, {}).keys() <= known.get(WATERMARKS, {}).keys()
