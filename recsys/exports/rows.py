"""Rows of a version of the candidate table, in order, batch by batch, in the shape that a target asks for.

Rows pass through in batches in the order (user_id, rank), so memory does not grow with the table.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError, TableNotFoundError

from recsys.columns import CANDIDATE_SOURCE, CANDIDATES, ITEM_ID, RANK, SCORE, USER_ID
from recsys.errors import InputError, RecsysError
from recsys.exports.base import CandidateTable
from recsys.storage.delta import data_files, scan_delta
from recsys.storage.intact import check_intact
from recsys.storage.warehouse import SCHEMAS

BATCH_ROWS: Final = 200_000
LISTED: Final = (ITEM_ID, SCORE, CANDIDATE_SOURCE)  # what differs between the candidates of one user


class Shape(Protocol):
    """Settings that say what rows a copy has."""

    @property
    def layout(self) -> Any:
        """ "long" or "wide"."""

    @property
    def columns(self) -> Mapping[str, str]:
        """Ours to theirs; empty: all."""


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Rows of a copy.

    Attributes
    ----------
    files
        Parquet files of the candidate table.
    empty
        No row, in the columns of the copy.
    frames
        The rows, which can be read once.
    """

    files: list[str]
    empty: pl.DataFrame
    frames: Iterator[pl.DataFrame]


def rows_of(
    candidates: CandidateTable,
    wanted: Shape,
    *,
    section: str = "export",
    numbered: bool = False,
    users: pl.Series | None = None,
) -> Rows:
    """The rows of a version of the candidate table, in the columns and the layout that a target asks for.

    Parameters
    ----------
    section
        Of the settings, for messages.
    numbered
        Give a wide layout numbered columns instead of lists.
    users
        Only their rows; None: all.

    Raises
    ------
    InputError
        Wrong columns, or there is no such table.
    RecsysError
        The table is damaged.
    """
    columns = chosen_columns(wanted, section)
    files, schema = open_table(candidates)
    frames = batches(files, users)
    if wanted.layout == "wide":
        width = longest_list(files) if numbered else None
        shape = partial(wide_rows, columns=columns, width=width)
        frames = whole_users(frames)
    else:
        shape = partial(long_rows, columns=columns)
    try:
        empty = shape(pl.DataFrame(schema=schema))
    except pl.exceptions.DuplicateError:
        raise InputError(
            f"{section}.columns gives two columns of the numbered layout one name; choose different names."
        ) from None
    return Rows(files=files, empty=empty, frames=map(shape, frames))


def chosen_columns(wanted: Shape, section: str = "export") -> dict[str, str]:
    """Column of the candidate table to its name in the copy, in the copy's order.

    Parameters
    ----------
    section
        Of the settings, for messages.

    Raises
    ------
    InputError
        An unknown column, with the nearest one; `rank` in the wide layout; two columns of one name.
    """
    known = [name for name in SCHEMAS[CANDIDATES] if wanted.layout == "long" or name != RANK]
    columns = dict(wanted.columns) or {name: name for name in known}
    for ours in columns:
        if ours == RANK and wanted.layout == "wide":
            raise InputError(
                f"{section}.columns.rank: a wide export has no rank, the place in the list says it; "
                f'leave it out, or set {section}.layout = "long".'
            )
        if ours not in known:
            near = difflib.get_close_matches(ours, known, n=1, cutoff=0.0)[0]
            raise InputError(f"{section}.columns: the candidate table has no column {ours!r}; did you mean {near!r}?")
    names = list(columns.values())
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"{section}.columns gives the name {twice!r} to more than one column; choose different names.")
    return columns


def open_table(candidates: CandidateTable) -> tuple[list[str], pl.Schema]:
    """The table's Parquet files in the order of their names, which is that of the rows, and its schema."""
    try:
        check_intact(DeltaTable(candidates.path), candidates.path)
        table = DeltaTable(candidates.path, version=candidates.version)
        files, schema = data_files(table), scan_delta(table).collect_schema()
    except (TableNotFoundError, DeltaError):
        raise InputError(
            f"There is no version {candidates.version} of a candidate table {candidates.path}; "
            "run `recsys retrieve` first."
        ) from None
    missing = [name for name in SCHEMAS[CANDIDATES] if name not in schema]
    if missing:
        raise InputError(f"{candidates.path} is not a candidate table: it has no column {missing[0]}.")
    return files, schema


def batches(files: list[str], users: pl.Series | None = None) -> Iterator[pl.DataFrame]:
    """The rows, of all users or of some, checked to ascend by (user_id, rank)."""
    if not files:
        return
    before: pl.DataFrame | None = None
    rows = pl.scan_parquet(files)
    rows = rows if users is None else rows.filter(pl.col(USER_ID).is_in(users.implode()))
    for frame in rows.collect_batches(chunk_size=BATCH_ROWS, maintain_order=True):
        keys = frame.select(USER_ID, RANK)
        keys = keys if before is None else pl.concat([before, keys])
        user, rank = pl.col(USER_ID), pl.col(RANK)
        late = (user < user.shift()) | ((user == user.shift()) & (rank <= rank.shift()))
        if keys.select(late.any()).item():
            raise RecsysError(
                "The rows of the candidate table are not in the order in which they were published "
                "(was the table compacted?); run `recsys retrieve` again."
            )
        before = keys.tail(1)
        yield frame


def long_rows(frame: pl.DataFrame, columns: dict[str, str]) -> pl.DataFrame:
    return frame.select(pl.col(ours).alias(theirs) for ours, theirs in columns.items())


def whole_users(frames: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The same rows, cut so that no user is spread over two frames."""
    rest: pl.DataFrame | None = None
    for frame in frames:
        whole = frame if rest is None else pl.concat([rest, frame])
        user = pl.col(USER_ID)  # which may be null: the list of users that are not known
        complete = whole.select(user.ne_missing(user.last())).to_series()
        yield whole.filter(complete)
        rest = whole.filter(~complete)
    if rest is not None:
        yield rest


def wide_rows(frame: pl.DataFrame, columns: dict[str, str], width: int | None) -> pl.DataFrame:
    """A row a user; `width` numbered columns instead of a list where it is given."""
    ours = [name for name in columns if name != USER_ID]
    users = frame.group_by(USER_ID, maintain_order=True).agg(
        pl.col(name) if name in LISTED else pl.col(name).first() for name in ours
    )
    shaped: list[pl.Expr] = []
    for name, theirs in columns.items():
        if name in LISTED and width is not None:
            places = range(width)
            shaped += [pl.col(name).list.get(i, null_on_oob=True).alias(f"{theirs}_{i + 1}") for i in places]
        else:
            shaped.append(pl.col(name).alias(theirs))
    return users.select(shaped)


def longest_list(files: list[str]) -> int:
    if not files:
        return 0
    return int(pl.scan_parquet(files).select(pl.col(RANK).max()).collect(engine="streaming").item() or 0)
