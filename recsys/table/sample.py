"""Pages of a candidate table for people: a sample with titles."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from recsys.columns import ITEM_ID, RANK, RUN, SCORE, TITLE, USER_ID
from recsys.storage.warehouse import scan


def candidate_sample(
    warehouse: str, candidates: Mapping[str, Any], run_id: str, catalogue: Path, *, users: int = 20, k: int = 10
) -> dict[str, list[Any]]:
    """The best k candidates of the first users, with titles, as columns.

    Parameters
    ----------
    candidates
        A report of `retrieve`: `path` and `version` of the candidate table.
    catalogue
        Parquet file with the titles, as a bundle has it.
    """
    table = str(candidates["path"]).rpartition("/")[2]
    rows = scan(warehouse, table, candidates["version"]).filter(pl.col(RUN) == run_id, pl.col(RANK) <= k)
    first = rows.select(USER_ID).unique().sort(USER_ID).head(users)
    titles = pl.scan_parquet(catalogue).select(ITEM_ID, TITLE)
    sample = (
        rows.join(first, on=USER_ID, how="semi")
        .join(titles, on=ITEM_ID, how="left")
        .select(USER_ID, RANK, ITEM_ID, TITLE, pl.col(SCORE).round(4))
        .sort(USER_ID, RANK)
        .collect()
    )
    return sample.to_dict(as_series=False)
