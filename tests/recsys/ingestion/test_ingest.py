from __future__ import annotations

import json
import shutil
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.columns import (
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    LINE,
    LISTED,
    POSITION,
    QUARANTINE,
    RAW,
    REASON,
    REJECTED_AT,
    SOURCE,
    TABLE,
    TIMESTAMP,
    USER_ID,
    USERS,
    WEIGHT,
)
from recsys.errors import InputError, RecsysError
from recsys.ingestion import opening
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.reading.readers import Rows, read_rows
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage import warehouse

NOW = datetime(2024, 6, 1, tzinfo=UTC)


def configured(root: Path, log: dict[str, Any] | None = None, **sections: Any) -> Settings:
    interactions = {"source": "log.csv", "max_rejected_share": 0.5, **(log or {})}
    return Settings.model_validate(
        {
            "name": "test",
            "data_root": str(root),
            "warehouse": str(root / "warehouse"),
            "interactions": interactions,
            **sections,
        }
    )


def run(root: Path, log: dict[str, Any] | None = None, **sections: Any) -> IngestReport:
    return ingest(configured(root, log, **sections), now=NOW)


def table(root: Path, name: str = INTERACTIONS) -> pl.DataFrame:
    frame = warehouse.scan(root / "warehouse", name).collect().drop(LISTED, strict=False)
    return frame.sort(POSITION if name == INTERACTIONS else frame.columns[0])  # a table has no order


def pairs(root: Path) -> list[tuple[Any, Any]]:
    return table(root).select(USER_ID, ITEM_ID).rows()


def put(path: Path, *lines: str) -> None:
    path.write_text("".join(f"{line}\n" for line in lines))


HEADER = "user_id,item_id,timestamp,weight"


def test_an_hour_that_the_clock_skips_has_its_own_reason(tmp_path: Path) -> None:
    times = ["2021-03-28 02:30:00", "2021-03-28 03:30:00", "2021-10-31 02:30:00", "2021-3-4 5:06"]
    put(tmp_path / "log.csv", "user_id,item_id,timestamp", *(f"1,{item},{time}" for item, time in enumerate(times)))
    report = run(tmp_path, {"timezone": "Europe/Berlin"})
    assert report.reasons[INTERACTIONS] == {"time that the zone's clock skips": 1, "unparsable time": 1}


# --- the log ------------------------------------------------------------------------------------------------


def test_a_log_is_read_once(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,5", "1,11,100,", "2,10,90,3", "1,10,100,4")
    report = run(tmp_path)
    assert table(tmp_path).rows() == [
        (1, 10, datetime(1970, 1, 1, 0, 1, 40, tzinfo=UTC), "", 4.0, 0),  # its first row's place, its last row's weight
        (1, 11, datetime(1970, 1, 1, 0, 1, 40, tzinfo=UTC), "", None, 1),
        (2, 10, datetime(1970, 1, 1, 0, 1, 30, tzinfo=UTC), "", 3.0, 2),
    ]
    assert (report.rows_read, report.rows_added, report.duplicates) == (
        {INTERACTIONS: 4},
        {INTERACTIONS: 3},
        {INTERACTIONS: 1},
    )
    assert report.versions == warehouse.TableVersions(interactions=0)
    again = run(tmp_path)
    assert again.rows_added == {INTERACTIONS: 0}
    assert again.versions == report.versions
    assert again.digests == report.digests
    json.dumps(asdict(again))


def test_positions_go_on_and_files_keep_their_order(tmp_path: Path) -> None:
    put(tmp_path / "log-2.csv", HEADER, "1,20,200,", "1,21,201,")
    put(tmp_path / "log-1.csv", "timestamp,item_id,user_id", "300,10,1")  # its own columns, in its own order
    report = run(tmp_path, {"source": "log-*.csv"})
    assert table(tmp_path).select(ITEM_ID, POSITION).rows() == [(10, 0), (20, 1), (21, 2)]
    assert set(report.digests) == {"log-1.csv", "log-2.csv"}
    put(tmp_path / "log-3.csv", HEADER, "1,20,200,", "1,30,50,")
    report = run(tmp_path, {"source": ("log-3.csv", "log-1.csv")})
    assert table(tmp_path).select(ITEM_ID, POSITION).rows() == [(10, 0), (20, 1), (21, 2), (30, 3)]
    assert (report.rows_read[INTERACTIONS], report.rows_added[INTERACTIONS]) == (3, 1)


def test_events_tell_rows_apart(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id,timestamp,event", "1,10,100,view", "1,10,100,buy", "1,10,100,view")
    assert run(tmp_path).rows_added == {INTERACTIONS: 2}


def test_the_table_decides_the_type_of_ids(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,", "2,10,100,")
    run(tmp_path)
    assert table(tmp_path).schema[USER_ID] == pl.Int64
    put(tmp_path / "log.csv", HEADER, "1,10,100,", "abc,10,100,", "3,10,100,", "007,10,100,", "4,1,1,")
    report = run(tmp_path)
    assert report.reasons == {INTERACTIONS: {"user_id is not an integer, as the table's are": 2}}
    assert pairs(tmp_path) == [(1, 10), (2, 10), (3, 10), (4, 1)]
    # and strings stay strings, though all of a later file's look like integers
    other = tmp_path / "other"
    other.mkdir()
    put(other / "log.csv", HEADER, "1,007,100,")
    run(other)
    put(other / "log.csv", HEADER, "1,7,100,")
    run(other)
    assert pairs(other) == [(1, "007"), (1, "7")]


def test_log_and_catalogue_share_the_type_of_ids(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    put(tmp_path / "items.csv", "item_id,title", "10,Ten", "B1,Bee")
    run(tmp_path, items={"source": "items.csv"})
    assert pairs(tmp_path) == [(1, "10")]
    assert table(tmp_path, ITEMS).rows() == [("10", "Ten"), ("B1", "Bee")]


# --- a log without time --------------------------------------------------------------------------------------


def test_a_log_without_time_is_known_by_place(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id", "1,10", "2,20", "1,10", "1,11")
    report = run(tmp_path)
    assert pairs(tmp_path) == [(1, 10), (2, 20), (1, 10), (1, 11)]  # a repeat is a repeat
    assert run(tmp_path).rows_added == {INTERACTIONS: 0}
    put(tmp_path / "log.csv", "user_id,item_id", "1,10", "1,10", "2,20", "1,11", "2,20", "1,10", "3,5")
    report = run(tmp_path)
    assert report.rows_added == {INTERACTIONS: 3}
    assert pairs(tmp_path)[4:] == [(2, 20), (1, 10), (3, 5)]
    put(tmp_path / "log.csv", "user_id,item_id", "1,10")  # a shorter log says nothing new
    assert run(tmp_path).rows_added == {INTERACTIONS: 0}
    assert table(tmp_path)[TIMESTAMP].null_count() == 7


def test_a_log_without_time_cannot_change_its_past(tmp_path: Path) -> None:
    put(tmp_path / "log.txt", "1 10 11 12", "2 20")
    log = {"source": "log.txt", "format": "sequences"}
    run(tmp_path, log)
    put(tmp_path / "log.txt", "1 10 13 12 14", "2 20 21")
    with pytest.raises(InputError, match=r"Event 2 of a user is item 13 in this log and 11 in the table .*whole and"):
        run(tmp_path, log)
    assert pairs(tmp_path) == [(1, 10), (1, 11), (1, 12), (2, 20)]


def test_a_log_has_times_or_has_none(tmp_path: Path) -> None:
    put(tmp_path / "a.csv", HEADER, "1,10,100,")
    put(tmp_path / "b.csv", "user_id,item_id", "1,10")
    with pytest.raises(InputError, match=r"b.csv has no timestamps and other files of the log have"):
        run(tmp_path, {"source": "*.csv"})
    run(tmp_path, {"source": "a.csv"})
    with pytest.raises(InputError, match=r"This log has no timestamps and the table .* has them"):
        run(tmp_path, {"source": "b.csv"})


# --- quarantine ----------------------------------------------------------------------------------------------


def test_rejected_rows_are_kept_as_they_came(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes(
        b"user_id,item_id,timestamp,weight\n"
        b"1,10,100,5\n"
        b"1,10\n"
        b",10,100,5\n"
        b"1,10,2030-01-01T00:00:00Z,5\n"
        b"1,10,2024-01-01 00:00,5\n"
        b"1,10,soon,5\n"
        b"1,10,100,high\n"
        b"1,1\xe9,100,5\n"
        b'1,"10,100,5\n'
        b"2,20,100,5\n"
    )
    report = run(tmp_path, {"max_rejected_share": 0.9})
    expected = [
        (3, "wrong number of fields", "1,10"),
        (4, "missing user_id", ",10,100,5"),
        (5, "time in the future", "1,10,2030-01-01T00:00:00Z,5"),
        (6, "time without a zone", "1,10,2024-01-01 00:00,5"),
        (7, "unparsable time", "1,10,soon,5"),
        (8, "weight is not a number", "1,10,100,high"),
        (9, "bytes that are not the declared encoding", "1,1\\xe9,100,5"),
        (10, "a quote that is not closed", '1,"10,100,5'),
    ]
    assert table(tmp_path, QUARANTINE).select(LINE, REASON, RAW).sort(LINE).rows() == expected
    assert set(table(tmp_path, QUARANTINE).select(TABLE, SOURCE, REJECTED_AT).rows()) == {
        (INTERACTIONS, "log.csv", NOW)
    }
    assert report.rows_rejected == {INTERACTIONS: 8}
    assert report.reasons == {INTERACTIONS: {reason: 1 for _, reason, _ in sorted(expected, key=lambda row: row[1])}}
    assert (report.rows_read, report.rows_added) == ({INTERACTIONS: 10}, {INTERACTIONS: 2})
    # the same file again: nothing new here either
    run(tmp_path, {"max_rejected_share": 0.9})
    assert warehouse.latest_version(tmp_path / "warehouse", QUARANTINE) == 0
    # a declared zone makes one of them good
    report = run(tmp_path, {"max_rejected_share": 0.9, "timezone": "Europe/Berlin"})
    assert report.rows_added == {INTERACTIONS: 1}
    assert datetime(2023, 12, 31, 23, tzinfo=UTC) in table(tmp_path)[TIMESTAMP].to_list()


def test_too_many_rejected_rows_stop_the_run(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,", "1,11,2024-01-01,", "1,12,2024-01-02,", "1,x")
    put(tmp_path / "items.csv", "item_id,title", "10,Ten")
    with pytest.raises(InputError) as error:
        run(tmp_path, {"max_rejected_share": 0.7}, items={"source": "items.csv"})
    message = str(error.value)
    assert message.startswith(
        "3 of 4 rows of interactions are rejected, more than interactions.max_rejected_share = 0.7 allows: "
        "time without a zone (2), wrong number of fields (1); for example log.csv line 3: '<user>,11,2024-01-01,'"
    )
    assert "warehouse/quarantine: declare interactions.timezone" in message
    for name in (INTERACTIONS, ITEMS):
        assert warehouse.latest_version(tmp_path / "warehouse", name) is None
    assert len(table(tmp_path, QUARANTINE)) == 3
    # exactly the share is allowed
    run(tmp_path, {"max_rejected_share": 0.75}, items={"source": "items.csv"})
    assert pairs(tmp_path) == [(1, 10)]


def test_broken_items_stop_the_log_too(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    put(tmp_path / "items.csv", "item_id,title", "10,Ten", "Eleven")
    with pytest.raises(InputError, match=r"1 of 2 rows of items are rejected.*'Eleven' \(wrong number of fields\)"):
        run(tmp_path, items={"source": "items.csv"})
    assert warehouse.latest_version(tmp_path / "warehouse", INTERACTIONS) is None


def test_a_log_of_broken_rows_only_is_no_log(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1")
    with pytest.raises(InputError, match=r"^1 of 1 rows of interactions are rejected: wrong number of fields"):
        run(tmp_path, {"max_rejected_share": 1.0})


# --- a reading that was cut off ------------------------------------------------------------------------------

LOGS: dict[str, tuple[dict[str, Any], str]] = {
    "csv": ({"source": "log"}, "user_id,item_id,timestamp\n1,b1,964982703\n2,b12,1000000001\n1,b2,964982799\n"),
    "csv with quotes": (
        {"source": "log", "encoding": "latin-1"},
        'timestamp,user_id,item_id\n964982703,1,"ä, 1"\r\n964982704,1,"é ""2"""\r\n964982705,1,"c\nd"',
    ),
    "csv without time": (
        {"source": "log", "separator": "::", "fields": ("user_id", "item_id")},
        "1::5\n2::1193\n1::66\n",
    ),
    "jsonl": ({"source": "log", "format": "jsonl"}, '{"user_id": 1, "item_id": 22}\n{"user_id": 13, "item_id": 24}\n'),
    "sequences": ({"source": "log", "format": "sequences"}, "1 10 110 12\n2 110 1193 4\n"),
}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(LOGS)), data=st.data())
def test_a_file_that_was_cut_off_and_is_read_again_leaves_the_same_table(tmp_path: Path, kind: str, data: Any) -> None:
    options, text = LOGS[kind]
    log = {"format": "csv", "max_rejected_share": 1.0, **options}
    whole = text.encode(log.get("encoding", "utf-8"))
    # anywhere; but the first row tells the type of ids, and a table keeps it
    cuts = data.draw(st.lists(st.integers(whole.index(b"\n") + 1, len(whole)), max_size=3))
    alone, again = Path(tempfile.mkdtemp(dir=tmp_path)), Path(tempfile.mkdtemp(dir=tmp_path))
    (alone / "log").write_bytes(whole)
    run(alone, log)
    for cut in sorted(cuts):
        (again / "log").write_bytes(whole[:cut])
        try:
            run(again, log)
        except InputError as error:
            assert "are rejected" in str(error) or "no rows" in str(error) or "no row that" in str(error)
    (again / "log").write_bytes(whole)
    run(again, log)
    run(again, log)
    assert table(again).equals(table(alone))


@pytest.mark.parametrize(("header", "said"), [("user_id,item_id,ts", True), ("user_id,item_id,colour", False)])
def test_a_log_without_times_says_which_column_may_hold_them(tmp_path: Path, header: str, said: bool) -> None:
    (tmp_path / "log.csv").write_text(f"{header}\n1,10,100\n1,11,101\n")
    warnings = run(tmp_path, {"source": "log.csv"}).warnings
    assert len(warnings) == said
    assert not said or "if 'ts' holds their times, set interactions.columns" in warnings[0]


def test_a_whole_file_without_a_last_line_end_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"{HEADER}\n1,10,100,")
    (tmp_path / "b.csv").write_text(f"{HEADER}\n2,20,100,4")
    run(tmp_path, {"source": "*.csv"})
    assert pairs(tmp_path) == [(1, 10), (2, 20)]
    # the file is moved, and grows by whole lines
    (tmp_path / "b.csv").rename(tmp_path / "c.csv")
    (tmp_path / "c.csv").write_text(f"{HEADER}\n2,20,100,4\n3,30,100,1")
    run(tmp_path, {"source": "*.csv"})
    assert pairs(tmp_path) == [(1, 10), (2, 20), (3, 30)]
    # the last line goes on after all, in one file of many and under another name
    (tmp_path / "c.csv").rename(tmp_path / "d.csv")
    (tmp_path / "d.csv").write_text(f"{HEADER}\n2,20,100,4\n3,30,100,15\n")
    run(tmp_path, {"source": ("a.csv", "d.csv")})
    assert table(tmp_path).select(USER_ID, WEIGHT, pl.col(TIMESTAMP).dt.epoch("s")).rows() == [
        (1, None, 100),
        (2, 4.0, 100),
        (3, 15.0, 100),
    ]


def test_a_line_that_is_cut_off_while_the_log_is_read_gives_no_event(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, header, last = tmp_path / "log.csv", "user_id,item_id,timestamp", "9,90,964982705"
    put(path, header, "1,10,964982703")

    def grown(*given: Any) -> Rows:
        rows = read_rows(*given)
        with path.open("a") as file:
            file.write(last[:10])  # which looks right
        return rows

    with monkeypatch.context() as patch:
        patch.setattr(opening, "read_rows", grown)
        run(tmp_path)
    assert pairs(tmp_path) == [(1, 10)]
    put(path, header, "1,10,964982703", last)
    run(tmp_path)
    assert table(tmp_path).select(USER_ID, pl.col(TIMESTAMP).dt.epoch("s")).rows() == [(1, 964982703), (9, 964982705)]


def test_a_kill_before_the_commit_leaves_the_old_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    run(tmp_path)
    put(tmp_path / "log.csv", HEADER, "1,10,100,", "1,11,101,")

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(warehouse, "write_deltalake", killed)
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path)
    assert pairs(tmp_path) == [(1, 10)]
    run(tmp_path)
    assert pairs(tmp_path) == [(1, 10), (1, 11)]


def test_two_processes_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    run(tmp_path)
    put(tmp_path / "log.csv", HEADER, "1,11,100,")
    real = warehouse._write

    def late(*args: Any, **kwargs: Any) -> int:
        monkeypatch.setattr(warehouse, "_write", real)
        run(tmp_path)  # the other one is faster
        return real(*args, **kwargs)

    monkeypatch.setattr(warehouse, "_write", late)
    with pytest.raises(RecsysError, match="Another process has written the table"):
        run(tmp_path)
    assert pairs(tmp_path) == [(1, 10), (1, 11)]


# --- items and users -----------------------------------------------------------------------------------------


def test_items_are_brought_up_to_date(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    put(tmp_path / "items.csv", "id,title,year", "11,Eleven,", "10,Ten,1999", "10,TEN,1999")
    section = {"source": "items.csv", "columns": {"item_id": "id"}, "text": ("title",)}
    report = run(tmp_path, items=section)
    assert table(tmp_path, ITEMS).rows() == [(10, "TEN", "1999"), (11, "Eleven", None)]
    assert (report.rows_added[ITEMS], report.duplicates[ITEMS], report.versions.items) == (2, 1, 0)
    assert run(tmp_path, items=section).versions.items == 0  # nothing changed: no commit
    put(tmp_path / "items.csv", "id,title,brand", "12,Twelve,B", "10,TEN,")
    report = run(tmp_path, items=section)
    # ten has lost its year, eleven is not in the file and stays, brand is new
    assert table(tmp_path, ITEMS).to_dicts() == [
        {"item_id": 10, "title": "TEN", "year": None, "brand": None},
        {"item_id": 11, "title": "Eleven", "year": None, "brand": None},
        {"item_id": 12, "title": "Twelve", "year": None, "brand": "B"},
    ]
    assert (report.rows_added[ITEMS], report.versions.items) == (2, 1)
    assert warehouse.scan(tmp_path / "warehouse", ITEMS, 0).collect().height == 2


def test_attributes_may_change_their_type(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,1,100,")
    first, second = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
    put(first, '{"item_id": 1, "tags": "x", "year": 1999, "size": 1}')
    put(second, '{"item_id": 2, "tags": ["y", "z"], "year": 1999.5, "size": "big"}')
    run(tmp_path, items={"source": ("a.jsonl", "b.jsonl")})
    expected = [(1, ["x"], 1999.0, "1"), (2, ["y", "z"], 1999.5, "big")]
    assert table(tmp_path, ITEMS).rows() == expected
    shutil.rmtree(tmp_path / "warehouse")
    run(tmp_path, items={"source": "a.jsonl"})
    run(tmp_path, items={"source": "b.jsonl"})
    assert table(tmp_path, ITEMS).rows() == expected


def test_an_id_map_translates_the_catalogue(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,1,100,")
    put(tmp_path / "items.csv", "item_id,title", "B1,Bee", "C1,Cee", "D1,Dee")
    put(tmp_path / "map.txt", "1 C1", "2 B1")
    section = {"source": "items.csv", "id_map": {"source": "map.txt"}}
    report = run(tmp_path, items=section)
    assert table(tmp_path, ITEMS).rows() == [(1, "Cee"), (2, "Bee")]
    assert (report.unmapped, report.rows_read[ITEMS], report.rows_rejected[ITEMS]) == (1, 3, 0)
    assert set(report.digests) == {"log.csv", "items.csv", "map.txt"}
    put(tmp_path / "map.txt", "1 C1", "2,B1")
    with pytest.raises(InputError, match=r"map.txt line 2: '2,B1' is not two ids .* with ' ' between them"):
        run(tmp_path, items=section)
    put(tmp_path / "map.txt", "C1 1")
    with pytest.raises(InputError, match=r"None of the 3 items has an id that items.id_map knows"):
        run(tmp_path, items=section)


def test_users_are_kept(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    put(tmp_path / "users.dat", "1::F::48067", "2::M::70072")
    section = {"source": "users.dat", "format": "csv", "separator": "::", "fields": ("user_id", "gender", "zip")}
    report = run(tmp_path, users=section)
    assert table(tmp_path, USERS).rows() == [(1, "F", "48067"), (2, "M", "70072")]
    assert report.versions == warehouse.TableVersions(interactions=0, items=None, users=0)


# --- what a user may get wrong -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "message"),
    [
        (
            {"columns": {"item_id": "movieID"}},
            r"log.csv has no column 'movieID' for interactions.columns.item_id; did you mean 'movieId'\? It has 'us",
        ),
        ({"columns": {"item_id": "movieId", "event": "kind"}}, "no column 'kind' for interactions.columns.event"),
        ({}, "log.csv has no column 'item_id' for interactions.columns.item_id"),
        ({"separator": ";"}, r"It has 'user_id,movieId'. Is the separator right\?"),
        ({"source": "header.csv"}, r"interactions.source has no rows: /.*header.csv is empty"),
        ({"source": "nothing.jsonl"}, r"interactions.source has no rows: /.*nothing.jsonl is empty"),
        ({"source": "broken.jsonl"}, "broken.jsonl has no row that can be read as jsonl"),
        ({"source": "absent.csv"}, "There is no absent.csv for interactions.source; looked at /"),
        ({"timezone": "Berlin"}, "interactions.timezone = 'Berlin' is not a time zone"),
    ],
)
def test_a_clear_sentence(tmp_path: Path, log: dict[str, Any], message: str) -> None:
    put(tmp_path / "log.csv", "user_id,movieId", "1,10")
    put(tmp_path / "header.csv", "user_id,item_id")
    put(tmp_path / "nothing.jsonl")
    put(tmp_path / "broken.jsonl", "not json")
    with pytest.raises(InputError, match=message):
        run(tmp_path, log)
    assert not (tmp_path / "warehouse").exists()


def test_attributes_that_the_catalogue_has_not(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    put(tmp_path / "items.csv", "item_id,title,genres", "10,Ten,Drama")
    with pytest.raises(InputError, match=r"items.text names 'titel' .* the nearest: 'title'"):
        run(tmp_path, items={"source": "items.csv", "text": ("titel",)})
    with pytest.raises(InputError, match=r"items.categorical names 'genre' .* the nearest: 'genres'"):
        run(tmp_path, items={"source": "items.csv", "categorical": {"genre": {"separator": "|"}}})


def test_progress_is_told_step_by_step(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", HEADER, "1,10,100,")
    put(tmp_path / "items.csv", "item_id,title", "10,Ten")
    steps: list[tuple[str, int, int]] = []
    ingest(configured(tmp_path, items={"source": "items.csv"}), lambda *step: steps.append(step), NOW)
    assert [done for _, done, _ in steps] == list(range(6))
    assert {total for *_, total in steps} == {6}
    assert steps[0][0] == "reading log.csv" and steps[-1][0] == "writing interactions"


def test_a_catalogue_of_other_items_is_refused_and_nothing_written(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\n1,a\n1,b\n")
    (tmp_path / "items.csv").write_text("item_id,title\nx,Tent\ny,Stove\n")
    with pytest.raises(InputError, match=r"None of the 2 items of items\.csv is in the log.*'a'.*'x'.*items\.id_map"):
        run(tmp_path, items={"source": "items.csv"})
    assert not (tmp_path / "warehouse").exists()
    # it is enough that the table knows one of them, and a later file may hold new items alone
    run(tmp_path)
    (tmp_path / "log.csv").write_text("user_id,item_id\n2,c\n")
    for item in ("a", "z"):
        (tmp_path / "items.csv").write_text(f"item_id,title\n{item},Tent\n")
        assert run(tmp_path, items={"source": "items.csv"}).rows_added[ITEMS] == 1


def test_a_jsonl_log_without_a_column_names_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"person": 1, "item_id": 2}\n')
    with pytest.raises(InputError, match=r"no column 'user_id' .*It has 'item_id', 'person'\.$"):
        run(tmp_path, {"source": "log.jsonl"})


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_files_without_rows_are_skipped_and_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / f"1.{kind}").write_bytes(b"")
    frame = pl.DataFrame({USER_ID: ["u", "v"], ITEM_ID: ["a", "b"]})
    if kind == "csv":
        put(tmp_path / "2.csv", "user_id,item_id")
        frame.write_csv(tmp_path / "3.csv")
    elif kind == "jsonl":
        put(tmp_path / "2.jsonl", "", "")
        frame.write_ndjson(tmp_path / "3.jsonl")
    else:
        frame.clear().write_parquet(tmp_path / "2.parquet")
        frame.write_parquet(tmp_path / "3.parquet")
    report = run(tmp_path, {"source": f"*.{kind}"})
    assert report.skipped == [f"1.{kind}", f"2.{kind}"]
    assert pairs(tmp_path) == [("u", "a"), ("v", "b")]
    (tmp_path / f"3.{kind}").write_bytes(b"")
    with pytest.raises(InputError, match=r"interactions.source has no rows: .*1\.\w+ and 2 more is empty"):
        run(tmp_path, {"source": f"*.{kind}"})


def test_an_empty_id_map_is_told(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id", "u,1")
    put(tmp_path / "items.csv", "item_id,title", "a,A")
    (tmp_path / "map.txt").write_bytes(b"")
    with pytest.raises(InputError, match=r"items.id_map.source is empty: .*map.txt"):
        run(tmp_path, items={"source": "items.csv", "id_map": {"source": "map.txt"}})


def test_lists_in_a_csv_catalogue_are_lists(tmp_path: Path) -> None:
    put(tmp_path / "log.csv", "user_id,item_id", "u,1", "u,2")
    put(tmp_path / "items.csv", "item_id,title,genres", "1,[Rec] (2007),\"['A', 'B']\"", '2,[x],"[""A""]"', "3,y,")
    run(tmp_path, items={"source": "items.csv", "text": ["title", "genres"], "categorical": {"genres": {}}})
    items = table(tmp_path, ITEMS)
    assert items["genres"].to_list() == [["A", "B"], ["A"], None]
    assert items["title"].to_list() == ["[Rec] (2007)", "[x]", "y"]


def test_a_list_as_an_id_is_refused_in_every_format(tmp_path: Path) -> None:
    frame = pl.DataFrame({USER_ID: ["u"], ITEM_ID: [["a", "b"]]})
    frame.write_parquet(tmp_path / "log.parquet")
    frame.write_ndjson(tmp_path / "log.jsonl")
    with pytest.raises(InputError, match=r"'item_id' holds List\(String\); an id must be"):
        run(tmp_path, {"source": "log.parquet"})
    with pytest.raises(InputError, match=r"a list or an object where one value belongs .* one event a line"):
        run(tmp_path, {"source": "log.jsonl"})
    put(tmp_path / "log.jsonl", *['{"user_id": "u", "item_id": "a"}'] * 3, '{"user_id": "u", "item_id": ["a"]}')
    assert run(tmp_path, {"source": "log.jsonl"}).reasons == {
        INTERACTIONS: {"a list or an object where one value belongs": 1}
    }


def test_an_id_is_the_same_in_every_format(tmp_path: Path) -> None:
    put(tmp_path / "1.csv", "user_id,item_id", "u,7")
    put(tmp_path / "2.jsonl", '{"user_id": "v", "item_id": 7.0}', '{"user_id": "w", "item_id": 7}', "{broken")
    pl.DataFrame({USER_ID: ["x"], ITEM_ID: [7.0]}).write_parquet(tmp_path / "3.parquet")
    run(tmp_path, {"source": ["1.csv", "2.jsonl", "3.parquet"]})
    assert pairs(tmp_path) == [("u", 7), ("v", 7), ("w", 7), ("x", 7)]


@pytest.mark.parametrize(
    ("times", "read"),
    [
        ({"values": [1_700_000_000.0, 1_700_000_001.0]}, {}),
        ({"values": [1_700_000_000_000.0, 1_700_000_001_000.0]}, {"time_unit": "ms"}),
        ({"values": [20_231_115.0, 20_231_116.0]}, {"time_format": "%Y%m%d", "timezone": "UTC"}),
    ],
)
def test_times_in_floats_too_short_for_them_are_refused(
    tmp_path: Path, times: dict[str, list[float]], read: dict[str, str]
) -> None:
    columns = {USER_ID: [1, 1], ITEM_ID: [1, 2]}
    short = pl.Series(TIMESTAMP, **times, dtype=pl.Float32)
    pl.DataFrame(columns).with_columns(short).write_parquet(tmp_path / "log.parquet")
    with pytest.raises(InputError, match="are Float32, which holds numbers such as"):
        run(tmp_path, {"source": "log.parquet", **read})
    pl.DataFrame(columns).with_columns(short.cast(pl.Float64)).write_parquet(tmp_path / "log.parquet")
    assert run(tmp_path, {"source": "log.parquet", **read}).rows_added[INTERACTIONS] == 2


def test_small_counts_in_short_floats_are_times(tmp_path: Path) -> None:
    columns = {USER_ID: [1, 1], ITEM_ID: [1, 2], TIMESTAMP: [100.0, 16_000_001.0]}
    frame = pl.DataFrame(columns).with_columns(pl.col(TIMESTAMP).cast(pl.Float32))
    frame.write_parquet(tmp_path / "log.parquet")
    run(tmp_path, {"source": "log.parquet"})
    assert table(tmp_path)[TIMESTAMP].dt.epoch("s").to_list() == [100, 16_000_001]


def test_a_wrong_time_format_is_not_told_as_a_wrong_id(tmp_path: Path) -> None:
    """No row is accepted, so none decides what ids are."""
    rows = [f"user{n},item{n % 3},2024-03-{n + 1:02}" for n in range(20)]
    (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *rows]) + "\n")
    tree = {
        "name": "t",
        "data_root": str(tmp_path),
        "warehouse": str(tmp_path / "warehouse"),
        "interactions": {"source": "log.csv", "time_format": "%d.%m.%Y", "timezone": "UTC"},
    }
    with pytest.raises(InputError, match=r"20 of 20 rows of interactions are rejected.*unparsable time \(20\)"):
        ingest(parse_settings(tree))
