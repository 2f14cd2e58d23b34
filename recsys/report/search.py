"""Section: how the served bundle's vectors are searched, and what other indexes would have found at which cost."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from recsys.report.charts import Axes, Line, Mark, line_chart
from recsys.report.night import Night, mapping, rows
from recsys.report.wording import count, figure, known

SECOND: Final = 1_000_000  # microseconds


def search(night: Night) -> dict[str, Any] | None:
    """Return a chart and a table of the indexes that were tried; None where none was."""
    chosen_by = [mapping(night.step(step).get("index")) for step in ("refit", "train")]
    index = next((index for index in chosen_by if rows(index.get("points"))), {})  # a refit may keep what was chosen
    points = [point for point in map(mapping, rows(index.get("points"))) if known(point.get("recall"))]
    if not points:
        return None
    chosen = {key: index.get(key) for key in ("factory", "parameters", "fetch")}
    curves: dict[str, list[tuple[float, float | None]]] = {}
    marks = []
    for point in points:
        cpu = point.get("cpu")
        if known(cpu) and cpu > 0:
            place = (SECOND / cpu, float(point["recall"]))
            curves.setdefault(str(point.get("factory")), []).append(place)
            if all(point.get(key) == value for key, value in chosen.items()):
                marks.append(Mark(x=place[0], y=place[1], label="served", style=1))
    lines = [
        Line(name=name, points=sorted(curve, key=lambda place: place[0]), style=style, dots=True)
        for style, (name, curve) in enumerate(curves.items(), 1)
    ]
    asked = f"{count(index.get('asked'))} users of the night asked"
    return {
        "sentence": str(index.get("reason") or ""),
        "caption": f"Recall is the share of the {count(index.get('k'))} best items that a search finds; {asked}",
        "svg": line_chart(
            lines,
            Axes(x="users a CPU second", y_zero=False, x_log=True),
            title="Recall of the indexes by users a CPU second",
            description=f"{asked}; {len(points)} points of {len(lines)} indexes.",
            marks=marks,
        ),
        "rows": [_row(point) for point in [_exact(index), *points] if point],
    }


def _exact(index: Mapping[str, Any]) -> dict[str, Any]:
    """A comparison with every item, as a point."""
    return {"factory": "every item", "recall": 1.0, "cpu": index.get("exact_cpu"), "compared": index.get("items")}


def _row(point: Mapping[str, Any]) -> dict[str, str]:
    parameters = mapping(point.get("parameters"))
    cpu = point.get("cpu")
    return {
        "index": str(point.get("factory")),
        "parameters": ", ".join(f"{name} {count(value)}" for name, value in parameters.items()),
        "recall": figure(point.get("recall")),
        "compared": count(round(point["compared"])) if known(point.get("compared")) else "",
        "users": count(round(SECOND / cpu)) if known(cpu) and cpu > 0 else "",
    }
