"""Rows of one user out of a table of many files and row groups, beside a filter over all of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys.columns import CANDIDATES
from recsys.errors import RecsysError
from recsys.service import users as module
from recsys.service.users import UserTable
from recsys.storage import stream
from recsys.storage.warehouse import SCHEMAS, scan, table_path
from tests.recsys.releases.shop import NOW


def table(root: Path, ids: list[Any], monkeypatch: pytest.MonkeyPatch, *, group: int = 4) -> str:
    """Five rows a user, in row groups of a few rows and files of some more: lists span groups."""
    monkeypatch.setattr(stream, "ROWS_A_GROUP", group)
    monkeypatch.setattr(stream, "ROWS_A_FILE", 3 * group)
    kind = pl.Int64() if isinstance(ids[0], int) else pl.String()
    schema = {**SCHEMAS[CANDIDATES], "user_id": kind, "item_id": pl.Int64()}
    rows = [
        {"run": "r", "user_id": user, "rank": rank, "item_id": 10 * place + rank, "score": 1 / rank, "source": "vector",
         "bundle": "b", "index": "i", "as_of": NOW, "interactions_version": 0, "items_version": None}
        for place, user in enumerate(ids) for rank in range(1, 6)
    ]  # fmt: skip
    frames = [pl.DataFrame(rows[start : start + 3], schema=schema) for start in range(0, len(rows), 3)]
    stream.overwrite_streamed(root, CANDIDATES, schema, frames, sorted_by="user_id")
    return table_path(root, CANDIDATES)


TEXTS = sorted(["", "0", "Z", "a", "a b", "a/b", "b'; drop", "z" * 200, "z" * 200 + "y", "é", "日本", "\U0001f600"])


@pytest.mark.parametrize("ids", [list(range(-5, 40, 3)), TEXTS], ids=["numbers", "texts"])
def test_rows_are_those_of_a_filter(ids: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, ids, monkeypatch)
    found = UserTable(path, 0)
    whole = scan(tmp_path, CANDIDATES).collect()
    for user in ids:
        expected = whole.filter(pl.col("user_id") == user).sort("rank")
        rows = found.rows(str(user))
        assert rows == expected.select(module._READ).to_dicts() and len(rows) == 5, user
    for nobody in ("2", "-6", "999", "x", "1.0", "９", "zz", "9" * 30, "a\x00"):
        assert found.rows(nobody) == []
    assert found.first == ids[0]


def test_few_groups_are_held_and_forgotten_users_are_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_HELD", 10)
    path = table(tmp_path, list(range(20)), monkeypatch)
    before = UserTable(path, 0)
    assert [len(before.rows(str(user))) for user in range(20)] == [5] * 20
    assert len(before._held) == 2 and before._rows_held == 6 + 4  # the last group is smaller
    DeltaTable(path).delete("user_id = 7")  # rewrites a file, of which another program chooses the row groups
    after = UserTable(path, 1)
    assert [len(after.rows(str(user))) for user in range(20)] == [5 * (user != 7) for user in range(20)]


def test_rows_in_no_order_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, [3, 1, 2, 1 + 10**9], monkeypatch, group=100)
    found = UserTable(path, 0)
    assert [row["item_id"] for row in found.rows("1")] == [11, 12, 13, 14, 15]


def test_a_file_or_a_version_that_is_gone_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = table(tmp_path, [1, 2, 3, 4], monkeypatch)
    found = UserTable(path, 0)
    for file in Path(path).glob("*.parquet"):
        file.unlink()
    with pytest.raises(RecsysError, match=r"Version 0 of the table .* cannot be read"):
        found.rows("3")
    for version in (0, 9):
        with pytest.raises(RecsysError, match=f"Version {version} of the table"):
            UserTable(path, version)


def test_an_empty_table_has_no_users(tmp_path: Path) -> None:
    schema = {**SCHEMAS[CANDIDATES], "user_id": pl.String(), "item_id": pl.Int64()}
    stream.overwrite_streamed(tmp_path, CANDIDATES, schema, [], sorted_by="user_id")
    found = UserTable(table_path(tmp_path, CANDIDATES), 0)
    assert found.rows("x") == [] and found.first is None
