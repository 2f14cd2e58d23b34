"""Train: the tables at one version become a bundle."""

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
from recsys import runs, tracking
from recsys.bundle import publish_bundle
from recsys.config import Settings, load_settings
from recsys.data.warehouse import TableVersions
from recsys.training.fit import fit


def train(
    settings: Settings,
    versions: TableVersions,
    parent: str | None = None,
) -> dict[str, Any]:
    """Train the configured model; the loss and the validation of every epoch go to MLflow as they come."""
    looking = watch()
    with step_run(settings, "train", parent, versions) as (store, run_id):

        def on_epoch(entry: dict[str, Any]) -> None:
            epoch = int(entry["epoch"])
            metrics = {
                name if "/" in name else f"train/{name}": value for name, value in entry.items() if name != "epoch"
            }
            try:
                tracking.log_metrics(store, run_id, metrics, step=epoch)
            except Exception as error:  # an hour of training outweighs a point of a curve
                looking.warn(f"MLflow did not take the metrics of epoch {epoch} ({type(error).__name__}).")
            shown = [f"{name} {entry[name]:.4f}" for name in ("loss", "val/ndcg_at_10") if name in entry]
            looking.advance(epoch, settings.train.epochs, ", ".join(shown))

        report = plain(fit(settings, versions, on_epoch))
        last = numbers(report, ("epochs", "best_epoch", "parameters"))
        tracking.log_metrics(store, run_id, {f"train/{name}": value for name, value in last.items()})
    return {**report, "mlflow_run": run_id}


train_task = compute_task(train)


def train_alone(settings: Settings, run: Run = as_function) -> dict[str, Any]:
    """Train on the newest tables, and make the bundle the latest of its name."""
    with runs.locked(settings.warehouse):
        report = run(train_task, settings, newest_versions(settings))
        publish_bundle(settings.warehouse, report["bundle"])
        return report


@flow(name="train", flow_run_name="train-{config}", description=__doc__)
def train_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """`train_alone` for a configuration file, recorded by Prefect."""
    return train_alone(load_settings(config, overrides or ()), as_task)
