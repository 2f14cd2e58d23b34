"""The copy holds the table's rows in the asked shape, and a reader never sees half of one."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys.errors import InputError, RecsysError
from recsys.exports import linked as module
from recsys.exports import rows as shaping
from recsys.exports import writers
from recsys.exports.files import Candidates, FileSink, export
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.stream import overwrite_streamed
from recsys.storage.warehouse import SCHEMAS, append, latest_version, table_path

ROOT = Path(module.__file__).parents[2]
# user "b" has a short list; ids that a joined or unquoted CSV would break
LISTS = {"a": ["x 1", 'y,"2', "z"], "b": ["x 1"], "c,d": ["z", "x 1", "w"]}


def publish(root: Path, lists: dict[Any, list[Any]], run: str = "r1") -> Candidates:
    schema = {**SCHEMAS["candidates"], "user_id": pl.String(), "item_id": pl.String()}
    rows = pl.DataFrame(
        {
            "run": run,
            "user_id": [user for user, items in lists.items() for _ in items],
            "rank": [rank for items in lists.values() for rank in range(1, len(items) + 1)],
            "item_id": [item for items in lists.values() for item in items],
            "score": [1 / rank for items in lists.values() for rank in range(1, len(items) + 1)],
            "source": "vector",
            "bundle": "tiny-0123",
            "index": "abcd",
            "as_of": datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
            "interactions_version": 3,
            "items_version": None,
        },
        schema=schema,
    )
    version = overwrite_streamed(root, "candidates", schema, iter([rows]), sorted_by="user_id")
    return Candidates(path=table_path(root, "candidates"), version=version)


def settings_of(path: Path | str | None, **more: Any) -> Settings:
    given = {"path": None if path is None else str(path), **more}
    return parse_settings({"name": "tiny", "interactions": {"source": "log.csv"}, "export": given})


@pytest.fixture
def candidates(tmp_path: Path) -> Candidates:
    return publish(tmp_path / "warehouse", LISTS)


def test_long_parquet_is_the_table(tmp_path: Path, candidates: Candidates) -> None:
    report = export(settings_of(tmp_path / "out" / "candidates"), candidates)
    copy = pl.read_parquet(tmp_path / "out" / "candidates")
    table = pl.scan_delta(candidates.path).collect().sort("user_id", "rank")
    assert copy.equals(table) and copy.schema == table.schema
    assert (report.rows, report.format, report.layout) == (7, "parquet", "long")
    assert report.columns == copy.columns


def test_columns_are_chosen_ordered_and_renamed(tmp_path: Path, candidates: Candidates) -> None:
    wanted = {"item_id": "sku", "user_id": "customer"}
    export(settings_of(tmp_path / "c.csv", format="csv", columns=wanted), candidates)
    assert (tmp_path / "c.csv").read_text().splitlines()[:3] == ["sku,customer", "x 1,a", '"y,""2",a']


def test_long_csv_reads_back(tmp_path: Path, candidates: Candidates) -> None:
    export(settings_of(tmp_path / "c.csv", format="csv"), candidates)
    copy = pl.read_csv(tmp_path / "c.csv")
    assert copy["user_id"].to_list() == ["a"] * 3 + ["b"] + ["c,d"] * 3
    assert copy["item_id"].to_list() == [item for items in LISTS.values() for item in items]
    assert copy["as_of"].unique().to_list() == ["2026-01-02T03:04:05.000678Z"]
    assert copy["score"].to_list()[:3] == pytest.approx([1, 0.5, 1 / 3])


def test_wide_parquet_has_a_list_a_user(tmp_path: Path, candidates: Candidates) -> None:
    report = export(settings_of(tmp_path / "c", layout="wide"), candidates)
    copy = pl.read_parquet(tmp_path / "c")
    assert dict(zip(copy["user_id"], copy["item_id"].to_list(), strict=True)) == LISTS
    assert copy["score"].to_list()[1] == [1.0]
    assert copy["run"].to_list() == ["r1"] * 3
    assert "rank" not in copy.columns and report.rows == 3


def test_the_list_of_unknown_users_is_a_row_of_the_wide_layout(tmp_path: Path) -> None:
    candidates = publish(tmp_path / "warehouse", {None: ["x", "y"], "a": ["z"]})
    assert export(settings_of(tmp_path / "c", layout="wide"), candidates).rows == 2
    assert pl.read_parquet(tmp_path / "c").select("user_id", "item_id").rows() == [(None, ["x", "y"]), ("a", ["z"])]


def test_wide_csv_has_numbered_columns(tmp_path: Path, candidates: Candidates) -> None:
    wanted = {"user_id": "user", "item_id": "item", "bundle": "model"}
    report = export(settings_of(tmp_path / "c.csv", format="csv", layout="wide", columns=wanted), candidates)
    copy = pl.read_csv(tmp_path / "c.csv")
    assert copy.columns == ["user", "item_1", "item_2", "item_3", "model"] == report.columns
    assert copy.row(1) == ("b", "x 1", None, None, "tiny-0123")
    assert copy.row(0) == ("a", "x 1", 'y,"2', "z", "tiny-0123")


@pytest.mark.parametrize("layout", ["long", "wide"])
@pytest.mark.parametrize("form", ["parquet", "csv"])
def test_batches_and_many_files_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, form: str
) -> None:
    lists = {f"user{i:03d}": [f"i{j}" for j in range(i % 7 + 1)] for i in range(200)}
    candidates = publish(tmp_path / "warehouse", lists)
    export(settings_of(tmp_path / "one", layout=layout, format=form), candidates)
    monkeypatch.setattr(shaping, "BATCH_ROWS", 3)
    monkeypatch.setattr(writers, "ROWS_A_FILE", 50)
    export(settings_of(tmp_path / "many", layout=layout, format=form), candidates)
    if form == "csv":
        assert (tmp_path / "one").read_bytes() == (tmp_path / "many").read_bytes()
        return
    assert len(list((tmp_path / "many").iterdir())) > 2
    assert pl.read_parquet(tmp_path / "one").equals(pl.read_parquet(sorted((tmp_path / "many").iterdir())))


def test_an_older_run_never_takes_a_newer_ones_place(tmp_path: Path, candidates: Candidates) -> None:
    newer = publish(tmp_path / "warehouse", {"a": ["only"]}, run="r2")
    export(settings_of(tmp_path / "c"), newer)
    with pytest.raises(RecsysError, match=r"holds version 1 .* newer than version 0; nothing was changed"):
        export(settings_of(tmp_path / "c"), candidates)
    assert pl.read_parquet(tmp_path / "c")["run"].to_list() == ["r2"]
    again = publish(tmp_path / "new" / "warehouse", LISTS)  # a warehouse made anew counts from 0
    export(settings_of(tmp_path / "c"), again)
    assert len(pl.read_parquet(tmp_path / "c")) == 7


def test_long_and_wide_json_lines(tmp_path: Path, candidates: Candidates) -> None:
    wanted = {"user_id": "user", "item_id": "item", "as_of": "at"}
    export(settings_of(tmp_path / "c.jsonl", format="jsonl", columns=wanted), candidates)
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert lines[1] == {"user": "a", "item": 'y,"2', "at": "2026-01-02T03:04:05.000678Z"} and len(lines) == 7
    export(settings_of(tmp_path / "c.jsonl", format="jsonl", layout="wide", columns=wanted), candidates)
    lines = [json.loads(line) for line in (tmp_path / "c.jsonl").read_text().splitlines()]
    assert lines[1] == {"user": "b", "item": ["x 1"], "at": "2026-01-02T03:04:05.000678Z"} and len(lines) == 3


def test_an_empty_table_is_an_empty_copy(tmp_path: Path) -> None:
    candidates = publish(tmp_path / "warehouse", {})
    assert export(settings_of(tmp_path / "c"), candidates).rows == 0
    assert pl.read_parquet(tmp_path / "c").columns == list(SCHEMAS["candidates"])
    export(settings_of(tmp_path / "c.csv", format="csv"), candidates)
    assert (tmp_path / "c.csv").read_text().strip() == ",".join(SCHEMAS["candidates"])


def test_the_last_two_versions_stay_for_readers_that_are_at_it(tmp_path: Path, candidates: Candidates) -> None:
    resolved = []
    for _ in range(3):
        export(settings_of(tmp_path / "c"), candidates)
        resolved.append((tmp_path / "c").resolve())
    assert [path.exists() for path in resolved] == [False, True, True]
    assert len(pl.read_parquet(resolved[1])) == 7
    assert sorted(path.name for path in tmp_path.iterdir()) == [".c.versions", "c", "warehouse"]


def test_rollback_brings_back_a_copy_that_readers_had(tmp_path: Path, candidates: Candidates) -> None:
    """Not one that a kill left half written, and also after the newest version was written twice."""
    settings = settings_of(tmp_path / "c")
    export(settings, candidates)
    newer = publish(tmp_path / "warehouse", {"a": ["only"]}, run="r2")
    export(settings, newer)
    export(settings, newer)
    half = tmp_path / ".c.versions" / "v9-dead"
    half.mkdir()
    (half / "part.parquet").write_bytes(b"PAR1")
    sink = FileSink(settings.export, settings.name)
    assert sink.rollback().version == candidates.version
    assert set(pl.read_parquet(tmp_path / "c")["run"]) == {"r1"}
    with pytest.raises(InputError, match="keeps no copy older than"):  # the request is wrong: exit code 2
        sink.rollback()


def test_the_copy_can_change_its_format(tmp_path: Path, candidates: Candidates) -> None:
    export(settings_of(tmp_path / "c"), candidates)
    export(settings_of(tmp_path / "c", format="csv"), candidates)
    assert len(pl.read_csv(tmp_path / "c")) == 7


def test_a_kill_between_writing_and_switching_leaves_the_old_copy(tmp_path: Path, candidates: Candidates) -> None:
    export(settings_of(tmp_path / "c"), candidates)
    before = (tmp_path / "c").resolve()
    newer = publish(tmp_path / "warehouse", {"a": ["only"]}, run="r2")
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path; from test_files import *;"
        "Path.replace = lambda *_: os._exit(9);"
        "export(settings_of(sys.argv[2]), Candidates(path=sys.argv[3], version=int(sys.argv[4])))"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code, Path(__file__).parent, tmp_path / "c", newer.path, str(newer.version)],
        cwd=ROOT,
        check=False,
    )
    assert killed.returncode == 9
    assert len(list((tmp_path / ".c.versions").glob("v*"))) == 2  # the new one was written
    assert (tmp_path / "c").resolve() == before
    assert set(pl.read_parquet(tmp_path / "c")["run"]) == {"r1"}
    export(settings_of(tmp_path / "c"), newer)  # started again, it ends as if nothing had happened
    assert set(pl.read_parquet(tmp_path / "c")["run"]) == {"r2"}
    left = {path.name for path in (tmp_path / ".c.versions").iterdir()}
    assert left == {before.name, (tmp_path / "c").resolve().name, "lock", "owner", "former", "copies"}


def test_a_failure_while_writing_leaves_the_old_copy(
    tmp_path: Path, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(settings_of(tmp_path / "c"), candidates)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("recsys.exports.files.synchronise", full)
    with pytest.raises(RecsysError, match="No space left"):
        export(settings_of(tmp_path / "c", layout="wide"), candidates)
    assert len(pl.read_parquet(tmp_path / "c")) == 7
    assert len(list((tmp_path / ".c.versions").glob("v*"))) == 1


def test_two_exports_to_one_path_do_not_mix(tmp_path: Path, candidates: Candidates) -> None:
    (tmp_path / ".c.versions").mkdir()
    with (
        module._alone(tmp_path / ".c.versions" / "lock", tmp_path / "c"),
        pytest.raises(RecsysError, match="Another export"),
    ):
        export(settings_of(tmp_path / "c"), candidates)


def test_a_users_own_files_are_never_replaced(tmp_path: Path, candidates: Candidates) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    (tmp_path / "file.csv").write_text("mine")
    (tmp_path / "link").symlink_to("folder")
    for name in ("folder", "file.csv", "link"):
        with pytest.raises(InputError, match=name):
            export(settings_of(tmp_path / name), candidates)
    assert (tmp_path / "folder" / "thesis.txt").read_text() == (tmp_path / "file.csv").read_text() == "mine"
    (tmp_path / "empty").mkdir()
    export(settings_of(tmp_path / "empty"), candidates)
    assert len(pl.read_parquet(tmp_path / "empty")) == 7


def test_a_relative_path_works_from_elsewhere(
    tmp_path: Path, candidates: Candidates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    export(settings_of("deep/er/c"), candidates)
    monkeypatch.chdir("/")
    assert len(pl.read_parquet(tmp_path / "deep" / "er" / "c")) == 7
    assert not (tmp_path / "deep" / "er" / "c").readlink().is_absolute()  # the folder can be moved


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"path": None}, "nowhere to export to"),
        ({"path": "s3://bucket/c"}, "writes local files"),
        ({"columns": {"itemid": "x"}}, "'itemid'; did you mean 'item_id'"),
        ({"columns": {"item_id": "x", "user_id": "x"}}, "'x'"),
        ({"columns": {"rank": "rank"}, "layout": "wide"}, "no rank"),
        ({"columns": {"item_id": "i", "run": "i_1"}, "layout": "wide", "format": "csv"}, "one name"),
    ],
)
def test_wrong_settings(tmp_path: Path, candidates: Candidates, more: dict[str, Any], message: str) -> None:
    given = {"path": tmp_path / "c", **more}
    with pytest.raises(InputError, match=message):
        export(settings_of(**given), candidates)
    assert not (tmp_path / "c").exists()


def test_what_is_no_candidate_table(tmp_path: Path, candidates: Candidates) -> None:
    with pytest.raises(InputError, match="no version 7"):
        export(settings_of(tmp_path / "c"), Candidates(path=candidates.path, version=7))
    with pytest.raises(InputError, match="no version 0"):
        export(settings_of(tmp_path / "c"), Candidates(path=str(tmp_path / "nothing"), version=0))
    append(tmp_path, "items", pl.DataFrame({"item_id": [1]}), expected=None)
    with pytest.raises(InputError, match="not a candidate table"):
        export(settings_of(tmp_path / "c"), Candidates(path=table_path(tmp_path, "items"), version=0))


def test_rows_out_of_order_are_refused_rather_than_split_over_two_lines(tmp_path: Path) -> None:
    candidates = publish(tmp_path / "warehouse", {"b": ["x", "y"], "a": ["x"]})
    with pytest.raises(RecsysError, match="order"):
        export(settings_of(tmp_path / "c", layout="wide"), candidates)
    assert DeltaTable(candidates.path).version() == 0 and not (tmp_path / "c").exists()


def test_the_copy_of_another_configuration_is_never_replaced(tmp_path: Path, candidates: Candidates) -> None:
    settings = settings_of(tmp_path / "c")
    export(settings, candidates)
    before = (tmp_path / "c").resolve()
    other = settings.model_copy(update={"name": "other"})
    with pytest.raises(InputError, match=r"holds the candidates of the configuration 'tiny', and this one is 'other'"):
        export(other, candidates)
    assert (tmp_path / "c").resolve() == before
    (tmp_path / ".c.versions" / "owner").unlink()  # a copy from before says nothing and is adopted
    export(other, candidates)
    with pytest.raises(InputError, match="holds the candidates of the configuration 'other'"):
        export(settings, candidates)


@pytest.mark.parametrize("emptied", [True, False], ids=["emptied", "lost"])
def test_a_lost_commit_is_not_exported_as_yesterdays_table(tmp_path: Path, emptied: bool) -> None:
    publish(tmp_path / "warehouse", {"a": ["old"]})
    newer = publish(tmp_path / "warehouse", {"a": ["new"]})
    commit = Path(newer.path) / "_delta_log" / f"{newer.version:020d}.json"
    commit.write_bytes(b"") if emptied else commit.unlink()
    version = latest_version(tmp_path / "warehouse", "candidates")
    assert version is not None
    with pytest.raises(RecsysError, match="is lost"):
        export(settings_of(tmp_path / "c"), Candidates(path=newer.path, version=version))
    assert not (tmp_path / "c").exists()


def test_a_copy_that_is_not_kept_leaves_one(tmp_path: Path, candidates: Candidates) -> None:
    export(settings_of(tmp_path / "c"), candidates)
    export(settings_of(tmp_path / "c"), candidates, keep=False)
    assert len(list((tmp_path / ".c.versions").glob("v*"))) == 1
