"""Rows of a night: rejected ones among the new, their number, the age of the newest one."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from recsys.gate.rows import check_age, check_rejected, check_volume

NOW = datetime(2026, 3, 2, 3, tzinfo=UTC)


def ingested(read: int, rejected: int, *files: str) -> dict[str, Any]:
    return {
        "rows_read": {"interactions": read},
        "rows_rejected": {"interactions": rejected},
        "digests": dict.fromkeys(files or ("log.csv",), "x"),
    }


def part(read: int, rejected: int) -> dict[str, Any]:
    return {**ingested(read, rejected), "begins": {"interactions": {"log.csv": "changed = 2026-03-01"}}}


@pytest.mark.parametrize(
    ("now", "before", "status", "value"),
    [
        (ingested(10_000, 100), None, "passed", 0.01),  # the first night: all rows
        (ingested(10_000, 600), None, "failed", 0.06),
        (ingested(11_000, 600), ingested(10_000, 100), "failed", 0.5),  # a bad day drowns in the whole log
        (ingested(11_000, 110), ingested(10_000, 100), "passed", 0.01),
        (ingested(10_000, 100), ingested(10_000, 100), "skipped", None),  # nothing new
        (ingested(1_000, 10, "monday.csv"), ingested(9_000, 900, "sunday.csv"), "passed", 0.01),  # other files
        (ingested(10, 9), None, "skipped", None),
        (ingested(9_000, 90), ingested(10_000, 100), "passed", 0.01),  # a shorter log is read as a whole
        (part(200, 100), part(100, 90), "failed", 0.5),  # from a watermark on, all rows are new
        (part(100, 1), part(100, 1), "passed", 0.01),
        (ingested(10_000, 100), part(100, 90), "passed", 0.01),  # read anew
    ],
)
def test_rejected_rows_are_a_share_of_the_new_ones(
    now: dict[str, Any], before: dict[str, Any] | None, status: str, value: float | None
) -> None:
    check = check_rejected("interactions", now, before, 0.05)
    assert (check.status, check.value) == (status, value)
    assert check_rejected("interactions", now, before, None).sentence == "Switched off."


@pytest.mark.parametrize(
    ("rows", "earlier", "status"),
    [
        (1000, [900, 1100, 1000] * 3, "passed"),
        (30, [900, 1100, 1000] * 3, "failed"),
        (30_000, [900, 1100, 1000] * 3, "failed"),
        (0, [900, 1100, 1000] * 3, "skipped"),
        (1000, [900, 1100] * 3, "skipped"),
        (6_000, [5, 40, 900, 12, 2000, 70, 30, 300], "passed"),  # a log of few users has such nights
        (200, [1000] * 12 + [150, 150], "passed"),  # Sundays are quiet
    ],
)
def test_volume_is_compared_with_the_median_of_the_nights_before(rows: int, earlier: list[int], status: str) -> None:
    assert check_volume(rows, earlier, 0.05, 20.0).status == status


def test_volume_has_two_limits_of_which_each_can_be_off() -> None:
    assert check_volume(1, [100] * 7, None, 20.0).status == "passed"
    assert check_volume(9_999, [100] * 7, 0.05, None).status == "passed"
    assert check_volume(1, [100] * 7, None, None).sentence == "Switched off."


def test_the_newest_event_has_an_age() -> None:
    assert check_age(NOW - timedelta(hours=30), NOW, 36.0).status == "passed"
    assert check_age(NOW - timedelta(hours=40), NOW, 36.0).status == "failed"
    assert check_age(None, NOW, 36.0).sentence == "The log has no time."
    assert check_age(None, NOW, None).sentence == "Switched off."
