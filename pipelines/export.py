"""Export: copies of the candidate table for downstream services, in every target of the configuration."""

from __future__ import annotations

import json
from typing import Any

from recsys.exports import several
from recsys.exports.base import Candidates
from recsys.exports.due import due
from recsys.pipelines.steps import (
    Run,
    as_function,
    io_task,
    is_transient,
    newest_candidates,
    numbers,
    plain,
    step_run,
)
from recsys.pipelines.watch import watch
from recsys.settings import Settings, targets_of
from recsys.tracking import log as tracking


def export(settings: Settings, candidates: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    """Write a candidate table (`path`, `version`) to every target: readers never see half of it.

    Inside of a night, targets that hold this version already are left alone: the night is resumed, and its start may
    have made up for the export. So they are where another target's export is due, as after a try that failed.
    """
    newest = newest_candidates(settings)
    if newest["path"] == candidates["path"] and newest["version"] > candidates["version"]:
        watch().warn(
            f"The candidate table has version {newest['version']} now, which is newer than this run's "
            f"{candidates['version']}; the newer one is exported."
        )
        candidates = newest
    with step_run(settings, "export", parent) as step:
        try:
            again = len(targets_of(settings.export)) > 1 and bool(due(settings))
            resumed = parent is not None or again
            written = several.export(settings, Candidates(**candidates), resumed=resumed)
        except several.SomeFailed as failed:
            _log(step.store, step.run_id, failed.report)
            raise
        report = step.done(written)
        _log(step.store, step.run_id, report)
    return report


def _log(store: tracking.Store, run_id: str, report: dict[str, Any]) -> None:
    """Log each target's rows and report; the rows of the only target under the step's own name, too."""
    counts = numbers(report, ("rows",))
    for name, of in report["targets"].items():
        counts |= {f"{name}/{key}": count for key, count in numbers(of, ("rows", "seconds")).items()}
    tracking.log_metrics(store, run_id, {f"export/{key}": count for key, count in counts.items()})
    tracking.log_text(store, run_id, "export.json", json.dumps(plain(report["targets"]), indent=2, ensure_ascii=False))


export_task = io_task(export)


def rollback(settings: Settings, target: str | None = None) -> dict[str, Any]:
    """Bring the copy before the newest one back, in every target or in one."""
    return dict(plain(several.rollback(settings, target)))


rollback_task = io_task(rollback, limit="export")


def check_targets(settings: Settings) -> None:
    """Find what is wrong with the targets before any work; what may pass until the export is only a warning."""
    for sentence in several.check(settings, passing=is_transient):
        watch().warn(sentence)


def export_alone(
    settings: Settings, run: Run = as_function, rollback: bool = False, target: str | None = None
) -> dict[str, Any]:
    """Export the newest candidate table, or bring the copy before the newest one back."""
    if rollback:
        return run(rollback_task, settings, target)
    check_targets(settings)
    return run(export_task, settings, newest_candidates(settings))
