"""The rows that a reading adds to the log: compared with the newest version, decided before anything is written.

A log with time knows a row by user, item, time and event. A log without time knows it by its place, the n-th
event of its user, so that a repeated event is a repeat and the same log, or a longer version of it, adds only
what is new. A log only grows: what a newer file leaves out stays. A row that says the same event with another
weight is a correction, and the newest one holds; a missing weight corrects nothing. Where withdrawals take back as much
as they weigh, the rows of one file that say the same event are lines of one order, which weighs their sum.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import INTERACTIONS, POSITION, TIMESTAMP, WEIGHT
from recsys.errors import InputError
from recsys.ingestion.change import Change, tells_more
from recsys.ingestion.comparison import Comparison, compare
from recsys.ingestion.doubles import check_doubles
from recsys.ingestion.staged import LOG_KEY, PLACE, ROWS_AT_ONCE, StagedFile, StagedLog
from recsys.reading.readers import Rows
from recsys.reading.reasons import FILE_LINE
from recsys.settings import InteractionSettings
from recsys.storage import warehouse

OPEN_ENDS: Final = "open_ends"  # in a commit's metadata: see `open_ends`
_MOST_OPEN_ENDS: Final = 1000
_COLUMNS: Final = (*LOG_KEY, WEIGHT, POSITION)
_NEWER: Final = "__newer"


def open_ends(root: str) -> list[dict[str, Any]]:
    """Files whose last line had no line end when read: size, sha256, first and last position in the log."""
    return list(warehouse.commit_metadata(root, INTERACTIONS).get(OPEN_ENDS, []))


def merge_interactions(
    root: str,
    log: StagedLog,
    ends: list[dict[str, Any]],
    record: dict[str, Any],
    settings: InteractionSettings,
    *,
    rebuild: bool = False,
) -> Change:
    """New interactions and corrected weights.

    A file that was read while it was cut off within its last line may have given a row that looks right
    (`7,119` of `7,1193`). When a file continues one that was read so, what the line now says replaces it.

    Parameters
    ----------
    log
        Accepted rows in the order of the log.
    ends
        `open_ends` of the table; the files were read with their sizes as marks.
    record
        What the commit says of the table's origin (`recsys.ingestion.provenance`, `recsys.ingestion.watermarks`).
    settings
        They say what becomes of late events and of corrections.
    rebuild
        Leave out what the table holds.

    Raises
    ------
    InputError
        A log without time contradicts the table, or one has time and the other has not.
    """
    expected = warehouse.latest_version(root, INTERACTIONS)
    stale, kept = _outgrown(ends, [file.rows for file in log.files])
    held = None
    if expected is not None and not rebuild:
        held = warehouse.scan(root, INTERACTIONS, expected)
        if stale:
            ranges = [pl.col(POSITION).is_between(end["first"], end["last"]) for end in stale]
            held = held.filter(~pl.any_horizontal(ranges))
    if held is not None and len(log):
        _same_kind_of_time(held, log.timed, warehouse.table_path(root, INTERACTIONS))
    found = compare(log, held)
    warnings = []
    if held is not None and log.timed and found.matched is None:
        warnings = check_doubles(held, log)
    late, left_out = 0, {}
    if held is not None and log.timed:
        places = _late(held, log, found, settings)
        late = len(places)
        if late and settings.late == "leave-out":
            left_out["late events"] = late
            found = _without(found, places, len(log))
    corrected = 0 if found.corrections is None else len(found.corrections)
    if corrected and settings.corrections == "leave-out":
        left_out["corrections"], corrected = corrected, 0
        found = replace(found, corrections=None)
    first = 0
    if held is not None:
        highest = held.select(pl.col(POSITION).max()).collect(engine="streaming").item()
        first = 0 if highest is None else highest + 1
    replaces = bool(stale) or found.corrections is not None
    unknown = expected is not None and tells_more(root, INTERACTIONS, record)

    def frames() -> Iterator[pl.DataFrame]:
        if replaces and held is not None:
            yield from _corrected(held, found.corrections)
        yield from _placed(log, found, first)

    return Change(
        table=INTERACTIONS,
        frames=frames if found.new or replaces or rebuild or unknown else None,
        mode="overwrite" if replaces or rebuild else "append",
        expected=expected,
        added=found.new,
        duplicates=found.duplicates,
        corrected=corrected,
        known=_by_file(log, found),
        late=late,
        left_out=left_out,
        warnings=warnings,
        metadata={**record, OPEN_ENDS: [*kept, *_open_rows(log, found, first)][-_MOST_OPEN_ENDS:]},
    )


def _late(held: pl.LazyFrame, log: StagedLog, found: Comparison, settings: InteractionSettings) -> np.ndarray:
    """int64: by PLACE, the new rows that are older than the table's newest event by more than `late_hours`."""
    newest = held.select(pl.col(TIMESTAMP).max()).collect(engine="streaming").item()
    none = np.zeros(0, dtype=np.int64)
    if newest is None or log.first is None:
        return none
    limit = newest - timedelta(hours=settings.late_hours)
    if log.first >= int(limit.timestamp() * 1_000_000):
        return none
    old = log.frame().filter(pl.col(TIMESTAMP) < limit).select(PLACE).collect(engine="streaming")
    places = np.sort(old[PLACE].to_numpy())
    return places if found.gone is None else places[~found.gone[places]]


def _without(found: Comparison, places: np.ndarray, rows: int) -> Comparison:
    """The comparison with some new rows left out."""
    gone = np.zeros(rows, dtype=bool) if found.gone is None else found.gone.copy()
    gone[places] = True
    return replace(found, gone=gone, new=found.new - len(places))


def _by_file(log: StagedLog, found: Comparison) -> dict[str, int]:
    """Rows of each file that say what the table says, of files that have some."""
    if found.matched is None:
        return {}
    file = np.searchsorted(log.starts(), found.matched, side="right") - 1
    counts = np.bincount(file, minlength=len(log.files))
    return {one.rows.file.name: int(count) for one, count in zip(log.files, counts.tolist(), strict=True) if count}


def _placed(log: StagedLog, found: Comparison, first: int) -> Iterator[pl.DataFrame]:
    """The new rows in the order of the reading, with their positions from `first` on; at least one frame."""
    yield pl.DataFrame(schema={**log.frame().collect_schema(), POSITION: pl.Int64}).select(_COLUMNS)
    position = first
    for part in log.batches():
        if found.weights is not None:
            part = _weighed(part, found.weights, PLACE)
        if found.gone is not None and len(part):
            begin = part[PLACE][0]
            part = part.filter(pl.Series(~found.gone[begin : begin + len(part)]))
        yield part.with_columns(pl.int_range(position, position + pl.len(), dtype=pl.Int64).alias(POSITION)).select(
            _COLUMNS
        )
        position += len(part)


def _corrected(held: pl.LazyFrame, corrections: pl.DataFrame | None) -> Iterator[pl.DataFrame]:
    """The table's rows in parts, with what the reading corrects."""
    for part in held.select(_COLUMNS).collect_batches(chunk_size=ROWS_AT_ONCE, maintain_order=True, engine="streaming"):
        yield part if corrections is None else _weighed(part, corrections, POSITION)


def _weighed(rows: pl.DataFrame, weights: pl.DataFrame, by: str) -> pl.DataFrame:
    """Rows with the weights of some of them replaced."""
    newer = weights.select(by, pl.col(WEIGHT).alias(_NEWER))
    both = rows.join(newer, on=by, how="left", maintain_order="left")
    return both.with_columns(pl.coalesce(_NEWER, WEIGHT).alias(WEIGHT)).drop(_NEWER)


def _outgrown(ends: list[dict[str, Any]], files: Sequence[Rows]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return of the open ends those whose line goes on in one of the files, those that nothing is known about."""
    stale, kept = [], []
    for end in ends:
        following = {
            byte
            for rows in files
            for digest, byte in [rows.prefixes.get(end["size"], ("", b""))]
            if digest == end["sha256"]
        }
        if following - {b"\n", b"\r"}:
            stale.append(end)
        elif not following:
            kept.append(end)
    return stale, kept


def _open_rows(log: StagedLog, found: Comparison, first: int) -> list[dict[str, Any]]:
    """Size, digest and positions of the files whose last line has no end, where rows of that line are new."""
    ends = []
    for file, start in zip(log.files, log.starts(), strict=True):
        places = np.arange(start + file.count - _open_count(file), start + file.count)
        if found.gone is not None:
            places = places[~found.gone[places]]
        if len(places):
            before = places if found.gone is None else [place - found.gone[:place].sum() for place in places[[0, -1]]]
            ends.append(
                {
                    "size": file.rows.size,
                    "sha256": file.rows.digest,
                    "first": int(first + before[0]),
                    "last": int(first + before[-1]),
                }
            )
    return ends


def _open_count(file: StagedFile) -> int:
    """Count the rows of a file's last line, where it has no line end."""
    if file.open_line is None:
        return 0
    last = file.frame().filter(pl.col(FILE_LINE) == file.open_line).select(pl.len())
    return int(last.collect(engine="streaming").item())


def _same_kind_of_time(held: pl.LazyFrame, timed: bool, path: str) -> None:
    sample = held.select(TIMESTAMP).head(1).collect()
    if len(sample) and (sample[TIMESTAMP].null_count() == 0) != timed:
        has, other = ("has", "has none") if timed else ("has no", "has them")
        raise InputError(
            f"This log {has} timestamps and the table {path} {other}; "
            "a log cannot change that: use a new warehouse for it."
        )
