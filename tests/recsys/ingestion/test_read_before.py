"""Files that are in the log whole are not read again, and nothing else is left out."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import INTERACTIONS, ITEM_ID, POSITION, TIMESTAMP, USER_ID, WEIGHT
from recsys.errors import InputError
from recsys.ingestion import opening, read_before
from recsys.ingestion.ingest import IngestReport, ingest
from recsys.reading.readers import read_rows
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage import warehouse
from tests.recsys.audit.forgetting import forget

NOW = datetime(2024, 6, 1, tzinfo=UTC)
HEADER = "user_id,item_id,timestamp"


class Shop:
    """A folder of day files and its readings; `opened` names the files that the last one read."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.opened = root, list[str]()

        def watched(file: Any, *rest: Any) -> Any:
            self.opened.append(file.name)
            return read_rows(file, *rest)

        monkeypatch.setattr(opening, "read_rows", watched)

    def put(self, name: str, *lines: str, header: str = HEADER) -> Path:
        (self.root / name).write_text("".join(f"{line}\n" for line in (header, *lines)))
        return self.root / name

    def read(self, now: datetime = NOW, rebuild: bool = False, **log: Any) -> IngestReport:
        self.opened.clear()
        return ingest(self.settings(**log), now=now, rebuild=rebuild)

    def settings(self, **log: Any) -> Settings:
        tree = {"name": "shop", "data_root": str(self.root), "warehouse": str(self.root / "warehouse")}
        section = {"source": "*.csv", "max_rejected_share": 0.5, **log}
        return parse_settings({**tree, "interactions": section})

    def rows(self) -> list[Any]:
        held = warehouse.scan(self.root / "warehouse", INTERACTIONS).collect().sort(POSITION)
        return held.select(USER_ID, ITEM_ID, pl.col(TIMESTAMP).dt.epoch("s"), WEIGHT).rows()


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    made = Shop(tmp_path, monkeypatch)
    made.put("1.csv", "1,10,100", "2,11,101", "1,10,100", "oops")
    made.put("2.csv", "1,12,200")
    return made


def test_only_new_files_are_read_and_the_report_counts_all(shop: Shop) -> None:
    first = shop.read()
    assert shop.opened == ["1.csv", "2.csv"] and not first.already
    again = shop.read()
    assert shop.opened == [] and again.already == {INTERACTIONS: {"files": 2, "rows": 5}}
    for name in ("versions", "rows_read", "rows_rejected", "reasons", "digests", "skipped"):
        assert getattr(again, name) == getattr(first, name)
    shop.put("3.csv", "1,13,300", "1,10,100")
    third = shop.read()
    assert shop.opened == ["3.csv"]
    assert (third.rows_read, third.rows_added) == ({INTERACTIONS: 7}, {INTERACTIONS: 1})
    assert [row[:3] for row in shop.rows()] == [(1, 10, 100), (2, 11, 101), (1, 12, 200), (1, 13, 300)]
    shop.read()
    assert shop.opened == []


def test_a_touched_file_is_known_by_its_digest(shop: Shop) -> None:
    shop.read()
    os.utime(shop.root / "1.csv", (1, 1))
    shop.read()
    assert shop.opened == []


def test_another_content_of_the_same_size_is_read(shop: Shop) -> None:
    path = shop.root / "2.csv"
    shop.read()
    times = path.stat()
    shop.put("2.csv", "1,19,200")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert shop.read().rows_added == {INTERACTIONS: 1}
    assert shop.opened == ["2.csv"]


def test_a_file_that_was_long_at_rest_is_not_even_digested(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read_before, "_RACE", -(10**18))  # however young
    shop.read()

    def digested(*_: Any) -> str:
        raise AssertionError

    monkeypatch.setattr(read_before, "digest_file", digested)
    shop.read()
    assert shop.opened == []


def test_other_rules_and_other_tables_are_read_whole(shop: Shop) -> None:
    shop.read()
    shop.read(timezone="UTC")  # may make rejected rows good
    assert shop.opened == ["1.csv", "2.csv"]
    with pytest.raises(InputError, match="has changed"):
        shop.read(time_unit="ms")
    with pytest.raises(InputError, match="no column 'itme'"):
        shop.read(columns={"item_id": "itme"})
    assert shop.read(rebuild=True).rows_added == {INTERACTIONS: 3}
    assert shop.opened == ["1.csv", "2.csv"]


def test_a_table_that_was_brought_back_is_read_into_again(shop: Shop) -> None:
    shop.read()
    shop.put("3.csv", "1,13,300")
    shop.read()
    DeltaTable(shop.root / "warehouse" / INTERACTIONS).restore(0)
    assert shop.read().rows_added == {INTERACTIONS: 1}
    assert shop.opened == ["1.csv", "2.csv", "3.csv"]


def test_a_row_of_the_future_is_read_when_it_has_come(shop: Shop) -> None:
    shop.put("2.csv", "1,12,200", f"1,13,{int(NOW.timestamp()) + 60}")
    shop.read()
    report = shop.read(now=datetime(2024, 6, 2, tzinfo=UTC))
    assert (shop.opened, report.rows_added) == (["2.csv"], {INTERACTIONS: 1})


def test_a_forgotten_user_stays_out_of_known_files(shop: Shop) -> None:
    shop.read()
    forget(shop.settings(), ["2"], now=NOW)
    report = shop.read()
    assert (report.rows_added, report.forgotten) == ({INTERACTIONS: 0}, 1)
    shop.put("3.csv", "2,13,300", "3,13,300")
    shop.read()
    report = shop.read()
    assert shop.opened == [] and report.forgotten == 2
    assert [row[0] for row in shop.rows()] == [1, 1, 3]


def test_a_limit_that_became_narrower_shows_the_rejected_rows(shop: Shop) -> None:
    shop.read()
    with pytest.raises(InputError, match=r"1 of 5 rows of interactions are rejected.*1\.csv line 5: 'xxxx'"):
        shop.read(max_rejected_share=0.1)


def test_a_log_without_time_is_read_whole_or_not_at_all(shop: Shop) -> None:
    shop.put("1.csv", "1,10", "2,11", header="user_id,item_id")
    shop.put("2.csv", "1,12", header="user_id,item_id")
    shop.read()
    shop.read()
    assert shop.opened == []
    shop.put("3.csv", "1,13", header="user_id,item_id")
    assert shop.read().rows_added == {INTERACTIONS: 1}
    assert shop.opened == ["1.csv", "2.csv", "3.csv"]


def test_later_files_outweigh_what_is_read_before_them(shop: Shop) -> None:
    header = f"{HEADER},weight"
    (shop.root / "2.csv").unlink()
    shop.put("1.csv", "1,10,100,1", header=header)
    shop.put("3.csv", "1,10,100,3", header=header)
    shop.read()
    shop.put("2.csv", "1,10,100,2", "1,11,101,2", header=header)
    shop.read()
    assert shop.opened == ["2.csv", "3.csv"]
    assert [row[3] for row in shop.rows()] == [3.0, 2.0]
    shop.put("3.csv", "1,12,102,3", header=header)  # the correction is gone: what an earlier file says holds again
    shop.read()
    assert shop.opened == ["1.csv", "2.csv", "3.csv"]
    assert [row[3] for row in shop.rows()] == [2.0, 2.0, 3.0]


FEW = st.integers(0, 2)
DAY = st.lists(st.tuples(FEW, FEW, FEW, st.none() | FEW), min_size=1, max_size=4)
CHANGES = st.lists(st.tuples(st.integers(0, 3), DAY | st.none()), min_size=1, max_size=3)


@settings(max_examples=6, deadline=None)
@given(days=st.lists(DAY, min_size=1, max_size=3), changes=CHANGES)
def test_what_is_not_read_again_would_have_changed_nothing(
    tmp_path_factory: pytest.TempPathFactory, days: list[Any], changes: list[Any]
) -> None:
    """Two warehouses of the same files, one of which knows none of them, hold the same rows after each reading."""
    with pytest.MonkeyPatch.context() as patch:
        knowing, ignorant = (Shop(tmp_path_factory.mktemp("w"), patch) for _ in range(2))

        def write(number: int, day: Any) -> None:
            lines = [",".join("" if value is None else str(value) for value in row) for row in day]
            for shop in (knowing, ignorant):
                shop.put(f"{number}.csv", *lines, header=f"{HEADER},weight")

        def compare() -> None:
            knowing.read()
            with pytest.MonkeyPatch.context() as blind:
                blind.setattr("recsys.ingestion.ingest.known_files", lambda *_: {})
                ignorant.read()
            assert knowing.rows() == ignorant.rows()

        for number, day in enumerate(days):
            write(number, day)
        compare()
        for number, day in changes:
            if day is None:
                for shop in (knowing, ignorant):
                    if len(list(shop.root.glob("*.csv"))) > 1:
                        (shop.root / f"{number}.csv").unlink(missing_ok=True)
            else:
                write(number, day)
            compare()
