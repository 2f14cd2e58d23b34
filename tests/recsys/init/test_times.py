from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from recsys.columns import INTERACTIONS, ITEM_ID, TIMESTAMP, USER_ID
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.init.times import TimeColumn, Unreadable, read_times
from recsys.settings import Settings
from recsys.storage import warehouse
from tests.recsys.init.guessing import events, guessed, said, write

FORMATS = {
    "%d.%m.%Y %H:%M": "%d.%m.%Y %H:%M",
    "%d.%m.%Y %H:%M:%S": "%d.%m.%Y %H:%M:%S",
    "%-d.%-m.%y": "%d.%m.%y",
    "%m/%d/%Y": "%m/%d/%Y",
    "%d/%m/%Y %I:%M %p": "%d/%m/%Y %I:%M %p",
    "%Y%m%d": "%Y%m%d",
    "%Y%m%d%H%M%S": "%Y%m%d%H%M%S",
    "%Y%m%dT%H%M%SZ": "%Y%m%dT%H%M%S%z",
    "%Y/%m/%d": "%Y/%m/%d",
    "%Y/%m/%d %H:%M:%S.250 UTC": "%Y/%m/%d %H:%M:%S%.f %z",
    "%b %d, %Y": "%b %d, %Y",
    "%d %B %Y, %H:%M": "%d %B %Y, %H:%M",
    "%a, %d %b %Y %H:%M:%S +0000": "%a, %d %b %Y %H:%M:%S %z",
    "%a, %d %b %Y %H:%M:%S GMT": "%a, %d %b %Y %H:%M:%S %z",
    "%d/%b/%Y:%H:%M:%S +0000": "%d/%b/%Y:%H:%M:%S %z",
    "%a %b %d %H:%M:%S %Y": "%a %b %d %H:%M:%S %Y",
    "%m %d, %Y": "%m %d, %Y",
}


def stored(settings: Settings) -> list[tuple[int, int, datetime]]:
    return warehouse.scan(settings.warehouse, INTERACTIONS).select(USER_ID, ITEM_ID, TIMESTAMP).collect().rows()


@pytest.mark.parametrize(("written", "pattern"), FORMATS.items())
def test_times_are_found_by_their_values_whatever_the_column_is_called(
    tmp_path: Path, written: str, pattern: str
) -> None:
    rows = events()
    log = write(
        tmp_path / "shop.csv",
        ["user_id", "item_id", "Spalte 7"],
        [(user, item, f'"{moment.strftime(written)}"') for user, item, moment in rows],
    )
    settings, findings = guessed(tmp_path, log)
    assert settings.interactions.columns["timestamp"] == "Spalte 7"
    assert settings.interactions.time_formats == (pattern,)
    assert said(findings, "no zone") == (not pattern.endswith("z"))
    report = ingest(settings)
    assert report.rows_rejected == {INTERACTIONS: 0}
    clock = "%H:%M" if "%M" in written else ""
    clock += ":%S" if "%S" in written else ""
    day = "%Y-%m-%d " + clock
    expected = {(u, i, moment.strftime(day)) for u, i, moment in rows}  # two equal rows are one event
    assert {(u, i, moment.strftime(day)) for u, i, moment in stored(settings)} == expected


def test_a_newest_first_file_is_stored_oldest_first(tmp_path: Path) -> None:
    rows = events()[::-1]
    lines = [(user, item, moment.strftime("%d.%m.%Y %H:%M:%S")) for user, item, moment in rows]
    settings, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user_id", "item_id", "Datum"], lines))
    assert any("newest events come first" in sentence for sentence in findings.found)
    ingest(settings)
    moments = {(u, i, m.replace(microsecond=0)) for u, i, m in rows}
    assert {(u, i, m) for u, i, m in stored(settings)} == moments


def test_what_the_values_do_not_decide_is_asked_and_the_choice_said(tmp_path: Path) -> None:
    early = [(u, i, m) for u, i, m in events() if m.day <= 12]
    shuffled = early[::2] + early[1::2]
    for separator, choice, other in ((".", "%d.%m.%Y", "month first"), ("/", "%m/%d/%Y", "day first")):
        pattern = f"%d{separator}%m{separator}%Y"
        log = write(
            tmp_path / "log.csv", ["user", "item", "when"], [(u, i, m.strftime(pattern)) for u, i, m in shuffled]
        )
        settings, findings = guessed(tmp_path, log)
        assert settings.interactions.time_format == choice
        assert said(findings, "'when'", other, "GUESS", "time_format")
    # the order of the file decides
    log = write(tmp_path / "log.csv", ["user", "item", "when"], [(u, i, m.strftime("%d/%m/%Y")) for u, i, m in early])
    settings, findings = guessed(tmp_path, log)
    assert settings.interactions.time_format == "%d/%m/%Y"
    assert not said(findings, "time_format")


def test_two_digit_years_may_come_first(tmp_path: Path) -> None:
    values = pl.Series([f"{year:02}/{month:02}/{day:02}" for year in (20, 21) for month in (1, 12) for day in (3, 25)])
    found = read_times(values, "t")
    assert isinstance(found, TimeColumn) and found.formats == ("%y/%m/%d",)
    assert found.moments[-1] == datetime(2021, 12, 25, tzinfo=UTC)


def test_mixed_clocks_become_a_list_of_formats(tmp_path: Path) -> None:
    patterns = ("%d.%m.%Y %H:%M:%S", "%d.%m.%Y %H:%M")
    rows = [(u, i, m.strftime(patterns[row % 3 == 0])) for row, (u, i, m) in enumerate(events())]
    settings, _ = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "t"], rows))
    assert settings.interactions.time_format == patterns
    assert ingest(settings).rows_rejected == {INTERACTIONS: 0}


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([f"{2020 + i % 4}{1 + i % 12:02}" for i in range(60)], "yyyymm"),
        ([str(2001 + i % 20) for i in range(60)], "years"),
        ([f"{44_000 + i}.5" for i in range(60)], "Excel"),
        ([str(638_000_000_000_000_000 + i) for i in range(60)], ".NET"),
    ],
)
def test_numbers_that_cannot_be_read_are_left_out_and_asked_about(tmp_path: Path, values: list[str], kind: str) -> None:
    rows = [(u, i, values[row % 60]) for row, (u, i, _) in enumerate(events())]
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "date"], rows)
    settings, findings = guessed(tmp_path, log)
    assert "timestamp" not in settings.interactions.columns
    assert said(findings, "'date'", kind)
    # a column of our own name would be read by ingest, so nothing is written
    log = write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows)
    with pytest.raises(InputError, match=kind.replace(".", r"\.")):
        guessed(tmp_path, log)


def test_ingest_refuses_dates_as_numbers_and_reads_them_by_their_format(tmp_path: Path) -> None:
    rows = [(u, i, m.strftime("%Y%m%d")) for u, i, m in events()]
    write(tmp_path / "log.csv", ["user_id", "item_id", "timestamp"], rows)
    pl.DataFrame(
        [(u, i, int(t)) for u, i, t in rows], schema=["user_id", "item_id", "timestamp"], orient="row"
    ).write_parquet(tmp_path / "log.parquet")
    for name in ("log.csv", "log.parquet"):
        tree = {"name": "t", "data_root": str(tmp_path), "warehouse": str(tmp_path / name.replace(".", "-"))}

        def settings(tree: dict[str, str] = tree, name: str = name, **how: str) -> Settings:
            return Settings.model_validate({**tree, "interactions": {"source": name, **how}})

        with pytest.raises(InputError, match=r'are dates written as numbers.*time_format = "%Y%m%d"'):
            ingest(settings())
        ingest(settings(time_format="%Y%m%d", timezone="UTC"))
        days = {moment.strftime("%Y%m%d") for _, _, moment in stored(settings())}
        assert days == {day for _, _, day in rows}


def test_of_several_times_the_events_own_is_taken_and_the_others_said(tmp_path: Path) -> None:
    rows = [
        (u, i, datetime(2019, 1, 1 + u % 28).date(), (m + timedelta(days=3)).isoformat(), m.date(), m.isoformat())
        for u, i, m in events()
    ]
    header = ["user", "item", "member_since", "delivered_at", "day", "bought"]
    settings, findings = guessed(tmp_path, write(tmp_path / "log.csv", header, rows))
    assert settings.interactions.columns["timestamp"] == "bought"
    assert said(findings, "'member_since'", "'delivered_at'", "'day'")


def test_a_users_constant_time_is_asked_about(tmp_path: Path) -> None:
    rows = [(u, i, f"2019-01-{1 + u % 28:02}") for u, i, _ in events()]
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "date"], rows))
    assert said(findings, "'date'", "may be those of the user")


def test_times_of_the_day_are_said_to_lack_their_date(tmp_path: Path) -> None:
    rows = [(u, i, m.strftime("%d.%m.%Y"), m.strftime("%H:%M")) for u, i, m in events()]
    settings, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "Datum", "Uhrzeit"], rows))
    assert settings.interactions.columns["timestamp"] == "Datum"
    assert said(findings, "'Uhrzeit'", "one column")


def test_counts_from_another_moment_are_asked_about(tmp_path: Path) -> None:
    rows = [(u, i, 1000 * row) for row, (u, i, _) in enumerate(events(1000))]
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "time"], rows))
    assert said(findings, "1970-01-01 to 1970-01-12", "count from another moment")


@pytest.mark.parametrize(
    ("first", "step", "told"),
    [
        (720_000_000, 3600, "from 2001"),  # read as seconds since 1970 they are of 1992
        (0, 280, "seconds of a day"),
        (19_000, 1, "as days since 1970"),
    ],
)
def test_numbers_that_count_otherwise_are_asked_about(tmp_path: Path, first: int, step: int, told: str) -> None:
    rows = [(u, i, first + step * row) for row, (u, i, _) in enumerate(events(300))]
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "time"], rows))
    assert said(findings, "The times in 'time' look wrong", told)


@pytest.mark.parametrize("values", [["12:30", "14:01"], ["x"], ["1.2.3"], ["31.02.2023"], [None], [True], ["12.5"]])
def test_what_is_no_time(values: list[object]) -> None:
    found = read_times(pl.Series(values, strict=False), "t")
    assert isinstance(found, Unreadable) or not found.plausible


# --- logs without times ---------------------------------------------------------------------------


def test_a_log_without_times_is_asked_about(tmp_path: Path) -> None:
    rows = [(u, i) for u, i, _ in events()]
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item"], rows))
    assert said(findings, "No column holds times", "reverse the file")


def test_numbers_that_fall_say_that_the_newest_come_first(tmp_path: Path) -> None:
    rows = [(9000 - row, u, i) for row, (u, i, _) in enumerate(events())]
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["order_no", "user", "item"], rows))
    assert said(findings, "'order_no' numbers the rows downwards", "NEWEST FIRST")
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["order_no", "user", "item"], rows[::-1]))
    assert not said(findings, "No column holds times")
    assert any("'order_no' numbers the rows upwards" in sentence for sentence in findings.found)


def test_histories_sorted_by_item_are_asked_about(tmp_path: Path) -> None:
    rows = sorted({(u, i) for u, i, _ in events(600)})
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item"], rows))
    assert said(findings, "sorted by 'item'")


def test_days_alone_in_a_file_that_begins_with_the_newest_are_asked_about(tmp_path: Path) -> None:
    rows = [(u % 4, i, m.date()) for u, i, m in events(step=timedelta(hours=2))][::-1]
    _, findings = guessed(tmp_path, write(tmp_path / "log.csv", ["user", "item", "date"], rows))
    assert said(findings, "newest first", "backwards")
