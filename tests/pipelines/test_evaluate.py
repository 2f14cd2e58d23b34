from __future__ import annotations

import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from recsys.evaluation.compare import EvaluationReport
from recsys.evaluation.leaks import NOT_RECORDED
from recsys.pipelines import evaluate as module
from recsys.pipelines.steps import plain
from recsys.pipelines.watch import WATCH, Watch
from recsys.settings.read import parse_settings


class Listening(Watch):
    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def report(**protocol: Any) -> EvaluationReport:
    parts: dict[str, Any] = {name: {} for name in ("metrics", "baselines", "intervals", "differences", "curves")}
    return EvaluationReport(served="model", **parts, popularity={}, examples=[], report={"protocol": protocol})


@pytest.mark.parametrize("recorded", [True, False])
def test_a_bundle_that_does_not_say_what_it_learned_from_is_warned_of(
    recorded: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stated = {"trained_on": "9 events"} if recorded else {"consumed": NOT_RECORDED}
    step = SimpleNamespace(store=None, run_id="run", runs=("run",), done=plain)
    monkeypatch.setattr(module, "step_run", lambda *_: contextlib.nullcontext(step))
    quiet = SimpleNamespace(log_metrics=lambda *_: None, log_table=lambda *_: None)
    monkeypatch.setattr(module, "tracking", quiet)
    monkeypatch.setattr(module.evaluation, "evaluate", lambda *_: report(**stated))
    listening = Listening()
    token = WATCH.set(listening)
    try:
        settings = parse_settings(
            {"name": "shop", "warehouse": str(tmp_path / "warehouse"), "interactions": {"source": "log.csv"}}
        )
        found: Any = module.evaluate(settings, None, "shop-0123")  # type: ignore[arg-type]
    finally:
        WATCH.reset(token)
    assert found["report"]["protocol"] == stated
    expected = f"Which events shop-0123 learned from is {NOT_RECORDED}; a leak in its training would not be seen."
    assert listening.warnings == ([] if recorded else [expected])
