"""Baselines of a past night know the histories that its table knows."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.backtest.baselines import POPULARITY, baseline_lists
from recsys.columns import ITEM_ID, USER_ID
from recsys.ingestion.ingest import ingest
from recsys.settings.read import parse_settings


@pytest.mark.parametrize("fallback", [True, False])
def test_a_user_below_the_filter_has_a_history_where_the_table_serves_him(tmp_path: Path, fallback: bool) -> None:
    walks = {f"u{n}": [f"i{3 + n % 5}", f"i{3 + (n + 1) % 5}", "i1", "i2", f"i{3 + (n + 2) % 5}"] for n in range(20)}
    walks["short"] = ["i1", "i2"]
    rows = [(user, item, 1_700_000_000 + 1000 * at) for user, walk in walks.items() for at, item in enumerate(walk)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(tmp_path / "log.csv")
    settings = parse_settings(
        {
            "name": "shop",
            "data_root": str(tmp_path),
            "warehouse": str(tmp_path / "warehouse"),
            "interactions": {"source": "log.csv"},
            "filter": {"min_user_interactions": 3},
            "retrieve": {"fallback": fallback},
            "evaluate": {"baselines": ["popularity"]},
        }
    )
    found, items = baseline_lists(settings, ingest(settings).versions, pl.Series(["short", "u1"]), 5)
    own = {name: one.filter(pl.col(USER_ID) == "short")[ITEM_ID].to_list() for name, one in found.items()}
    assert items == 7
    assert found["transitions"].filter(pl.col(USER_ID) == "u1").height
    if fallback:
        assert own["transitions"] and own["item-neighbours"]
        assert sorted(own[POPULARITY]) == ["i3", "i4", "i5", "i6", "i7"]  # all that he has not had
    else:
        assert not own["transitions"] and not own["item-neighbours"]
        assert own[POPULARITY][:2] == ["i1", "i2"]  # what sells most
