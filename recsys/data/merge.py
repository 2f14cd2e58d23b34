"""What a reading adds to a table: compared with the newest version, decided before anything is written.

A log with time knows a row by user, item, time and event. A log without time knows it by its place, the n-th
event of its user, so that a repeated event is a repeat and the same log, or a longer version of it, adds only
what is new. Items and users know a row by its id; the newest wins and what a newer file leaves out stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import polars as pl

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT
from recsys.data import warehouse
from recsys.data.most_frequent import most_frequent
from recsys.data.readers import Rows
from recsys.errors import InputError

LOG_KEY: Final = (USER_ID, ITEM_ID, TIMESTAMP, EVENT)
OPEN_END: Final = "__open_end"  # rows of a last line without line end: the index of their file, else null
_OPEN_ENDS: Final = "open_ends"  # the same in the commit's metadata: size, sha256, first and last position
_MOST_OPEN_ENDS: Final = 1000
_ORDINAL: Final = "__ordinal"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Change:
    """One commit to come; `frame` None: there is nothing to write."""

    table: str
    frame: pl.DataFrame | None
    mode: str  # "append" or "overwrite"
    expected: int | None  # the version that was compared with
    added: int  # rows that are new or say something new
    duplicates: int  # rows of the reading that say what another one of it says
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


def merge_interactions(root: str, good: pl.DataFrame, files: Sequence[Rows], ends: list[dict[str, Any]]) -> Change:
    """New interactions.

    A file that was read while it was cut off within its last line may have given a row that looks right
    (`7,119` of `7,1193`). When a file continues one that was read so, what the line now says replaces it.

    Parameters
    ----------
    good
        Checked rows in the order of the log, with OPEN_END.
    ends
        `open_ends` of the table; the files were read with their sizes as marks.

    Raises
    ------
    InputError
        A log without time contradicts the table, or one has time and the other has not.
    """
    expected = warehouse.latest_version(root, INTERACTIONS)
    stale, kept = _outgrown(ends, files)
    held = None
    if expected is not None:
        held = warehouse.scan(root, INTERACTIONS, expected)
        if stale:
            ranges = [pl.col(POSITION).is_between(end["first"], end["last"]) for end in stale]
            held = held.filter(~pl.any_horizontal(ranges))
    timed = good[TIMESTAMP].null_count() == 0
    if held is not None:
        _same_kind_of_time(held, timed, warehouse.table_path(root, INTERACTIONS))
    rows = good.unique(LOG_KEY, keep="first", maintain_order=True) if timed else good
    new = rows if held is None else _new_timed(held, rows) if timed else _new_ordered(held, rows)
    first = 0
    if held is not None:
        highest = held.select(pl.col(POSITION).max()).collect(engine="streaming").item()
        first = 0 if highest is None else highest + 1
    placed = new.with_columns(pl.int_range(first, first + pl.len(), dtype=pl.Int64).alias(POSITION))
    frame = placed.select(*LOG_KEY, WEIGHT, POSITION)
    if stale and held is not None:
        frame = pl.concat([held.select(frame.columns).collect(engine="streaming"), frame])
    return Change(
        table=INTERACTIONS,
        frame=frame if len(new) or stale else None,
        mode="overwrite" if stale else "append",
        expected=expected,
        added=len(new),
        duplicates=len(good) - len(rows),
        metadata={_OPEN_ENDS: [*kept, *_open_rows(placed, files)][-_MOST_OPEN_ENDS:]},
    )


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


def _new_timed(held: pl.LazyFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows whose key the table does not hold; only its rows of the same period are looked at."""
    if rows.is_empty():
        return rows
    same_period = held.filter(pl.col(TIMESTAMP).is_between(rows[TIMESTAMP].min(), rows[TIMESTAMP].max()))
    return (
        rows.lazy()
        .join(same_period.select(LOG_KEY), on=LOG_KEY, how="anti", maintain_order="left")
        .collect(engine="streaming")
    )


def _new_ordered(held: pl.LazyFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Events beyond those that the table holds of their user; the earlier ones must be the same."""
    ordinal = pl.int_range(pl.len(), dtype=pl.Int64).over(USER_ID).alias(_ORDINAL)
    past = held.select(USER_ID, ITEM_ID, POSITION).sort(POSITION).select(USER_ID, ITEM_ID, ordinal)
    both = (
        rows.lazy()
        .with_columns(ordinal)
        .join(past, on=[USER_ID, _ORDINAL], how="left", suffix="_held", maintain_order="left")
        .collect(engine="streaming")
    )
    held_item = f"{ITEM_ID}_held"
    changed = both.filter(pl.col(held_item).is_not_null() & (pl.col(held_item) != pl.col(ITEM_ID)))
    if len(changed):
        user, item, earlier, nth = changed.select(USER_ID, ITEM_ID, held_item, _ORDINAL).row(0)
        raise InputError(
            f"Event {nth + 1} of user {user!r} is item {item!r} in this log and {earlier!r} in the table "
            f"({len(changed)} events differ); a log without timestamps must be given whole and unchanged in "
            "its past: restore it, give it timestamps, or use a new warehouse."
        )
    return both.filter(pl.col(held_item).is_null()).drop(held_item, _ORDINAL)


def merge_attributes(
    root: str, table: str, key: str, good: pl.DataFrame, several: Literal["last", "most-frequent"] = "last"
) -> Change:
    """Items or users after a reading: the newest row of an id wins, ids that are not in the reading stay.

    Within the reading `several` says which row that is, see `AttributedSettings`. A column whose type changed between
    two readings takes the wider one (number, list of strings, string).
    """
    rows = good.unique(key, keep="last", maintain_order=True) if several == "last" else most_frequent(good, key)
    expected = warehouse.latest_version(root, table)
    if expected is None:
        merged, added = rows.sort(key), len(rows)
    else:
        held = warehouse.scan(root, table, expected).collect(engine="streaming")
        merged = concat_alike([held.join(rows, on=key, how="anti"), rows]).sort(key)
        before, after = _alike(held, merged)
        before = pl.concat([after.clear(), before], how="diagonal")
        added = int((~after.hash_rows().is_in(before.hash_rows().implode())).sum())
    return Change(
        table=table,
        frame=merged if added or expected is None else None,
        mode="overwrite",
        expected=expected,
        added=added,
        duplicates=len(good) - len(rows),
    )


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
