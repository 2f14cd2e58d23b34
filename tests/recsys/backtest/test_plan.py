"""The plan of nights: where they lie, and the sentences about logs that are too short for them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from recsys.backtest.plan import DAY, WEEK, parse_every, parse_until, plan_nights
from recsys.errors import InputError


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1_000_000)


def test_the_last_window_ends_with_the_last_event_s_day_and_the_nights_follow_each_other() -> None:
    plan = plan_nights(at("2026-01-01T10:00"), at("2026-01-10T08:00"), nights=3, every=DAY)
    assert [night.label for night in plan.nights] == ["2026-01-08", "2026-01-09", "2026-01-10"]
    assert [night.number for night in plan.nights] == [1, 2, 3]
    assert plan.nights[-1].until == at("2026-01-11")
    assert all(a.until == b.at for a, b in zip(plan.nights, plan.nights[1:], strict=False))


def test_an_event_at_midnight_is_in_the_last_window() -> None:
    assert plan_nights(at("2026-01-01"), at("2026-01-10"), nights=1, every=DAY).nights[0].at == at("2026-01-10")


@pytest.mark.parametrize(("last", "every"), [("2026-10-25", WEEK), ("2026-03-20", DAY)])
def test_the_log_s_span_decides_between_weeks_and_days_and_the_plan_says_so(last: str, every: int) -> None:
    plan = plan_nights(at("2026-01-01"), at(last), nights=14, every=None)
    assert plan.every == every
    assert "14 weeks are" in plan.why


def test_until_moves_the_end() -> None:
    plan = plan_nights(at("2026-01-01"), at("2026-03-01"), nights=2, every=WEEK, until=parse_until("2026-02-01T06:00Z"))
    assert [night.label for night in plan.nights] == ["2026-01-18T06:00", "2026-01-25T06:00"]


@pytest.mark.parametrize(
    ("nights", "every", "until", "sentence"),
    [
        (3, 10 * DAY, None, "--every 10d is as long as the whole log"),
        (14, DAY, None, "at most --nights 9"),
        (1, DAY, "2025-12-01", "lies before every event"),
    ],
)
def test_a_log_that_is_too_short_is_told_in_one_sentence(
    nights: int, every: int, until: str | None, sentence: str
) -> None:
    end = None if until is None else parse_until(until)
    with pytest.raises(InputError, match=sentence):
        plan_nights(at("2026-01-01"), at("2026-01-10T08:00"), nights=nights, every=every, until=end)


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "1.5d", "-1d", "7 months"])
def test_a_length_is_a_number_of_hours_days_or_weeks(text: str) -> None:
    with pytest.raises(InputError, match="write hours, days or weeks"):
        parse_every(text)


def test_until_is_a_date() -> None:
    with pytest.raises(InputError, match="is not a date"):
        parse_until("last week")
