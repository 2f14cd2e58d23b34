"""A table that lost a commit or a part of a file is refused in one sentence; one that is ahead of its note is not."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys.columns import QUARANTINE
from recsys.errors import InputError, RecsysError
from recsys.storage import warehouse
from recsys.storage.intact import NOTE, naming_damage
from recsys.storage.stream import overwrite_streamed

SCHEMA = {"user_id": pl.Int64(), "score": pl.Float64()}


def write(root: Path, score: float) -> None:
    overwrite_streamed(root, "candidates", SCHEMA, iter([pl.DataFrame({"user_id": [1, 2], "score": score})]))


def commit(root: Path, version: int) -> Path:
    return root / "candidates" / "_delta_log" / f"{version:020d}.json"


def scores(root: Path) -> list[float]:
    return warehouse.scan(root, "candidates").collect()["score"].to_list()


@pytest.mark.parametrize("emptied", [True, False], ids=["emptied", "lost"])
def test_a_last_commit_that_is_gone_is_not_yesterdays_table(tmp_path: Path, emptied: bool) -> None:
    write(tmp_path, 1.0)
    write(tmp_path, 2.0)
    if emptied:
        commit(tmp_path, 1).write_bytes(b"")
    else:
        commit(tmp_path, 1).unlink()
    with pytest.raises(RecsysError, match=r"00000000000000000001\.json.*run `recsys retrieve CONFIG` again") as error:
        scores(tmp_path)
    assert not isinstance(error.value, InputError)
    write(tmp_path, 3.0)  # what the sentence advises
    assert scores(tmp_path) == [3.0, 3.0]


def test_a_commit_in_the_middle_counts_too(tmp_path: Path) -> None:
    schema = warehouse.SCHEMAS[QUARANTINE]
    for line in range(3):
        row = {"table": "t", "source": "s", "line": line, "reason": "r", "raw": "x", "rejected_at": None}
        version = warehouse.latest_version(tmp_path, QUARANTINE)
        warehouse.append(tmp_path, QUARANTINE, pl.DataFrame([row], schema=schema), expected=version)
    (tmp_path / QUARANTINE / "_delta_log" / f"{1:020d}.json").write_bytes(b"")
    with pytest.raises(RecsysError, match="does not hold what its version 2 was written with"):
        warehouse.scan(tmp_path, QUARANTINE)


@pytest.mark.parametrize("damage", ["0 bytes", "cut off", "zeros", "missing"])
def test_a_damaged_data_file_is_named(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 1.0)
    (file,) = (tmp_path / "candidates").glob("*.parquet")
    content = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes({"0 bytes": b"", "cut off": content[:-9], "zeros": bytes(len(content))}[damage])
    with pytest.raises(RecsysError, match=file.name) as error:
        scores(tmp_path)
    assert not isinstance(error.value, InputError)


@pytest.mark.parametrize("version", [0, 1])
def test_a_commit_that_is_cut_off_is_named(tmp_path: Path, version: int) -> None:
    write(tmp_path, 1.0)
    write(tmp_path, 2.0)
    commit(tmp_path, version).write_bytes(commit(tmp_path, version).read_bytes()[:80])
    with pytest.raises(RecsysError, match=rf"{commit(tmp_path, version)} is cut off.*`recsys retrieve CONFIG` again"):
        scores(tmp_path)


def test_a_file_with_another_byte_is_named(tmp_path: Path) -> None:
    users = pl.DataFrame({"user": ["ann", "bob"]})
    overwrite_streamed(tmp_path, "candidates", {"user": pl.String()}, iter([users]))
    (file,) = (tmp_path / "candidates").glob("*.parquet")
    content = bytearray(file.read_bytes())
    content[5:40] = bytes(byte ^ 255 for byte in content[5:40])
    file.write_bytes(content)
    said = rf"candidates is damaged: its file .*{file.name} cannot be read"
    with pytest.raises(RecsysError, match=said), naming_damage(str(tmp_path)):
        warehouse.scan(tmp_path, "candidates").collect()


def test_an_error_without_damage_stays_what_it_is(tmp_path: Path) -> None:
    write(tmp_path, 1.0)
    with pytest.raises(pl.exceptions.ColumnNotFoundError), naming_damage(str(tmp_path)):
        warehouse.scan(tmp_path, "candidates").select("nothing").collect()


def test_a_note_from_before_the_newest_commit_is_no_damage(tmp_path: Path) -> None:
    """A kill between the commit and the note, or another program's commit."""
    write(tmp_path, 1.0)
    note = (tmp_path / "candidates" / NOTE).read_bytes()
    write(tmp_path, 2.0)
    (tmp_path / "candidates" / NOTE).write_bytes(note)
    assert scores(tmp_path) == [2.0, 2.0]


@pytest.mark.parametrize("note", [None, b"", b"[]", b'{"version": "x"}'])
def test_tables_without_a_note_are_read(tmp_path: Path, note: bytes | None) -> None:
    write(tmp_path, 1.0)
    path = tmp_path / "candidates" / NOTE
    path.unlink() if note is None else path.write_bytes(note)
    assert scores(tmp_path) == [1.0, 1.0]


def test_a_reader_that_opened_the_table_before_a_write_is_not_refused(tmp_path: Path) -> None:
    from recsys.storage.intact import check_intact

    write(tmp_path, 1.0)
    opened = DeltaTable(tmp_path / "candidates")
    write(tmp_path, 2.0)
    check_intact(opened, str(tmp_path / "candidates"))


def test_an_older_version_stays_the_way_back(tmp_path: Path) -> None:
    write(tmp_path, 1.0)
    write(tmp_path, 2.0)
    assert warehouse.scan(tmp_path, "candidates", 0).collect()["score"].to_list() == [1.0, 1.0]
