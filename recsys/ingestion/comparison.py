"""A reading of the log compared with itself and with the table: which rows are new, and which correct a weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, ITEM_ID, POSITION, USER_ID, WEIGHT
from recsys.errors import InputError
from recsys.ingestion.overlap import in_same_period, keyed, pairs_of, shared_keys
from recsys.ingestion.staged import LOG_KEY, PLACE, StagedLog

_ORDINAL: Final = "__ordinal"
_HELD: Final = "_held"  # ends the names of the table's columns beside a reading's


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Comparison:
    """Return what a reading says that neither an earlier row of it nor the table says."""

    new: int  # rows
    duplicates: int = 0  # rows that say what an earlier one of the reading says
    matched: np.ndarray | None = None  # int64: by PLACE, rows that say what the table says; None: it has none of them
    gone: np.ndarray | None = None  # bool [rows of the reading]: by PLACE, not new; None: all are
    weights: pl.DataFrame | None = None  # PLACE and WEIGHT of new rows that a later row of the reading weighs
    corrections: pl.DataFrame | None = None  # POSITION and WEIGHT of the table's rows that the reading corrects


def compare(log: StagedLog, held: pl.LazyFrame | None) -> Comparison:
    """Compare a reading with the table; of a log with time only the table's rows of the same periods are looked at.

    Raises
    ------
    InputError
        A log without time contradicts the table.
    """
    near = None
    if held is not None:
        near = keyed(in_same_period(held, log) if log.timed else held, log.timed)
    keys = shared_keys(log, near)
    if not len(keys):
        return Comparison(new=len(log))
    gone = np.zeros(len(log), dtype=bool)
    weights, corrections, contradictions = [], [], []
    duplicates, matched = 0, []
    compared = {} if log.timed else _compared(log, held)
    for mine, theirs in pairs_of(keys, log, near):
        rows, weighed = _distinct(mine) if log.timed else (mine, mine.clear())
        new, corrected = rows, rows.clear()
        if theirs is not None:
            beside = _beside_timed(theirs, rows) if log.timed else _beside_ordered(theirs, rows)
            contradictions += [_differing(beside, column, what) for column, what in compared.items()]
            new, corrected = _divide(beside)
            corrections.append(corrected.select(POSITION, WEIGHT))
        gone[mine[PLACE].to_numpy()] = True
        gone[new[PLACE].to_numpy()] = False
        weights.append(weighed.join(new, on=PLACE, how="semi").select(PLACE, WEIGHT))
        duplicates += len(mine) - len(rows)
        if len(rows) > len(new):
            changed = pl.concat([new.select(PLACE), corrected.select(PLACE)])
            matched.append(rows.join(changed, on=PLACE, how="anti")[PLACE].to_numpy())
    _refuse(contradictions)
    return Comparison(
        new=len(log) - int(gone.sum()),
        duplicates=duplicates,
        matched=np.concatenate(matched) if matched else None,
        gone=gone,
        weights=_some(weights),
        corrections=_some(corrections),
    )


def _some(frames: list[pl.DataFrame]) -> pl.DataFrame | None:
    frames = [frame for frame in frames if len(frame)]
    return pl.concat(frames) if frames else None


def _distinct(rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Each event of a log with time once, at the place of its first row and with the weight of its last.

    The second frame holds those of them whose weight is not that of their first row.
    """
    first = rows.unique(LOG_KEY, keep="first", maintain_order=True)
    weighted = rows.filter(pl.col(WEIGHT).is_not_null())
    if len(first) == len(rows) or weighted.is_empty():
        return first, first.clear()
    last = weighted.unique(LOG_KEY, keep="last").select(*LOG_KEY, pl.col(WEIGHT).alias("__last"))
    both = first.join(last, on=LOG_KEY, how="left", maintain_order="left")
    weighed = both.with_columns(pl.coalesce("__last", WEIGHT).alias(WEIGHT)).drop("__last")
    return weighed, weighed.filter(weighed[WEIGHT].ne_missing(first[WEIGHT]))


def _divide(beside: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """New rows, and the corrections: PLACE in the reading, POSITION in the table, and WEIGHT."""
    held_position, held_weight = pl.col(f"{POSITION}{_HELD}"), pl.col(f"{WEIGHT}{_HELD}")
    changed = pl.col(WEIGHT).is_not_null() & pl.col(WEIGHT).ne_missing(held_weight)
    corrections = beside.filter(held_position.is_not_null() & changed)
    return beside.filter(held_position.is_null()), corrections.select(PLACE, held_position.alias(POSITION), WEIGHT)


def _beside_timed(held: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows beside POSITION and WEIGHT of the same event in the table, null where it has none."""
    theirs = held.select(*LOG_KEY, pl.col(POSITION, WEIGHT).name.suffix(_HELD))
    return rows.join(theirs, on=LOG_KEY, how="left", maintain_order="left")


def _beside_ordered(held: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows beside what the table has as the same event of their user, null where it has none."""
    ordinal = pl.int_range(pl.len(), dtype=pl.Int64).over(USER_ID).alias(_ORDINAL)
    past = held.select(USER_ID, ordinal, pl.col(ITEM_ID, EVENT, POSITION, WEIGHT).name.suffix(_HELD))
    return rows.with_columns(ordinal).join(past, on=[USER_ID, _ORDINAL], how="left", maintain_order="left")


def _compared(log: StagedLog, held: pl.LazyFrame | None) -> dict[str, str]:
    """Return what must be equal at one place of a log without time: the item, and the event where any is named."""
    named = (pl.col(EVENT) != "").any()
    frames = [log.frame(), *([] if held is None else [held])]
    if any(frame.select(named).collect(engine="streaming").item() for frame in frames):
        return {ITEM_ID: "item", EVENT: "event"}
    return {ITEM_ID: "item"}


def _differing(beside: pl.DataFrame, column: str, what: str) -> tuple[str, pl.DataFrame]:
    """Return where the table has another value at the same place."""
    held = pl.col(f"{column}{_HELD}")
    differs = beside.filter(held != pl.col(column))
    return what, differs.select(PLACE, USER_ID, _ORDINAL, pl.col(column).alias("now"), held.alias("earlier"))


def _refuse(contradictions: list[tuple[str, pl.DataFrame]]) -> None:
    for what in dict.fromkeys(what for what, _ in contradictions):
        changed = pl.concat([rows for of, rows in contradictions if of == what])
        if changed.is_empty():
            continue
        nth, now, earlier = changed.sort(PLACE).select(_ORDINAL, "now", "earlier").row(0)
        raise InputError(
            f"Event {nth + 1} of a user is {what} {now!r} in this log and {earlier!r} in the table ("
            f"{len(changed)} events of {changed[USER_ID].n_unique()} users differ); a log without timestamps must be "
            "given whole and unchanged in its past: restore it, give it timestamps, read it anew with `recsys ingest "
            "CONFIG --rebuild`, or use a new warehouse."
        )
