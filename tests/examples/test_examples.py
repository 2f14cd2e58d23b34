"""Every script of examples/ runs and shows what it says."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from recsys.candidates.registry import SOURCES
from recsys.settings import kinds

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


@pytest.mark.slow
def test_custom_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        candidates = example("custom_source", monkeypatch).main(tmp_path)
        assert candidates["source"].str.contains("brand").any()
    finally:
        SOURCES.pop("brand", None)


@pytest.mark.slow
def test_custom_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        report = example("custom_model", monkeypatch).main(tmp_path)
        assert report.metrics["test/ndcg_at_10"] > report.baselines["popularity"]["test/ndcg_at_10"]
    finally:
        kinds.KINDS.pop("svd", None)
