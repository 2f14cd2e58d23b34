"""Section: was the night published, why, and by which checks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from recsys.report.night import Night, mapping, rows
from recsys.report.wording import DASH, count, figure, known, metric, percent, seconds, signed

HEADLINE: Final = "test/ndcg_at_10"
_BETTER: Final = {"better": "ahead", "worse": "behind", "undecided": "not told apart"}


def verdict(night: Night) -> dict[str, Any]:
    """Return state (passed, failed or none), the sentence, reasons, checks and the night's key figures."""
    found = night.verdict
    checks = [_check(mapping(check)) for check in rows(mapping(found).get("checks"))]
    order = {"failed": 0, "passed": 1, "skipped": 2}
    head: dict[str, Any]
    if found is None:
        head = {"state": "none", "word": "No verdict", "sentence": _stand_in(night), "reasons": []}
    elif found["passed"]:
        head = {"state": "passed", "word": "Published", "sentence": found.get("sentence"), "reasons": []}
    else:
        reasons = rows(found.get("reasons"))
        head = {"state": "failed", "word": "Kept back", "sentence": found.get("sentence"), "reasons": reasons}
    if head["sentence"] and str(head["sentence"]).startswith(f"{head['word']}: "):  # the word stands above it already
        said = str(head["sentence"])[len(head["word"]) + 2 :]
        head["sentence"] = said[:1].upper() + said[1:]
    return head | {
        "checks": sorted(checks, key=lambda check: order.get(check["status"], 3)),
        "facts": _facts(night, found),
    }


def _check(check: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "name": check.get("name"),
        "status": str(check.get("status") or "skipped"),
        "value": count(check.get("value")),
        "limit": count(check.get("limit")),
        "sentence": check.get("sentence") or "",
    }


def _stand_in(night: Night) -> str:
    """Say how the served ranker stands to the best baseline, where no gate did."""
    lead = best_baseline(night)
    if lead is None:
        return "This night was not judged, and there is no baseline to compare it with."
    name, value = lead
    if not value and not mapping(night.evaluated.get("metrics")).get(HEADLINE):
        return "This night was not judged, and no ranker answers a test question, so nothing can be compared."
    difference = mapping(mapping(mapping(night.evaluated.get("differences")).get(name)).get(HEADLINE))
    said = f"This night was not judged. The best baseline by {metric(HEADLINE)} is {name} with {figure(value)}"
    if difference:
        ends = f"{signed(difference.get('low'))} to {signed(difference.get('high'))}"
        said += f"; the {night.served} leads it by {signed(difference.get('mean'))} ({ends})"
    return f"{said}."


def best_baseline(night: Night) -> tuple[str, float] | None:
    """Return name and NDCG@10 of the best baseline; the served ranker's own model is none."""
    found = [
        (name, metrics[HEADLINE])
        for name, metrics in mapping(night.evaluated.get("baselines")).items()
        if name != "model" and known(mapping(metrics).get(HEADLINE))
    ]
    return max(found, key=lambda pair: pair[1], default=None)


def compared_by(night: Night) -> str:
    """Return the key of the metric that the gate compared by; NDCG@10 where no gate did."""
    measure, _, k = str(mapping(night.verdict).get("metric") or "").partition("@")
    return f"test/{measure}_at_{k}" if k else HEADLINE


def level(night: Night) -> str:
    """Return the level of the gate's intervals, such as "95%"; "" where an older record does not tell it."""
    value = mapping(night.verdict).get("confidence")
    return f"{100 * value:g}%" if known(value) else ""


def _facts(night: Night, found: Mapping[str, Any] | None) -> list[dict[str, str]]:
    """Return the key figures: label, value, and a note below it."""
    facts = []
    metrics = mapping(night.evaluated.get("metrics"))
    intervals = mapping(night.evaluated.get("intervals"))
    for key in (HEADLINE, "test/hr_at_10"):
        if key in metrics:
            ends = mapping(intervals.get(key))
            note = f"95%: {figure(ends.get('low'))} to {figure(ends.get('high'))}" if ends else ""
            facts.append({"label": f"{metric(key)}, {night.served}", "value": figure(metrics[key]), "note": note})
    lead = best_baseline(night)
    own = metrics.get(HEADLINE)
    if lead is not None and known(own):
        name, value = lead
        nothing = not value and not own
        facts.append(
            {
                "label": "lead over the best baseline",
                "value": DASH if nothing else signed(own - value),
                "note": "no ranker answers a test question" if nothing else f"{name}: {figure(value)}",
            }
        )
    champion = mapping(mapping(found).get("champion"))
    if champion:
        outcome = _BETTER.get(str(champion.get("outcome")), str(champion.get("outcome") or ""))
        if champion.get("value") == 0 and champion.get("difference") == 0:
            outcome = "both are 0"
        interval = f"{signed(champion.get('low'))} to {signed(champion.get('high'))}"
        certain = f"{level(night)}: " if level(night) else ""
        facts.append(
            {
                "label": f"{metric(compared_by(night))} against the champion",
                "value": signed(champion.get("difference")),
                "note": f"{outcome}; {certain}{interval}",
            }
        )
    coverage = metrics.get("test/coverage_at_10")
    if coverage is not None:
        facts.append({"label": "catalogue covered by lists of 10", "value": percent(coverage), "note": ""})
    users = mapping(mapping(night.evaluated.get("report")).get("protocol")).get("users")
    if users is not None:
        facts.append({"label": "test users", "value": count(users), "note": ""})
    took = [mapping(step).get("seconds") for step in mapping(night.record.get("steps")).values()]
    total = sum(value for value in took if known(value))
    if total:
        facts.append({"label": "time of all steps", "value": seconds(total), "note": "without start-up and this page"})
    return facts
