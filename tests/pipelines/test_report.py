"""The page of a night from its record: which run, from where, and what it must not cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from recsys import runs
from recsys.errors import InputError
from recsys.pipelines import report as module
from recsys.pipelines.report import night_record, report, report_alone
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from tests.recsys.report.nights import whole_night


def settings_of(folder: Path, **more: Any) -> Settings:
    tree = {"name": "shop", "warehouse": str(folder / "warehouse"), "interactions": {"source": "log.csv"}}
    return parse_settings(tree | {"tracking": {"uri": f"sqlite:///{folder}/mlflow.db"}} | more)


def recorded(settings: Settings, key: str, run: str, started: str, **changes: Any) -> runs.RunState:
    steps = {name: {**step, "key": ""} for name, step in whole_night()["steps"].items()}
    state = replace(runs.RunState(key=key, run_id=run, started=started, steps=steps, status="finished"), **changes)
    runs.save(runs.state_folder(settings.warehouse), state)
    return state


def test_the_newest_run_that_was_evaluated_is_the_one(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    recorded(settings, "k1", "aaa", "2026-11-26T01:00:00+00:00")
    recorded(settings, "k2", "bbb", "2026-11-27T01:00:00+00:00")
    recorded(settings, "k3", "ccc", "2026-11-28T01:00:00+00:00", steps={}, status="failed", error="OSError: full")
    assert report_alone(settings)["run"] == "bbb"
    assert report_alone(settings, "aa")["run"] == "aaa"
    failed = report_alone(settings, "ccc")
    assert "The night itself failed: OSError: full" in Path(failed["path"]).read_text(encoding="utf-8")


def test_a_run_of_another_configuration_in_the_same_warehouse_is_not_taken(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    recorded(settings, "k1", "aaa", "2026-11-26T01:00:00+00:00")
    other = settings_of(tmp_path, name="other")
    with pytest.raises(InputError, match="no record of a run of 'other'"):
        report_alone(other)


def test_the_page_of_a_run_whose_record_was_followed_is_found(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    recorded(settings, "k", "aaa", "2026-11-26T01:00:00+00:00")
    first = report_alone(settings)
    recorded(settings, "k", "bbb", "2026-11-27T01:00:00+00:00")
    assert report_alone(settings, "aaa") == first | {"made": False}
    assert report_alone(settings)["run"] == "bbb"


def test_a_beginning_that_several_runs_share_is_refused(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    recorded(settings, "k1", "ab1", "2026-11-26T01:00:00+00:00")
    recorded(settings, "k2", "ab2", "2026-11-27T01:00:00+00:00")
    with pytest.raises(InputError, match="Several runs begin with 'ab'"):
        report_alone(settings, "ab")


def test_ids_are_shown_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    recorded(settings, "k", "aaa", "2026-11-26T01:00:00+00:00")
    assert "user-1" not in Path(report_alone(settings)["path"]).read_text(encoding="utf-8")
    named = settings_of(tmp_path, report={"show_user_ids": True})
    assert "user-1" in Path(report_alone(named)["path"]).read_text(encoding="utf-8")


def test_the_record_of_the_page_holds_the_verdict_and_no_password(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    state = recorded(settings, "k", "aaa", "2026-11-26T01:00:00+00:00")
    judged = state.with_step("judge", whole_night()["verdict"], 1.0)
    record = night_record(settings, judged, "http://me:secret@host/#/runs/aaa")
    assert record["verdict"] == whole_night()["verdict"]
    assert record["about"]["program"].startswith("recsys ")
    assert "secret" not in json.dumps(record)


def test_a_page_that_cannot_be_made_costs_no_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(module, "page", broken)
    settings = settings_of(tmp_path)
    state = recorded(settings, "k", "aaa", "2026-11-26T01:00:00+00:00")
    made = report(settings, night_record(settings, state), "aaa")
    assert made["path"] is None and made["error"] == "ZeroDivisionError: a bug"


def test_pages_of_a_warehouse_elsewhere_lie_beside_its_run_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert module.reports_folder("w") == Path("w/reports")
    remote = module.reports_folder("s3://bucket/w")
    assert remote.is_relative_to(tmp_path) and remote.parent == runs.state_folder("s3://bucket/w")
