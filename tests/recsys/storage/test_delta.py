from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from recsys.storage.delta import data_files, scan_delta

FRAME = pl.DataFrame({"user_id": [1, 2, 3], "event": ["view", None, "buy"], "weight": [1.0, float("nan"), None]})


@pytest.fixture(params=["plain", "with a blank", "100% sure", "räksmörgås", "#1?"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> DeltaTable:
    folder = tmp_path / request.param / "table"
    write_deltalake(str(folder), FRAME[:2])
    write_deltalake(str(folder), FRAME[2:], mode="append")
    return DeltaTable(str(folder))


def test_the_rows_are_read_whatever_the_folder_is_called(table: DeltaTable) -> None:
    assert_frame_equal(scan_delta(table).collect().sort("user_id"), FRAME)


def test_the_version_is_the_one_that_was_opened(table: DeltaTable) -> None:
    table.load_as_version(0)
    assert_frame_equal(scan_delta(table).collect().sort("user_id"), FRAME[:2])


def test_only_the_columns_that_are_asked_for_are_read(table: DeltaTable) -> None:
    asked = scan_delta(table).filter(pl.col("user_id") > 1).select("event")
    assert sorted(asked.collect()["event"].to_list(), key=str) == [None, "buy"]
    assert "2/3 COLUMNS" in asked.explain()


def test_what_is_no_number_compares_as_elsewhere_in_polars(table: DeltaTable) -> None:
    found = scan_delta(table).filter(pl.col("weight") > 2).collect()
    assert found["user_id"].to_list() == FRAME.filter(pl.col("weight") > 2)["user_id"].to_list() == [2]


def test_a_column_that_came_later_is_null_before(table: DeltaTable) -> None:
    later = FRAME[:1].with_columns(price=pl.lit(9.5))
    write_deltalake(table.table_uri, later, mode="append", schema_mode="merge")
    table.update_incremental()
    found = scan_delta(table).sort("price", nulls_last=False).collect()
    assert found["price"].to_list() == [None, None, None, 9.5]


def test_a_table_without_rows_has_its_columns(tmp_path: Path) -> None:
    folder = str(tmp_path / "with a blank")
    write_deltalake(folder, FRAME.clear())
    assert_frame_equal(scan_delta(DeltaTable(folder)).collect(), FRAME.clear())


def test_a_partitioned_table_is_read(tmp_path: Path) -> None:
    folder = str(tmp_path / "with a blank")
    write_deltalake(folder, FRAME, partition_by=["event"])
    assert_frame_equal(scan_delta(DeltaTable(folder)).collect().sort("user_id"), FRAME)


def test_the_data_files_are_there(table: DeltaTable) -> None:
    files = data_files(table)
    assert files == sorted(files)
    assert len(files) == 2
    assert pl.scan_parquet(files).select(pl.len()).collect().item() == 3
