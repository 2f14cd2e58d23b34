"""Several targets at once: each by its own name, and one that fails keeps none of the others from being written."""

from __future__ import annotations

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tomlkit

from recsys.errors import InputError, RecsysError
from recsys.exports import several
from recsys.exports.due import due, note
from recsys.exports.files import FileSink
from recsys.exports.registry import sink_of, sinks_of
from recsys.pipelines import export as step
from recsys.pipelines.cli import execute
from recsys.pipelines.terminal.console import exported
from recsys.settings import Settings
from recsys.settings.read import load_settings, parse_settings
from tests.recsys.exports.targets import publish

OLD, NEW = {"ann": ["x", "y"], "bob": ["z"]}, {"ann": ["w"]}


def tree(folder: Path, export: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": "shop",
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "export": export,
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }


def two(folder: Path) -> dict[str, Any]:
    return {
        "path": str(folder / "files"),
        "db": {"kind": "sqlite", "path": str(folder / "shop.db")},
        "cache": {"kind": "files", "path": str(folder / "cache.csv"), "format": "csv", "columns": {"item_id": "sku"}},
    }


def rows(folder: Path) -> tuple[int, int, int]:
    with closing(sqlite3.connect(folder / "shop.db")) as connection:
        count = connection.execute("select count(*) from candidates").fetchone()[0]
    return len(pl.read_parquet(folder / "files")), count, len(pl.read_csv(folder / "cache.csv"))


def test_the_section_itself_is_one_target_and_each_table_below_it_one_more(tmp_path: Path) -> None:
    settings = parse_settings(tree(tmp_path, two(tmp_path)))
    assert [(sink.target, sink.kind) for sink in sinks_of(settings)] == [
        ("export", "files"),
        ("db", "sqlite"),
        ("cache", "files"),
    ]
    assert [sink.target for sink in sinks_of(settings, "db")] == ["db"]
    dumped = settings.model_dump(mode="json")
    assert list(dumped["export"]) == ["export", "db", "cache"] and Settings.model_validate(dumped) == settings
    (tmp_path / "c.toml").write_text(tomlkit.dumps(tree(tmp_path, two(tmp_path))))
    assert load_settings(tmp_path / "c.toml", ["export.cache.path=none"]).export.targets["cache"].wanted is False
    with pytest.raises(InputError, match="has no export target 'dbb'; there are export, db, cache"):
        sinks_of(settings, "dbb")
    with pytest.raises(InputError, match="has 3 export targets, and one is asked for"):
        sink_of(settings)


@pytest.mark.parametrize(
    ("export", "sentence"),
    [
        ({"db": {"kind": "postgrsql"}}, r"export\.db\.kind = 'postgrsql': .* did you mean 'postgresql'\?"),
        (
            {"db": {"kind": "redis", "adress": "x"}},
            r"no setting export\.db\.adress; did you mean export\.db\.address\?",
        ),
        ({"db": {"kind": "sqlite"}}, r"export\.db\.path is missing"),
        ({"f": {"format": "csv"}}, r"export\.f\.path is missing; add it, or set it to"),
        ({"a b": {"path": "x"}}, r"letters, digits, _ and - only, not 'a b'"),
        ({"path": "x", "export": {"path": "y"}}, r"call \[export\.export\] otherwise"),
        ({"db": {"kind": "postgresql", "table": "t" * 51}}, r"export\.db\.table = 't+'"),
        ({"db": {"kind": "redis", "prefix": "a*"}}, r"export\.db\.prefix = 'a\*'"),
        ({"s": {"kind": "s3", "path": "s3://bucket"}}, r"export\.s\.path = 's3://bucket'"),
    ],
)
def test_wrong_settings_name_the_target(tmp_path: Path, export: dict[str, Any], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        parse_settings(tree(tmp_path, export))


def test_one_that_fails_keeps_no_other_from_being_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse_settings(tree(tmp_path, two(tmp_path)))
    older = publish(tmp_path / "warehouse", OLD)
    report = several.export(settings, older)
    assert {name: of["rows"] for name, of in report["targets"].items()} == {"export": 3, "db": 3, "cache": 3}
    newer = publish(tmp_path / "warehouse", NEW, "r2")
    real = FileSink.write

    def broken(self: FileSink, *arguments: Any, **more: Any) -> Any:
        if self.target == "export":
            raise OSError(5, "Input/output error", "files")
        return real(self, *arguments, **more)

    with monkeypatch.context() as patch:
        patch.setattr(FileSink, "write", broken)
        with pytest.raises(
            RecsysError, match="The export target export failed, 2 of 3 are written; export: "
        ) as caught:
            several.export(settings, newer)
    assert not isinstance(caught.value, InputError) and isinstance(caught.value.__cause__, OSError)
    assert caught.value.report["targets"]["export"] == {"kind": "files", "error": "files: Input/output error."}
    assert rows(tmp_path) == (3, 1, 1)
    written: list[str] = []
    monkeypatch.setattr(
        FileSink, "write", lambda self, *given, **more: written.append(self.target) or real(self, *given, **more)
    )
    resumed = several.export(settings, newer, resumed=True)  # what is missing, and no more
    assert written == ["export"] and rows(tmp_path) == (1, 1, 1)
    assert resumed["targets"]["db"] == {"held": True, "kind": "sqlite", "version": 1}
    assert several.rollback(settings, "db")["targets"]["db"]["version"] == 0
    assert rows(tmp_path) == (1, 3, 1)


def test_the_command_writes_and_takes_back_every_target(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(tmp_path / "c.toml")
    Path(config).write_text(tomlkit.dumps(tree(tmp_path, two(tmp_path))))
    for lists, run in ((OLD, "r1"), (NEW, "r2")):
        publish(tmp_path / "warehouse", lists, run)
        assert execute(["export", config, "--json"]) == 0
        assert set(json.loads(capsys.readouterr().out)["targets"]) == {"export", "db", "cache"}
    assert execute(["export", config, "--rollback", "--target", "db", "--json"]) == 0
    assert rows(tmp_path) == (1, 3, 1)
    assert execute(["export", config, "--rollback"]) == 1
    assert rows(tmp_path) == (3, 3, 3)
    assert "The export target db failed, 2 of 3 are taken back; db: " in " ".join(capsys.readouterr().err.split())
    assert execute(["export", config, "--rollback", "--target", "dbb"]) == 2
    assert execute(["export", config, "--target", "db"]) == 2


def test_a_target_that_cannot_be_reached_yet_stops_no_night(tmp_path: Path) -> None:
    away = {"kind": "redis", "address": "redis://127.0.0.1:1/0"}
    settings = parse_settings(tree(tmp_path, {"cache": away, "db": {"kind": "sqlite", "path": str(tmp_path / "x.db")}}))
    step.check_targets(settings)
    with pytest.raises(RecsysError, match="cannot be reached"):
        several.check(settings)
    (tmp_path / "file").touch()
    lasting = parse_settings(tree(tmp_path, {"db": {"kind": "sqlite", "path": str(tmp_path / "file" / "x.db")}}))
    with pytest.raises(InputError, match="is a file, no folder"):
        step.check_targets(lasting)


def test_the_command_writes_the_targets_that_answer(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(database, tmp_path / "mlflow.db")
    away = {"kind": "redis", "address": "redis://127.0.0.1:1/0"}
    export = {"cache": away, "files": {"path": str(tmp_path / "files")}}
    given = {**tree(tmp_path, export), "limits": {"retries": 1, "retry_seconds": 0.0}}
    config = str(tmp_path / "c.toml")
    Path(config).write_text(tomlkit.dumps(given))
    publish(tmp_path / "warehouse", OLD)
    written: list[str] = []
    real = FileSink.write
    monkeypatch.setattr(
        FileSink, "write", lambda self, *given, **more: written.append(self.target) or real(self, *given, **more)
    )
    assert execute(["export", config]) == 1
    assert "The export target cache failed, 1 of 2 are written; cache: " in " ".join(capsys.readouterr().err.split())
    assert len(pl.read_parquet(tmp_path / "files")) == 3 and due(parse_settings(given)) == {"cache"}
    assert written == ["files"]  # the second try leaves it alone
    with pytest.raises(RecsysError, match="2 export targets failed"):
        several.rollback(parse_settings(given))  # one is away, one has no older copy
    assert due(parse_settings(given)) == frozenset()


def test_an_update_writes_a_target_whose_export_is_due_and_leaves_one_that_was_taken_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(tree(tmp_path, two(tmp_path)))
    several.export(settings, publish(tmp_path / "warehouse", OLD))
    second = publish(tmp_path / "warehouse", NEW, "r2")

    def broken(*_: Any, **__: Any) -> Any:
        raise RecsysError("There is no room.")

    with monkeypatch.context() as patch:
        patch.setattr(FileSink, "write", broken)
        with pytest.raises(RecsysError, match="2 export targets failed"):
            several.export(settings, second)
    assert due(settings) == {"export", "cache"}
    several.rollback(settings, "db")
    report = several.update(settings, second, None, second)["targets"]
    assert rows(tmp_path) == (1, 3, 1) and report["db"]["left"] and due(settings) == frozenset()


def test_an_older_version_that_is_exported_by_hand_leaves_a_newer_one_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(tree(tmp_path, two(tmp_path)))
    older = publish(tmp_path / "warehouse", OLD)
    newer = publish(tmp_path / "warehouse", NEW, "r2")
    note(settings, ["export", "db"], newer)  # as a night does while the older one is being exported
    several.export(settings, older, only={"export"})
    assert due(settings) == {"export", "db"}

    def broken(*_: Any, **__: Any) -> Any:
        raise RecsysError("There is no room.")

    with monkeypatch.context() as patch:
        patch.setattr(FileSink, "write", broken)
        with pytest.raises(RecsysError):
            several.export(settings, older, only={"export"})
    assert due(settings, "r2") == {"export", "db"} and due(settings, "r1") == frozenset()
    several.export(settings, newer)
    assert due(settings) == frozenset()


def test_a_night_that_is_resumed_leaves_its_only_target_alone_that_holds_the_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = parse_settings(tree(tmp_path, {"path": str(tmp_path / "files")}))
    made = publish(tmp_path / "warehouse", OLD)
    written: list[str] = []
    real = FileSink.write
    monkeypatch.setattr(
        FileSink, "write", lambda self, *given, **more: written.append(self.target) or real(self, *given, **more)
    )
    assert several.export(settings, made, resumed=True)["rows"] == 3
    report = several.export(settings, made, resumed=True)
    assert written == ["export"] and report["held"] and exported(report) == "was there already"
    several.export(settings, made)  # by hand
    assert written == ["export", "export"]


def test_the_night_says_where_each_copy_is() -> None:
    report = {"targets": {"db": {"path": "x.db candidates"}, "cache": {"held": True}}}
    assert exported(report) == "db: x.db candidates\ncache: was there already"
    assert exported({"path": "p", "targets": {"export": {"path": "p"}}}) == "p"
    assert exported({"path": "p"}) == "p" and exported(None) is None


def test_nothing_wanted_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"There is no export\.path, so there is nowhere to export to"):
        several.check(parse_settings(tree(tmp_path, {})))
    with pytest.raises(InputError, match="has no export target that is wanted"):
        several.check(parse_settings(tree(tmp_path, {"f": {"path": "none"}})))
