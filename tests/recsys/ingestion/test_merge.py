"""A second reading: corrected weights, what the catalogue lists, and types that only accepted rows decide."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import EVENT, INTERACTIONS, ITEM_ID, ITEMS, LISTED, POSITION, TIMESTAMP, USER_ID, USERS, WEIGHT
from recsys.errors import InputError
from recsys.ingestion import merge
from recsys.ingestion.change import commit
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.ingestion.staged import LOG_KEY, StagedLog, stage_rows
from recsys.reading.readers import Rows
from recsys.reading.reasons import DEFECT, FILE_LINE, no_reason
from recsys.reading.sources import SourceFile
from recsys.settings import InteractionSettings, Settings
from recsys.storage import warehouse

NOW = datetime(2024, 6, 1, tzinfo=UTC)
HEADER = "user_id,item_id,timestamp,weight"


def read(root: Path, source: str = "log.csv", rebuild: bool = False, **sections: Any) -> IngestReport:
    log = {"source": source, "max_rejected_share": 0.5}
    tree = {"name": "shop", "data_root": str(root), "warehouse": str(root / "warehouse"), "interactions": log}
    return ingest(Settings.model_validate({**tree, **sections}), now=NOW, rebuild=rebuild)


def put(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


def table(root: Path, name: str = INTERACTIONS) -> pl.DataFrame:
    frame = warehouse.scan(root / "warehouse", name).collect()
    return frame.sort(POSITION if name == INTERACTIONS else frame.columns[0])


# --- corrections ---------------------------------------------------------------------------------------------


def test_another_weight_of_the_same_event_is_a_correction(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,3", "1,11,101,", "2,10,102,4")
    read(tmp_path)
    put(tmp_path / "day2.csv", HEADER, "1,10,100,9", "1,11,101,2", "2,10,102,", "2,12,103,1")
    report = read(tmp_path, "day2.csv")
    assert (report.corrected, report.rows_added) == ({INTERACTIONS: 2}, {INTERACTIONS: 1})
    assert table(tmp_path).select(USER_ID, ITEM_ID, WEIGHT, POSITION).rows() == [
        (1, 10, 9.0, 0),
        (1, 11, 2.0, 1),
        (2, 10, 4.0, 2),  # a missing weight corrects nothing
        (2, 12, 1.0, 3),
    ]
    assert report.versions.interactions == 1  # one commit
    again = read(tmp_path, "day2.csv")
    assert (again.corrected, again.versions.interactions) == ({INTERACTIONS: 0}, 1)


def test_the_last_of_two_rows_of_one_reading_says_the_weight(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,3", "2,10,101,1", "1,10,100,9", "1,10,100,")
    report = read(tmp_path)
    assert table(tmp_path).select(ITEM_ID, WEIGHT, POSITION).rows() == [(10, 9.0, 0), (10, 1.0, 1)]
    assert report.duplicates == {INTERACTIONS: 2}
    assert read(tmp_path).corrected == {INTERACTIONS: 0}


def test_a_log_without_time_is_corrected_by_place(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id,weight", "1,10,1", "1,10,2", "2,20,3")
    read(tmp_path)
    put(tmp_path / "log.csv", "user_id,item_id,weight", "1,10,1", "1,10,5", "2,20,3", "1,11,4")
    report = read(tmp_path)
    assert (report.corrected, report.rows_added) == ({INTERACTIONS: 1}, {INTERACTIONS: 1})
    assert table(tmp_path)[WEIGHT].to_list() == [1.0, 5.0, 3.0, 4.0]


def test_another_event_at_the_same_place_is_a_contradiction(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id,event", "1,10,view", "1,11,view")
    read(tmp_path)
    put(tmp_path / "log.csv", "user_id,item_id,event", "1,10,view", "1,11,buy")
    with pytest.raises(InputError, match="Event 2 of a user is event 'buy' in this log and 'view' in the table"):
        read(tmp_path)


def test_corrections_and_a_line_that_goes_on_are_one_commit(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(f"{HEADER}\n1,10,100,3\n2,20,200,7")
    read(tmp_path)
    (tmp_path / "log.csv").write_text(f"{HEADER}\n1,10,100,4\n2,20,200,75\n")
    assert read(tmp_path).versions.interactions == 1
    assert table(tmp_path)[WEIGHT].to_list() == [4.0, 75.0]


def staged(good: pl.DataFrame, folder: Path) -> StagedLog:
    """Accepted rows of one file."""
    file = SourceFile(name="log", path="", format="parquet", separator="")
    judged = good.lazy().with_row_index(FILE_LINE, offset=1).with_columns(no_reason().alias(DEFECT))
    rows = Rows(file=file, frame=judged, columns=(), digest="")
    one, _ = stage_rows(rows, judged, folder / "log.parquet", timed=True)
    return StagedLog(files=(one,), timed=True, id_types={USER_ID: pl.Int64, ITEM_ID: pl.Int64})


FEW = st.integers(0, 2)
EVENTS = st.lists(st.tuples(FEW, FEW, FEW, st.sampled_from(["a", "b"]), st.none() | FEW), max_size=8)


@settings(max_examples=25, deadline=None)
@given(first=EVENTS, second=EVENTS)
def test_readings_add_up_to_the_newest_weight_of_every_event(
    tmp_path_factory: pytest.TempPathFactory, first: list[Any], second: list[Any]
) -> None:
    """Against a dictionary: an event's place is that of its first row, its weight the last one that was given."""
    root = str(tmp_path_factory.mktemp("w"))
    expected: dict[Any, float | None] = {}
    for number, reading in enumerate((first, second, second)):
        schema = {USER_ID: pl.Int64, ITEM_ID: pl.Int64, TIMESTAMP: pl.Int64, EVENT: pl.String, WEIGHT: pl.Float64}
        good = pl.DataFrame(reading, schema=schema, orient="row").with_columns(
            pl.col(TIMESTAMP).cast(pl.Datetime("us", "UTC"))
        )
        if not reading:
            continue
        before = dict(expected)
        for user, item, moment, event, weight in reading:
            key = (user, item, moment, event)
            expected[key] = expected.get(key) if weight is None else float(weight)
        record = {"filled": {"name": "x", "sources": [], "rules": {}}}
        as_told = InteractionSettings(source="log")
        change = merge.merge_interactions(root, staged(good, tmp_path_factory.mktemp("s")), [], record, as_told)
        commit(root, change)
        assert change.added == len(expected) - len(before)
        assert change.corrected == sum(expected[key] != weight for key, weight in before.items())
        assert number < 2 or (change.added, change.corrected) == (0, 0)
    if expected:
        held = warehouse.scan(root, INTERACTIONS).collect().sort(POSITION)
        rows = held.with_columns(pl.col(TIMESTAMP).dt.epoch("us")).select(*LOG_KEY, WEIGHT).rows()
        assert rows == [(*key, weight) for key, weight in expected.items()]
        assert held[POSITION].to_list() == list(range(len(expected)))


# --- types of ids --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "footer",
    ["Total,513,,", "Total,513,not a time,", "Total,x,100,not a weight", "Total: 500 rows", "x,y,9999999999,1"],
)
def test_a_rejected_footer_decides_no_type(tmp_path: Path, footer: str) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,3", "2,11,101,4", footer)
    (tmp_path / "more.csv").write_text(f"{HEADER}\n3,12,100,3\n")
    put(tmp_path / "items.csv", "item_id,title", "10,Ten", "11,Eleven", ",Total")
    put(tmp_path / "users.csv", "user_id,age", "1,30", ",Total")
    tables = {"items": {"source": "items.csv", "max_rejected_share": 0.5}}
    tables["users"] = {"source": "users.csv", "max_rejected_share": 0.5}
    report = read(tmp_path, "*o*.csv", **tables)
    assert report.rows_rejected == {INTERACTIONS: 1, ITEMS: 1, USERS: 1}
    for name in (INTERACTIONS, ITEMS, USERS):
        schema = table(tmp_path, name).schema
        assert [schema[column] for column in (USER_ID, ITEM_ID) if column in schema] == [pl.Int64] * (
            2 if name == INTERACTIONS else 1
        )


def test_an_accepted_row_still_makes_ids_text(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,3", "ann,11,101,4", "Total,513,,")
    read(tmp_path)
    assert table(tmp_path).schema[USER_ID] == pl.String
    assert table(tmp_path).schema[ITEM_ID] == pl.Int64


# --- what the catalogue lists --------------------------------------------------------------------------------


def listed(root: Path) -> dict[int, bool]:
    return dict(table(root, ITEMS).select(ITEM_ID, LISTED).iter_rows())


def test_items_say_whether_the_newest_reading_lists_them(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,1,1700000000,")
    put(tmp_path / "items-1.csv", "item_id,title", "1,One", "2,Two")
    put(tmp_path / "items-2.csv", "item_id,title", "3,Three", "4,Four")
    parts = {"items": {"source": "items-*.csv"}}  # a catalogue in parts is one catalogue
    report = read(tmp_path, **parts)
    assert (report.listed, report.delisted, report.warnings) == (4, 0, [])
    assert listed(tmp_path) == dict.fromkeys((1, 2, 3, 4), True)
    put(tmp_path / "items-2.csv", "item_id,title", "4,Four", "5,Five")
    report = read(tmp_path, **parts)
    assert (report.listed, report.delisted, report.rows_added[ITEMS]) == (4, 1, 1)
    assert listed(tmp_path) == {1: True, 2: True, 3: False, 4: True, 5: True}
    assert read(tmp_path, **parts).versions.items == 1  # nothing new, no commit
    put(tmp_path / "items-2.csv", "item_id,title", "3,Three", "4,Four", "5,Five")
    report = read(tmp_path, **parts)
    assert (report.rows_added[ITEMS], listed(tmp_path)[3]) == (0, True)  # it is back


def test_a_catalogue_of_less_than_half_is_warned_about(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,1,1700000000,")
    put(tmp_path / "items.csv", "item_id", *map(str, range(1, 10)))
    read(tmp_path, items={"source": "items.csv"})
    put(tmp_path / "items.csv", "item_id", "1", "2")
    (warning,) = read(tmp_path, items={"source": "items.csv"}).warnings
    assert "lists 2 items and listed 9 before" in warning and 'retrieve.items = "all"' in warning


def test_a_table_from_before_listed_all_its_items(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,1,1700000000,")
    put(tmp_path / "items.csv", "item_id,title", "1,One", "2,Two", "3,Three")
    read(tmp_path, items={"source": "items.csv"})
    root = str(tmp_path / "warehouse")
    warehouse.overwrite(root, ITEMS, table(tmp_path, ITEMS).drop(LISTED), expected=0)
    put(tmp_path / "items.csv", "item_id,title", "1,One", "2,Two")
    assert read(tmp_path, items={"source": "items.csv"}).delisted == 1
    assert listed(tmp_path) == {1: True, 2: True, 3: False}


# --- a source that writes the same log otherwise -------------------------------------------------------------


def timed(moments: str, event: str = "") -> list[str]:
    return [f"{user},{user % 7},{moments.format(user)}{event}" for user in range(10, 40)]


def test_a_new_event_column_does_not_double_the_log(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id,timestamp", *timed("2024-01-01T10:00:{}Z"))
    read(tmp_path)
    put(tmp_path / "log.csv", "user_id,item_id,timestamp,event", *timed("2024-01-01T10:00:{}Z", ",view"))
    with pytest.raises(InputError, match=r"30 of 30 rows of the log are in the table .* without an event there"):
        read(tmp_path)
    assert read(tmp_path, rebuild=True).rows_added == {INTERACTIONS: 30}
    put(tmp_path / "log.csv", "user_id,item_id,timestamp", *timed("2024-01-01T10:00:{}Z"))
    with pytest.raises(InputError, match="with an event there"):
        read(tmp_path)


@pytest.mark.parametrize("moments", ["2024-01-01T10:00:{}.5Z", "2024-01-01T12:00:{}Z"])
def test_times_that_the_source_writes_otherwise_are_warned_about(tmp_path: Path, moments: str) -> None:
    put(tmp_path / "log.csv", "user_id,item_id,timestamp", *timed("2024-01-01T10:00:{}Z"))
    assert read(tmp_path).warnings == []
    put(tmp_path / "log.csv", "user_id,item_id,timestamp", *timed(moments))
    (warning,) = read(tmp_path).warnings
    assert "30 of 30 new events" in warning and "--rebuild" in warning


def test_a_new_day_is_no_double(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id,timestamp", *timed("2024-01-01T10:00:{}Z"))
    read(tmp_path)
    day = [f"{user},{user % 5},2024-01-02T09:00:00Z" for user in range(10, 40)]
    put(tmp_path / "day2.csv", "user_id,item_id,timestamp", *day)
    report = read(tmp_path, "day2.csv")
    assert (report.rows_added, report.warnings) == ({INTERACTIONS: 30}, [])
