"""A new export target is one class and one registration: settings, step, rollback and records come with it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import polars as pl
import pytest
import tomlkit

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, RecsysError
from recsys.exports import registry
from recsys.exports.base import Candidates, CandidateTable, ExportReport, RollbackReport, Sink
from recsys.exports.rows import batches, open_table
from recsys.pipelines.cli import execute
from recsys.pipelines.export import export_alone
from recsys.settings import ExportSettings, FileExportSettings, Settings
from recsys.settings.export import KINDS
from recsys.settings.read import parse_settings
from recsys.storage.stream import overwrite_streamed
from recsys.storage.warehouse import SCHEMAS


class MemorySink(Sink):
    """A dictionary by user, with the one before it: as a key-value store would be."""

    class Keys(ExportSettings):
        kind: Literal["memory"] = "memory"
        shelf: str  # name of the dictionary
        most: int = 100  # (items) of a user

    kind = "memory"
    keys = Keys
    shelves: ClassVar[dict[str, list[tuple[int, str | None, dict[Any, list[Any]]]]]] = {}

    def check(self) -> None:
        if not self.settings.shelf:
            raise InputError("export.shelf is empty; name a dictionary.")

    def write(self, candidates: CandidateTable, *, keep: bool = True) -> ExportReport:
        began = time.perf_counter()
        self.check()
        files, _ = open_table(candidates)
        held: dict[Any, list[Any]] = {}
        for frame in batches(files):
            for user, item in frame.select(USER_ID, ITEM_ID).iter_rows():
                held.setdefault(user, []).append(item)
        copies = self.shelves.get(self.settings.shelf, [])
        same = copies and copies[-1][1] == candidates.run
        if not same:
            copies = [*(copies[-1:] if keep else []), (candidates.version, candidates.run, held)]
        self.shelves[self.settings.shelf] = copies
        return ExportReport(
            path=self.settings.shelf,
            rows=sum(map(len, held.values())),
            format="dictionary",
            layout="wide",
            columns=[USER_ID, ITEM_ID],
            version=candidates.version,
            seconds=time.perf_counter() - began,
            kind=self.kind,
        )

    def rollback(self) -> RollbackReport:
        copies = self.shelves[self.settings.shelf]
        if len(copies) < 2:
            raise RecsysError("There is no former copy.")
        instead = copies.pop()[0]
        return RollbackReport(path=self.settings.shelf, version=copies[-1][0], instead=instead, kind=self.kind)

    def present(self) -> bool:
        return self.settings.shelf in self.shelves


@pytest.fixture
def memory() -> Iterator[None]:
    registry.register(MemorySink)
    yield
    del registry._SINKS["memory"], KINDS["memory"]
    MemorySink.shelves.clear()


def tree(folder: Path, **export: Any) -> dict[str, Any]:
    return {
        "name": "shop",
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "export": export,
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }


def publish(folder: Path, lists: dict[str, list[str]], run: str) -> int:
    schema = {**SCHEMAS["candidates"], "user_id": pl.String(), "item_id": pl.String()}
    rows = [(user, rank, item) for user, items in lists.items() for rank, item in enumerate(items, 1)]
    frame = pl.DataFrame(rows, schema={"user_id": pl.String, "rank": pl.Int32, "item_id": pl.String}, orient="row")
    missing = [pl.lit(None, dtype).alias(name) for name, dtype in schema.items() if name not in frame.columns]
    frame = frame.with_columns(missing).select(*schema)
    return overwrite_streamed(
        folder / "warehouse", "candidates", schema, iter([frame]), metadata={"name": "shop", "run": run}
    )


def test_a_sink_is_one_class_and_one_registration(tmp_path: Path, memory: None) -> None:
    settings = parse_settings(tree(tmp_path, kind="memory", shelf="s"))
    publish(tmp_path, {"ann": ["x", "y"], "bob": ["z"]}, "r1")
    report = export_alone(settings)
    assert (report["path"], report["rows"], report["kind"], report["version"]) == ("s", 3, "memory", 0)
    assert MemorySink.shelves["s"][-1] == (0, "r1", {"ann": ["x", "y"], "bob": ["z"]})
    export_alone(settings)  # the same run again adds nothing
    assert len(MemorySink.shelves["s"]) == 1
    publish(tmp_path, {"ann": ["w"]}, "r2")
    assert export_alone(settings)["version"] == 1
    back = {"path": "s", "version": 0, "instead": 1, "kind": "memory"}
    assert export_alone(settings, rollback=True) == {**back, "targets": {"export": back}}
    with pytest.raises(RecsysError, match="no former copy"):
        export_alone(settings, rollback=True)


def test_its_settings_are_its_own(tmp_path: Path, memory: None) -> None:
    settings = parse_settings(tree(tmp_path, kind="memory", shelf="s"))
    assert settings.export == MemorySink.Keys(shelf="s") and settings.export.wanted
    assert settings.model_dump(mode="json")["export"] == {"kind": "memory", "shelf": "s", "most": 100}
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    for wrong, sentence in (
        ({"kind": "memory", "shelf": "s", "mst": 3}, r"no setting export\.mst; did you mean export\.most\?"),
        ({"kind": "memory"}, r"export\.shelf is missing"),
        ({"kind": "memory", "shelf": "s", "most": "all"}, r"export\.most = 'all'"),
        ({"kind": "memroy", "shelf": "s"}, r"export\.kind = 'memroy': there is no such export target; .*'memory'"),
        ({"path": "x", "pth": "y"}, r"no setting export\.pth; did you mean export\.path\?"),
        ({"format": "json"}, r"export\.format = 'json'"),
        ("x", r"export = 'x': it must be a section of settings"),
    ):
        with pytest.raises(InputError, match=sentence):
            parse_settings({**tree(tmp_path), "export": wrong})


def test_an_export_section_from_before_kinds_is_one_of_files(tmp_path: Path) -> None:
    settings = parse_settings(tree(tmp_path, path="exports/shop", format="csv"))
    assert settings.export == FileExportSettings(path="exports/shop", format="csv") and settings.export.wanted
    assert list(settings.model_dump(mode="json")["export"]) == ["path", "format", "layout", "columns"]  # as ever
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings
    assert not parse_settings(tree(tmp_path)).export.wanted
    assert not parse_settings(tree(tmp_path, path="none")).export.wanted
    sink = registry.sink_of(settings)
    assert sink.kind == "files" and not sink.present()


def test_the_files_before_come_back_once(tmp_path: Path) -> None:
    settings = parse_settings(tree(tmp_path, path=str(tmp_path / "out" / "c")))
    sink, path = registry.sink_of(settings), str(tmp_path / "warehouse" / "candidates")
    with pytest.raises(RecsysError, match="No export to"):
        sink.rollback()
    for number in range(3):
        sink.write(Candidates(path=path, version=publish(tmp_path, {"ann": [f"x{number}"]}, f"r{number}")))
    assert pl.read_parquet(tmp_path / "out" / "c")["item_id"].to_list() == ["x2"]
    report = sink.rollback()
    assert (report.version, report.instead, report.path) == (1, 2, str(tmp_path / "out" / "c"))
    assert pl.read_parquet(tmp_path / "out" / "c")["item_id"].to_list() == ["x1"]
    with pytest.raises(RecsysError, match="keeps no copy older than that of version 1"):
        sink.rollback()
    assert pl.read_parquet(tmp_path / "out" / "c")["item_id"].to_list() == ["x1"]
    sink.write(Candidates(path=path, version=2))
    sink.rollback()
    sink.write(Candidates(path=path, version=2), keep=False)
    with pytest.raises(RecsysError, match="keeps no copy older"):
        sink.rollback()


def test_the_command_brings_the_files_before_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = tree(tmp_path, path=str(tmp_path / "c"))
    (tmp_path / "recsys.toml").write_text(tomlkit.dumps(given))
    sink, path = registry.sink_of(parse_settings(given)), str(tmp_path / "warehouse" / "candidates")
    for number in range(2):
        sink.write(Candidates(path=path, version=publish(tmp_path, {"ann": [f"x{number}"]}, f"r{number}")))
    assert execute(["export", str(tmp_path / "recsys.toml"), "--rollback", "--json"]) == 0
    back = {"path": str(tmp_path / "c"), "version": 0, "instead": 1, "kind": "files"}
    assert json.loads(capsys.readouterr().out) == {**back, "targets": {"export": back}}
    assert pl.read_parquet(tmp_path / "c")["item_id"].to_list() == ["x0"]
    assert execute(["export", str(tmp_path / "recsys.toml"), "--rollback"]) == 2
    assert "keeps no copy older" in capsys.readouterr().err
