"""Histories of many users as one flat array of item codes plus offsets: no padding, no row per prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID, TIMESTAMP, USER_ID


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Sequences:
    """Histories, oldest event first.

    Attributes
    ----------
    users
        [U] raw user ids, ascending.
    items
        int32 [N] item codes, 1 to V.
    offsets
        int64 [U + 1]; user `u` owns `items[offsets[u]:offsets[u + 1]]`.
    times
        int64 [N], microseconds since the epoch (UTC); None where the log has no time.
    attributes
        A row a user: the declared attributes; None where there are none.
    context
        A row an event: what is known of it besides its item, as `model.context` names it; None where it names nothing.
    """

    users: pl.Series
    items: np.ndarray
    offsets: np.ndarray
    times: np.ndarray | None = None
    attributes: pl.DataFrame | None = None
    context: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        if len(self.offsets) != len(self.users) + 1 or self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError(
                f"offsets [{len(self.offsets)}] ending at {self.offsets[-1]} do not fit "
                f"{len(self.users)} users and {len(self.items)} items"
            )

    @classmethod
    def nameless(cls, items: np.ndarray, offsets: np.ndarray) -> Sequences:
        """Histories of users of whom nothing else is known; they are called 0, 1, ..."""
        return cls(users=pl.Series(USER_ID, range(len(offsets) - 1)), items=items, offsets=offsets)

    def __len__(self) -> int:
        return len(self.users)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [U] events of each user."""
        return np.diff(self.offsets)

    def history(self, user: int) -> np.ndarray:
        """int32 view of one user's item codes."""
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    def select(self, users: np.ndarray) -> Sequences:
        """The histories of some users (int indices or a bool mask), in the order given."""
        users = np.flatnonzero(users) if users.dtype == bool else users
        return self.crop(users, self.offsets[users], self.offsets[users + 1])

    def crop(self, users: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Sequences:
        """For each given user the events in `[start, end)` of the flat arrays."""
        lengths = ends - starts
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        # flat index of every kept event: its user's start plus its place inside the user
        index = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
        return Sequences(
            users=self.users[users],
            items=self.items[index],
            offsets=offsets,
            times=None if self.times is None else self.times[index],
            attributes=None if self.attributes is None else self.attributes[users],
            context=None if self.context is None else self.context[index],
        )

    def keep(self, kept: np.ndarray) -> Sequences:
        """The events where bool [N] is set; every user stays."""
        before = np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)
        return replace(
            self,
            items=self.items[kept],
            offsets=before[self.offsets],
            times=None if self.times is None else self.times[kept],
            context=None if self.context is None else self.context.filter(pl.Series(kept)),
        )


def joined(parts: Sequence[Sequences]) -> Sequences:
    """The histories of all parts, ascending by user; no user may be in two of them.

    What not every part knows (times, attributes, context) is left out.
    """
    if len(parts) == 1:
        return parts[0]
    users = pl.concat([part.users for part in parts])
    times = [part.times for part in parts if part.times is not None]
    attributes = [part.attributes for part in parts if part.attributes is not None]
    context = [part.context for part in parts if part.context is not None]
    whole = Sequences(
        users=users,
        items=np.concatenate([part.items for part in parts]),
        offsets=np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]).astype(np.int64),
        times=np.concatenate(times) if len(times) == len(parts) else None,
        attributes=pl.concat(attributes) if len(attributes) == len(parts) else None,
        context=pl.concat(context) if len(context) == len(parts) else None,
    )
    return whole.select(users.arg_sort().to_numpy())


HistoryVectors = Callable[[Sequences], np.ndarray]  # histories of U users to float32 [U, D]


def from_sorted_frame(frame: pl.DataFrame, codes: np.ndarray) -> Sequences:
    """Sequences of a frame sorted by (user, time, place in the log), with the item code of each row.

    Parameters
    ----------
    frame
        Columns `user_id`, `timestamp` (all null in a log without time).
    codes
        int32 [N] item codes, one a row.
    """
    runs = frame.select(pl.col(USER_ID).rle()).unnest(USER_ID)
    times = frame[TIMESTAMP]
    return Sequences(
        users=runs["value"].alias(USER_ID),
        items=codes.astype(np.int32, copy=False),
        offsets=np.concatenate([[0], np.cumsum(runs["len"].to_numpy())]).astype(np.int64),
        times=None if times.null_count() else times.dt.epoch("us").to_numpy(),
    )


def to_frame(sequences: Sequences) -> pl.DataFrame:
    """One row an event: `user_id`, `item_id` (the code)."""
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    return pl.DataFrame({USER_ID: sequences.users[owner], ITEM_ID: sequences.items})
