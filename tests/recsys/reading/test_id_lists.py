"""Lists of ids from files."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.errors import InputError
from recsys.reading.id_lists import read_ids
from recsys.settings import IdListSettings


def test_files_of_every_kind_give_the_same_ids(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("\ufeffbb\n 007 \n\nü\n".encode())
    (tmp_path / "a.list").write_text("bb\n007\nü\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text('name,item_id\nx,bb\ny," 007"\nz,\nw,ü\n', encoding="utf-8")
    pl.DataFrame({"n": [1, 2, 3, 4], "item_id": ["bb", "007", None, "ü"]}).write_parquet(tmp_path / "a.parquet")
    for name in ("a.txt", "a.list", "a.csv", "a.parquet"):
        ids = read_ids(name, "rules.x.items", str(tmp_path))
        assert ids.dtype == pl.String and ids.to_list() == ["bb", "007", "ü"], name


def test_which_column(tmp_path: Path) -> None:
    frame = pl.DataFrame({"sku": [3.0, None, 12.0], "user_id": [1, 2, 3], "share": [0.5, 1.0, 2.0]})
    frame.write_parquet(tmp_path / "a.parquet")

    def of(**more: str) -> list[str]:
        return read_ids(IdListSettings(source="a.parquet", **more), "k", str(tmp_path)).to_list()

    assert of() == ["1", "2", "3"]
    assert of(column="sku") == ["3", "12"]  # whole numbers, as pandas writes them beside an empty one
    assert of(column="share") == ["0.5", "1.0", "2.0"]
    with pytest.raises(InputError, match=r"a\.parquet, which k names, has no column 'id'; it has sku, user_id, share"):
        of(column="id")


def test_an_empty_list_is_one(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("")
    pl.DataFrame({"item_id": []}, schema={"item_id": pl.Null}).write_parquet(tmp_path / "a.parquet")
    for name in ("a.txt", "a.parquet"):
        assert read_ids(name, "k", str(tmp_path)).to_list() == []


@pytest.mark.parametrize(("name", "said"), [
    ("gone.csv", r"rules\.x\.items names /.*gone\.csv, and there is no such file"),
    ("broken.parquet", r"broken\.parquet, which rules\.x\.items names, cannot be read: "),
    ("latin.txt", r"latin\.txt, which rules\.x\.items names, cannot be read: "),
    ("folder", r"folder, which rules\.x\.items names, cannot be read: "),
])  # fmt: skip
def test_what_cannot_be_read(tmp_path: Path, name: str, said: str) -> None:
    (tmp_path / "broken.parquet").write_text("no")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=said):
        read_ids(name, "rules.x.items", str(tmp_path))


def test_the_first_id_of_a_file_without_a_header_is_one(tmp_path: Path) -> None:
    for text, told in (
        ("u1\nu2\n", ["u1", "u2"]),
        ("7\n8\n7\n", ["7", "8", "7"]),
        ("\ufeffu1\n", ["u1"]),
        ("user_id\nu1\n", ["u1"]),
        ("item_id\nu1\n", ["u1"]),
        ("id\nu1\n", ["u1"]),
        ("user\nu1\n", ["user", "u1"]),  # an id that nobody has does no harm
    ):
        (tmp_path / "a.csv").write_text(text, encoding="utf-8")
        assert read_ids("a.csv", "k", str(tmp_path)).to_list() == told
    given = IdListSettings(source="a.csv", column="user")
    assert read_ids(given, "k", str(tmp_path)).to_list() == ["u1"]


def test_a_list_with_users_and_items_gives_those_that_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("user_id,item_id\nu,i\n")
    assert read_ids("a.csv", "k", str(tmp_path)).to_list() == ["u"]
    assert read_ids("a.csv", "k", str(tmp_path), "item_id").to_list() == ["i"]


def test_columns_that_may_not_be_the_ids(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("u1,DE\nu2,AT\n")
    with pytest.raises(InputError, match=r"a\.csv, which k names, has the columns u1, DE, and none is called user_id"):
        read_ids("a.csv", "k", str(tmp_path))
    pl.DataFrame({"item_id": [["a"], ["b"]]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"holds lists or objects in the column 'item_id' \(List\(String\)\)"):
        read_ids("a.parquet", "k", str(tmp_path))
