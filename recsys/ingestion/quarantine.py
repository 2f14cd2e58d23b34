"""Rejected rows: kept as they came, counted by reason, and the end of the run when they are too many."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final

import polars as pl

from recsys.columns import ITEMS, LINE, QUARANTINE, RAW, REASON, REJECTED_AT, SOURCE, TABLE, USER_ID
from recsys.errors import InputError
from recsys.forgetting.forgotten import Forgotten
from recsys.ingestion.staged import StagedLog
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
HIDDEN: Final = "<user>"  # in a user id's place
KEPT: Final = 10_000  # rows a table that are kept when the run stops for their number
_HINTS: Final = {
    BAD_BYTES: "set the encoding",
    WRONG_FIELDS: "check the separator and the fields",
    NESTED: "write one value a key, and one event a line",
    INEXACT_ID: "export ids as integers or strings",
    BAD_TIME: "declare interactions.time_format, or write times as 2021-03-04T05:06:07Z or as numbers since 1970",
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
    good: pl.DataFrame | StagedLog
    rejected: pl.DataFrame  # source, line, reason, raw, user_id (null where it cannot be read); of too many the first
    reasons: Mapping[str, int]  # all rejected rows, the most frequent reason first
    unmapped: int = 0  # rows that the id map left out
    skipped: tuple[str, ...] = ()  # files without rows
    dropped: Mapping[str, int] = field(default_factory=dict)  # rows that the settings leave out, by condition
    warnings: tuple[str, ...] = ()  # sentences that must be seen
    partial: bool = False  # rows of a database from a watermark on alone
    earlier: int = 0  # rows of files of the log that are in it whole, and are not among `good`
    rejected_before: int = 0  # rows that the reading before rejected, too, as their moment has not passed

    @property
    def read(self) -> int:
        return self.judged + sum(self.dropped.values())

    @property
    def judged(self) -> int:
        return len(self.good) + self.refused + self.unmapped + self.earlier

    @property
    def refused(self) -> int:
        """Rejected rows."""
        return sum(self.reasons.values())

    @property
    def too_many(self) -> bool:
        """Return whether more rows are rejected than the settings allow."""
        judged, refused = (number - self.rejected_before for number in (self.judged, self.refused))
        return refused > self.settings.max_rejected_share * judged


def quarantine(root: str, checked: Sequence[Checked], now: datetime, forgotten: Forgotten | None = None) -> None:
    """Keep the rejected rows as they came; of a table that stops the run the first ones.

    Lines of what is forgotten are rejected and counted, and not kept.
    """
    frames = []
    for rows in checked:
        kept = rows.rejected.head(KEPT) if rows.too_many else rows.rejected
        kept = kept if forgotten is None else forgotten.without_lines(rows.table, kept)
        frames.append(
            kept.with_columns(
                pl.lit(rows.table).alias(TABLE), pl.lit(now).cast(pl.Datetime("us", "UTC")).alias(REJECTED_AT)
            ).select(*_KEY, REJECTED_AT, USER_ID)
        )
    frame = pl.concat(frames)
    if len(frame):
        warehouse.append_new(root, QUARANTINE, frame, _KEY)


def refuse(root: str, rows: Checked) -> None:
    """Stop when more rows than allowed are rejected, or none is left.

    Raises
    ------
    InputError
        The counts by reason, one example, where the rows are, and what to try.
    """
    if not rows.too_many and (len(rows.good) or rows.partial or rows.earlier):
        return
    if not rows.judged:
        met = ", ".join(f"{condition} ({count})" for condition, count in rows.dropped.items())
        raise InputError(
            f"All {rows.read} rows of {rows.table} meet a condition of {rows.table}.drop: {met}; change it."
        )
    if not rows.refused:
        raise InputError(
            f"None of the {rows.judged} {rows.table} has an id that {rows.table}.id_map knows; check the map's columns."
        )
    counts = ", ".join(f"{reason} ({count})" for reason, count in rows.reasons.items())
    kept = set(rows.rejected[REASON])
    worst = next(reason for reason in rows.reasons if reason in kept)
    source, line, raw, user = rows.rejected.filter(pl.col(REASON) == worst).select(SOURCE, LINE, RAW, USER_ID).row(0)
    if rows.table != ITEMS:  # the sentence goes into logs and MLflow
        raw = without_user(raw, user)
    shown = raw if len(raw) <= 120 else raw[:119] + "…"
    place = source if line is None else f"{source} line {line}"
    hint = _HINTS.get(worst, "correct the file")
    limit = f", more than {rows.table}.max_rejected_share = {rows.settings.max_rejected_share:g} allows"
    raise InputError(
        f"{rows.refused} of {rows.judged} rows of {rows.table} are rejected"
        f"{limit if rows.too_many else ''}: {counts}; "
        f"for example {place}: {shown!r} ({worst}). Nothing was published; the rows are in "
        f"{warehouse.table_path(root, QUARANTINE)}: {hint}."
    )


def without_user(raw: str, user: str | None) -> str:
    """A rejected line without the id of its user; its shape alone where nobody can tell where the id stands.

    >>> without_user("ann,17,oops", "ann"), without_user("ann;17;2024-05-01", None)
    ('<user>,17,oops', 'xxx;99;9999-99-99')
    """
    if user:
        shown, found = re.subn(rf"(?<!\w){re.escape(user)}(?!\w)", HIDDEN, raw)
        if found:
            return shown
    return "".join("x" if sign.isalpha() else "9" if sign.isdigit() else sign for sign in raw)


def staged(rows: Checked) -> StagedLog:
    """The good rows of the log."""
    assert isinstance(rows.good, StagedLog)
    return rows.good


def attributes(rows: Checked) -> pl.DataFrame:
    """The good rows of items or users."""
    assert isinstance(rows.good, pl.DataFrame)
    return rows.good


def without_forgotten(rows: Checked, forgotten: Forgotten) -> Checked:
    """A table's rows without those that are to stay out."""
    if isinstance(rows.good, StagedLog):
        gone = forgotten.gone(rows.good.frame())
        return rows if gone is None else replace(rows, good=rows.good.without(gone))
    return replace(rows, good=forgotten.without(rows.good))


def by_reason(rejected: pl.DataFrame) -> dict[str, int]:
    """Rejected rows by reason, the most frequent first."""
    return most_first(dict(rejected.group_by(REASON).len().iter_rows()))


def most_first(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts, the highest first, equal ones by name."""
    return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))
