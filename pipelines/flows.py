"""The flows that Prefect records: a night, and each step alone for a configuration file.

Only who asks for a flow pays for Prefect's import; the work itself is in plain functions of the other modules. Prefect
stores a flow's parameters: keep passwords out of `overrides`, in the environment of the worker.
"""

from __future__ import annotations

import importlib
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.states import Completed, State

from recsys.pipelines import unmasked
from recsys.pipelines.steps import as_task
from recsys.pipelines.watch import watch
from recsys.settings import RunSettings
from recsys.settings.pretrain import load_pretrain_settings
from recsys.settings.read import load_settings


def _alone(step: str, settings: RunSettings, **options: Any) -> dict[str, Any]:
    """The step's `NAME_alone`, whose module is imported when it runs."""
    module = importlib.import_module(f"recsys.pipelines.{step}")
    report: dict[str, Any] = getattr(module, f"{step}_alone")(settings, as_task, **options)
    return report


@flow(name="nightly", flow_run_name="night-{config}")
def nightly(config: str, overrides: list[str] | None = None) -> State[dict[str, Any]]:
    """The night: ingest, represent, train, evaluate, refit, retrieve, judge, publish, export, and one MLflow run around it.

    Nothing that readers see changes before `publish`: until then the new bundle and the new candidates lie beside. A
    night that `judge` keeps back ends there: it is finished, and what it built stays beside until the next night. The
    state's message is the verdict.
    """  # noqa: E501 - the first line is what Prefect's UI shows
    from recsys.pipelines.nightly import artifact_key, night, summary_markdown

    display = watch()
    display.entered = True
    display.summary = summary = night(load_settings(config, unmasked.real(overrides)), as_task)
    create_markdown_artifact(
        markdown=summary_markdown(summary),
        key=artifact_key(summary["name"]),
        description=f"The night of {summary['name']}. {summary['verdict']['sentence']}",
    )
    verdict = summary["verdict"]
    name = "Completed" if verdict["passed"] else "KeptBack"
    return Completed(name=name, message=verdict["sentence"], data=summary)


@flow(name="ingest", flow_run_name="ingest-{config}")
def ingest_flow(config: str, overrides: list[str] | None = None, rebuild: bool = False) -> dict[str, Any]:
    """Ingest: logs and catalogue into the warehouse's tables."""
    return _alone("ingest", load_settings(config, unmasked.real(overrides)), rebuild=rebuild)


@flow(name="represent", flow_run_name="represent-{config}")
def represent_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Represent: each distinct item sentence becomes a text vector, once."""
    return _alone("represent", load_settings(config, unmasked.real(overrides)))


@flow(name="train", flow_run_name="train-{config}")
def train_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Train: the tables at one version become a bundle."""
    return _alone("train", load_settings(config, unmasked.real(overrides)))


@flow(name="evaluate", flow_run_name="evaluate-{config}")
def evaluate_flow(config: str, overrides: list[str] | None = None, bundle: str | None = None) -> dict[str, Any]:
    """Evaluate: a bundle against the untrained baselines, full ranking, on the held-out items."""
    return _alone("evaluate", load_settings(config, unmasked.real(overrides)), bundle=bundle)


@flow(name="refit", flow_run_name="refit-{config}")
def refit_flow(config: str, overrides: list[str] | None = None, bundle: str | None = None) -> dict[str, Any]:
    """Refit: the bundle to serve, of the measured one and all events; figures stay those of the measured one."""
    return _alone("refit", load_settings(config, unmasked.real(overrides)), bundle=bundle)


@flow(name="retrieve", flow_run_name="retrieve-{config}")
def retrieve_flow(config: str, overrides: list[str] | None = None, bundle: str | None = None) -> dict[str, Any]:
    """Retrieve: the candidate table, each user's top k from a bundle; in a night, `publish` makes it the newest one."""
    return _alone("retrieve", load_settings(config, unmasked.real(overrides)), bundle=bundle)


@flow(name="export", flow_run_name="export-{config}")
def export_flow(
    config: str, overrides: list[str] | None = None, rollback: bool = False, target: str | None = None
) -> dict[str, Any]:
    """Export: copies of the candidate table for downstream services, in every target of the configuration."""
    settings = load_settings(config, unmasked.real(overrides))
    return _alone("export", settings, rollback=rollback, target=target)


@flow(name="refresh", flow_run_name="refresh-{config}")
def refresh_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Refresh: between nights, the rows of the users with new events, in the candidate table and in every target."""
    return _alone("refresh", load_settings(config, unmasked.real(overrides)))


@flow(name="pretrain", flow_run_name="pretrain-{config}")
def pretrain_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Pre-train: several logs and catalogues become a Recformer, or a text-only sequence model, that reads others."""
    return _alone("pretrain", load_pretrain_settings(config, unmasked.real(overrides)))
