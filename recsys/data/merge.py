"""What a reading adds to a table: compared with the newest version, decided before anything is written.

A log with time knows a row by user, item, time and event. A log without time knows it by its place, the n-th
event of its user, so that a repeated event is a repeat and the same log, or a longer version of it, adds only
what is new. A log only grows: what a newer file leaves out stays. A row that says the same event with another
weight is a correction, and the newest one holds; a missing weight corrects nothing. Where withdrawals take back as much
as they weigh, the rows of one file that say the same event are lines of one order, which weighs their sum. Items and
users know a row by its id; the newest wins and what a newer file leaves out stays. Items say whether the newest
reading lists them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, ITEMS, LISTED, POSITION, TIMESTAMP, USER_ID, WEIGHT
from recsys.data.doubles import check_doubles
from recsys.data.most_frequent import most_frequent
from recsys.data.provenance import FILLED
from recsys.data.watermarks import WATERMARKS
from recsys.errors import InputError
from recsys.reading.readers import Rows
from recsys.storage import warehouse

LOG_KEY: Final = (USER_ID, ITEM_ID, TIMESTAMP, EVENT)
OPEN_END: Final = "__open_end"  # rows of a last line without line end: the index of their file, else null
_OPEN_ENDS: Final = "open_ends"  # the same in the commit's metadata: size, sha256, first and last position
_MOST_OPEN_ENDS: Final = 1000
_ORDINAL: Final = "__ordinal"
_HELD: Final = "_held"  # ends the names of the table's columns beside a reading's


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Change:
    """One commit to come; `frame` None: there is nothing to write."""

    table: str
    frame: pl.DataFrame | None
    mode: str  # "append" or "overwrite"
    expected: int | None  # the version that was compared with
    added: int  # rows that are new or say something new
    duplicates: int  # rows of the reading that say what another one of it says
    corrected: int = 0  # events of the table whose weight the reading changes
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
    if change.frame is not None:
        write = warehouse.overwrite if change.mode == "overwrite" else warehouse.append
        write(root, change.table, change.frame, expected=change.expected, metadata=change.metadata)


def open_ends(root: str) -> list[dict[str, Any]]:
    """Files whose last line had no line end when read: size, sha256, first and last position in the log."""
    return list(warehouse.commit_metadata(root, INTERACTIONS).get(_OPEN_ENDS, []))


def merge_interactions(
    root: str,
    good: pl.DataFrame,
    files: Sequence[Rows],
    ends: list[dict[str, Any]],
    record: dict[str, Any],
    *,
    rebuild: bool = False,
) -> Change:
    """New interactions and corrected weights.

    A file that was read while it was cut off within its last line may have given a row that looks right
    (`7,119` of `7,1193`). When a file continues one that was read so, what the line now says replaces it.

    Parameters
    ----------
    good
        Checked rows in the order of the log, with OPEN_END.
    ends
        `open_ends` of the table; the files were read with their sizes as marks.
    record
        What the commit says of the table's origin (`recsys.data.provenance`, `recsys.data.watermarks`).
    rebuild
        Leave out what the table holds.

    Raises
    ------
    InputError
        A log without time contradicts the table, or one has time and the other has not.
    """
    expected = warehouse.latest_version(root, INTERACTIONS)
    stale, kept = _outgrown(ends, files)
    held = None
    if expected is not None and not rebuild:
        held = warehouse.scan(root, INTERACTIONS, expected)
        if stale:
            ranges = [pl.col(POSITION).is_between(end["first"], end["last"]) for end in stale]
            held = held.filter(~pl.any_horizontal(ranges))
    timed = good[TIMESTAMP].null_count() == 0
    if held is not None and len(good):
        _same_kind_of_time(held, timed, warehouse.table_path(root, INTERACTIONS))
    rows = _distinct(good) if timed else good
    beside = None if held is None else _beside_timed(held, rows) if timed else _beside_ordered(held, rows)
    new, corrections = (rows, None) if beside is None else _divide(beside, rows.columns)
    warnings = check_doubles(held, new) if held is not None and timed and len(new) == len(rows) else []
    first = 0
    if held is not None:
        highest = held.select(pl.col(POSITION).max()).collect(engine="streaming").item()
        first = 0 if highest is None else highest + 1
    placed = new.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(POSITION))
    frame = placed.select(*LOG_KEY, WEIGHT, POSITION)
    replaces = bool(stale) or corrections is not None
    if replaces and held is not None:
        frame = pl.concat([_corrected(held, corrections).select(frame.columns).collect(engine="streaming"), frame])
    unknown = expected is not None and _tells_more(root, INTERACTIONS, record)
    return Change(
        table=INTERACTIONS,
        frame=frame if len(new) or replaces or rebuild or unknown else None,
        mode="overwrite" if replaces or rebuild else "append",
        expected=expected,
        added=len(new),
        duplicates=len(good) - len(rows),
        corrected=0 if corrections is None else len(corrections),
        warnings=warnings,
        metadata={**record, _OPEN_ENDS: [*kept, *_open_rows(placed, files)][-_MOST_OPEN_ENDS:]},
    )


def summed(rows: pl.DataFrame) -> pl.DataFrame:
    """The rows of one file of a log with time, each with the weight of all rows of it that say the same event.

    The sum is taken a file, so that a file that is read again, or lies beside a longer version of it, adds nothing.
    Equal rows count once: an invoice that stands twice, as where two exports overlap, was bought once.
    """
    once = pl.when(pl.struct(*LOG_KEY, WEIGHT).is_first_distinct()).then(WEIGHT)
    alike = once.count().over(LOG_KEY) > 1
    total = once.sum().over(LOG_KEY).round(9)  # 0.1 + 0.2 - 0.3 leaves nothing
    return rows.with_columns(pl.when(alike).then(total).otherwise(WEIGHT).alias(WEIGHT))


def _distinct(good: pl.DataFrame) -> pl.DataFrame:
    """Each event of a log with time once, at the place of its first row and with the weight of its last."""
    rows = good.unique(LOG_KEY, keep="first", maintain_order=True)
    weighted = good.filter(pl.col(WEIGHT).is_not_null())
    if len(rows) == len(good) or weighted.is_empty():
        return rows
    last = weighted.unique(LOG_KEY, keep="last").select(*LOG_KEY, pl.col(WEIGHT).alias("__last"))
    return (
        rows.join(last, on=LOG_KEY, how="left", maintain_order="left")
        .with_columns(pl.coalesce("__last", WEIGHT).alias(WEIGHT))
        .drop("__last")
    )


def _divide(beside: pl.DataFrame, columns: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame | None]:
    """New rows, and the corrections: POSITION and WEIGHT; None where there are none."""
    held_position, held_weight = pl.col(f"{POSITION}{_HELD}"), pl.col(f"{WEIGHT}{_HELD}")
    new = beside.lazy().filter(held_position.is_null()).select(columns).collect()
    if f"{WEIGHT}{_HELD}" not in beside.columns:
        return new, None
    changed = pl.col(WEIGHT).is_not_null() & pl.col(WEIGHT).ne_missing(held_weight)
    corrections = beside.filter(held_position.is_not_null() & changed)
    if corrections.is_empty():
        return new, None
    return new, corrections.select(held_position.alias(POSITION), WEIGHT)


def _corrected(held: pl.LazyFrame, corrections: pl.DataFrame | None) -> pl.LazyFrame:
    if corrections is None:
        return held
    theirs = corrections.lazy().rename({WEIGHT: f"{WEIGHT}{_HELD}"})
    both = held.join(theirs, on=POSITION, how="left", maintain_order="left")
    return both.with_columns(pl.coalesce(f"{WEIGHT}{_HELD}", WEIGHT).alias(WEIGHT))


def _outgrown(ends: list[dict[str, Any]], files: Sequence[Rows]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Of the open ends: those whose line goes on in one of the files, those that nothing is known about."""
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


def _open_rows(placed: pl.DataFrame, files: Sequence[Rows]) -> list[dict[str, Any]]:
    spans = (
        placed.filter(pl.col(OPEN_END).is_not_null())
        .group_by(OPEN_END, maintain_order=True)
        .agg(pl.col(POSITION).min().alias("first"), pl.col(POSITION).max().alias("last"))
    )
    return [
        {"size": files[index].size, "sha256": files[index].digest, "first": first, "last": last}
        for index, first, last in spans.iter_rows()
    ]


def _same_kind_of_time(held: pl.LazyFrame, timed: bool, path: str) -> None:
    sample = held.select(TIMESTAMP).head(1).collect()
    if len(sample) and (sample[TIMESTAMP].null_count() == 0) != timed:
        has, other = ("has", "has none") if timed else ("has no", "has them")
        raise InputError(
            f"This log {has} timestamps and the table {path} {other}; "
            "a log cannot change that: use a new warehouse for it."
        )


def _weights(rows: pl.DataFrame) -> list[str]:
    """The column of the table's weights, where the reading has any that could correct them."""
    return [WEIGHT] if rows[WEIGHT].null_count() < len(rows) else []


def _beside_timed(held: pl.LazyFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows beside POSITION and WEIGHT of the same event in the table, null where it has none.

    Only its rows of the same period are looked at.
    """
    same_period = held.filter(pl.col(TIMESTAMP).is_between(rows[TIMESTAMP].min(), rows[TIMESTAMP].max()))
    theirs = same_period.select(*LOG_KEY, pl.col(POSITION, *_weights(rows)).name.suffix(_HELD))
    return rows.lazy().join(theirs, on=LOG_KEY, how="left", maintain_order="left").collect(engine="streaming")


def _beside_ordered(held: pl.LazyFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows beside POSITION and WEIGHT of the same event of their user in the table; it must be the same."""
    ordinal = pl.int_range(pl.len(), dtype=pl.Int64).over(USER_ID).alias(_ORDINAL)
    named = (pl.col(EVENT) != "").any()
    compared = {ITEM_ID: "item"}
    if rows.select(named).item() or held.select(named).collect(engine="streaming").item():
        compared[EVENT] = "event"
    columns = [*compared, POSITION, *_weights(rows)]
    theirs = pl.col(columns).name.suffix(_HELD)
    past = held.select(USER_ID, *columns).sort(POSITION).select(USER_ID, ordinal, theirs)
    both = (
        rows.lazy()
        .with_columns(ordinal)
        .join(past, on=[USER_ID, _ORDINAL], how="left", maintain_order="left")
        .collect(engine="streaming")
    )
    for column, what in compared.items():
        differs = both[f"{column}{_HELD}"] != both[column]
        if differs.any():
            changed = both.filter(differs)
            user, now, earlier, nth = changed.select(USER_ID, column, f"{column}{_HELD}", _ORDINAL).row(0)
            raise InputError(
                f"Event {nth + 1} of user {user!r} is {what} {now!r} in this log and {earlier!r} in the table "
                f"({len(changed)} events differ); a log without timestamps must be given whole and unchanged in "
                "its past: restore it, give it timestamps, read it anew with `recsys ingest CONFIG --rebuild`, or use "
                "a new warehouse."
            )
    return both


def merge_attributes(
    root: str,
    table: str,
    key: str,
    good: pl.DataFrame,
    record: dict[str, Any],
    several: Literal["last", "most-frequent"] = "last",
    *,
    rebuild: bool = False,
    partial: bool = False,
) -> Change:
    """Items or users after a reading: the newest row of an id wins, ids that are not in the reading stay.

    Within the reading `several` says which row that is, see `AttributedSettings`. A column whose type changed between
    two readings takes the wider one (number, list of strings, string). Items get LISTED: whether this reading, the
    newest one, holds them.

    Parameters
    ----------
    record, rebuild
        As in `merge_interactions`.
    partial
        The reading holds new and changed rows alone: items that it lacks stay listed.
    """
    rows = good.unique(key, keep="last", maintain_order=True) if several == "last" else most_frequent(good, key)
    if table == ITEMS:
        rows = rows.with_columns(pl.lit(True).alias(LISTED))
    expected = warehouse.latest_version(root, table)
    unknown = _tells_more(root, table, record)
    listed_before, delisted = None, 0
    if expected is None or rebuild:
        merged, added = rows.sort(key), len(rows)
    else:
        held = warehouse.scan(root, table, expected).collect(engine="streaming")
        gone = held.join(rows, on=key, how="anti")
        if table == ITEMS:
            listed = pl.col(LISTED) if LISTED in held.columns else pl.lit(True)
            listed_before = held.select(listed).sum().item()
            if partial:
                gone = gone.with_columns(listed.alias(LISTED))
            else:
                delisted = gone.select(listed).sum().item()
                gone = gone.with_columns(pl.lit(False).alias(LISTED))
        merged = concat_alike([gone, rows]).sort(key)
        before, after = _alike(*(frame.drop(LISTED, strict=False) for frame in (held, merged)))
        before = pl.concat([after.clear(), before], how="diagonal")
        added = int((~after.hash_rows().is_in(before.hash_rows().implode())).sum())
    listed_now = merged.select(LISTED).sum().item() if table == ITEMS else None
    relisted = (listed_before, delisted) != (listed_now, 0) and table == ITEMS
    return Change(
        table=table,
        frame=merged if added or relisted or rebuild or unknown else None,
        mode="overwrite",
        expected=expected,
        added=added,
        duplicates=len(good) - len(rows),
        listed=listed_now,
        delisted=delisted,
        warnings=_shrunk(listed_now, listed_before or 0) if listed_now is not None else [],
        metadata=record,
    )


def _tells_more(root: str, table: str, record: Mapping[str, Any]) -> bool:
    """Return whether a record is worth a commit without rows: of an origin, or a source, that the table lacks."""
    known = warehouse.commit_metadata(root, table)
    return FILLED not in known or not record.get(WATERMARKS, {}).keys() <= known.get(WATERMARKS, {}).keys()


def _shrunk(listed: int, before: int) -> list[str]:
    if listed * 2 >= before:
        return []
    return [
        f"The catalogue lists {listed} items and listed {before} before; only those that it lists now are recommended. "
        'If it brings new items alone, set retrieve.items = "all".'
    ]


def concat_alike(frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
    """Frames under each other; a column that one lacks is null there. Types as in `merge_attributes`."""
    merged = frames[0]
    for frame in frames[1:]:
        merged = pl.concat(_alike(merged, frame), how="diagonal")
    return merged


def _alike(left: pl.DataFrame, right: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Two frames whose common columns have one type."""
    for name in left.columns:
        if name not in right.columns or left.schema[name] == right.schema[name]:
            continue
        types = {left.schema[name], right.schema[name]}
        if all(dtype.is_numeric() for dtype in types):
            left, right = (frame.with_columns(pl.col(name).cast(pl.Float64)) for frame in (left, right))
        elif any(isinstance(dtype, pl.List) for dtype in types):
            left, right = (_as_list(frame, name) for frame in (left, right))
        else:
            left, right = (frame.with_columns(pl.col(name).cast(pl.String)) for frame in (left, right))
    return left, right


def _as_list(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    if isinstance(frame.schema[name], pl.List):
        return frame
    return frame.with_columns(pl.when(pl.col(name).is_not_null()).then(pl.concat_list(pl.col(name).cast(pl.String))))
