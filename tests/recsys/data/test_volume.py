"""Events a day: gaps are zeros, long spans have longer steps, and the newest step is whole."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT, WITHDRAWAL
from recsys.data.volume import volume
from recsys.storage import warehouse

FIRST = datetime(2024, 1, 1, 23, 59, tzinfo=UTC)


def counted(root: Path, days: list[int | None], events: list[str] | None = None) -> dict[str, object]:
    frame = pl.DataFrame(
        {
            USER_ID: [1] * len(days),
            ITEM_ID: range(len(days)),
            TIMESTAMP: [None if day is None else FIRST + timedelta(days=day) for day in days],
            EVENT: events or [""] * len(days),
            WEIGHT: [None] * len(days),
            POSITION: range(len(days)),
        },
        schema_overrides={TIMESTAMP: pl.Datetime("us", "UTC"), WEIGHT: pl.Float64},
    )
    version = warehouse.append(str(root), INTERACTIONS, frame, expected=None)
    return volume(str(root), version)


def test_a_day_without_events_is_a_zero(tmp_path: Path) -> None:
    assert counted(tmp_path, [0, 0, 3, 1, None]) == {
        "events": [2, 1, 0, 1],
        "days": 1,
        "start": "2024-01-01",
        "first": "2024-01-01",
        "last": "2024-01-04",
        "undated": 1,
    }


def test_a_long_span_is_counted_by_weeks_back_from_the_last_event(tmp_path: Path) -> None:
    # 400 days are 58 weeks of which the first is cut: days 393 to 399 are the last one, day 392 is in the one before
    found = counted(tmp_path, [0, 392, 393, 399])
    assert found["days"] == 7 and found["start"] == "2023-12-26"
    assert found["events"] == [1, *[0] * 55, 1, 2]


def test_withdrawals_are_no_events_and_a_log_without_time_has_no_span(tmp_path: Path) -> None:
    assert counted(tmp_path / "a", [0, 1], ["", WITHDRAWAL])["events"] == [1]
    assert counted(tmp_path / "b", [None, None]) == {
        "events": [],
        "days": 1,
        "start": None,
        "first": None,
        "last": None,
        "undated": 2,
    }
