"""Sections: how good the lists are, for whom, and of what they are made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from markupsafe import Markup

from recsys.report.charts import Axes, Line, Mark, bars_cell, interval_cell, line_chart, swatch
from recsys.report.night import Night, mapping, rows
from recsys.report.scales import finite
from recsys.report.verdict import HEADLINE, best_baseline, compared_by, level
from recsys.report.wording import count, figure, known, metric, percent, signed

CURVES: Final = ("hr", "ndcg")
OTHERS: Final = "(others)"
# lower is better, or neither: no best value is marked
_UNRANKED: Final = ("gini", "novelty", "popularity_lift", "miscalibration", "coverage", "diversity", "serendipity")


def curves(night: Night) -> dict[str, Any] | None:
    """Return charts of metric@k with their legend; None where there are no curves."""
    found = mapping(night.evaluated.get("curves"))
    cutoffs = rows(found.get("cutoffs"))
    names = list(mapping(found.get(CURVES[0])))
    if not cutoffs or not names:
        return None
    best = best_baseline(night)
    champion = _champion_point(night)
    charts = []
    for measure in CURVES:
        values, bands = mapping(found.get(measure)), mapping(mapping(found.get("bands")).get(measure))
        lines = [
            Line(
                name=name,
                points=list(zip(cutoffs, rows(values.get(name)), strict=False)),
                style=style,
                # bands of all lines would hide each other
                band=_band(mapping(bands.get(name))) if style == 1 or (best and name == best[0]) else (),
            )
            for style, name in enumerate(names, 1)
        ]
        marks = []
        if champion is not None and champion[0] == measure:
            marks = [Mark(x=champion[1], y=champion[2], label="champion", style=1)]
        title = f"{metric(measure)}@k on the test part"
        charts.append(
            {
                "title": title,
                "svg": line_chart(
                    lines,
                    Axes(x="k, length of the list", x_log=True, whole=True),
                    title=title,
                    description=_describe(lines, cutoffs),
                    marks=marks,
                ),
            }
        )
    return {
        "charts": charts,
        "legend": [{"swatch": swatch((style - 1) % 6 + 1), "name": name} for style, name in enumerate(names, 1)],
        "banded": bool(found.get("bands")),
        "champion": champion is not None,
    }


def _band(ends: Mapping[str, Any]) -> list[tuple[float | None, float | None]]:
    return list(zip(rows(ends.get("low")), rows(ends.get("high")), strict=False))


def _champion_point(night: Night) -> tuple[str, int, float] | None:
    """Return measure, cut-off and value of the champion on today's test part."""
    found = mapping(night.verdict)
    champion = mapping(found.get("champion"))
    measure, _, k = str(found.get("metric") or "").partition("@")
    value = champion.get("value")
    return (measure, int(k), float(value)) if known(value) and k.isdecimal() else None


def _describe(lines: Iterable[Line], cutoffs: list[int]) -> str:
    at = min(range(len(cutoffs)), key=lambda place: abs(math.log(max(cutoffs[place], 1) / 10)))
    said = [f"{line.name} {figure(line.points[at][1])}" for line in lines if len(line.points) > at]
    return f"Curves from k = {cutoffs[0]} to {cutoffs[-1]}. At k = {cutoffs[at]}: {', '.join(said)}."


def against(night: Night) -> dict[str, Any] | None:
    """Return a row for the champion and for each baseline by one metric; None where there is neither.

    `rows` have value, difference with interval, and outcome; `levels` says of what level the intervals are.
    """
    found, key = mapping(night.verdict), compared_by(night)
    metrics, differences = mapping(night.evaluated.get("baselines")), mapping(night.evaluated.get("differences"))
    further = mapping(night.evaluated.get("further"))
    table, levels = [], []
    for name, values in {"champion": found.get("champion"), **mapping(found.get("baselines"))}.items():
        if one := mapping(values):
            table.append(_against(name, one.get("value"), one.get("difference"), one, str(one.get("outcome") or "")))
    judged = {row["name"] for row in table}
    if judged:
        levels.append(f"{level(night) or 'of one level'} for all of the gate's comparisons together")
    for name, values in metrics.items():
        if name not in judged:
            one = mapping(mapping(differences.get(name)).get(key))
            value = {**mapping(values), **mapping(further.get(name))}.get(key)
            table.append(_against(name, value, one.get("mean"), one, _outcome(one)))
    if len(table) > len(judged):
        levels.append("95% for others, each alone" if judged else "95% for each alone")
    return {"metric": metric(key), "levels": ", ".join(levels), "rows": table} if table else None


def _against(name: str, value: Any, difference: Any, ends: Mapping[str, Any], outcome: str) -> dict[str, str]:
    interval = f"{signed(ends.get('low'))} to {signed(ends.get('high'))}" if known(ends.get("low")) else ""
    return {
        "name": name,
        "value": figure(value),
        "difference": signed(difference),
        "interval": interval,
        "outcome": _or_nothing(outcome, value, difference),
    }


def _outcome(ends: Mapping[str, Any]) -> str:
    low, high = ends.get("low"), ends.get("high")
    if not known(low) or not known(high):
        return ""
    return "better" if low > 0 else "worse" if high < 0 else "undecided"


def _or_nothing(outcome: str, value: Any, difference: Any) -> str:
    """Say that two figures of 0 leave nothing to decide."""
    return "nothing to compare" if value == 0 and difference == 0 else outcome


def metrics_table(night: Night) -> dict[str, Any] | None:
    """Return every measure of the served ranker and of the baselines, with the best value of a row marked.

    `names` are the columns, `main` the rows at the headline's cut-off, `more` all others.
    """
    evaluated = night.evaluated
    by_name = {night.served: mapping(evaluated.get("metrics")), **mapping(evaluated.get("baselines"))}
    further = mapping(evaluated.get("further"))
    by_name = {name: {**mapping(values), **mapping(further.get(name))} for name, values in by_name.items()}
    keys = list(dict.fromkeys(key for values in by_name.values() for key in values))
    if not keys:
        return None
    k = HEADLINE.rpartition("_at_")[2]
    served = next(iter(by_name.values()))
    one_target = served.get(f"test/recall_at_{k}") == served.get(f"test/hr_at_{k}")
    main: list[dict[str, Any]] = []
    more: list[dict[str, Any]] = []
    for key in keys:
        # with one target a user these say what HR and MRR say
        again = one_target and any(word in key for word in ("recall", "precision", "map_at"))
        values = [values.get(key) for values in by_name.values()]
        numbers = finite(values)
        ranked = len(set(numbers)) > 1 and not any(word in key for word in _UNRANKED)
        best = max(numbers) if ranked else None
        (main if key.endswith(f"_at_{k}") and not again else more).append(
            {
                "name": metric(key),
                "cells": [{"text": figure(value), "best": best is not None and value == best} for value in values],
            }
        )
    return {"names": list(by_name), "main": main, "more": more}


def slices(night: Night) -> dict[str, Any] | None:
    """Return groups of rows by dimension, each with its interval drawn; None where there are none."""
    found = [mapping(row) for row in rows(night.evaluated.get("slices"))]
    if not found:
        return None
    name = next((key for key in found[0] if key.startswith("ndcg_at_") and not key.endswith(("_low", "_high"))), None)
    if name is None:
        return None
    most = max(finite(row.get(name if row.get("small") else f"{name}_high") for row in found), default=1.0)
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in found:
        value, low, high = row.get(name), row.get(f"{name}_low"), row.get(f"{name}_high")
        drawn = known(value) and known(low) and known(high)
        groups.setdefault(_dimension(str(row.get("dimension"))), []).append(
            {
                "value": row.get("value"),
                "n": count(row.get("n")),
                "small": bool(row.get("small")),
                "figure": figure(value),
                "interval": f"{figure(low)} to {figure(high)}" if drawn else "–",
                "svg": _interval(value, low, high, most, bool(row.get("small"))),
            }
        )
    return {"metric": metric(name), "groups": groups, "small": any(row.get("small") for row in found)}


def _interval(value: Any, low: Any, high: Any, most: float, small: bool) -> Markup:
    if known(value) and known(low) and known(high):
        return interval_cell(value, low, high, most, small=small)
    return Markup("")


def _dimension(name: str) -> str:
    """Write a slice's dimension for people.

    >>> _dimension("target_popularity"), _dimension("item:genres")
    ('target popularity, in tenths', 'genres of the target')
    """
    if name == "target_popularity":
        return "target popularity, in tenths"
    whose, colon, attribute = name.partition(":")
    if colon and whose in ("item", "user"):
        return f"{attribute} of the {'target' if whose == 'item' else 'user'}"
    return name.replace("_", " ")


def spread(night: Night) -> list[dict[str, Any]]:
    """Return tables of consumed beside recommended shares: by popularity, and by each categorical attribute."""
    tables = []
    found = mapping(night.evaluated.get("popularity"))
    recommended = rows(next(iter(mapping(found.get("recommended")).values()), []))
    bands, consumed = rows(found.get("bands")), rows(found.get("consumed"))
    if bands and all(map(known, bands)) and len(bands) == len(consumed) == len(recommended):
        ends = zip([0.0, *bands[:-1]], bands, strict=True)
        names = [f"{100 * low:g}–{100 * high:g}% of the items" for low, high in ends]
        tables.append(_spread("popularity, most popular items first", names, consumed, recommended))
    for attribute, values in mapping(night.evaluated.get("categories")).items():
        lines = [mapping(row) for row in rows(values)]
        names = ["(none)" if row.get("value") is None else str(row["value"]) for row in lines]
        tables.append(
            _spread(attribute, names, [row.get("consumed") for row in lines], [row.get("recommended") for row in lines])
        )
    return tables


def _spread(by: str, names: list[str], consumed: list[Any], recommended: list[Any]) -> dict[str, Any]:
    pairs = [(a if known(a) else 0.0, b if known(b) else 0.0) for a, b in zip(consumed, recommended, strict=True)]
    drawn = [pair for name, pair in zip(names, pairs, strict=True) if name != OTHERS]
    most = max((max(pair) for pair in drawn), default=1.0)
    return {
        "by": by,
        "rows": [
            {
                "name": name,
                "consumed": percent(a),
                "recommended": percent(b),
                # one bar of all others would make the rest too short to compare
                "svg": Markup("") if name == OTHERS else bars_cell(pair, most),
            }
            for name, a, b, pair in zip(names, consumed, recommended, pairs, strict=True)
        ],
    }
