"""Every script of examples/ runs and shows what it says."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parents[2] / "examples"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module(name)


@pytest.mark.slow
def test_first_candidates(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    candidates = example("first_candidates", monkeypatch).main(tmp_path)
    assert candidates["user_id"].n_unique() == 300 and set(candidates["rank"]) == set(range(1, 11))


@pytest.mark.slow
def test_compare_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = example("compare_models", monkeypatch).main(tmp_path)
    assert set(table["objective"]) == {"cloze", "next-item"}
    assert (table.drop_nulls("low")["low"] <= table.drop_nulls("low")["high"]).all()


def test_schedule(monkeypatch: pytest.MonkeyPatch) -> None:
    planned = example("schedule", monkeypatch).deployment(str(FOLDER.parent / "configs" / "demo.toml"))
    assert planned.full_name == "nightly/demo" and planned.parameters == {"config": planned.parameters["config"]}
    assert planned.schedules[0].schedule.cron == "0 3 * * *"
