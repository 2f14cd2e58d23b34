"""Accepted rows of a log on disk, a Parquet file a source file, so that a log of any size passes through little memory.

A row has a PLACE, its number among the accepted rows of the reading, and a KEY, a hash that is equal for rows that may
say the same. Both live for one reading.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl

from recsys.columns import EVENT, ITEM_ID, TIMESTAMP, USER_ID, WEIGHT, WITHDRAWAL
from recsys.reading.readers import Rows
from recsys.reading.reasons import DEFECT, FILE_LINE

LOG_KEY: Final = (USER_ID, ITEM_ID, TIMESTAMP, EVENT)
PLACE: Final = "__place"
KEY: Final = "__key"
ROWS_AT_ONCE: Final = 500_000
_GROUP: Final = 250_000  # rows of a Parquet file that are read together


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StagedFile:
    """Judged rows of one file of a log: our columns, FILE_LINE, KEY and DEFECT."""

    rows: Rows
    path: Path
    judged: int  # rows in it
    count: int  # accepted ones
    withdrawals: int
    weighted: bool  # some row has a weight
    first: int | None  # (microseconds since 1970) the earliest time
    last: int | None
    reasons: dict[str, int]  # rows that are not accepted
    dropped: dict[str, int] = field(default_factory=dict)  # rows that a condition of the settings left out
    open_line: int | None = None  # number of a last line that has no line end

    def frame(self) -> pl.LazyFrame:
        """The accepted rows in the order of the file, lazily."""
        frame = pl.scan_parquet(self.path, glob=False)
        return frame.drop(DEFECT) if self.count == self.judged else frame.filter(pl.col(DEFECT).is_null()).drop(DEFECT)

    def broken_lines(self, most: int) -> pl.Series:
        """Numbers of the first lines whose rows are not accepted."""
        lines = pl.scan_parquet(self.path, glob=False).filter(pl.col(DEFECT).is_not_null()).select(FILE_LINE)
        return lines.collect(engine="streaming")[FILE_LINE].sort().head(most)

    def batches(self) -> Iterator[pl.DataFrame]:
        """The accepted rows in parts."""
        whole = pl.scan_parquet(self.path, glob=False)
        for begin in range(0, self.judged, ROWS_AT_ONCE):
            part = whole.slice(begin, ROWS_AT_ONCE).collect()
            yield part.filter(pl.col(DEFECT).is_null()).drop(DEFECT)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class StagedLog:
    """The accepted rows of a reading of the log, in the order of the reading."""

    files: tuple[StagedFile, ...]
    timed: bool
    id_types: dict[str, Any]

    def __len__(self) -> int:
        return sum(file.count for file in self.files)

    @property
    def weighted(self) -> bool:
        """Return whether some row has a weight."""
        return any(file.weighted for file in self.files)

    @property
    def withdrawals(self) -> int:
        """Rows that take an earlier event back."""
        return sum(file.withdrawals for file in self.files)

    @property
    def first(self) -> int | None:
        """Microseconds since 1970 of the earliest event."""
        return min((file.first for file in self.files if file.first is not None), default=None)

    @property
    def last(self) -> int | None:
        """Microseconds since 1970 of the latest event."""
        return max((file.last for file in self.files if file.last is not None), default=None)

    def starts(self) -> list[int]:
        """The PLACE of each file's first row."""
        return list(accumulate((file.count for file in self.files), initial=0))[:-1]

    def frame(self) -> pl.LazyFrame:
        """LOG_KEY, WEIGHT, KEY, PLACE of all rows, lazily."""
        columns = (*LOG_KEY, WEIGHT, KEY, PLACE)
        parts = [
            file.frame().with_row_index(PLACE).with_columns(pl.col(PLACE).cast(pl.Int64) + start).select(columns)
            for file, start in zip(self.files, self.starts(), strict=True)
        ]
        moment = pl.Datetime("us", "UTC")
        schema = {**self.id_types, TIMESTAMP: moment, EVENT: pl.String, WEIGHT: pl.Float64, KEY: pl.UInt64}
        return pl.concat(parts) if parts else pl.LazyFrame(schema={**schema, PLACE: pl.Int64}).select(columns)

    def batches(self) -> Iterator[pl.DataFrame]:
        """LOG_KEY, WEIGHT and PLACE in parts, in the order of the reading."""
        place = 0
        for file in self.files:
            for part in file.batches():
                placed = part.select(
                    *LOG_KEY, WEIGHT, pl.int_range(place, place + pl.len(), dtype=pl.Int64).alias(PLACE)
                )
                place += len(part)
                yield placed

    def without(self, gone: pl.Expr) -> StagedLog:
        """The log without the accepted rows for which an expression of LOG_KEY holds."""
        other = ~gone | pl.col(DEFECT).is_not_null()
        files = tuple(
            rewritten(file, pl.scan_parquet(file.path, glob=False).filter(other), "others") for file in self.files
        )
        return replace(self, files=files)


def key_of(timed: bool) -> pl.Expr:
    """Hash of what makes two rows of a log the same; of a log without time of the user, whose places are counted."""
    return (pl.struct(LOG_KEY).hash() if timed else pl.col(USER_ID).hash()).alias(KEY)


def stage_rows(
    rows: Rows, judged: pl.LazyFrame, path: Path, *, timed: bool, counts: pl.LazyFrame | None = None
) -> tuple[StagedFile, pl.DataFrame | None]:
    """Write the judged rows of one file of a log to `path`, in the order of the file.

    Parameters
    ----------
    judged
        LOG_KEY, WEIGHT, FILE_LINE and DEFECT.
    timed
        Whether the log has times.
    counts
        Something small to collect while the file is read.

    Returns
    -------
    tuple
        The file, and the collected counts.
    """
    keyed = judged.select(*LOG_KEY, WEIGHT, FILE_LINE, DEFECT, key_of(timed))
    found = None
    if counts is None:
        _sink(keyed, path)
    else:
        found = pl.collect_all([_to_parquet(keyed, path), counts], engine="streaming")[1]
    if rows.file.format == "csv" and not _in_order(path):  # records of several lines come last
        ordered = path.with_suffix(".sorted")
        _sink(pl.scan_parquet(path, glob=False).sort(FILE_LINE, maintain_order=True), ordered)
        ordered.replace(path)
    return _looked_at(rows, path), found


def rewritten(file: StagedFile, frame: pl.LazyFrame, ending: str) -> StagedFile:
    """A staged file with other rows, lazily made from its own."""
    path = file.path.with_name(f"{file.path.name}.{ending}")
    _sink(frame, path)
    file.path.unlink()
    return replace(_looked_at(file.rows, path), open_line=file.open_line, dropped=file.dropped)


def _to_parquet(frame: pl.LazyFrame, path: Path) -> pl.LazyFrame:
    return frame.sink_parquet(path, compression="lz4", statistics=False, row_group_size=_GROUP, lazy=True)


def _sink(frame: pl.LazyFrame, path: Path) -> None:
    _to_parquet(frame, path).collect(engine="streaming")


def _in_order(path: Path) -> bool:
    last = 0
    for part in pl.scan_parquet(path, glob=False).select(FILE_LINE).collect_batches(maintain_order=True):
        lines = part[FILE_LINE].to_numpy()
        if len(lines):
            if lines[0] < last or (np.diff(lines) < 0).any():
                return False
            last = lines[-1]
    return True


def _looked_at(rows: Rows, path: Path) -> StagedFile:
    judged = pl.scan_parquet(path, glob=False)
    good = pl.col(DEFECT).is_null()
    moments = pl.col(TIMESTAMP).filter(good).dt.epoch("us")
    told = judged.select(
        pl.len().alias("judged"),
        good.sum().alias("count"),
        ((pl.col(EVENT) == WITHDRAWAL) & good).sum().alias("withdrawals"),
        (pl.col(WEIGHT).is_not_null() & good).any().alias("weighted"),
        moments.min().alias("first"),
        moments.max().alias("last"),
        pl.col(FILE_LINE).max().alias("last_line"),
    ).collect(engine="streaming")
    said = told.row(0, named=True)
    last_line = said.pop("last_line")
    reasons: dict[str, int] = {}
    if said["count"] < said["judged"]:
        defects = judged.filter(~good).group_by(pl.col(DEFECT).cast(pl.String)).len().collect(engine="streaming")
        reasons = dict(defects.iter_rows())
    return StagedFile(rows=rows, path=path, reasons=reasons, open_line=last_line if rows.open_end else None, **said)
