"""Histories of many users as one flat array of item codes plus offsets: no padding, no row per prefix.

The arrays may be files that the system maps into memory: nobody writes into them, and what goes through all events
takes them in blocks. Histories that are parts of others are `Slices` of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID, TIMESTAMP, USER_ID

AT_ONCE: Final = 2**21  # events that are gone through together, so that memory stays small


@dataclass(frozen=True, kw_only=True, eq=False)
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
        offsets = ends_of(ends - starts)
        return Sequences(
            users=self.users[users],
            items=_pieces(self.items, starts, offsets),
            offsets=offsets,
            times=None if self.times is None else _pieces(self.times, starts, offsets),
            attributes=None if self.attributes is None else self.attributes[users],
            context=None if self.context is None else _rows(self.context, starts, offsets),
        )

    def keep(self, kept: np.ndarray) -> Sequences:
        """The events where bool [N] is set; every user stays."""
        return replace(
            self,
            items=self.items[kept],
            offsets=ends_of(counted(kept, self.offsets)),
            times=None if self.times is None else self.times[kept],
            context=None if self.context is None else self.context.filter(pl.Series(kept)),
        )

    def blocks(self, events: int | None = None) -> Iterator[tuple[slice, Sequences]]:
        """All histories, some after the other, about so many events at once; with whose they are."""
        for part in user_blocks(self.offsets, events or AT_ONCE):
            yield part, self._some(part)

    def _some(self, part: slice) -> Sequences:
        """Histories that follow each other, without copies."""
        first, last = int(self.offsets[part.start]), int(self.offsets[part.stop])
        return Sequences(
            users=self.users[part],
            items=self.items[first:last],
            offsets=self.offsets[part.start : part.stop + 1] - first,
            times=None if self.times is None else self.times[first:last],
            attributes=None if self.attributes is None else self.attributes[part],
            context=None if self.context is None else self.context[first:last],
        )


class Slices(Sequences):
    """For each of some users a part of the history in a whole, whose events are copied when they are asked for.

    `select`, `crop` and `blocks` copy no more than they return; an attribute that is read is copied once and kept.

    Attributes
    ----------
    whole
        The histories that they are parts of.
    rows, starts, ends
        int64 [U]: the user's place in the whole, and the events there, `[start, end)` of its flat arrays.
    """

    whole: Sequences
    rows: np.ndarray
    starts: np.ndarray
    ends: np.ndarray

    def __new__(cls, **attributes: Any) -> Sequences:  # type: ignore[misc]
        """Make histories of their own: `replace` of some attributes makes a copy of the others."""
        return Sequences(**attributes)

    @classmethod
    def of(cls, whole: Sequences, rows: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Slices:
        """The parts `[start, end)` of a whole's flat arrays, of the users in these rows; int64 [U] each."""
        made: Slices = object.__new__(cls)
        made.__dict__.update(whole=whole, rows=rows, starts=starts, ends=ends)  # histories are frozen
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Send their own events to another process, and not the whole."""
        return _made, (self.users, self.items, self.offsets, self.times, self.attributes, self.context)

    def __len__(self) -> int:
        return len(self.rows)

    @cached_property
    def users(self) -> pl.Series:
        return self.whole.users[self.rows]

    @cached_property
    def offsets(self) -> np.ndarray:
        return ends_of(self.ends - self.starts)

    @cached_property
    def items(self) -> np.ndarray:
        return _pieces(self.whole.items, self.starts, self.offsets)

    @cached_property
    def times(self) -> np.ndarray | None:
        return None if self.whole.times is None else _pieces(self.whole.times, self.starts, self.offsets)

    @cached_property
    def attributes(self) -> pl.DataFrame | None:
        return None if self.whole.attributes is None else self.whole.attributes[self.rows]

    @cached_property
    def context(self) -> pl.DataFrame | None:
        return None if self.whole.context is None else _rows(self.whole.context, self.starts, self.offsets)

    @property
    def lengths(self) -> np.ndarray:
        """int64 [U] events of each user."""
        return self.ends - self.starts

    def history(self, user: int) -> np.ndarray:
        """int32 view of one user's item codes."""
        return self.whole.items[self.starts[user] : self.ends[user]]

    def select(self, users: np.ndarray) -> Slices:
        """The histories of some users (int indices or a bool mask), in the order given."""
        return Slices.of(self.whole, self.rows[users], self.starts[users], self.ends[users])

    def crop(self, users: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Sequences:
        """For each given user the events in `[start, end)` of the flat arrays."""
        moved = self.starts[users] - self.offsets[users]
        return self.whole.crop(self.rows[users], starts + moved, ends + moved)

    def _some(self, part: slice) -> Sequences:
        return self.whole.crop(self.rows[part], self.starts[part], self.ends[part])


def _made(
    users: pl.Series,
    items: np.ndarray,
    offsets: np.ndarray,
    times: np.ndarray | None,
    attributes: pl.DataFrame | None,
    context: pl.DataFrame | None,
) -> Sequences:
    return Sequences(users=users, items=items, offsets=offsets, times=times, attributes=attributes, context=context)


def ends_of(lengths: np.ndarray) -> np.ndarray:
    """int64 [U + 1]: where histories of these lengths begin, one after the other, and the end."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets


def user_blocks(offsets: np.ndarray, events: int) -> Iterator[slice]:
    """Neighbouring users who together have so many events at most, or one user who has more."""
    start, users = 0, len(offsets) - 1
    while start < users:
        stop = max(start + 1, int(np.searchsorted(offsets, offsets[start] + events, side="right")) - 1)
        yield slice(start, stop)
        start = stop


def counted(flags: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """int64 [U]: how many of each user's flags, bool [N], are set."""
    counts = np.zeros(len(offsets) - 1, dtype=np.int64)
    for part in user_blocks(offsets, AT_ONCE):
        own = offsets[part.start : part.stop + 1]
        sums = ends_of(flags[own[0] : own[-1]])
        counts[part] = np.diff(sums[own - own[0]])
    return counts


def event_counts(items: np.ndarray, size: int) -> np.ndarray:
    """int64 [size + 1]: events of each item code; codes are at most `size`."""
    counts = np.zeros(size + 1, dtype=np.int64)
    for start in range(0, len(items), AT_ONCE):
        counts += np.bincount(items[start : start + AT_ONCE], minlength=size + 1)
    return counts


def first_codes(blocks: Iterable[np.ndarray], size: int) -> np.ndarray:
    """int64: the distinct ones of item codes, which are at most `size`, in the order of their first occurrences."""
    found, seen = [np.zeros(0, dtype=np.int64)], np.zeros(size + 1, dtype=bool)
    for codes in blocks:
        new, first = np.unique(codes[~seen[codes]], return_index=True)
        found.append(new[np.argsort(first)].astype(np.int64))
        seen[new] = True
    return np.concatenate(found)


def _pieces(values: np.ndarray, starts: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Copy the pieces of flat values that begin at `starts`, int64 [U], and are as long as `offsets` say."""
    found = np.empty(offsets[-1], dtype=values.dtype)
    for index, first in _places(starts, offsets):
        found[first : first + len(index)] = values[index]
    return found


def _rows(frame: pl.DataFrame, starts: np.ndarray, offsets: np.ndarray) -> pl.DataFrame:
    """Copy the rows of a frame as `_pieces` does."""
    found = [frame[index] for index, _ in _places(starts, offsets)]
    return pl.concat(found) if found else frame.clear()


def _places(starts: np.ndarray, offsets: np.ndarray) -> Iterator[tuple[np.ndarray, int]]:
    """Yield int64 flat places of the events of some users, and where the first of them goes."""
    lengths = np.diff(offsets)
    for part in user_blocks(offsets, AT_ONCE):
        first, last = int(offsets[part.start]), int(offsets[part.stop])
        # a user's start plus the place inside the user
        yield np.arange(first, last) + np.repeat(starts[part] - offsets[part], lengths[part]), first


def joined(parts: Sequence[Sequences]) -> Sequences:
    """The histories of all parts, ascending by user; no user may be in two of them.

    What not every part knows (times, attributes, context) is left out; a part without users, or without events, has
    nothing to know there.
    """
    if len(parts) == 1:
        return parts[0]
    users = pl.concat([part.users for part in parts])
    timed = [part for part in parts if len(part.items)] or parts[:1]
    owned = [part for part in parts if len(part)] or parts[:1]
    times = [part.times for part in timed if part.times is not None]
    attributes = [part.attributes for part in owned if part.attributes is not None]
    context = [part.context for part in timed if part.context is not None]
    whole = Sequences(
        users=users,
        items=np.concatenate([part.items for part in parts]),
        offsets=ends_of(np.concatenate([part.lengths for part in parts])),
        times=np.concatenate(times) if len(times) == len(timed) else None,
        attributes=pl.concat(attributes) if len(attributes) == len(owned) else None,
        context=pl.concat(context) if len(context) == len(timed) else None,
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
        offsets=ends_of(runs["len"].to_numpy()),
        times=None if times.null_count() else times.dt.epoch("us").to_numpy(),
    )


def to_frame(sequences: Sequences) -> pl.DataFrame:
    """One row an event: `user_id`, `item_id` (the code)."""
    owner = np.repeat(np.arange(len(sequences)), sequences.lengths)
    return pl.DataFrame({USER_ID: sequences.users[owner], ITEM_ID: sequences.items})
