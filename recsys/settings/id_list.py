"""A list of ids, of users or of items, as a section may name it."""

from __future__ import annotations

from typing import Annotated, Literal

from recsys.settings.database import Queried
from recsys.settings.places import IN_DATA


class IdListSettings(Queried):
    """Place of a list of ids, and the column that has them."""

    source: Annotated[str, IN_DATA]  # a file under data_root, a URL or a database
    format: Literal["txt", "csv", "parquet", "sqlite", "duckdb"] | None = None  # None: by the file's ending; else txt
    column: str | None = None  # with the ids; None: user_id, item_id or id, else the only one (csv: without a header)
