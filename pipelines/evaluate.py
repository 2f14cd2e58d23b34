"""Evaluate: a bundle against the untrained baselines, full ranking, on the held-out items."""

from __future__ import annotations

from typing import Any

from prefect import flow

from recsys.evaluation import evaluate as evaluation
from recsys.pipelines import unmasked
from recsys.pipelines.steps import (
    Run,
    as_function,
    as_task,
    compute_task,
    newest_bundle,
    newest_versions,
    step_run,
)
from recsys.pipelines.watch import watch
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.warehouse import TableVersions
from recsys.tracking import log as tracking


def evaluate(settings: Settings, versions: TableVersions, bundle: str, parent: str | None = None) -> dict[str, Any]:
    """Metrics of the bundle and of the baselines; both go to MLflow."""
    with step_run(settings, "evaluate", parent, versions) as step:
        looking = watch()
        report = step.done(evaluation.evaluate(settings, versions, bundle, looking.advance))
        silent = report["report"]["protocol"].get("consumed")
        if silent is not None:
            looking.warn(f"Which events {bundle} learned from is {silent}; a leak in its training would not be seen.")
        tracking.log_metrics(step.store, step.run_id, report["metrics"])
        tracking.log_metrics(step.store, step.run_id, baseline_metrics(report["baselines"]))
    return report


def baseline_metrics(baselines: dict[str, dict[str, float]]) -> dict[str, float]:
    """The baselines' numbers under names that MLflow accepts: `popularity/test/ndcg_at_10`."""
    return {
        f"{name.replace('+', '_')}/{metric}": value
        for name, metrics in baselines.items()
        for metric, value in metrics.items()
    }


evaluate_task = compute_task(evaluate)


def evaluate_alone(settings: Settings, run: Run = as_function, bundle: str | None = None) -> dict[str, Any]:
    """Evaluate a bundle, by default the newest, on the newest tables."""
    return run(evaluate_task, settings, newest_versions(settings), bundle or newest_bundle(settings))


@flow(name="evaluate", flow_run_name="evaluate-{config}", description=__doc__)
def evaluate_flow(config: str, overrides: list[str] | None = None, bundle: str | None = None) -> dict[str, Any]:
    """`evaluate_alone` for a configuration file, recorded by Prefect."""
    return evaluate_alone(load_settings(config, unmasked.real(overrides)), as_task, bundle)
