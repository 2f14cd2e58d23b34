"""The table of interactions in parts of whole users, ascending, each small enough to be sorted in memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa

from recsys.columns import EVENT, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT, WITHDRAWAL
from recsys.settings import FilterSettings

PART: Final = 2_500_000  # rows that are sorted in memory at once
BATCH: Final = 500_000  # rows that are divided among the parts at once
_ROWS: Final = "rows"
_PART: Final = "__part"


@dataclass(frozen=True, kw_only=True, eq=False)
class LogUsers:
    """Users of the table of interactions, ascending.

    Attributes
    ----------
    ids
        [U] users, also those with withdrawals alone.
    rows
        int64 [U]: rows of each.
    with_events
        How many have an event.
    withdrawals
        Whether there are any.
    """

    ids: pl.Series
    rows: np.ndarray
    with_events: int
    withdrawals: bool


def users_of(log: pl.LazyFrame) -> LogUsers:
    """Count the rows of each user."""
    taken = pl.col(EVENT) == WITHDRAWAL
    found = log.group_by(USER_ID).agg(
        pl.len().cast(pl.Int64).alias(_ROWS), (~taken).any().alias("events"), taken.any().alias("taken")
    )
    users = found.collect(engine="streaming").sort(USER_ID)
    return LogUsers(
        ids=users[USER_ID],
        rows=users[_ROWS].to_numpy(),
        with_events=int(users["events"].sum()),
        withdrawals=bool(users["taken"].any()),
    )


def needed(log: pl.LazyFrame, users: LogUsers, settings: FilterSettings, context: tuple[str, ...]) -> pl.LazyFrame:
    """The table without the columns that no setting and no withdrawal asks for."""
    events = users.withdrawals or settings.events is not None or EVENT in context
    weights = users.withdrawals or settings.min_weight is not None or WEIGHT in context
    more = [name for name, asked in ((EVENT, events), (WEIGHT, weights)) if asked]
    return log.select(USER_ID, ITEM_ID, TIMESTAMP, POSITION, *more)


def parts_of(log: pl.LazyFrame, users: LogUsers, scratch: Path) -> Iterator[pl.DataFrame]:
    """Yield the rows of neighbouring users, ascending; inside a part they are in no particular order.

    Parameters
    ----------
    scratch
        Folder for what does not fit into memory; empty again at the end.
    """
    ends = np.cumsum(users.rows)
    if not len(ends) or ends[-1] <= PART:
        yield log.collect(engine="streaming")
        return
    cuts = np.unique(np.searchsorted(ends, np.arange(PART, ends[-1], PART)) + 1)
    firsts = users.ids.gather(cuts[cuts < len(ends)])  # of each part but the first
    files = [scratch / f"part-{number}" for number in range(len(firsts) + 1)]
    writers: dict[int, pa.ipc.RecordBatchStreamWriter] = {}
    for batch in log.collect_batches(chunk_size=BATCH, maintain_order=False, engine="streaming"):
        numbers = firsts.search_sorted(batch[USER_ID], side="right").cast(pl.Int32)
        divided = batch.with_columns(numbers.alias(_PART)).partition_by(_PART, as_dict=True, include_key=False)
        for (number,), rows in divided.items():
            table = rows.to_arrow()
            if number not in writers:
                writers[number] = pa.ipc.new_stream(str(files[number]), table.schema)
            writers[number].write_table(table)
    for writer in writers.values():
        writer.close()
    for file in files:
        yield pl.read_ipc_stream(file)
        file.unlink()
