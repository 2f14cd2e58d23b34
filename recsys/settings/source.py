"""Source of a table's rows, and how to read them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.settings.conditions import Condition
from recsys.settings.database import Queried, shown
from recsys.settings.places import IN_DATA
from recsys.settings.section import Share

Format = Literal["csv", "jsonl", "json", "parquet", "delta", "sequences", "sqlite", "duckdb"]


class SourceSettings(Queried):
    """Source of a table's rows, and how to read them."""

    # a path, a glob or a list of them; local, s3://, gs://, abfss://; or postgresql://user:${PASSWORD}@host/database
    source: Annotated[str | tuple[str, ...], IN_DATA]
    format: Format | None = None  # None: by the file's extension
    # databases only: a column that grows with every new or changed row, such as updated_at; the next reading begins at
    # the newest value that was read. Of a catalogue, items that are not read stay listed. None: each reading is whole
    watermark: Annotated[str, Field(min_length=1)] | None = None
    watermark_overlap_hours: float = Field(default=0.0, ge=0, le=100_000)  # (hours) begins earlier by, for late rows
    separator: str = ","  # csv only: any string, "::" too
    # csv only: what stands before the fraction of weights, numeric attributes and the numbers that conditions look at;
    # where the separator is a comma, too, such numbers are in quotes
    decimal: Literal[".", ","] = "."
    encoding: str = "utf-8"  # csv, jsonl, sequences: "utf-8", "latin-1", ... any codec that Python knows
    # csv only: the fields' names, for a file without a header line
    fields: Annotated[tuple[str, ...], Field(min_length=1)] | None = None
    max_rejected_share: Share = 0.01  # (0 to 1) more rejected rows than this stop the run
    drop: tuple[Condition, ...] = ()  # rows that meet one of these are left out before they are judged, and counted

    @model_validator(mode="after")
    def _source_is_named(self) -> Self:
        if not self.sources or "" in self.sources:
            raise ValueError(f"source = {self.source!r} names no file; give a path, a glob or a list of them")
        return self

    @model_validator(mode="after")
    def _a_watermark_is_of_a_database(self) -> Self:
        if self.watermark is not None and not self.from_database:
            raise ValueError(
                f"watermark is for databases, and source = {shown(self.sources[0])} names files, which are read whole; "
                "leave it out"
            )
        if self.watermark_overlap_hours and self.watermark is None:
            raise ValueError("watermark_overlap_hours needs watermark, the column by which only new rows are read")
        return self
