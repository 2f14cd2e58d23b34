"""Lists of the candidate table, built or served, as the gate compares them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl
from deltalake import DeltaTable

from recsys.columns import (
    AS_OF,
    CANDIDATE_SOURCE,
    INTERACTIONS_VERSION,
    ITEM_ID,
    ITEMS_VERSION,
    PADDING,
    RANK,
    USER_ID,
)
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.evaluation.ranking import top_codes
from recsys.gate.built import FIRST
from recsys.serving.fallback import PINNED_BY
from recsys.storage.delta import scan_delta


@dataclass(frozen=True, kw_only=True)
class FormerTable:
    """The candidate table that is served now: its rows, lazily, and the version of the log that it was made from.

    `night` is that of the night that made it, and `interactions` that of the last refresh since, if there was one.
    `items` is the version of the catalogue on that night; None: there was none. `as_of` is the night's moment; None:
    the rows do not say.
    """

    rows: pl.LazyFrame
    night: int
    interactions: int
    items: int | None = None
    as_of: datetime | None = None


def former_table(path: str, version: int) -> FormerTable | None:
    """Return the rows of a version of the candidate table; None: it is empty."""
    rows = scan_delta(DeltaTable(path, version=version))
    made_from = pl.col(INTERACTIONS_VERSION)
    ends = rows.select(
        made_from.min().alias("first"), made_from.max().alias("last"), pl.col(ITEMS_VERSION, AS_OF).min()
    ).collect(engine="streaming")
    first, last, items, as_of = ends.row(0)
    if first is None:
        return None
    return FormerTable(rows=rows, night=int(first), interactions=int(last), items=items, as_of=as_of)


def users_of(rows: pl.LazyFrame | None, like: pl.Series) -> pl.Series:
    """Return the users of a table, each once, in no order; `like` has the type of the ids."""
    if rows is None:
        return like.clear()
    return rows.select(pl.col(USER_ID).unique()).collect(engine="streaming")[USER_ID]


def rows_of(rows: pl.LazyFrame, users: pl.Series) -> int:
    """Return the number of rows of these users."""
    wanted = pl.LazyFrame({USER_ID: users})
    return int(rows.join(wanted, on=USER_ID, how="semi").select(pl.len()).collect(engine="streaming").item())


def first_places(rows: pl.LazyFrame, users: pl.Series, vocabulary: Vocabulary) -> np.ndarray:
    """Return the first places of the lists of these users, int64 [U, 10] codes; 0 for no item, and for a pinned one."""
    wanted = pl.DataFrame({USER_ID: users, "row": np.arange(len(users), dtype=np.int64)}).lazy()
    found = (
        rows.filter((pl.col(RANK) <= FIRST) & ~pl.col(CANDIDATE_SOURCE).str.starts_with(PINNED_BY))
        .select(USER_ID, RANK, ITEM_ID)
        .join(wanted, on=USER_ID)
        .collect(engine="streaming")
    )
    lists = np.zeros((len(users), FIRST), dtype=np.int64)
    lists[found["row"].to_numpy(), found[RANK].to_numpy() - 1] = vocabulary.encode(found[ITEM_ID])
    return lists


def popular_lists(popularity: np.ndarray, allowed: np.ndarray, histories: Sequences, exclude_seen: bool) -> np.ndarray:
    """Return the most popular items that the list of each user could hold, int64 [U, 10] codes.

    Parameters
    ----------
    popularity, allowed
        float32 [V + 1], and bool [V + 1]: the items on the shelf.
    histories
        Of U users.
    """
    lists = np.zeros((len(histories), FIRST), dtype=np.int64)
    base = np.where(allowed, popularity, -np.inf).astype(np.float32)
    base[PADDING] = -np.inf
    longest = int(histories.lengths.max(initial=0)) if exclude_seen else 0
    order = top_codes(base[None, :], min(len(base), FIRST + longest))[0]
    for user in range(len(histories)):
        left = order[~np.isin(order, histories.history(user))] if exclude_seen else order
        kept = left[left != PADDING][:FIRST]
        lists[user, : len(kept)] = kept
    return lists


def unseen_shares(trained: pl.DataFrame, asked: pl.DataFrame, names: Sequence[str], most: int) -> dict[str, float]:
    """Return for each attribute the share of the asked rows' values that no trained row has.

    Parameters
    ----------
    names
        Columns of text, or of lists of text.
    most
        Distinct values of a category; an attribute with more, such as a brand, always has new ones.
    """
    found: dict[str, float] = {}
    for name in names:
        known, values = (_values(frame[name]) for frame in (trained, asked))
        if len(values) and 0 < known.n_unique() <= most:
            found[name] = float((~values.is_in(known.unique().implode())).mean())  # type: ignore[arg-type]
    return found


def _values(column: pl.Series) -> pl.Series:
    flat = column.explode() if column.dtype == pl.List else column
    return flat.drop_nulls().cast(pl.String)


def next_hits(former: FormerTable, histories: pl.DataFrame, exclude_seen: bool) -> np.ndarray:
    """Return for each user of a served table who has new events whether his next item was among its first 10.

    Parameters
    ----------
    histories
        `user_id`, `item_id`, in order, and `new`: whether the table could not know the event. With `exclude_seen` the
        next item is the first one that the user has not had before, as the table holds no others.
    """
    frame = histories.with_row_index("place")
    new = frame.filter("new")
    if exclude_seen:
        new = new.join(frame.filter(~pl.col("new")), on=[USER_ID, ITEM_ID], how="anti")
    following = new.sort("place").unique(USER_ID, keep="first", maintain_order=True).select(USER_ID, ITEM_ID)
    lists = former.rows.filter(pl.col(RANK) <= FIRST).select(USER_ID, ITEM_ID)
    known = following.lazy().join(lists.select(USER_ID).unique(), on=USER_ID, how="semi")
    hits = known.join(lists.with_columns(pl.lit(True).alias("hit")), on=[USER_ID, ITEM_ID], how="left")
    return hits.collect(engine="streaming")["hit"].fill_null(False).to_numpy().astype(bool)
