"""Users whom [filter] leaves out take nothing from the histories of the others."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.data.left_out import histories_of, left_out
from recsys.data.prepare import prepare
from recsys.data.sequences import joined
from recsys.ingestion.ingest import ingest
from recsys.settings.read import parse_settings

CONTEXT = ["event", "hour", "weight"]
OTHERS: dict[str, list[tuple[str, str, int, str, float | None]]] = {
    "nobody": [],
    "one without an event that counts": [("z", "i1", 1_700_000_000, "view", 1.0)],
    "one without a weight": [("z", "i1", 1_700_000_000, "buy", None)],
}


@pytest.mark.parametrize("who", OTHERS)
def test_the_context_of_all_events_is_served(tmp_path: Path, who: str) -> None:
    rows = [(f"u{u}", f"i{(u + s) % 7}", 1_700_000_000 + s * 1000, "buy", 1.0 + s) for u in range(20) for s in range(5)]
    columns = ["user_id", "item_id", "timestamp", "event", "weight"]
    pl.DataFrame([*rows, *OTHERS[who]], schema=columns, orient="row").write_csv(tmp_path / "log.csv")
    settings = parse_settings(
        {
            "name": "shop",
            "data_root": str(tmp_path),
            "warehouse": str(tmp_path / "warehouse"),
            "interactions": {"source": "log.csv"},
            "filter": {"events": ["buy"], "min_user_interactions": 2},
            "model": {"context": CONTEXT},
        }
    )
    versions = ingest(settings).versions
    dataset = prepare(settings, versions)
    serving = dataset.split.serving
    others = left_out(settings, versions, dataset.vocabulary, serving.users)
    everyone = joined([serving, others.histories])
    assert len(everyone) == 20 + bool(OTHERS[who]) and everyone.times is not None
    assert serving.context is not None and everyone.context is not None
    assert everyone.context.head(len(serving.items)).equals(serving.context)
    assert everyone.context.columns == CONTEXT and len(everyone.context) == len(everyone.items)


def test_the_gap_is_measured_between_the_events_that_are_kept(tmp_path: Path) -> None:
    """As training does: an event of an item that the filter leaves out shortens no gap."""
    rows = [(f"u{u}", f"i{(u + s) % 7}", 1_700_000_000 + s * 1000) for u in range(20) for s in range(5)]
    rare = ("u3", "rare", 1_700_000_000 + 1999)  # a second before his third event
    pl.DataFrame([*rows, rare], schema=["user_id", "item_id", "timestamp"], orient="row").write_csv(
        tmp_path / "log.csv"
    )
    settings = parse_settings(
        {
            "name": "shop",
            "data_root": str(tmp_path),
            "warehouse": str(tmp_path / "warehouse"),
            "interactions": {"source": "log.csv"},
            "filter": {"min_item_interactions": 2},
            "model": {"context": ["gap"]},
        }
    )
    versions = ingest(settings).versions
    dataset = prepare(settings, versions)
    serving = dataset.split.serving
    his = serving.select((serving.users == "u3").to_numpy())
    found = histories_of(settings, versions, dataset.vocabulary, his.users)
    assert his.context is not None and his.context["gap"].to_list() == [None, 10, 10, 10, 10]
    assert found.histories.items.tolist() == his.items.tolist()
    assert found.histories.context is not None and found.histories.context.equals(his.context)
    assert found.unknown.rows() == [(0, "rare")]
