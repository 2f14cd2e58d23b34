"""Evaluate: a bundle against the untrained baselines, full ranking, on the held-out items."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from recsys.bundles.mirror import address
from recsys.bundles.store import measured_bundle
from recsys.columns import USER_ID, metric_name
from recsys.compute.choice import check_compute
from recsys.data.prepare import prepare
from recsys.evaluation import evaluate as evaluation
from recsys.evaluation import users
from recsys.evaluation.prices import prices
from recsys.pipelines.steps import (
    Run,
    as_function,
    chosen_bundle,
    compute_task,
    newest_versions,
    step_run,
)
from recsys.pipelines.terminal.prices import price_metrics, price_table
from recsys.pipelines.watch import watch
from recsys.report.files import stand_ins
from recsys.runs import state_folder
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.tracking import log as tracking


def evaluate(
    settings: Settings,
    versions: TableVersions,
    bundle: str,
    parent: str | None = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """Metrics of the bundle and of the baselines, slices and values per user; all go to MLflow.

    Of a bundle that was refitted on all events the measured one, which it was made of, is measured; a sentence says so.
    The values per user also go to the warehouse, where `recsys compare` finds them by bundle. `as_of` is the moment for
    rules, whose prices are measured, too; None: now.
    """
    with step_run(settings, "evaluate", parent, versions) as step:
        display = watch()
        frames: list[pl.DataFrame] = []
        measured = evaluation.evaluate(settings, versions, bundle, display.advance, frames.append)
        if passed := measured.report["protocol"].get("measured"):
            display.say(passed)
            bundle = str(measured_bundle(bundle))
        moment = as_of or datetime.now(UTC)
        priced = _prices(settings, versions, bundle, moment)
        if priced:
            measured = replace(measured, report=measured.report | {"rules": priced})
        about = {
            "name": settings.name,
            "bundle": Path(bundle).name,
            "served": measured.served,
            "exclude_seen": settings.evaluate.exclude_seen,
            "mlflow_run": parent or step.run_id,
        }
        values = [users.UserValues(frame=frame, about=about) for frame in frames]
        for one in values:
            users.write_file(users.local_path(settings.warehouse, bundle), users.to_parquet(one))
        private = private_names(settings)
        if private is not None:
            measured = replace(
                measured,
                examples=_renamed(measured.examples, private),
                journeys={kind: _renamed(those, private) for kind, those in measured.journeys.items()},
            )
        report = step.done(measured)
        unrecorded = report["report"]["protocol"].get("consumed")
        if unrecorded is not None:
            display.warn(
                f"Which events {address(bundle)} learned from is {unrecorded}; a leak in its training would not be "
                "seen."
            )
        tracking.log_metrics(step.store, step.run_id, report["metrics"])
        tracking.log_metrics(step.store, step.run_id, baseline_metrics(report["baselines"]))
        for run_id in step.runs:
            for one in values:
                tracking.log_test_part(step.store, run_id, one.frame, one.digest())
            for name, points in curves_at_k(report).items():
                tracking.log_curve(step.store, run_id, name, points)
        if priced:
            for run_id in step.runs:
                tracking.log_metrics(step.store, run_id, price_metrics(priced))
            tracking.log_table(step.store, step.run_id, "rules.json", dict(price_table(priced)))
        tracking.log_metrics(step.store, step.run_id, report["further"].get(report["served"], {}))
        tracking.log_table(step.store, step.run_id, "metrics.json", metrics_table(report))
        if report["slices"]:
            columns = {name: [row[name] for row in report["slices"]] for name in report["slices"][0]}
            tracking.log_table(step.store, step.run_id, "slices.json", columns)
            from recsys.evaluation import plots  # matplotlib, which who draws nothing is spared

            tracking.log_figure(step.store, step.run_id, "plots/slices.png", plots.plot_slices(report["slices"]))
        for one in values:
            shared = one if private is None else users.with_stand_ins(one, private)
            tracking.log_file(step.store, step.run_id, users.FILE, users.to_parquet(shared))
    return report


def private_names(settings: Settings) -> Callable[[Any], str] | None:
    """Return what stands in users' places in records and in MLflow; None: `report.show_user_ids` asks for ids."""
    return None if settings.report.show_user_ids else stand_ins(state_folder(settings.warehouse))


def _renamed(people: Sequence[Mapping[str, Any]], private: Callable[[Any], str]) -> list[dict[str, Any]]:
    return [{**one, USER_ID: private(one[USER_ID])} for one in people]


def _prices(settings: Settings, versions: TableVersions, bundle: str, now: datetime) -> dict[str, Any] | None:
    """The prices of the configured rules, by the lists of the measured bundle; None: there are none."""
    if not settings.rules.by_name:
        return None
    return prices(settings, versions, open_bundle(bundle), prepare(settings, versions), now)


def metrics_table(report: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Every measure of the served ranker and of each baseline, as columns of one table."""
    by_name = {report["served"]: report["metrics"], **report["baselines"]}
    whole = {name: {**metrics, **report["further"].get(name, {})} for name, metrics in by_name.items()}
    names = list(dict.fromkeys(metric for metrics in whole.values() for metric in metrics))
    return {"metric": names} | {name: [metrics.get(metric) for metric in names] for name, metrics in whole.items()}


def baseline_metrics(baselines: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return the baselines' figures at 10; `metrics.json` has the rest, which would be a wall of charts.

    >>> baseline_metrics({"text+transitions": {"test/ndcg_at_10": 0.3, "test/ndcg_at_20": 0.4}})
    {'baselines/ndcg_at_10_text_transitions': 0.3}
    """
    names = [metric_name(metric, 10) for metric in ("ndcg", "hr")]
    return {
        f"baselines/{name}_{tracking.metric_part(baseline)}": metrics[f"test/{name}"]
        for name in names
        for baseline, metrics in baselines.items()
        if f"test/{name}" in metrics
    }


def curves_at_k(report: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """The served ranker's metrics over k, which MLflow draws over steps: `test_at_k/ndcg`."""
    curves = report["curves"]
    return {
        f"test_at_k/{metric}": dict(zip(curves["cutoffs"], curves[metric][report["served"]], strict=True))
        for metric in ("ndcg", "hr")
        if report["served"] in curves.get(metric, {})
    }


evaluate_task = compute_task(evaluate)


def evaluate_alone(settings: Settings, run: Run = as_function, bundle: str | None = None) -> dict[str, Any]:
    """Evaluate a bundle, by default the newest, on the newest tables."""
    check_compute(settings)
    return run(evaluate_task, settings, newest_versions(settings), chosen_bundle(settings, bundle))
