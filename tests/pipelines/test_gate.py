"""Whole nights that the gate judges: what is kept back changes nothing, and a killed night goes on to its verdict."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from recsys import runs
from recsys.bundles.store import latest_bundle
from recsys.errors import RecsysError
from recsys.exports.files import FileSink
from recsys.exports.registry import sinks_of
from recsys.pipelines import cli, nightly
from recsys.releases.record import releases
from recsys.settings import FileExportSettings, Settings
from recsys.settings.read import load_settings
from recsys.storage import stream
from recsys.storage.warehouse import latest_version
from recsys.tracking import log as tracking
from tests.recsys.gate import shop

pytestmark = pytest.mark.integration
TOO_OLD = "gate.max_age_hours=1"  # the shop's log ended long ago


def write_config(folder: Path) -> str:
    tree = shop.tree(folder)
    tree["gate"] = {"baselines": False}  # an epoch without a blend is below counting, which the gate says
    tree["export"] = {"path": str(folder / "export")}
    tree["tracking"] = {"uri": f"sqlite:///{folder}/mlflow.db"}
    path = folder / "recsys.toml"
    path.write_text(tomlkit.dumps(tree))
    return str(path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder of a first night, with new rows in the log."""
    shop.write_log(tmp_path, shop.EVENTS - 3)
    summary = nightly.night(load_settings(write_config(tmp_path)))
    assert summary["published"] and summary["verdict"]["sentence"].startswith("Published: nothing was served before")
    shop.write_log(tmp_path, shop.EVENTS)
    return tmp_path


def what_readers_see(settings: Settings) -> tuple[Any, ...]:
    assert isinstance(settings.export, FileExportSettings)
    export = Path(settings.export.path)
    files = {path.name: path.read_bytes() for path in sorted(export.rglob("*.json"))}
    alias = tracking.open_store(settings).client.get_model_version_by_alias("shop", "champion").run_id
    table, bundle = latest_version(settings.warehouse, "candidates"), latest_bundle(settings.warehouse, "shop").name
    return table, bundle, [one.run for one in releases(settings)], alias, files


def test_a_night_that_is_kept_back_changes_nothing_and_the_next_one_replaces_it(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, settings = str(folder / "recsys.toml"), load_settings(folder / "recsys.toml")
    before = what_readers_see(settings)
    capsys.readouterr()
    assert cli.execute(["run", config, "--no-prefect", "--json", "--set", TOO_OLD]) == 3
    told = capsys.readouterr()
    summary = json.loads(told.out)
    sentence = summary["verdict"]["sentence"]
    assert sentence.startswith("Kept back: newest event: The newest event is of 2023-11-2") and sentence in told.err
    assert summary["published"] is False and summary["export"] is None and summary["candidates"]["version"] is None
    assert what_readers_see(settings) == before
    state = runs.state_of(runs.state_folder(settings.warehouse), summary["run_id"])
    assert state is not None and state.status == "finished" and "publish" not in state.steps
    staged = stream.Staged(**state.steps["retrieve"]["report"]["staged"])
    assert stream.is_there(staged)  # until the next night
    run = tracking.open_store(settings).client.get_run(summary["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["recsys.verdict"] == "kept back"
    assert sentence in run.data.tags["mlflow.note.content"]
    assert cli.execute(["run", config, "--no-prefect"]) == 0  # the same data, judged by the defaults
    assert "Published: " in capsys.readouterr().out
    assert not stream.is_there(staged)
    after = what_readers_see(settings)
    assert after[0] == before[0] + 1 and after[3] != before[3] and len(after[2]) == 2


def test_a_night_killed_between_verdict_and_publishing_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> dict[str, Any]:
        raise Killed

    settings = load_settings(folder / "recsys.toml")
    with monkeypatch.context() as patch:
        patch.setattr(nightly, "publish_task", replace(nightly.publish_task, fn=killed))
        with pytest.raises(Killed):
            nightly.night(settings)
    before = next(runs.states(runs.state_folder(settings.warehouse))).steps["judge"]["report"]
    again = replace(nightly.judge_task, fn=lambda *_: pytest.fail("judged again"))
    monkeypatch.setattr(nightly, "judge_task", again)
    summary = nightly.night(settings)
    assert summary["resumed"] and summary["published"] and summary["verdict"] == before
    assert releases(settings)[-1].verdict == before["sentence"]


def test_a_night_that_is_kept_back_makes_up_for_the_export_of_the_one_before(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, real, failures = load_settings(folder / "recsys.toml"), FileSink.write, [1, 2]

    def away(self: FileSink, *given: Any, **more: Any) -> Any:
        if failures:
            failures.pop()
            raise RecsysError("The target is away.")
        return real(self, *given, **more)

    (sink,) = sinks_of(settings)
    monkeypatch.setattr(FileSink, "write", away)
    shop.write_log(folder, shop.EVENTS - 2)
    with pytest.raises(RecsysError, match="The night is published, and its export failed: The target is away;"):
        nightly.night(load_settings(folder / "recsys.toml", ["gate.enabled=false"]))
    served, held = releases(settings)[-1].run, sink.held()
    night = next(runs.states(runs.state_folder(settings.warehouse)))
    assert (night.status, list(night.steps)[-1]) == ("failed", "publish")
    assert list(Path(settings.warehouse).glob(f"reports/*/*{served[:8]}*.html"))  # readers of the table have the night
    assert len(releases(settings)) == 2 and held is not None and held.run != served
    shop.write_log(folder, shop.EVENTS)
    summary = nightly.night(load_settings(folder / "recsys.toml", [TOO_OLD]))  # away at its start, too
    held = sink.held()
    assert not summary["published"] and not failures and held is not None and held.run == served
