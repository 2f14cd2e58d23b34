from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.reading.times import NAIVE, SKIPPED, TIME, TimeUnit, check_formats, disguise, with_time


def times(values: Any, unit: TimeUnit = "auto", zone: str | None = None) -> list[datetime | None]:
    frame = pl.LazyFrame({"t": values}) if not isinstance(values, pl.Series) else pl.LazyFrame([values.alias("t")])
    return with_time(frame, "t", unit, zone).collect()[TIME].to_list()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-03-31T02:30:00Z", datetime(2024, 3, 31, 2, 30, tzinfo=UTC)),
        ("2024-03-31 02:30:00.125+02:00", datetime(2024, 3, 31, 0, 30, 0, 125_000, tzinfo=UTC)),
        ("2024-03-31T02:30:00,5-0330", datetime(2024, 3, 31, 6, 0, 0, 500_000, tzinfo=UTC)),
        ("2024-03-31 02:30:00+00", datetime(2024, 3, 31, 2, 30, tzinfo=UTC)),
        ("2024-03-31 02:30:00 UTC", datetime(2024, 3, 31, 2, 30, tzinfo=UTC)),
        ("2024-03-31T02:30z", datetime(2024, 3, 31, 2, 30, tzinfo=UTC)),
        ("2024-03-31T02:30:00.123456789Z", datetime(2024, 3, 31, 2, 30, 0, 123_456, tzinfo=UTC)),
        (" 1711852200 ", datetime(2024, 3, 31, 2, 30, tzinfo=UTC)),
        ("1711852200.25", datetime(2024, 3, 31, 2, 30, 0, 250_000, tzinfo=UTC)),
        ("1711852200125", datetime(2024, 3, 31, 2, 30, 0, 125_000, tzinfo=UTC)),
        ("1711852200125001", datetime(2024, 3, 31, 2, 30, 0, 125_001, tzinfo=UTC)),
        ("1711852200125001999", datetime(2024, 3, 31, 2, 30, 0, 125_001, tzinfo=UTC)),
        ("-1", datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("2024-03-31T02:30:00", None),  # no zone
        ("2024-03-31", None),
        ("2024-03-31T02:30:00-14:59", datetime(2024, 3, 31, 17, 29, tzinfo=UTC)),
        ("2024-03-31T02:30:00+99:99", None),
        ("2024-03-31T02:30:00+15", None),
        ("2024-03-31T02:30:00+01:60", None),
        ("2024-02-30T00:00:00Z", None),
        ("2024-03-31T25:00:00Z", None),
        ("31.03.2024", None),
        ("yesterday", None),
        ("nan", None),
        ("inf", None),
        ("", None),
        (None, None),
    ],
)
def test_times_as_text(text: str | None, expected: datetime | None) -> None:
    assert times(pl.Series([text], dtype=pl.String)) == [expected]


def test_times_with_a_declared_zone_follow_its_clock_changes() -> None:
    written = [
        "2024-03-31 01:59:59",  # winter, UTC+1
        "2024-03-31 02:30:00",  # the clock skips this hour
        "2024-03-31 03:00:00",  # summer, UTC+2
        "2024-10-27 02:30:00",  # the clock passes it twice: the first counts
        "2024-10-27 02:30:00+01:00",  # its own zone wins
        "2024-07-01",
    ]
    expected = [
        datetime(2024, 3, 31, 0, 59, 59, tzinfo=UTC),
        None,
        datetime(2024, 3, 31, 1, tzinfo=UTC),
        datetime(2024, 10, 27, 0, 30, tzinfo=UTC),
        datetime(2024, 10, 27, 1, 30, tzinfo=UTC),
        datetime(2024, 6, 30, 22, tzinfo=UTC),
    ]
    assert times(written, zone="Europe/Berlin") == expected
    # the same clock readings as native values
    naive = [datetime.fromisoformat(text) for text in written[:4]]
    assert times(naive, zone="Europe/Berlin") == expected[:4]
    assert times([date(2024, 7, 1)], zone="Europe/Berlin") == [expected[5]]


def test_native_times() -> None:
    moment = datetime(2024, 3, 31, 2, 30, 0, 125_000, tzinfo=UTC)
    zoned = pl.Series([moment]).dt.convert_time_zone("Asia/Tokyo")
    assert times(zoned) == [moment]
    assert times(zoned.dt.cast_time_unit("ns")) == [moment]
    assert times(zoned.dt.replace_time_zone(None)) == [None]
    assert times([1711852200]) == times([1711852200.0]) == [datetime(2024, 3, 31, 2, 30, tzinfo=UTC)]
    assert times(pl.Series([1711852200], dtype=pl.UInt32)) == [datetime(2024, 3, 31, 2, 30, tzinfo=UTC)]


def test_a_declared_unit_holds_for_every_number() -> None:
    assert times(["1000", "1000.5"], unit="ms") == [
        datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC),
        datetime(1970, 1, 1, 0, 0, 1, 500, tzinfo=UTC),
    ]
    # no silent overflow: 10^18 seconds is no time
    assert times(["1000000000000000000", "1e18"], unit="s") == [None, None]
    assert times([10**18], unit="s") == [None]


def test_naive_is_told_from_unreadable() -> None:
    frame = pl.LazyFrame({"t": ["2024-01-01 10:00", "2024-01-01 10:00Z", "12", "x"]})
    assert with_time(frame, "t", "auto", None).collect()[NAIVE].to_list() == [
        True,
        False,
        False,
        False,
    ]


@given(
    st.datetimes(min_value=datetime(1902, 1, 1), max_value=datetime(2037, 1, 1)),
    st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Kolkata", "UTC"]),
)
def test_a_zoned_time_survives_its_writing(naive: datetime, zone: str) -> None:
    moment = naive.replace(tzinfo=UTC).astimezone(ZoneInfo(zone))
    offset = moment.utcoffset()
    assert offset is not None
    if offset.seconds % 60:  # local mean time; ISO offsets have no seconds
        moment = moment.astimezone(UTC)
    assert times([moment.isoformat()]) == [moment.astimezone(UTC)]
    assert times([(naive - datetime(1970, 1, 1)) // timedelta(microseconds=1)], unit="us") == [
        naive.replace(tzinfo=UTC)
    ]


@pytest.mark.parametrize("unit", ["auto", "s", "ms", "us"])
def test_numbers_beyond_the_calendar_are_no_times(unit: TimeUnit) -> None:
    lowest, highest = -(2**63), 2**63 - 1
    assert times(pl.Series([lowest]), unit) == times([str(lowest)], unit) == [None]
    assert unit == "auto" or times([highest, -highest], unit) == [None, None]
    assert times(["-62135596801000000"], "us") == [None]  # a second before the year 1


FORMATS = [
    ("31.12.2023 14:05", "%d.%m.%Y %H:%M", datetime(2023, 12, 31, 14, 5)),
    ("1.2.2023 9:05", "%d.%m.%Y %H:%M", datetime(2023, 2, 1, 9, 5)),
    ("31.12.23", "%d.%m.%y", datetime(2023, 12, 31)),
    ("12/31/2023", "%m/%d/%Y", datetime(2023, 12, 31)),
    ("31/12/2023 2:05 PM", "%d/%m/%Y %I:%M %p", datetime(2023, 12, 31, 14, 5)),
    ("20231115", "%Y%m%d", datetime(2023, 11, 15)),
    ("20231115143000", "%Y%m%d%H%M%S", datetime(2023, 11, 15, 14, 30)),
    ("2023/11/15", "%Y/%m/%d", datetime(2023, 11, 15)),
    ("Nov 15, 2023", "%b %d, %Y", datetime(2023, 11, 15)),
    ("Wed, 15 Nov 2023 12:45:26 +0100", "%a, %d %b %Y %H:%M:%S %z", datetime(2023, 11, 15, 11, 45, 26)),
    ("Wed, 15 Nov 2023 12:45:26 GMT", "%a, %d %b %Y %H:%M:%S %z", datetime(2023, 11, 15, 12, 45, 26)),
    ("15/Nov/2023:12:45:26 -0330", "%d/%b/%Y:%H:%M:%S %z", datetime(2023, 11, 15, 16, 15, 26)),
    ("2023-11-15 12:45Z", "%Y-%m-%d %H:%M%z", datetime(2023, 11, 15, 12, 45)),
    ("31.12.23", "%d.%m.%Y", None),  # the year 23
    ("2023111", "%Y%m%d", None),  # which day?
    ("31.12.2023 14:05", "%d.%m.%Y", None),
    ("12/31/2023", "%d/%m/%Y", None),
    ("2023-11-15", "%d.%m.%Y", None),  # with a format, nothing else is read
    ("1700000000", "%d.%m.%Y", None),
]


@pytest.mark.parametrize(("text", "pattern", "expected"), FORMATS)
def test_declared_formats(text: str, pattern: str, expected: datetime | None) -> None:
    check_formats([pattern])
    frame = pl.LazyFrame({"t": [f" {text} "]})
    found = with_time(frame, "t", "auto", "UTC", [pattern]).collect()
    assert found[TIME].to_list() == [expected and expected.replace(tzinfo=UTC)]
    assert found[NAIVE].to_list() == [expected is not None and "%z" not in pattern]


def test_of_several_formats_the_first_that_fits_counts() -> None:
    frame = pl.LazyFrame({"t": ["31.12.2023 14:05", "31.12.2023 14:05:06", "1.2.2023", "13/1/2023", "x", None]})
    patterns = ["%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%Y", "%d/%m/%Y"]
    read = with_time(frame, "t", "auto", "UTC", patterns).collect()[TIME].dt.replace_time_zone(None)
    days = [datetime(2023, 12, 31, 14, 5), datetime(2023, 12, 31, 14, 5, 6), datetime(2023, 2, 1)]
    assert read.to_list() == [*days, datetime(2023, 1, 13), None, None]


@pytest.mark.parametrize("values", [[20231115], [20231115.0], ["20231115"]])
def test_a_format_reads_numbers_too(values: list[object]) -> None:
    frame = pl.LazyFrame({"t": values})
    found = with_time(frame, "t", "auto", "Europe/Berlin", ["%Y%m%d"]).collect()[TIME].to_list()
    assert found == [datetime(2023, 11, 14, 23, tzinfo=UTC)]


@pytest.mark.parametrize(
    "pattern", ["", "%d.%m", "%Y-%m", "%Y-%m-%d %H", "%d.%m.%Y %I:%M", "%Q", "%s", "%Z", "dd.mm", "%"]
)
def test_a_format_that_does_not_name_a_moment_is_refused(pattern: str) -> None:
    with pytest.raises(InputError, match=r"interactions\.time_format = "):
        check_formats(["%d.%m.%Y", pattern])


@pytest.mark.parametrize("formats", [[], ["%Y-%m-%d %H:%M:%S"]])
def test_the_hour_that_the_clock_skips_is_told_from_unreadable_times(formats: list[str]) -> None:
    written = ["2021-03-28 02:30:00", "2021-03-28 03:30:00", "2021-10-31 02:30:00", "yesterday", "2021-02-30 02:30:00"]
    for frame in (pl.LazyFrame({"t": written}), pl.LazyFrame({"t": written[:3]}).select(pl.col("t").str.to_datetime())):
        found = with_time(frame, "t", "auto", "Europe/Berlin", formats).collect()
        assert found[SKIPPED].to_list() == [True, False, False, False, False][: len(found)]
        assert found[TIME].is_null().to_list() == [True, False, False, True, True][: len(found)]
    assert not with_time(pl.LazyFrame({"t": written}), "t", "auto", None, formats).collect()[SKIPPED].any()


DISGUISES = [
    ([20231115, 20240229], "yyyymmdd", "%Y%m%d"),
    ([202311151430], "yyyymmddhhmm", "%Y%m%d%H%M"),
    ([20231115143000], "yyyymmddhhmmss", "%Y%m%d%H%M%S"),
    ([202311, 202401], "yyyymm", None),
    ([2023, 1999], "years", None),
    ([44927.5, 45000], "Excel", None),
    ([638356464000000000, 638400000000000000], r"\.NET", None),
    ([133_445_000_000_000_000], "Windows", None),
]


@pytest.mark.parametrize("dtype", [pl.String, pl.Float64, pl.Int64])
@pytest.mark.parametrize(("values", "kind", "pattern"), DISGUISES)
def test_dates_in_disguise(values: list[float], kind: str, pattern: str | None, dtype: type[pl.DataType]) -> None:
    if dtype == pl.Int64 and any(value != int(value) for value in values):
        return
    given = pl.Series("t", [str(value) for value in values] if dtype == pl.String else values, dtype=dtype)
    found = disguise(pl.LazyFrame([pl.concat([given, pl.Series("t", [None], dtype=dtype)])]), "t")
    assert found is not None
    assert re.search(kind, found.kind)
    assert found.pattern == pattern


@pytest.mark.parametrize(
    "values",
    [
        [1700000000],
        [20231115, 20231132],  # seconds of 1970, as one of them is no date
        [1, 2, 3],
        [20231115] * 1000 + [5],  # not among the first thousand
        ["2023-11-15"],
        [None],
        [True],
        [datetime(2023, 11, 15)],
    ],
)
def test_counts_from_1970_are_no_dates_in_disguise(values: list[object]) -> None:
    assert disguise(pl.LazyFrame({"t": values}), "t") is None


@given(st.dates(min_value=date(1990, 1, 1), max_value=date(2100, 12, 31)))
def test_every_date_as_a_number_is_found_and_read(day: date) -> None:
    number = int(day.strftime("%Y%m%d"))
    found = disguise(pl.LazyFrame({"t": [number]}), "t")
    assert found is not None and found.pattern is not None
    read = with_time(pl.LazyFrame({"t": [number]}), "t", "auto", "UTC", [found.pattern]).collect()[TIME].item()
    assert read.date() == day
