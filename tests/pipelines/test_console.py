"""What the end of a command says."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from recsys.data.withdrawals import Withdrawals
from recsys.pipelines import train as training
from recsys.pipelines.steps import plain
from recsys.pipelines.terminal.console import (
    left_out_of_training,
    remarks,
    show_differences,
    show_metrics,
    show_night,
    untrained,
    withdrawn,
)
from recsys.pipelines.watch import WATCH, Watch
from recsys.settings.read import parse_settings

METRICS = {"test/hr_at_10": 0.5, "test/ndcg_at_10": 0.25}
LEAD = {"mean": 0.25, "low": -0.0125, "high": 0.5}
REPORT: dict[str, Any] = {
    "served": "blend",
    "metrics": METRICS,
    "baselines": {"popularity": {"test/hr_at_10": 0.25, "test/ndcg_at_10": 0.125}},
    "differences": {"popularity": {"test/hr_at_10": LEAD}},
}
NO_EMPTY = {"empty_lists": 0, "short_lists": 0}
SUMMARY: dict[str, Any] = {
    **REPORT,
    "name": "shop",
    "candidates": {"path": "w/candidates", "version": 0, "rows": 30, "k": 10, "users": 3, **NO_EMPTY},
    "bundle": "w/bundles/shop-1",
    "tables": {"reasons": {}},
    "mlflow": {"link": "http://x"},
    "seconds": {"total": 1.0},
}


def printed(show: Any, *arguments: Any) -> str:
    file = io.StringIO()
    show(Console(file=file, width=200), *arguments)
    return file.getvalue()


def test_a_line_a_baseline_says_the_lead_and_its_interval() -> None:
    told = printed(show_metrics, "shop", REPORT)
    assert "blend minus each baseline" in told and "+0.2500 (-0.0125 to +0.5000)" in told
    older = {name: value for name, value in REPORT.items() if name != "differences"}
    assert "minus" not in printed(show_metrics, "shop", older)  # a report of an older night


def test_a_night_says_who_gets_none_and_what_was_taken_back() -> None:
    more = {
        "left_out": {"users": 2, "by": ["filter.min_user_interactions = 5"]},
        "withdrawals": plain(Withdrawals(rows=7, events=4, lessened=2, unmatched=1)),
        "untrained": "No epoch was trained.",
    }
    said = (
        "2 users of the log, by filter.min_user_interactions = 5",
        "7 withdrawals took 4 events back and a part of 2 others; 1 found nothing to take.",
        "No epoch was trained.",
    )
    told = printed(show_night, SUMMARY | more, None)
    assert all(sentence in told for sentence in said)
    page = remarks(SUMMARY | more)
    assert page[0] == "- blend minus popularity: test/hr_at_10 +0.2500 (-0.0125 to +0.5000)"
    assert "- served: 3 of 3 users of the log; every list is as long as k = 10 and the items left allow" in page
    assert all(any(line.endswith(sentence) for line in page) for sentence in said)
    assert "filtered out" not in printed(show_night, SUMMARY, None)  # an older night says nothing of them
    assert left_out_of_training({"users": 0, "by": []}) is None and withdrawn(plain(Withdrawals())) is None


VERDICT: dict[str, Any] = {
    "passed": False,
    "sentence": "Kept back: worse than yesterday's by 0.0400 ± 0.0100 ndcg@10. And 1 more reason.",
    "reasons": [
        "Worse than yesterday's by 0.0400 ± 0.0100 ndcg@10.",
        "Full lists: The table has 5 of 9 possible rows.",
    ],
    "checks": [
        {"name": "full lists", "status": "failed", "sentence": "The table has 5 of 9 possible rows."},
        {"name": "unseen values", "status": "passed", "sentence": "None."},
        {"name": "drift", "status": "skipped", "sentence": "The log has no time."},
        {"name": "promise of the table before", "status": "skipped", "sentence": "The log has no time."},
        {"name": "newest event", "status": "skipped", "sentence": "Switched off."},
    ],
}


def test_a_night_that_is_kept_back_says_why_and_what_was_not_checked() -> None:
    candidates = {**SUMMARY["candidates"], "version": None}
    told = printed(show_night, SUMMARY | {"verdict": VERDICT, "candidates": candidates}, None)
    assert VERDICT["sentence"] in told and "kept back, 30 rows" in told
    for line in (
        "Full lists: The table has 5 of 9 possible rows.",
        "1 check passed, 1 failed",
        "not checked: drift, promise of the table before (the log has no time)",
        "not checked: newest event (switched off)",
    ):
        assert f"  {line}\n" in told


TREE = {"name": "n", "interactions": {"source": "x.csv"}}


@pytest.mark.parametrize(
    ("epochs", "trained", "start", "told", "warned"),
    [
        (0, None, None, "no weights came from another bundle", True),
        (0, None, {"bundle": None, "reason": "there is none yet"}, "Set train.epochs to 1 or more", True),
        (0, None, {"bundle": "shop-1"}, "the model is that of shop-1 as it was, zero-shot", False),
        (0, {"events": 9}, None, None, False),  # a Recformer's probe
        (4, None, None, None, False),  # nothing to train: the text recommender
    ],
)
def test_an_untrained_model_is_said_to_be_one(
    epochs: int,
    trained: Any,
    start: Any,
    told: str | None,
    warned: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = parse_settings({**TREE, "train": {"epochs": epochs}})
    report = {"consumed": {"trained": trained}, "warm_start": start, "blend": None, "epochs": 0}
    sentence = untrained(settings, report)
    assert (sentence is None) if told is None else (told in str(sentence))
    heard: dict[str, list[str]] = {"say": [], "warn": []}

    class Listening(Watch):
        def say(self, text: str) -> None:
            heard["say"].append(text)

        def warn(self, text: str) -> None:
            heard["warn"].append(text)

    class Step:
        store = run_id = None

        def __enter__(self) -> Any:
            return SimpleNamespace(store=None, run_id=None, runs=(), done=lambda found: found)

        def __exit__(self, *_: object) -> None:
            return None

    monkeypatch.setattr(training, "step_run", lambda *_: Step())
    monkeypatch.setattr(training, "tracking", SimpleNamespace(log_metrics=lambda *_: None))
    monkeypatch.setattr(training, "fit", lambda *_: report)
    token = WATCH.set(Listening())
    try:
        training.train(settings, None)  # type: ignore[arg-type]
    finally:
        WATCH.reset(token)
    assert heard["warn" if warned else "say"] == ([] if sentence is None else [sentence])
    assert heard["say" if warned else "warn"] == []


def test_differences_say_why_the_verdict_has_wider_intervals() -> None:
    leads = {"transitions": {"test/ndcg_at_10": {"mean": 0.041, "low": 0.0074, "high": 0.0763}}}
    alone = {"served": "blend", "differences": leads}
    for report, wider in ((alone, False), ({**alone, "verdict": {"passed": True}}, True)):
        page = io.StringIO()
        show_differences(Console(file=page, width=120), report)
        text = page.getvalue()
        assert "each alone" in text and ("for all comparisons together" in text) == wider
