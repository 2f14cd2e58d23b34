"""Refit: the bundle to serve, made of the measured one and of all events; figures stay those of the measured one."""

from __future__ import annotations

from typing import Any

from recsys import runs
from recsys.bundles.store import publish_bundle
from recsys.night.refit import refit as again
from recsys.pipelines.search import log_index
from recsys.pipelines.steps import (
    Run,
    as_function,
    chosen_bundle,
    compute_task,
    newest_versions,
    numbers,
    step_run,
)
from recsys.pipelines.watch import watch
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.tracking import log as tracking


def refit(settings: Settings, versions: TableVersions, bundle: str, parent: str | None = None) -> dict[str, Any]:
    """Fit what was chosen on all events, as `train.refit` says.

    A training that was killed goes on from its last checkpoint.
    """
    display = watch()
    with step_run(settings, "refit", parent, versions) as step:

        def on_epoch(entry: dict[str, Any]) -> None:
            epoch = int(entry["epoch"])
            told = {f"refit/{name}": value for name, value in entry.items() if name != "epoch"}
            tracking.log_metrics(step.store, step.run_id, told, step=epoch)
            display.advance(epoch, None, ", ".join(f"{name} {entry[name]:.4f}" for name in ("loss",) if name in entry))

        report = step.done(again(settings, versions, bundle, on_epoch, display.say))
        metrics = {f"refit/{name}": value for name, value in numbers(report, ("epochs", "seconds")).items()}
        tracking.log_metrics(step.store, step.run_id, metrics)
        log_index(step.store, step.runs, report.get("index"))
    return report


refit_task = compute_task(refit)


def refit_alone(settings: Settings, run: Run = as_function, bundle: str | None = None) -> dict[str, Any]:
    """Refit a bundle, by default the newest, on the newest tables, and make the result the latest of its name."""
    with runs.locked(settings.warehouse):
        report = run(refit_task, settings, newest_versions(settings), chosen_bundle(settings, bundle))
        publish_bundle(settings.warehouse, report["bundle"])
        return report
