"""Ingest: logs and catalogue into the warehouse's tables."""

from __future__ import annotations

import json
from typing import Any

from prefect import flow

from pipelines import unmasked
from pipelines.steps import Run, as_function, as_task, io_task, numbers, plain, table_versions, tracked
from pipelines.watch import watch
from recsys import runs, tracking
from recsys.config import Settings
from recsys.config_file import load_settings
from recsys.data import ingest as data

COUNTS = ("rows_read", "rows_added", "rows_rejected", "duplicates")


def ingest(settings: Settings) -> dict[str, Any]:
    """Read the sources and append to the tables; reading the same files again adds nothing."""
    looking = watch()

    def progress(what: str, done: int, total: int) -> None:
        looking.advance(done, total, what)

    with tracked(settings) as store, tracking.step_run(store, "ingest") as run_id:
        report = plain(data.ingest(settings, progress=progress))
        versions, digest = plain(table_versions(report)), runs.digest_of(report["digests"])
        tracking.log_tables(store, run_id, settings.warehouse, versions, digest, context="ingest")
        tracking.log_text(store, run_id, "ingest.json", json.dumps(report, indent=1))
        for count in COUNTS:
            metrics = numbers(report[count], tuple(report[count]))
            tracking.log_metrics(store, run_id, {f"ingest/{count}/{table}": n for table, n in metrics.items()})
    return {**report, "mlflow_run": run_id}


ingest_task = io_task(ingest)


def ingest_alone(settings: Settings, run: Run = as_function) -> dict[str, Any]:
    """Read the sources of a configuration into its warehouse."""
    with runs.locked(settings.warehouse):
        return run(ingest_task, settings)


@flow(name="ingest", flow_run_name="ingest-{config}", description=__doc__)
def ingest_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """`ingest_alone` for a configuration file, recorded by Prefect."""
    return ingest_alone(load_settings(config, unmasked.real(overrides)), as_task)
