"""Export: a copy of the candidate table for downstream services."""

from __future__ import annotations

from typing import Any

from prefect import flow

from recsys.errors import RecsysError
from recsys.exports.base import Candidates, ExportReport
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
        report = step.done(_written(settings, Candidates(**candidates)))
        tracking.log_metrics(step.store, step.run_id, {f"export/{k}": n for k, n in numbers(report, ("rows",)).items()})
    return report


def _written(settings: Settings, candidates: Candidates) -> ExportReport:
    """Write by the sink; an error that a foreign sink lets through becomes one sentence."""
    try:
        return sink_of(settings).write(candidates)
    except (RecsysError, OSError):
        raise
    except Exception as error:
        raise RecsysError(
            f"The export target {settings.export.kind!r} failed: {type(error).__name__}: {error}."
        ) from error


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
