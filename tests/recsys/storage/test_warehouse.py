from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest

from recsys.columns import (
    EVENT,
    INTERACTIONS,
    ITEM_ID,
    ITEMS,
    LINE,
    POSITION,
    QUARANTINE,
    RAW,
    REASON,
    REJECTED_AT,
    SOURCE,
    TABLE,
    TIMESTAMP,
    USER_ID,
    WEIGHT,
)
from recsys.errors import InputError, RecsysError
from recsys.storage import warehouse

MOMENT = datetime(2024, 3, 1, 12, tzinfo=UTC)


def log(*rows: tuple[int, int]) -> pl.DataFrame:
    users, items = zip(*rows, strict=True)
    return pl.DataFrame(
        {
            USER_ID: users,
            ITEM_ID: items,
            TIMESTAMP: [MOMENT] * len(rows),
            EVENT: [""] * len(rows),
            WEIGHT: [None] * len(rows),
            POSITION: range(len(rows)),
        },
        schema_overrides={TIMESTAMP: pl.Datetime("us", "UTC"), WEIGHT: pl.Float64},
    )


def test_versions_stay_readable(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert warehouse.latest_version(root, INTERACTIONS) is None
    assert warehouse.append(root, INTERACTIONS, log((1, 7)), expected=None) == 0
    assert warehouse.append(root, INTERACTIONS, log((2, 8)), expected=0) == 1
    assert warehouse.overwrite(root, INTERACTIONS, log((3, 9)), expected=1) == 2

    def users(version: int | None) -> list[int]:
        return sorted(warehouse.scan(root, INTERACTIONS, version).collect()[USER_ID])

    assert [users(0), users(1), users(2), users(None)] == [[1], [1, 2], [3], [3]]
    assert warehouse.current_versions(root) == warehouse.TableVersions(interactions=2, items=None, users=None)
    assert warehouse.scan(root, INTERACTIONS).collect().schema == log((1, 7)).schema


def test_a_commit_on_an_old_version_is_refused(tmp_path: Path) -> None:
    root = str(tmp_path)
    warehouse.append(root, INTERACTIONS, log((1, 7)), expected=None)
    for write in (warehouse.append, warehouse.overwrite):
        with pytest.raises(RecsysError, match="Another process has written the table"):
            write(root, INTERACTIONS, log((2, 8)), expected=None)
    warehouse.append(root, INTERACTIONS, log((2, 8)), expected=0)
    for write in (warehouse.append, warehouse.overwrite):
        with pytest.raises(RecsysError, match="run it again"):
            write(root, INTERACTIONS, log((3, 9)), expected=0)
    assert warehouse.latest_version(root, INTERACTIONS) == 1


def test_a_commit_that_lands_between_opening_and_writing_is_a_conflict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = str(tmp_path)
    warehouse.append(root, INTERACTIONS, log((1, 7)), expected=None)
    real = warehouse.write_deltalake

    def late(target: object, *args: object, **kwargs: object) -> None:
        monkeypatch.setattr(warehouse, "write_deltalake", real)
        warehouse.append(root, INTERACTIONS, log((2, 8)), expected=0)  # the other process
        real(target, *args, **kwargs)

    monkeypatch.setattr(warehouse, "write_deltalake", late)
    with pytest.raises(RecsysError, match="Another process"):
        warehouse.append(root, INTERACTIONS, log((3, 9)), expected=0)
    assert sorted(warehouse.scan(root, INTERACTIONS).collect()[USER_ID]) == [1, 2]


def test_append_new_compares_with_the_table_and_within_the_rows(tmp_path: Path) -> None:
    def rejected(*lines: int | None) -> pl.DataFrame:
        return pl.DataFrame(
            {
                TABLE: [ITEMS] * len(lines),
                SOURCE: ["a.csv"] * len(lines),
                LINE: lines,
                REASON: ["broken"] * len(lines),
                RAW: ["x"] * len(lines),
                REJECTED_AT: [MOMENT] * len(lines),
                USER_ID: ["u"] * len(lines),
            },
            schema_overrides={LINE: pl.Int64, REJECTED_AT: pl.Datetime("us", "UTC")},
        )

    key = (TABLE, SOURCE, LINE, REASON, RAW)
    root = str(tmp_path)
    assert warehouse.append_new(root, QUARANTINE, rejected(1, 2, 2, None), key) == (3, 0)
    assert warehouse.append_new(root, QUARANTINE, rejected(2, None, 1), key) == (0, 0)
    assert warehouse.append_new(root, QUARANTINE, rejected(2, 3), key) == (1, 1)
    assert sorted(warehouse.scan(root, QUARANTINE).collect()[LINE].fill_null(0)) == [0, 1, 2, 3]


def test_the_schema_is_declared_once(tmp_path: Path) -> None:
    root = str(tmp_path)
    good = log((1, 7))
    for wrong, message in (
        (good.drop(EVENT), "The column event of the table interactions must be String, not None"),
        (good.with_columns(pl.col(USER_ID).cast(pl.Int32)), "user_id .* must be Int64 or String, not Int32"),
        (good.with_columns(pl.col(TIMESTAMP).dt.replace_time_zone(None)), "timestamp .* must be Datetime"),
        (good.with_columns(more=1), "The table interactions has no column more"),
    ):
        with pytest.raises(RecsysError, match=message):
            warehouse.append(root, INTERACTIONS, wrong, expected=None)
    assert warehouse.latest_version(root, INTERACTIONS) is None
    # items hold whatever the catalogue says; columns may be in any order
    items = pl.DataFrame({"titles of it (a, b=c)": [["x", "y"]], "year": [1999], ITEM_ID: ["a"]})
    warehouse.append(root, ITEMS, items, expected=None)
    assert warehouse.scan(root, ITEMS).collect().rows() == [("a", ["x", "y"], 1999)]
    assert warehouse.id_type(root, ITEMS, ITEM_ID) == pl.String


def test_metadata_is_that_of_our_newest_commit(tmp_path: Path) -> None:
    root = str(tmp_path)
    assert warehouse.commit_metadata(root, INTERACTIONS) == {}
    warehouse.append(root, INTERACTIONS, log((1, 7)), expected=None, metadata={"a": [1]})
    assert warehouse.commit_metadata(root, INTERACTIONS) == {"a": [1]}
    warehouse._open(root, INTERACTIONS).optimize.compact()  # type: ignore[union-attr]
    assert warehouse.commit_metadata(root, INTERACTIONS) == {"a": [1]}


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    root = str(tmp_path)
    with pytest.raises(InputError, match=r"There is no table .*/items; run `recsys ingest CONFIG`"):
        warehouse.scan(root, ITEMS)
    with pytest.raises(InputError, match=r"There is no table .*/interactions"):
        warehouse.current_versions(root)
    warehouse.append(root, INTERACTIONS, log((1, 7)), expected=None)
    with pytest.raises(InputError, match="has no version 5; its newest is 0"):
        warehouse.scan(root, INTERACTIONS, 5)
