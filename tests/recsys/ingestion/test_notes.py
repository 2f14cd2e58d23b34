"""Late events, corrections and repeated rows of a second reading: counted, told, and applied as configured."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from recsys.columns import INTERACTIONS, ITEM_ID, POSITION, WEIGHT
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.settings import Settings
from recsys.storage import warehouse

NOW = datetime(2024, 6, 1, tzinfo=UTC)
HEADER = "user_id,item_id,timestamp,weight\n"
DAY = 86_400


def read(root: Path, **rules: Any) -> IngestReport:
    log = {"source": "log/*.csv", **rules}
    tree = {"name": "shop", "data_root": str(root), "warehouse": str(root / "warehouse"), "interactions": log}
    return ingest(Settings.model_validate(tree), now=NOW)


def put(root: Path, name: str, *rows: tuple[int, int, float, int]) -> None:
    """Rows of user, item, day and weight."""
    (root / "log").mkdir(exist_ok=True)
    lines = [f"{user},{item},{int(1e9 + day * DAY)},{weight}\n" for user, item, day, weight in rows]
    (root / "log" / f"{name}.csv").write_text(HEADER + "".join(lines))


def items(root: Path) -> list[tuple[int, float]]:
    return warehouse.scan(root / "warehouse", INTERACTIONS).collect().sort(POSITION).select(ITEM_ID, WEIGHT).rows()


def two_days(root: Path, **rules: Any) -> IngestReport:
    """A second day with a new event, one of two days and one of half a day before, a correction and a repeat."""
    put(root, "1", (1, 10, 0, 3), (2, 11, 10, 4))
    read(root, **rules)
    put(root, "2", (1, 20, 11, 1), (1, 21, 8, 1), (1, 22, 9.5, 1), (1, 10, 0, 5), (2, 11, 10, 4))
    return read(root, **rules)


def test_late_events_corrections_and_repeats_are_counted_and_told(tmp_path: Path) -> None:
    report = two_days(tmp_path)
    assert (report.late, report.corrected, report.repeated, report.rows_added) == (
        {INTERACTIONS: 1},
        {INTERACTIONS: 1},
        {INTERACTIONS: 1},
        {INTERACTIONS: 3},
    )
    assert report.notes == [
        "New events that are late by more than 24 hours (interactions.late_hours): 1; they were added.",
        "1 row corrected the weight of events in the log.",
        "Rows of log/2.csv that repeat events of the log and change nothing: 1; an event counts once.",
    ]
    assert items(tmp_path) == [(10, 5.0), (11, 4.0), (20, 1.0), (21, 1.0), (22, 1.0)]


def test_late_events_and_corrections_can_be_left_out(tmp_path: Path) -> None:
    report = two_days(tmp_path, late="leave-out", corrections="leave-out", late_hours=6)
    assert (report.late, report.corrected, report.rows_added) == (
        {INTERACTIONS: 2},
        {INTERACTIONS: 0},
        {INTERACTIONS: 1},
    )
    assert "they were left out" in report.notes[0] and 'corrections = "leave-out"' in report.notes[1]
    assert items(tmp_path) == [(10, 3.0), (11, 4.0), (20, 1.0)]
    assert read(tmp_path, late="leave-out", corrections="leave-out", late_hours=6).rows_added == {INTERACTIONS: 0}


def test_the_first_reading_has_no_late_events_and_a_file_that_grew_no_repeats(tmp_path: Path) -> None:
    put(tmp_path, "1", (1, 10, 0, 3), (2, 11, 10, 4))
    assert read(tmp_path).notes == []
    put(tmp_path, "1", (1, 10, 0, 3), (2, 11, 10, 4), (2, 12, 11, 4))
    report = read(tmp_path)
    assert (report.notes, report.rows_added) == ([], {INTERACTIONS: 1})


def test_a_day_under_another_name_is_told_of_and_adds_nothing(tmp_path: Path) -> None:
    put(tmp_path, "1", (1, 10, 0, 3), (2, 11, 10, 4))
    read(tmp_path)
    put(tmp_path, "1-copy", (1, 10, 0, 3), (2, 11, 10, 4))
    report = read(tmp_path)
    assert (report.rows_added, report.repeated) == ({INTERACTIONS: 0}, {INTERACTIONS: 2})
    assert items(tmp_path) == [(10, 3.0), (11, 4.0)]
    assert report.notes == [
        "Rows of log/1-copy.csv that repeat events of the log and change nothing: 2; an event counts once."
    ]


def test_files_that_are_gone_or_hold_less_are_told_of(tmp_path: Path) -> None:
    put(tmp_path, "1", (1, 10, 0, 3), (2, 11, 10, 4))
    put(tmp_path, "2", (1, 20, 10, 1), (1, 21, 10, 1))
    read(tmp_path)
    (tmp_path / "log" / "1.csv").unlink()
    put(tmp_path, "2", (1, 22, 10, 1))  # a log that was begun anew
    report = read(tmp_path)
    assert report.rows_added == {INTERACTIONS: 1} and [item for item, _ in items(tmp_path)] == [10, 11, 20, 21, 22]
    assert report.notes == [
        "Files of the reading before that are no longer there: log/1.csv; their events stay.",
        "Files with fewer rows than at the reading before: log/2.csv; events that were read stay, and rows that were "
        "removed before a reading are lost.",
    ]
    assert read(tmp_path).notes == []


def test_the_setting_of_late_events_is_no_reading_rule(tmp_path: Path) -> None:
    put(tmp_path, "1", (1, 10, 0, 3))
    read(tmp_path)
    assert read(tmp_path, late_hours=48, late="leave-out").already[INTERACTIONS] == {"files": 1, "rows": 1}
