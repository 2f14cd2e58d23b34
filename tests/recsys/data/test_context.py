"""The context of events, worked by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.columns import EVENT, TIMESTAMP, WEIGHT
from recsys.data.context import context_of, gap_buckets, need_context
from recsys.errors import InputError

MONDAY = datetime(2024, 1, 1, 23, 59, 59, tzinfo=UTC)


def log(**changes: Any) -> pl.DataFrame:
    """Two users; the first one's events lie 0, 1 and 90,000 seconds apart."""
    seconds = [0, 0, 1, 90_001, 5]
    columns = {
        "user_id": ["a", "a", "a", "a", "b"],
        "timestamp": pl.Series([MONDAY + timedelta(seconds=s) for s in seconds], dtype=pl.Datetime("us", "UTC")),
        "event": ["view", "", "buy", "view", "view"],
        "weight": [1.0, None, 2.0, 3.0, 0.5],
    }
    return pl.DataFrame(columns | changes)


def test_hours_weekdays_and_gaps() -> None:
    found = context_of(log(), ("event", "hour", "weekday", "gap", "weight"))
    assert found["hour"].to_list() == [23, 23, 0, 1, 0]
    assert found["weekday"].to_list() == [1, 1, 2, 3, 2]
    assert found["gap"].to_list() == [None, 0, 1, 17, None]  # 2^16 <= 90,000 < 2^17; the first event has none
    assert found["event"].to_list() == ["view", None, "buy", "view", "view"]
    assert found["weight"].to_list() == [1.0, None, 2.0, 3.0, 0.5]


@given(st.integers(0, 2**40))
def test_a_bucket_holds_the_gaps_of_one_length_in_bits(seconds: int) -> None:
    assert gap_buckets(pl.Series([seconds * 1_000_000 + 999_999])).to_list() == [seconds.bit_length()]


def test_later_events_change_nothing() -> None:
    names = ("event", "hour", "weekday", "gap", "weight")
    assert context_of(log(), names).head(3).equals(context_of(log().head(3), names))


def test_what_is_not_told_of_any_event_is_null() -> None:
    """Users whose events have no weight stand in a log whose other events have one."""
    bare = log(weight=pl.Series([None] * 5, dtype=pl.Float64), event=[""] * 5)
    for frame in (bare, bare.clear()):
        found = context_of(frame, ("event", "weight"))
        assert found.schema == {"event": pl.String(), "weight": pl.Float64()} and len(found) == len(frame)
        assert found.null_count().row(0) == (len(frame), len(frame))


@pytest.mark.parametrize(
    ("name", "column", "what"),
    [
        ("hour", TIMESTAMP, "no times.*columns.timestamp"),
        ("gap", TIMESTAMP, "no times"),
        ("event", EVENT, "no kinds of events.*columns.event"),
        ("weight", WEIGHT, "no weights.*columns.weight"),
    ],
)
def test_what_the_log_has_not_is_one_sentence(name: str, column: str, what: str) -> None:
    known = {TIMESTAMP: True, EVENT: True, WEIGHT: True}
    need_context((name,), known)
    with pytest.raises(InputError, match=f"model.context names '{name}' and the log has {what}"):
        need_context((name,), known | {column: False})
