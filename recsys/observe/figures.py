"""A step's figures of its report: fields of its log line, and what Prometheus is told."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from recsys.columns import metric_name

NDCG: Final = f"test/{metric_name('ndcg', 10)}"
_OF_INGEST: Final = {"rows_read": "rows_read", "rows_added": "rows_added", "rows_rejected": "rows_quarantined"}
_AS_THEY_ARE: Final[Mapping[str, tuple[str, ...]]] = {
    "represent": ("items", "encoded", "reused"),
    "train": ("epochs",),
    "refit": ("epochs",),
    "retrieve": ("rows", "users", "short_lists"),
    "refresh": ("rows", "users"),
}


def figures(step: str, report: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Return the figures of a step's report by name; what it lacks is left out.

    >>> figures("ingest", {"rows_read": {"interactions": 9, "items": 3}, "rows_rejected": {"interactions": 1}})
    {'rows_read': 12, 'rows_quarantined': 1}
    """
    found: dict[str, Any] = {name: report.get(name) for name in _AS_THEY_ARE.get(step, ())}
    if step == "ingest":
        found = {name: sum(report[key].values()) for key, name in _OF_INGEST.items() if report.get(key)}
    elif step == "evaluate":
        found = {metric_name("ndcg", 10): report.get("metrics", {}).get(NDCG)}
    elif step == "judge" and "passed" in report:
        found = {"verdict": "passed" if report["passed"] else "kept back"}
    elif step == "publish":
        found = {"rows": report.get("candidates", {}).get("rows")}
    elif step == "export":
        rows = [target.get("rows") for target in report.get("targets", {}).values()]
        found = {"rows": sum(number for number in rows if number is not None)} if rows else {}
    return {name: value for name, value in found.items() if isinstance(value, (int, float, str))}
