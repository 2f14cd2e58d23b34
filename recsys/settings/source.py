"""Source of a table's rows, and how to read them."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from recsys.settings.conditions import Condition
from recsys.settings.section import Section, Share

Format = Literal["csv", "jsonl", "json", "parquet", "delta", "sequences"]


class SourceSettings(Section):
    """Source of a table's rows, and how to read them."""

    source: str | tuple[str, ...]  # a path, a glob or a list of them; local, s3://, gs://, abfss://
    format: Format | None = None  # None: by the file's extension
    separator: str = ","  # csv only: any string, "::" too
    # csv only: what stands before the fraction of weights, numeric attributes and the numbers that conditions look at
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
    def _decimals_are_not_separators(self) -> Self:
        tabs = self.format is None and all(".tsv" in source.lower() for source in self.sources)
        if self.decimal == self.separator == "," and self.format in (None, "csv") and not tabs:
            raise ValueError('decimal = "," is the separator, too; set one of the two to what it is')
        return self

    @property
    def sources(self) -> tuple[str, ...]:
        """The declared sources, always as a tuple."""
        return (self.source,) if isinstance(self.source, str) else self.source
