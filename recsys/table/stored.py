"""Rows of a published candidate table, in their order, and merged with new ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

import polars as pl

from recsys.columns import USER_ID
from recsys.errors import RecsysError

_ROWS: Final = 200_000  # in memory at once


def frames(files: list[str]) -> Iterator[pl.DataFrame]:
    """The rows of the table in the order in which they were published.

    Raises
    ------
    RecsysError
        They are in another order.
    """
    last: Any = None
    batches = pl.scan_parquet(files, glob=False).collect_batches(chunk_size=_ROWS, maintain_order=True) if files else ()
    for frame in batches:
        users = frame[USER_ID]
        if not users.is_sorted() or (last is not None and len(users) and users[0] < last):
            raise RecsysError(
                "The rows of the candidate table are not in the order in which they were published (was the table "
                "compacted?); run `recsys retrieve CONFIG` once."
            )
        last = users[-1] if len(users) else last
        yield frame


def merged(others: Iterable[pl.DataFrame], new: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """Merge rows of some users with those of others; both ascend by (user_id, rank), and so does what comes out.

    No user has rows in both. Of each side a frame is in memory.
    """
    coming = iter(new)
    waiting = next(coming, None)
    for frame in others:
        if frame.is_empty():
            continue
        last = pl.lit(frame[USER_ID][-1])
        while waiting is not None:
            due = waiting.filter(pl.col(USER_ID) <= last)
            frame = frame.merge_sorted(due, key=USER_ID) if len(due) else frame
            if len(due) < len(waiting):
                waiting = waiting.slice(len(due))
                break
            waiting = next(coming, None)
        yield frame
    while waiting is not None:
        yield waiting
        waiting = next(coming, None)
