"""A streamed table is there at once or not at all, and what goes wrong while it is made comes through."""

from __future__ import annotations

import dataclasses
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys.errors import RecsysError
from recsys.storage import stream
from recsys.storage.stream import Staged, discard, is_whole, overwrite_streamed, publish, published
from recsys.storage.warehouse import commit_metadata, latest_version, scan

SCHEMA = {"user_id": pl.String(), "rank": pl.Int32()}


def frames(n: int, marker: str = "u") -> Iterator[pl.DataFrame]:
    for i in range(n):
        yield pl.DataFrame({"user_id": [f"{marker}{i}"] * 2, "rank": [1, 2]}, schema=SCHEMA)


def test_each_write_is_one_version_and_old_ones_stay(tmp_path: Path) -> None:
    assert overwrite_streamed(tmp_path, "t", SCHEMA, frames(3), metadata={"run": "r1"}) == 0
    assert overwrite_streamed(tmp_path, "t", SCHEMA, frames(2, "v")) == 1
    assert scan(tmp_path, "t").collect()["user_id"].to_list() == ["v0", "v0", "v1", "v1"]
    assert scan(tmp_path, "t", 0).collect()["user_id"].unique().sort().to_list() == ["u0", "u1", "u2"]
    assert scan(tmp_path, "t").collect_schema() == SCHEMA


def test_metadata_is_read_back(tmp_path: Path) -> None:
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1), metadata={"run": "r1"})
    assert commit_metadata(tmp_path, "t") == {"run": "r1"}


def test_no_frames_make_an_empty_table(tmp_path: Path) -> None:
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(0))
    assert scan(tmp_path, "t").collect().shape == (0, 2)


def test_the_types_of_ids_may_change(tmp_path: Path) -> None:
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))
    numbers = pl.DataFrame({"user_id": [7], "rank": [1]}, schema={**SCHEMA, "user_id": pl.Int64()})
    overwrite_streamed(tmp_path, "t", numbers.schema, iter([numbers]))
    assert scan(tmp_path, "t").collect()["user_id"].to_list() == [7]


class OwnError(OSError):
    """Not one of Delta's."""


@pytest.mark.parametrize("error", [OwnError("from the rows"), KeyboardInterrupt()])
def test_an_exception_of_the_rows_comes_through_and_commits_nothing(tmp_path: Path, error: BaseException) -> None:
    def failing() -> Iterator[pl.DataFrame]:
        yield from frames(20)
        raise error

    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))
    with pytest.raises(type(error)):
        overwrite_streamed(tmp_path, "t", SCHEMA, failing())
    assert latest_version(tmp_path, "t") == 0
    assert len(scan(tmp_path, "t").collect()) == 2


def test_rows_are_made_on_the_callers_thread_where_interrupts_reach(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    made = 0

    def interrupted() -> Iterator[pl.DataFrame]:
        nonlocal made
        for frame in frames(1000):
            assert threading.current_thread() is threading.main_thread()
            made += 1
            yield frame
            if made == 3:
                signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    with pytest.raises(KeyboardInterrupt):
        overwrite_streamed(tmp_path, "t", SCHEMA, interrupted())
    assert made == 3  # it ended there, and not with the table
    assert latest_version(tmp_path, "t") is None


def test_a_table_that_somebody_else_wrote_meanwhile_is_kept(tmp_path: Path) -> None:
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))

    def raced() -> Iterator[pl.DataFrame]:
        yield from frames(2, "mine")
        overwrite_streamed(tmp_path, "t", SCHEMA, frames(1, "theirs"))

    with pytest.raises(RecsysError, match="Another process"):
        overwrite_streamed(tmp_path, "t", SCHEMA, raced())
    assert set(scan(tmp_path, "t").collect()["user_id"]) == {"theirs0"}


def test_rows_keep_their_order_over_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ROWS_A_GROUP", 7)
    monkeypatch.setattr(stream, "ROWS_A_FILE", 25)
    schema = {"user_id": pl.Int64(), "rank": pl.Int32()}
    given = pl.DataFrame({"user_id": [u for u in range(40) for _ in range(3)], "rank": [1, 2, 3] * 40}, schema=schema)
    overwrite_streamed(tmp_path, "t", schema, given.iter_slices(4), sorted_by="user_id")
    files = sorted(DeltaTable(tmp_path / "t").file_uris())
    assert len(files) == 4
    assert pl.read_parquet(files).equals(given)
    # the commit's ranges let a reader open one file, and none where there is nothing
    assert scan(tmp_path, "t").filter(pl.col("user_id") == 17).collect()["rank"].to_list() == [1, 2, 3]
    ranges = pl.DataFrame(DeltaTable(tmp_path / "t").get_add_actions(flatten=True)).sort("path")
    assert ranges["num_records"].sum() == 120
    assert (ranges["min.user_id"][0], ranges["max.user_id"][-1]) == (0, 39)


def test_a_failure_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "ROWS_A_GROUP", 1)

    def failing() -> Iterator[pl.DataFrame]:
        yield from frames(3)
        assert len(list((tmp_path / "t").glob("*"))) == 1
        raise ValueError

    with pytest.raises(ValueError):
        overwrite_streamed(tmp_path, "t", SCHEMA, failing())
    assert not list((tmp_path / "t").glob("*"))
    assert not DeltaTable.is_deltatable(str(tmp_path / "t"))


def test_deltas_own_tools_read_the_table(tmp_path: Path) -> None:
    for _ in range(3):
        overwrite_streamed(tmp_path, "t", SCHEMA, frames(3))
    table = DeltaTable(tmp_path / "t")
    table.optimize.compact()
    table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert len(scan(tmp_path, "t").collect()) == 6


def test_a_full_disk_is_one_sentence_and_leaves_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(stream.pq.ParquetWriter, "write_table", full)
    with pytest.raises(RecsysError, match="No space left"):
        overwrite_streamed(tmp_path, "t", SCHEMA, frames(2))
    assert latest_version(tmp_path, "t") == 0 and len(list((tmp_path / "t").glob("*.parquet"))) == 1


def test_an_interrupt_after_the_commit_leaves_a_table_that_can_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = stream._commit

    def late(*arguments: Any) -> None:
        commit(*arguments)
        raise KeyboardInterrupt

    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))
    monkeypatch.setattr(stream, "_commit", late)
    with pytest.raises(KeyboardInterrupt):
        overwrite_streamed(tmp_path, "t", SCHEMA, frames(2, "v"))
    assert scan(tmp_path, "t").collect()["user_id"].unique().sort().to_list() == ["v0", "v1"]


def test_staged_rows_are_seen_by_nobody_and_another_process_can_publish_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "ROWS_A_GROUP", 1)
    monkeypatch.setattr(stream, "ROWS_A_FILE", 3)
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))
    staged = stream.stage(tmp_path, "t", SCHEMA, frames(4, "v"), sorted_by="user_id", metadata={"run": "r2"})
    assert (staged.files, staged.rows, staged.expected) == (2, 8, 0)
    assert len(scan(tmp_path, "t").collect()) == 2 and published(staged) is None
    again = Staged(**json.loads(json.dumps(dataclasses.asdict(staged))))
    assert is_whole(again) and publish(again) == 1
    assert scan(tmp_path, "t").collect()["user_id"].unique().sort().to_list() == ["v0", "v1", "v2", "v3"]
    assert commit_metadata(tmp_path, "t") == {"run": "r2"}
    ranges = pl.DataFrame(DeltaTable(tmp_path / "t").get_add_actions(flatten=True)).sort("path")
    assert ranges["min.user_id"].to_list()[0] == "v0" and ranges["max.user_id"].to_list()[-1] == "v3"
    assert published(again) == 1 and not is_whole(again)


def test_a_table_that_is_new_can_be_staged(tmp_path: Path) -> None:
    staged = stream.stage(tmp_path, "t", SCHEMA, frames(0))
    assert latest_version(tmp_path, "t") is None and is_whole(staged)
    assert publish(staged) == 0 and scan(tmp_path, "t").collect().schema == SCHEMA


def test_rows_that_were_discarded_lost_or_overtaken_are_not_published(tmp_path: Path) -> None:
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))
    staged = stream.stage(tmp_path, "t", SCHEMA, frames(2))
    (tmp_path / "t" / staged.names[0]).unlink()
    assert not is_whole(staged)
    with pytest.raises(RecsysError, match="cannot be read"):
        publish(staged)
    discard(staged)  # also where a part is gone
    overtaken = stream.stage(tmp_path, "t", SCHEMA, frames(2))
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1, "theirs"))
    assert not is_whole(overtaken)
    with pytest.raises(RecsysError, match="Another process"):
        publish(overtaken)
    assert latest_version(tmp_path, "t") == 1
    assert len(list((tmp_path / "t").glob("*.parquet"))) == 2


def test_rows_of_an_older_version_are_not_discarded(tmp_path: Path) -> None:
    staged = stream.stage(tmp_path, "t", SCHEMA, frames(2))
    publish(staged)
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1, "later"))
    assert published(staged) is None and not is_whole(staged)
    discard(staged)
    assert len(scan(tmp_path, "t", 0).collect()) == 4


def test_rows_that_were_discarded_before_open_no_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    overwrite_streamed(tmp_path, "t", SCHEMA, frames(1))
    staged = stream.stage(tmp_path, "t", SCHEMA, frames(2))
    for _ in range(3):
        overwrite_streamed(tmp_path, "t", SCHEMA, frames(1, "later"))
    discard(staged)
    assert not stream.is_there(staged)
    opened: list[str] = []
    monkeypatch.setattr(stream, "_newest", opened.append)
    discard(staged)
    assert not opened
