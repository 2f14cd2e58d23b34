"""Counting pairs of events within bounds: as many as a budget allows, in parts that fit into memory.

Shapes: V items (tables by code have V + 1 rows, row 0 is no item), U users, N events.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import numpy as np
from scipy import sparse

PAIRS: Final = 2_000_000_000  # of events that one source sums
AT_ONCE: Final = 20_000_000  # of them together, so that memory stays small
OF_ROWS: Final = 4_000_000  # of them in a block of rows, whose entries are looked through several times
SEED: Final = 0
OF_EVENT: Final = 20  # bytes of an event of `Together`: in the histories as sets, and in the same by item
OF_COUNTED: Final = 40  # bytes of a pair of events in a block of rows


def squares(lengths: np.ndarray) -> np.ndarray:
    """Pairs of events of histories of these lengths: every event with every one."""
    return lengths.astype(np.int64) ** 2


def affordable(costs: np.ndarray) -> np.ndarray:
    """Users, ascending, int64: all of them, or as many, drawn at random, as cost no more than `PAIRS` together."""
    if costs.sum() <= PAIRS:
        return np.arange(len(costs))
    drawn = np.random.default_rng(SEED).permutation(len(costs))
    return np.sort(drawn[np.cumsum(costs[drawn]) <= PAIRS])


def affordable_length(lengths: np.ndarray, longest: int, cost: Callable[[np.ndarray], np.ndarray] = squares) -> int:
    """Newest events of a history that can be counted: `longest`, or fewer where all would cost more than `PAIRS`.

    Every user stays, and so do more of the rare items than in whole histories of users that are drawn.
    """
    counts = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)
    least, most = 1, longest
    while least < most:
        middle = (least + most + 1) // 2
        cut = np.minimum(np.arange(longest + 1), middle)
        least, most = (middle, most) if (counts * cost(cut)).sum() <= PAIRS else (least, middle - 1)
    return least


def share_counted(lengths: np.ndarray, longest: int, length: int) -> float:
    """Share of the pairs of events that remain where histories of `longest` newest events are cut to `length`."""
    return _share(squares(np.minimum(lengths, length)), squares(np.minimum(lengths, longest)))


def share_drawn(costs: np.ndarray) -> float:
    """Share of the pairs of events that `affordable` leaves."""
    return _share(costs[affordable(costs)], costs)


def _share(counted: np.ndarray, every: np.ndarray) -> float:
    return float(counted.sum() / every.sum()) if every.sum() else 1.0


def newest(items: np.ndarray, offsets: np.ndarray, last: int) -> tuple[np.ndarray, np.ndarray]:
    """Flat histories of their `last` newest events: items, and int64 offsets."""
    lengths = np.diff(offsets)
    kept = np.minimum(lengths, last)
    if (kept == lengths).all():
        return items, offsets
    inside = np.ones(len(items), dtype=bool)
    for user in np.flatnonzero(lengths > last):
        inside[offsets[user] : offsets[user + 1] - last] = False
    return items[inside], np.concatenate([[0], np.cumsum(kept)]).astype(np.int64)


def of_users(items: np.ndarray, offsets: np.ndarray, users: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Flat histories of some users: items, and int64 offsets."""
    lengths = np.diff(offsets)[users]
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return items[np.arange(starts[-1]) + np.repeat(offsets[:-1][users] - starts[:-1], lengths)], starts


def parts(costs: np.ndarray, at_once: int | None = None) -> list[np.ndarray]:
    """Places 0 to U - 1 in parts of about `AT_ONCE` of cost."""
    place = np.cumsum(costs) // (AT_ONCE if at_once is None else at_once)
    return np.split(np.arange(len(costs)), np.flatnonzero(np.diff(place)) + 1) if len(costs) else []


def sets(items: np.ndarray, offsets: np.ndarray, size: int) -> sparse.csr_array:
    """Histories as sets of items: float32 [U, V + 1], 1 where the user had the item; unknown items left out."""
    narrow = offsets.astype(np.int32 if len(items) < 2**31 else np.int64)
    had = sparse.csr_array(((items > 0).astype(np.float32), items.copy(), narrow), shape=(len(offsets) - 1, size + 1))
    had.sum_duplicates()
    had.eliminate_zeros()
    had.data[:] = 1.0
    return had


class Together:
    """Users of each pair of items, counted a block of rows at a time.

    Attributes
    ----------
    users
        float32 [V + 1]: users of an item.
    costs
        int64 [V + 1]: sums that a row takes, no fewer than its entries.
    """

    def __init__(self, had: sparse.csr_array) -> None:
        self._had, self._of_items = had, had.T.tocsr()
        self.users = np.diff(self._of_items.indptr).astype(np.float32)
        self.costs = (self._of_items @ np.diff(had.indptr)).astype(np.int64)

    def blocks(self) -> Iterator[tuple[np.ndarray, sparse.csr_array]]:
        """Codes of consecutive rows int64 [n], and the rows, float32 [n, V + 1], 0 for an item with itself."""
        for codes in parts(self.costs, OF_ROWS):
            block = self._of_items[codes[0] : codes[-1] + 1] @ self._had
            block.data[np.repeat(codes, np.diff(block.indptr)) == block.indices] = 0.0
            block.eliminate_zeros()
            block.sort_indices()
            yield codes, block


def counting_bytes(lengths: np.ndarray) -> int:
    """Memory that `Together` takes of histories of these lengths, beside the table that is made of it."""
    events, every = int(lengths.sum()), int(squares(lengths).sum())
    return OF_EVENT * events + OF_COUNTED * min(every, OF_ROWS)
