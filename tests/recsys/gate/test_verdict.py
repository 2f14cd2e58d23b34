"""One sentence of verdict: right when figures tie, are too few, or cannot be compared."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from recsys.gate.check import Check, skipped
from recsys.gate.figures import Lead, Outcome, check_test_users
from recsys.gate.verdict import Champion, Verdict, decide

NOW = datetime(2026, 3, 2, 3, tzinfo=UTC)


def lead(difference: float, margin: float, outcome: Outcome = "undecided", value: float = 0.1) -> Lead:
    return Lead(
        metric="ndcg@10",
        difference=difference,
        low=difference - margin,
        high=difference + margin,
        value=value,
        outcome=outcome,
    )


def champion(*leads: Lead, reason: str | None = None, days: int = 1) -> Champion:
    return Champion(run="r1", bundle="shop-1", at=NOW - timedelta(days=days), leads=leads, reason=reason)


BEHIND = {"popularity": [lead(0.05, 0.004, "better", 0.05)], "transitions": [lead(0.03, 0.004, "better", 0.07)]}
AHEAD = {"transitions": [lead(-0.469, 0.023, "worse", 0.6)]}
HALF = Check(name="users of the table before", status="failed", value=0.5, limit=0.8, sentence="Half are missing.")


def verdict(
    served: Champion | None,
    baselines: dict[str, list[Lead]],
    *checks: Check,
    users: int = 500,
    value: float | None = 0.1,
) -> Verdict:
    return decide(
        metric="ndcg@10",
        value=value,
        champion=served,
        baselines=baselines,
        checks=checks,
        users=users,
        few=20,
        as_of=NOW,
        confidence=0.95,
    )


PUBLISHED = {
    "better": (
        champion(lead(0.004, 0.002, "better")),
        "better than yesterday's by 0.0040 ± 0.0020; the best baseline (transitions) is behind by 0.0300",
    ),
    "a tie": (
        champion(lead(-0.0004, 0.002)),
        "no different from yesterday's beyond chance (−0.0004 ± 0.0020); the best baseline (transitions) is behind by "
        "0.0300",
    ),
    "the same": (
        champion(lead(0.0, 0.0), days=5),
        "ranks as the one of 2026-02-25 does; the best baseline (transitions) is behind by 0.0300",
    ),
    "tolerated": (
        champion(lead(-0.002, 0.001)),
        "worse than yesterday's by 0.0020 ± 0.0010, which the tolerance allows; the best baseline (transitions) is "
        "behind by 0.0300",
    ),
    "the first night": (None, "nothing was served before; the best baseline (transitions) is behind by 0.0300"),
    "not comparable": (
        champion(reason="the bundle is gone"),
        "not compared with yesterday's, because the bundle is gone; the best baseline (transitions) is behind by "
        "0.0300",
    ),
}


@pytest.mark.parametrize("case", PUBLISHED)
def test_the_sentence_of_a_night_that_is_published(case: str) -> None:
    served, expected = PUBLISHED[case]
    found = verdict(served, BEHIND)
    assert found.passed and not found.reasons
    assert found.sentence == f"Published: {expected}."


def test_a_baseline_ahead_within_chance_is_named_as_such() -> None:
    found = verdict(None, {"transitions": [lead(-0.002, 0.01)]})
    assert found.sentence.endswith(
        "the best baseline (transitions) is ahead by 0.0020, within chance (−0.0120 to +0.0080, for all comparisons "
        "together)."
    )


def test_a_worse_night_is_kept_back_with_every_reason() -> None:
    found = verdict(champion(lead(-0.04, 0.01, "worse")), AHEAD, HALF)
    assert not found.passed
    assert found.sentence == "Kept back: worse than yesterday's by 0.0400 ± 0.0100 ndcg@10. And 2 more reasons."
    assert found.reasons == [
        "Worse than yesterday's by 0.0400 ± 0.0100 ndcg@10.",
        "Worse than the baseline transitions by 0.4690 ± 0.0230 ndcg@10.",
        "Users of the table before: Half are missing.",
    ]


def test_a_failed_check_alone_keeps_back() -> None:
    found = verdict(None, BEHIND, HALF, skipped("drift", "Nothing was served before."))
    assert found.sentence == "Kept back: users of the table before: Half are missing."
    assert [check["status"] for check in found.checks] == ["failed", "skipped"]


def test_too_few_users_decide_nothing() -> None:
    found = verdict(None, {}, users=12)
    assert found.passed
    too_few = "Published: nothing was measured that could decide, as 12 test users are too few (20 are needed)"
    assert found.sentence == f"{too_few}; gate.min_test_users keeps such nights back."
    one = verdict(None, {}, check_test_users(1, 1), users=1)  # who chose a limit needs no hint
    assert one.sentence == (
        "Published: nothing was measured that could decide, as 1 test user is too few (20 are needed)."
    )


def test_a_night_that_nothing_measures_is_kept_back_where_that_is_asked_for() -> None:
    found = verdict(None, {}, check_test_users(1, 20), users=1)
    assert not found.passed
    assert found.sentence == "Kept back: test users: 1 user has a test question, and gate.min_test_users = 20."
    assert verdict(None, {}, check_test_users(20, 20), users=20).passed


def test_a_figure_that_is_no_number_keeps_back() -> None:
    found = verdict(None, BEHIND, value=None)
    assert found.sentence == "Kept back: the evaluation has no finite ndcg@10."


def test_the_verdict_names_champion_and_baselines() -> None:
    found = verdict(champion(lead(0.004, 0.002, "better", 0.35)), BEHIND)
    assert found.champion is not None
    assert found.champion["run"] == "r1" and found.champion["bundle"] == "shop-1"
    assert found.champion["outcome"] == "better" and found.champion["value"] == 0.35
    assert set(found.baselines) == {"popularity", "transitions"}


ALL_ZERO = {name: [lead(0.0, 0.0, "undecided", 0.0)] for name in ("popularity", "transitions")}


@pytest.mark.parametrize(
    ("served", "baselines", "value", "users", "expected"),
    [
        (None, ALL_ZERO, 0.0, 500, "nothing was served before; no ranker answers a test question, so nothing can be "),
        (champion(lead(0.0, 0.0)), ALL_ZERO, 0.0, 500, "no ranker answers a test question, so nothing can be compared"),
        (None, ALL_ZERO, 0.1, 500, "nothing was served before; no baseline answers a test question"),
        (
            None,
            {"popularity": [lead(-0.001, 0.002, "undecided", 0.001)]},
            0.0,
            500,
            "no test question is answered by this night; nothing was served before; the best baseline (popularity) is "
            "ahead by 0.0010, within chance",
        ),
        (
            None,
            {},
            None,
            0,
            "nothing was measured, as no user has a test question; gate.min_test_users keeps such nights back",
        ),
    ],
)
def test_figures_of_zero_are_said_plainly(
    served: Champion | None, baselines: dict[str, list[Lead]], value: float | None, users: int, expected: str
) -> None:
    if served is not None:
        served = replace(served, leads=[replace(one, value=0.0) for one in served.leads])
    found = verdict(served, baselines, users=users, value=value)
    assert found.passed and found.sentence.startswith(f"Published: {expected}")
