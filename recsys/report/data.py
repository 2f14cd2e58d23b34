"""Section: what was read, what was rejected and why, the log's volume over its span, and drift."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta
from typing import Any, Final

from recsys.report.charts import column_chart
from recsys.report.night import Night, mapping, rows
from recsys.report.wording import DASH, count, known, percent

_STEPS: Final = {1: "day", 7: "week", 28: "four weeks", 91: "quarter", 364: "year"}


def data(night: Night) -> dict[str, Any] | None:
    """Return counts by table, rejected rows by reason, the volume's chart and facts; None without any."""
    ingested = night.step("ingest")
    counts = [_table(name, ingested) for name in mapping(ingested.get("rows_read"))]
    report = mapping(night.evaluated.get("report"))
    volume = _volume(mapping(report.get("volume")))
    trained = mapping(night.step("train").get("report"))
    if not counts and volume is None and not trained:
        return None
    return {
        "tables": counts,
        "reasons": _reasons(ingested),
        "volume": volume,
        "warnings": [str(warning) for warning in rows(ingested.get("warnings"))],
        "drift": [
            {"name": check["name"], "value": count(check.get("value")), "limit": count(check.get("limit"))}
            for check in map(mapping, rows(mapping(night.verdict).get("checks")))
            if "drift" in str(check.get("name")) and known(check.get("value"))
        ],
        "facts": _facts(trained, mapping(report.get("protocol")), report) + _reach(night.step("train")),
        "look_ups": [
            {"name": name, "count": count(value)}
            for name, value in mapping(report.get("unseen_look_ups")).items()
            if value
        ],
    }


def _table(name: str, ingested: Mapping[str, Any]) -> dict[str, str]:
    columns = ("rows_read", "rows_added", "duplicates", "corrected", "rows_rejected")
    found = {column: mapping(ingested.get(column)).get(name) for column in columns}
    read, rejected = found["rows_read"], found["rows_rejected"]
    dropped = sum(mapping(mapping(ingested.get("rows_dropped")).get(name)).values())
    share = percent(rejected / read) if known(read) and known(rejected) and read else DASH
    return {"name": name, "dropped": count(dropped), "share": share} | {
        column: count(value) for column, value in found.items()
    }


def _reasons(ingested: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return rows by table and reason, most first: rejected ones, then those that a condition leaves out."""
    found = [
        {"table": table, "reason": reason, "kind": kind, "rows": number}
        for kind, key in (("rejected", "reasons"), ("left out", "rows_dropped"))
        for table, reasons in mapping(ingested.get(key)).items()
        for reason, number in sorted(mapping(reasons).items(), key=lambda pair: -pair[1])
    ]
    return [row | {"rows": count(row["rows"])} for row in found]


def _volume(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the chart of events over the log's span, and a sentence."""
    events = rows(found.get("events"))
    if not events:
        return None
    days = int(found.get("days") or 1)
    step = _STEPS.get(days, f"{days} days")
    most, last = max(events), events[-1]
    first_day, last_day = str(found.get("first")), str(found.get("last"))
    said = (
        f"{count(sum(events))} events from {first_day} to {last_day}, counted by {step}; at most {count(most)}, in the "
        f"last {step} {count(last)}"
    )
    undated = found.get("undated") or 0
    said += f"; {count(undated)} events have no time." if undated else "."
    return {
        "svg": column_chart(
            events, _dates(events, str(found.get("start")), days), title=f"Events per {step}", description=said
        ),
        "said": said,
        "step": step,
    }


def _dates(events: Sequence[int], start: str, days: int) -> list[tuple[int, str]]:
    """Return the days below the chart: of the first, the middle and the last step."""
    try:
        first = date.fromisoformat(start)
    except ValueError:
        return []
    last = len(events) - 1
    # the outer ones stand a little inside, so that the chart does not cut them
    places = {0: 0} if last < 2 else {round(0.09 * last): 0, round(0.5 * last): last // 2, round(0.91 * last): last}
    return [(place, (first + timedelta(days=days * step)).isoformat()) for place, step in places.items()]


def _facts(trained: Mapping[str, Any], protocol: Mapping[str, Any], report: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = [
        (name, count(trained.get(key)))
        for name, key in (
            ("users after the filter", "users"),
            ("items", "items"),
            ("interactions after the filter", "interactions"),
            ("interactions that train", "training_interactions"),
            ("items without a training interaction", "items_without_training"),
            ("median length of a history", "history_length_median"),
            ("longest history", "history_length_max"),
        )
    ]
    facts += [
        ("test targets without a training interaction", count(report.get("cold_targets"))),
        ("test targets that the vocabulary lacks", count(report.get("unknown_targets"))),
        ("test targets that the history holds already", percent(report.get("repeated_targets"))),
        ("split", str(protocol.get("strategy") or DASH)),
        ("sample", str(protocol.get("sample") or DASH)),
        ("caveat", str(protocol.get("caveat") or DASH)),
    ]
    return [(name, value) for name, value in facts if value != DASH]


def _reach(trained: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what of the log each counting source of the blend knows; older records do not tell."""
    reach = mapping(mapping(trained.get("blend")).get("reach"))
    return [
        (
            f"known to the source {source}",
            f"the items of {percent(shares.get('events'))} of the training events and {percent(shares.get('targets'))} "
            f"of the items asked; {percent(shares.get('pairs'))} of the pairs of events",
        )
        for source, shares in ((source, mapping(of)) for source, of in reach.items())
    ]
