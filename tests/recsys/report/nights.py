"""Records of nights for tests: a whole one, and titles that break pages."""

from __future__ import annotations

import math
from typing import Any

NASTY = (
    "<script>alert('x')</script>",
    "\"quoted\" & 'quoted' </title></style>",
    "ספר על חתולים, כרך 2",
    "🎬🏳️‍🌈 emoji",
    "x" * 400,
    "<img src=http://example.invalid/a.png onerror=alert(1)>",
    "{{ 7 * 7 }} {% raw %}",
)
CUTOFFS = [1, 2, 5, 10, 20]


def person(user: str, titles: list[str], rank: int | None, **more: Any) -> dict[str, Any]:
    return {
        "user_id": user,
        "history": titles[:3],
        "history_length": len(titles) + 5,
        "recommended": titles,
        "hit": rank if rank is not None and rank <= len(titles) else None,
        "target": titles[0],
        "rank": rank,
        "reason": None if rank else "no source proposed it",
        "popularity_place": 3,
    } | more


def verdict(passed: bool = True) -> dict[str, Any]:
    return {
        "passed": passed,
        "sentence": "Published: better than yesterday's by 0.0040 [0.0021, 0.0059]." if passed else "Kept back: drift.",
        "reasons": [] if passed else ["Drift of items is 0.31, above 0.25."],
        "metric": "ndcg@10",
        "confidence": 0.95,
        "champion": {"difference": 0.004, "low": 0.0021, "high": 0.0059, "outcome": "better", "value": 0.3},
        "baselines": {"popularity": {"difference": 0.2, "low": 0.1, "high": 0.3, "outcome": "better", "value": 0.1}},
        "checks": [
            {
                "name": "volume",
                "status": "skipped",
                "value": None,
                "limit": None,
                "sentence": "There is one night.",
            },
            {"name": "drift of items", "status": "passed", "value": 0.08, "limit": 0.25, "sentence": "It is <small>."},
            {"name": "rejected share", "status": "failed", "value": 0.3, "limit": 0.05, "sentence": "Too many rows."},
        ],
    }


def slice_row(dimension: str, value: str, n: int, ndcg: float) -> dict[str, Any]:
    ends = {"ndcg_at_10_low": ndcg - 0.05, "ndcg_at_10_high": ndcg + 0.05}
    return {"dimension": dimension, "value": value, "n": n, "small": n < 100, "ndcg_at_10": ndcg, **ends}


def evaluated() -> dict[str, Any]:
    names = ("blend", "model", "popularity")
    values = {name: [0.05 * (place + 1) / (step + 1) for place in range(5)] for step, name in enumerate(names)}
    bands = {
        name: {"low": [value - 0.02 for value in line], "high": [value + 0.02 for value in line]}
        for name, line in values.items()
    }
    metrics = {"test/ndcg_at_10": 0.3, "test/hr_at_10": 0.5, "test/recall_at_10": 0.5, "test/coverage_at_10": 0.999}
    others = {name: {key: value / 2 for key, value in metrics.items()} for name in names[1:]}
    difference = {"mean": 0.15, "low": 0.1, "high": 0.2}
    titles = list(NASTY)
    return {
        "served": "blend",
        "metrics": metrics | {"test/hr_at_5": 0.4},
        "baselines": others,
        "intervals": {"test/ndcg_at_10": {"mean": 0.3, "low": 0.28, "high": 0.32}},
        "differences": {name: {"test/ndcg_at_10": difference} for name in names[1:]},
        "curves": {"cutoffs": CUTOFFS, "hr": values, "ndcg": values, "bands": {"hr": bands, "ndcg": bands}},
        "popularity": {"bands": [0.1, 1.0], "consumed": [0.7, 0.3], "recommended": {"blend": [0.9, 0.1]}},
        "slices": [
            slice_row("history_length", "2-3", 50, 0.2),
            slice_row("history_length", "4-7", 1200, 0.3),
            slice_row("item:genre", NASTY[0], 150, 0.25),
            slice_row("item:genre", NASTY[4], 150, 0.25),
        ],
        "categories": {
            "genre": [
                {"value": NASTY[4], "consumed": 0.3, "recommended": 0.5},
                {"value": None, "consumed": 0.3, "recommended": 0.1},
                {"value": "(others)", "consumed": 0.4, "recommended": 0.4},
            ]
        },
        "journeys": {
            "users": [person(f"user-{number}", titles, number or None) for number in range(4)],
            "failures": [person("user-7", titles, None), person("user-8", titles[::-1], 812)],
        },
        "examples": [],
        "report": {
            "protocol": {"users": 1300, "strategy": "leave-one-out", "caveat": "others' future"},
            "unseen_look_ups": {"genre": 12, "year": 0},
            "repeated_targets": 0.02,
            "cold_targets": 6,
            "rules": {
                "questions": 1000,
                "k": 10,
                "remarks": ["No item meets a condition of rules.few (<b>)."],
                "prices": [price("all rules", ""), price("few", "at_most")],
            },
            "volume": {
                "events": [3, 0, 9, 4],
                "days": 1,
                "start": "2024-01-01",
                "first": "2024-01-01",
                "last": "2024-01-04",
                "undated": 2,
            },
        },
    }


def history() -> list[dict[str, Any]]:
    asked = ["next-item"] * 3 + ["cloze"] * 2
    losses = [5.0, 4.2, 3.8, 5.8, 5.1]
    entries = [
        {"epoch": epoch, "objective": objective, "loss": loss, "seconds": 1.0}
        for epoch, (objective, loss) in enumerate(zip(asked, losses, strict=True), 1)
    ]
    entries[3]["val/ndcg_at_10"], entries[4]["val/ndcg_at_10"] = 0.2, 0.25
    return entries


def price(name: str, kind: str) -> dict[str, Any]:
    values = {"with": 0.25, "without": 0.26, "difference": -0.01, "low": -0.02, "high": 0.001}
    return {"name": name, "kind": kind, "ndcg_at_10": values, "hr_at_10": values, "moved": 300, "rows": 1200}


def whole_night(passed: bool = True) -> dict[str, Any]:
    reports = {
        "ingest": {
            "versions": {"interactions": 3, "items": 1, "users": None},
            "rows_read": {"interactions": 1200, "items": 40},
            "rows_added": {"interactions": 900, "items": 40},
            "rows_rejected": {"interactions": 300, "items": 0},
            "reasons": {"interactions": {"unparsable time <b>": 300}, "items": {}},
            "rows_dropped": {"interactions": {"quantity below 1": 12}},
            "duplicates": {"interactions": 1, "items": 0},
            "corrected": {"interactions": 0},
            "digests": {"log.csv": "ab" * 32},
            "warnings": ["Half of the <rows> have no time."],
        },
        "train": {
            "bundle": "warehouse/bundles/shop-0123456789ab",
            "history": history(),
            "best_epoch": 5,
            "epochs": 5,
            "parameters": 123456,
            "warm_start": None,
            "report": {"users": 1300, "items": 40, "interactions": 900},
        },
        "evaluate": evaluated(),
        "retrieve": {"short_lists": 12, "users": 1300, "denied": 4},
        "refit": {"bundle": "warehouse/bundles/shop-ba9876543210", "kind": "all"},
        "publish": {
            "candidates": {"path": "warehouse/candidates", "version": 4, "rows": 13000, "users": 1300, "k": 10},
            "model": {"name": "shop", "version": "3"},
        },
    }
    return {
        "name": "shop",
        "run_id": "23cf0a7c60504f15",
        "started": "2026-11-28T20:59:07+00:00",
        "status": "finished",
        "error": None,
        "steps": {
            name: {"report": report, "seconds": 10.0 * place, "peak_bytes": 2**30}
            for place, (name, report) in enumerate(reports.items())
        },
        "verdict": verdict(passed),
        "about": {"kind": "bert4rec", "seed": 7, "git": "c0ce1f7", "mlflow": "http://127.0.0.1:5000/#/runs/23cf"},
    }


def with_nan(value: Any) -> Any:
    """The same tree with every number replaced by NaN."""
    if isinstance(value, dict):
        return {key: with_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [with_nan(inner) for inner in value]
    return math.nan if isinstance(value, float) else value
