"""[export]: the copy of the candidate table for downstream services."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from recsys.settings.section import Section


class ExportSettings(Section):
    """The copy of the candidate table for downstream services."""

    path: str | None = None  # None: nothing is exported
    format: Literal["parquet", "csv"] = "parquet"
    layout: Literal["long", "wide"] = "long"  # a row a candidate, or a row a user with a list of items
    columns: dict[str, str] = Field(default_factory=dict)  # ours = theirs: which columns, in this order; empty: all
