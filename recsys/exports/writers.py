"""Files of a copy: Parquet, CSV and JSON lines, written to a file or to an upload as the rows come.

Layout "wide": `item_id`, `score` and `source` become lists in Parquet and JSON lines and numbered columns in CSV
(`item_id_1` to `item_id_<k>`, empty where a list is short).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import Any, Final

import polars as pl
import pyarrow.parquet as pq

ROWS_A_FILE: Final = 5_000_000
MOMENT_FORMAT: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"
ENDINGS: Final = {"parquet": "parquet", "csv": "csv", "jsonl": "jsonl"}

Open = Callable[[int], AbstractContextManager[Any]]  # the file of a number, for bytes


def write_parquet(open_file: Open, empty: pl.DataFrame, frames: Iterable[pl.DataFrame]) -> int:
    """Write numbered Parquet files, at least one; returns the rows."""
    schema = empty.to_arrow().schema
    rows = number = 0
    remaining = iter(frames)
    frame: pl.DataFrame | None = empty
    while frame is not None:
        with open_file(number) as file, pq.ParquetWriter(file, schema, compression="zstd") as writer:
            held = 0
            while frame is not None and held < ROWS_A_FILE:
                if len(frame):
                    writer.write_table(frame.to_arrow().cast(schema))
                held += len(frame)
                frame = next(remaining, None)
        rows += held
        number += 1
    return rows


def write_csv(open_file: Open, empty: pl.DataFrame, frames: Iterable[pl.DataFrame]) -> int:
    """Write one CSV file, UTF-8, with a header and times in UTC; returns the rows."""
    rows = 0
    with open_file(0) as file:
        empty.write_csv(file, datetime_format=MOMENT_FORMAT)
        for frame in frames:
            frame.write_csv(file, include_header=False, datetime_format=MOMENT_FORMAT)
            rows += len(frame)
    return rows


def write_jsonl(open_file: Open, empty: pl.DataFrame, frames: Iterable[pl.DataFrame]) -> int:
    """Write one file of JSON lines, UTF-8, with times in UTC; returns the rows. A score that is no number is null."""
    rows = 0
    with open_file(0) as file:
        for frame in frames:
            with_words(frame).write_ndjson(file)
            rows += len(frame)
    return rows


def with_words(frame: pl.DataFrame) -> pl.DataFrame:
    """The frame with its times written out as JSON has them."""
    return frame.with_columns(pl.col(pl.Datetime).dt.strftime(MOMENT_FORMAT))


WRITERS: Final[dict[str, Callable[[Open, pl.DataFrame, Iterable[pl.DataFrame]], int]]] = {
    "parquet": write_parquet,
    "csv": write_csv,
    "jsonl": write_jsonl,
}


def scan_text(kind: str, file: Any) -> pl.LazyFrame:
    """Rows of a file of CSV or JSON lines, with ids of CSV as text."""
    return pl.scan_csv(file, infer_schema=False) if kind == "csv" else pl.scan_ndjson(file, infer_schema_length=None)
