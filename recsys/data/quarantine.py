"""Rejected rows: kept as they came, counted by reason, and the end of the run when they are too many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import polars as pl

from recsys.columns import LINE, QUARANTINE, RAW, REASON, REJECTED_AT, SOURCE, TABLE, USER_ID
from recsys.data.forgotten import Forgotten
from recsys.errors import InputError
from recsys.reading.reasons import (
    BAD_BYTES,
    BAD_TIME,
    FUTURE_TIME,
    INEXACT_ID,
    NAIVE_TIME,
    NESTED,
    NOT_INTEGER,
    SKIPPED_TIME,
    WRONG_FIELDS,
)
from recsys.settings import SourceSettings
from recsys.storage import warehouse

_KEY: Final = (TABLE, SOURCE, LINE, REASON, RAW)
_KEPT: Final = 10_000  # rows a table that are kept when the run stops for their number
_HINTS: Final = {
    BAD_BYTES: "set the encoding",
    WRONG_FIELDS: "check the separator and the fields",
    NESTED: "write one value a key, and one event a line",
    INEXACT_ID: "export ids as integers or strings",
    BAD_TIME: "declare interactions.time_format, or write times as ISO 8601 or as numbers since 1970",
    NAIVE_TIME: "declare interactions.timezone",
    SKIPPED_TIME: "check interactions.timezone",
    FUTURE_TIME: "check interactions.time_unit and the clock",
    **dict.fromkeys(NOT_INTEGER.values(), "a log with other ids needs a new warehouse"),
}


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Checked:
    """A table's rows, read and judged, before anything is written."""

    table: str
    settings: SourceSettings
    good: pl.DataFrame
    rejected: pl.DataFrame  # source, line, reason, raw, user_id (null where it cannot be read)
    unmapped: int = 0  # rows that the id map left out
    skipped: tuple[str, ...] = ()  # files without rows
    dropped: Mapping[str, int] = field(default_factory=dict)  # rows that the settings leave out, by condition
    warnings: tuple[str, ...] = ()  # sentences that must be seen
    partial: bool = False  # rows of a database from a watermark on alone

    @property
    def read(self) -> int:
        return self.judged + sum(self.dropped.values())

    @property
    def judged(self) -> int:
        return len(self.good) + len(self.rejected) + self.unmapped


def quarantine(root: str, checked: Sequence[Checked], now: datetime, forgotten: Forgotten | None = None) -> None:
    """Keep the rejected rows as they came; of a table that stops the run the first ones.

    Lines of a forgotten user are rejected and counted, and not kept.
    """
    frames = []
    for rows in checked:
        kept = rows.rejected.head(_KEPT) if _too_many(rows) else rows.rejected
        kept = kept if forgotten is None else forgotten.without_lines(kept)
        frames.append(
            kept.with_columns(
                pl.lit(rows.table).alias(TABLE), pl.lit(now).cast(pl.Datetime("us", "UTC")).alias(REJECTED_AT)
            ).select(*_KEY, REJECTED_AT, USER_ID)
        )
    frame = pl.concat(frames)
    if len(frame):
        warehouse.append_new(root, QUARANTINE, frame, _KEY)


def _too_many(rows: Checked) -> bool:
    return len(rows.rejected) > rows.settings.max_rejected_share * rows.judged


def refuse(root: str, rows: Checked) -> None:
    """Stop when more rows than allowed are rejected, or none is left.

    Raises
    ------
    InputError
        The counts by reason, one example, where the rows are, and what to try.
    """
    if not _too_many(rows) and (len(rows.good) or rows.partial):
        return
    if not rows.judged:
        met = ", ".join(f"{condition} ({count})" for condition, count in rows.dropped.items())
        raise InputError(
            f"All {rows.read} rows of {rows.table} meet a condition of {rows.table}.drop: {met}; change it."
        )
    if not len(rows.rejected):
        raise InputError(
            f"None of the {rows.judged} {rows.table} has an id that {rows.table}.id_map knows; check the map's columns."
        )
    reasons = by_reason(rows.rejected)
    counts = ", ".join(f"{reason} ({count})" for reason, count in reasons.items())
    worst = next(iter(reasons))
    source, line, raw = rows.rejected.filter(pl.col(REASON) == worst).select(SOURCE, LINE, RAW).row(0)
    shown = raw if len(raw) <= 120 else raw[:119] + "…"
    place = source if line is None else f"{source} line {line}"
    hint = _HINTS.get(worst, "correct the file")
    limit = f", more than {rows.table}.max_rejected_share = {rows.settings.max_rejected_share:g} allows"
    raise InputError(
        f"{len(rows.rejected)} of {rows.judged} rows of {rows.table} are rejected"
        f"{limit if _too_many(rows) else ''}: {counts}; "
        f"for example {place}: {shown!r} ({worst}). Nothing was published; the rows are in "
        f"{warehouse.table_path(root, QUARANTINE)}: {hint}."
    )


def by_reason(rejected: pl.DataFrame) -> dict[str, int]:
    """Rejected rows by reason, the most frequent first."""
    counts = rejected.group_by(REASON).len().sort(["len", REASON], descending=[True, False])
    return dict(counts.iter_rows())
