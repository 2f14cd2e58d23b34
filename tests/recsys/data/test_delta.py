from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable, write_deltalake
from polars.testing import assert_frame_equal

from recsys.data.delta import data_files, scan_delta

FRAME = pl.DataFrame({"user_id": [1, 2, 3], "event": ["view", None, "buy"], "weight": [1.0, 2.5, None]})


@pytest.fixture(params=["plain", "with a blank", "100% sure", "räksmörgås", "#1?"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> DeltaTable:
    folder = tmp_path / request.param / "table"
    write_deltalake(str(folder), FRAME[:2])
    write_deltalake(str(folder), FRAME[2:], mode="append")
    return DeltaTable(str(folder))


def test_the_rows_are_read_in_a_folder_of_any_name(table: DeltaTable) -> None:
    assert_frame_equal(scan_delta(table).collect().sort("user_id"), FRAME)


def test_the_version_is_the_one_that_was_opened(table: DeltaTable) -> None:
    table.load_as_version(0)
    assert_frame_equal(scan_delta(table).collect().sort("user_id"), FRAME[:2])


def test_columns_and_rows_are_chosen_before_they_are_read(table: DeltaTable) -> None:
    found = scan_delta(table).filter(pl.col("user_id") > 1).select("event").collect()
    assert sorted(found["event"].to_list(), key=str) == [None, "buy"]


def test_the_data_files_are_there(table: DeltaTable) -> None:
    files = data_files(table)
    assert files == sorted(files)
    assert len(files) == 2
    assert pl.scan_parquet(files).select(pl.len()).collect().item() == 3
