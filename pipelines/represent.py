"""Represent: each distinct item sentence becomes a text vector, once."""

from __future__ import annotations

from typing import Any

from prefect import flow

from pipelines.steps import (
    Run,
    as_function,
    as_task,
    compute_task,
    newest_versions,
    numbers,
    plain,
    step_run,
)
from pipelines.watch import watch
from recsys import represent as text
from recsys import runs, tracking
from recsys.config import Settings, load_settings
from recsys.data.warehouse import TableVersions

COUNTS = ("items", "encoded", "reused", "truncated", "empty")


def represent(settings: Settings, versions: TableVersions, parent: str | None = None) -> dict[str, Any]:
    """Encode the sentences that the `item_vectors` table does not hold yet."""
    with step_run(settings, "represent", parent, versions) as (store, run_id):
        report = plain(text.represent(settings, versions, watch().advance))
        metrics = numbers(report, COUNTS)
        tracking.log_metrics(store, run_id, {f"represent/{name}": n for name, n in metrics.items()})
    return {**report, "mlflow_run": run_id}


represent_task = compute_task(represent)


def represent_alone(settings: Settings, run: Run = as_function) -> dict[str, Any]:
    """Encode the sentences of the newest tables."""
    with runs.locked(settings.warehouse):
        return run(represent_task, settings, newest_versions(settings))


@flow(name="represent", flow_run_name="represent-{config}", description=__doc__)
def represent_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """`represent_alone` for a configuration file, recorded by Prefect."""
    return represent_alone(load_settings(config, overrides or ()), as_task)
