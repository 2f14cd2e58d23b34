"""Train: the tables at one version become a bundle."""

from __future__ import annotations

from typing import Any

from recsys import runs
from recsys.bundles.store import publish_bundle
from recsys.models.registry import estimator_for
from recsys.night.fit import fit
from recsys.pipelines.search import log_index
from recsys.pipelines.steps import (
    Run,
    as_function,
    compute_task,
    newest_versions,
    numbers,
    step_run,
)
from recsys.pipelines.terminal.console import started_from, untrained
from recsys.pipelines.watch import watch
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.tracking import log as tracking
from recsys.training.validation import PRIMARY


def train(
    settings: Settings,
    versions: TableVersions,
    parent: str | None = None,
) -> dict[str, Any]:
    """Train the configured model; the loss and the validation of every epoch go to MLflow as they come.

    A training that was killed goes on from its last checkpoint.
    """
    display, planned = watch(), estimator_for(settings).planned_epochs
    with step_run(settings, "train", parent, versions) as step:

        def on_epoch(entry: dict[str, Any]) -> None:
            epoch = int(entry["epoch"])
            metrics = {
                name if "/" in name else f"train/{name}": value for name, value in entry.items() if name != "epoch"
            }
            if "objective" in entry:  # losses of different questions are no one curve
                metrics[f"train/loss_{entry['objective']}"] = entry.get("loss")
            for run_id in step.runs:  # the night's has the curves, too: nights are compared by them
                tracking.log_metrics(step.store, run_id, metrics, step=epoch)
            shown = [f"{name} {entry[name]:.4f}" for name in ("loss", "val/ndcg_at_10") if name in entry]
            display.advance(epoch, planned, ", ".join(shown))

        report = step.done(fit(settings, versions, on_epoch, display.say))
        last = numbers(report, ("epochs", "best_epoch", "parameters")) | _copied(report["warm_start"] or {})
        tracking.log_metrics(step.store, step.run_id, {f"train/{name}": value for name, value in last.items()})
        if report["blend"]:
            _log_blend(step.store, step.run_id, report["blend"])
        log_index(step.store, step.runs, report.get("index"))
    if said := untrained(settings, report):
        (display.say if started_from(settings, report) else display.warn)(said)
    return report


train_task = compute_task(train)


def _copied(warm_start: dict[str, Any]) -> dict[str, float]:
    """The counts of a warm start under names such as `items_copied`."""
    return {f"{what}_{name}": n for what in ("items", "rows") for name, n in warm_start.get(what, {}).items()}


def _log_blend(store: tracking.Store, run_id: str, blend: dict[str, Any]) -> None:
    """Log what each source and the blend reach on validation, and the table of the blend's weights."""
    reached = blend["validation"] or {}
    tracking.log_metrics(store, run_id, {f"blend/{source}": one.get(PRIMARY) for source, one in reached.items()})
    if reached:
        names = list(dict.fromkeys(name for one in reached.values() for name in one))
        columns: dict[str, list[Any]] = {"source": list(reached)}
        columns |= {name: [one.get(name) for one in reached.values()] for name in names}
        tracking.log_table(store, run_id, "blend_validation.json", columns)
    reach = blend.get("reach") or {}
    shares = {f"reach/{source}_{of}": share for source, one in reach.items() for of, share in one.items()}
    tracking.log_metrics(store, run_id, shares)
    if blend["weights"]:
        tracking.log_table(store, run_id, "blend_weights.json", blend["weights"])


def train_alone(settings: Settings, run: Run = as_function) -> dict[str, Any]:
    """Train on the newest tables, and make the bundle the latest of its name."""
    with runs.locked(settings.warehouse):
        report = run(train_task, settings, newest_versions(settings))
        publish_bundle(settings.warehouse, report["bundle"])
        return report
