"""Export: a copy of the candidate table for downstream services."""

from __future__ import annotations

from typing import Any

from prefect import flow

from recsys.exports.base import Candidates
from recsys.exports.registry import export as write
from recsys.exports.registry import sink_of
from recsys.pipelines import unmasked
from recsys.pipelines.steps import Run, as_function, as_task, io_task, newest_candidates, numbers, plain, step_run
from recsys.pipelines.watch import watch
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.tracking import log as tracking


def export(settings: Settings, candidates: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    """Write a candidate table (`path`, `version`) aside and switch it in: readers never see half of it."""
    newest = newest_candidates(settings)
    if newest["path"] == candidates["path"] and newest["version"] > candidates["version"]:
        watch().warn(
            f"The candidate table has version {newest['version']} now, which is newer than this run's "
            f"{candidates['version']}; the newer one is exported."
        )
        candidates = newest
    with step_run(settings, "export", parent) as step:
        report = step.done(write(settings, Candidates(**candidates)))
        tracking.log_metrics(step.store, step.run_id, {f"export/{k}": n for k, n in numbers(report, ("rows",)).items()})
    return report


export_task = io_task(export)


def rollback(settings: Settings) -> dict[str, Any]:
    """Bring the copy before the newest one back."""
    return plain(sink_of(settings).rollback())


rollback_task = io_task(rollback)


def export_alone(settings: Settings, run: Run = as_function, rollback: bool = False) -> dict[str, Any]:
    """Export the newest candidate table, or bring the copy before the newest one back."""
    sink_of(settings).check()
    if rollback:
        return run(rollback_task, settings)
    return run(export_task, settings, newest_candidates(settings))


@flow(name="export", flow_run_name="export-{config}", description=__doc__)
def export_flow(config: str, overrides: list[str] | None = None, rollback: bool = False) -> dict[str, Any]:
    """`export_alone` for a configuration file, recorded by Prefect."""
    return export_alone(load_settings(config, unmasked.real(overrides)), as_task, rollback)
