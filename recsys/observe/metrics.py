"""Numbers of a night in Prometheus' text format, for node_exporter's textfile collector."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from prometheus_client import CollectorRegistry, Gauge, generate_latest

from recsys.observe.figures import NDCG
from recsys.running import short
from recsys.runs import RunState
from recsys.storage.files import file_aside, writing

STATES: Final = ("published", "kept back", "failed")


def exposition(
    name: str, night: RunState | None, state: str, *, success: str | None, ended: str, disk: Mapping[str, int]
) -> str:
    """Return the text of a night's numbers, each with its help and type.

    Parameters
    ----------
    name
        Of the configuration; a label of every number.
    night
        Its record; None where it failed before it had one.
    state
        One of `STATES`.
    success
        When the newest published night ended, ISO 8601; None: none was.
    ended
        When this night ended, ISO 8601.
    disk
        Bytes by kind.
    """
    registry = CollectorRegistry()

    def gauge(what: str, about: str, *labels: str) -> Gauge:
        return Gauge(f"recsys_{what}", about, ("name", *labels), registry=registry)

    states = gauge("night_state", "1 for the state of the newest night, 0 for the others.", "state")
    for one in STATES:
        states.labels(name, one).set(one == state)
    gauge("night_end_timestamp_seconds", "When the newest night ended.").labels(name).set(_moment(ended))
    if success is not None:
        about = "When the newest night that was published ended."
        gauge("night_last_success_timestamp_seconds", about).labels(name).set(_moment(success))
    kinds = gauge("disk_bytes", "Bytes on this machine's disk, by kind.", "kind")
    for kind, size in disk.items():
        kinds.labels(name, kind).set(size)
    if night is None:
        return generate_latest(registry).decode()
    gauge("night_info", "1; the label says which run is the newest night.", "run").labels(
        name, short(night.run_id)
    ).set(1)
    gauge("night_start_timestamp_seconds", "When the newest night began.").labels(name).set(_moment(night.started))
    seconds = gauge("step_seconds", "Time of a step of the newest night.", "step")
    peaks = gauge("step_peak_bytes", "Most memory that the process held during a step.", "step")
    budget = gauge("step_over_budget", "1 for a step over its budget of seconds or peak_bytes.", "step", "what")
    for step, done in night.steps.items():
        seconds.labels(name, step).set(done["seconds"])
        if done.get("peak_bytes") is not None:
            peaks.labels(name, step).set(done["peak_bytes"])
        for what in ("seconds", "peak_bytes"):
            budget.labels(name, step, what).set(any(one["what"] == what for one in done.get("over", ())))
    reports = {step: done["report"] for step, done in night.steps.items()}
    _rows(gauge, name, reports)
    ndcg = reports.get("evaluate", {}).get("metrics", {}).get(NDCG)
    if ndcg is not None:
        gauge("ndcg_at_10", "NDCG@10 of the measured model on the test part.").labels(name).set(ndcg)
    return generate_latest(registry).decode()


def _rows(gauge: Any, name: str, reports: Mapping[str, Mapping[str, Any]]) -> None:
    """Add what came in, what was set aside and what was published."""
    of_tables = {
        "rows_read": ("rows_read", "Rows that the newest night read, by table."),
        "rows_added": ("rows_added", "Rows that were new or changed, by table."),
        "rows_rejected": ("rows_quarantined", "Rows that were rejected and kept in quarantine, by table."),
    }
    for key, (what, about) in of_tables.items():
        if counts := reports.get("ingest", {}).get(key):
            rows = gauge(what, about, "table")
            for table, count in counts.items():
                rows.labels(name, table).set(count)
    published = reports.get("publish", {}).get("candidates", {}).get("rows")
    if published is not None:
        gauge("rows_published", "Rows of the candidate table that the newest night published.").labels(name).set(
            published
        )


def write_textfile(path: str | Path, text: str) -> None:
    """Put the text in the file's place in one step; its folder is made.

    Raises
    ------
    RecsysError
        The disk refused.
    """
    path = Path(path)
    with writing(f"The file of metrics {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_aside(path) as aside:
            aside.write_text(text, encoding="utf-8")
            aside.chmod(0o644)  # another user's node_exporter reads it


def _moment(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
