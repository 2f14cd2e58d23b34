"""Ingest: logs and catalogue into the warehouse's tables."""

from __future__ import annotations

import json
from typing import Any

from recsys import runs
from recsys.ingestion import ingest as data
from recsys.observe.figures import figures
from recsys.observe.lines import log
from recsys.pipelines.steps import Run, as_function, io_task, numbers, plain, table_versions, tracked
from recsys.pipelines.terminal.console import rejected_lines
from recsys.pipelines.watch import watch
from recsys.settings import Settings
from recsys.tracking import log as tracking

COUNTS = ("rows_read", "rows_added", "rows_rejected", "duplicates", "corrected", "late", "repeated")


def read(settings: Settings, rebuild: bool = False) -> dict[str, Any]:
    """As `ingest`, without a run of MLflow."""
    display = watch()

    def progress(what: str, done: int, total: int) -> None:
        display.advance(done, total, what)

    report: dict[str, Any] = plain(data.ingest(settings, progress=progress, rebuild=rebuild))
    for sources in report["begins"].values():
        for name, begins in sources.items():
            display.say(f"{name}: read from {begins} on.")
    for table, held in report["already"].items():
        display.say(already(table, held["files"], held["rows"]))
    if report["skipped"]:
        display.warn(f"Skipped, as there are no rows in them: {', '.join(report['skipped'])}.")
    for note in report["notes"]:
        display.say(note)
    for warning in report["warnings"]:
        display.warn(warning)
    return report


def already(table: str, files: int, rows: int) -> str:
    """Tell of files that are not read again.

    >>> already("interactions", 1, 1)
    '1 file of interactions (1 row) is already in the log and was not read again.'
    >>> already("interactions", 30, 1200)
    '30 files of interactions (1,200 rows) are already in the log and were not read again.'
    """
    what = f"{files:,} file{'' if files == 1 else 's'} of {table} ({rows:,} row{'' if rows == 1 else 's'})"
    be, been = ("is", "was") if files == 1 else ("are", "were")
    return f"{what} {be} already in the log and {been} not read again."


read_task = io_task(read, limit="ingest")


def ingest(settings: Settings, rebuild: bool = False) -> dict[str, Any]:
    """Read the sources and append to the tables; reading the same files again adds nothing."""
    with tracked(settings) as store, tracking.step_run(store, "ingest") as run_id:
        log.give()
        report = read(settings, rebuild)
        versions, digest = plain(table_versions(report)), runs.digest_of(report["digests"])
        tracking.log_tables(store, run_id, settings.warehouse, versions, digest, context="ingest")
        tracking.log_text(store, run_id, "ingest.json", json.dumps(report, indent=1))
        for count in COUNTS:
            metrics = numbers(report[count], tuple(report[count]))
            tracking.log_metrics(store, run_id, {f"ingest/{count}/{table}": n for table, n in metrics.items()})
        lines = rejected_lines(report["reasons"])
        if lines:
            tracking.describe(store, run_id, "\n".join(["Rejected rows:", "", *(f"- {line}" for line in lines)]))
    log.note(figures("ingest", report))
    return {**report, "mlflow_run": run_id}


ingest_task = io_task(ingest)


def ingest_alone(settings: Settings, run: Run = as_function, rebuild: bool = False) -> dict[str, Any]:
    """Read the sources of a configuration into its warehouse; `rebuild` replaces what its tables hold."""
    with runs.locked(settings.warehouse):
        return run(ingest_task, settings, rebuild)
