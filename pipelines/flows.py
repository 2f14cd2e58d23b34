"""The flows that Prefect records: a night, and each step alone for a configuration file.

Only who asks for a flow pays for Prefect's import; the work itself is in plain functions of the other modules. Prefect
stores a flow's parameters: keep passwords out of `overrides`, in the environment of the worker.
"""

from __future__ import annotations

import importlib
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import deployment
from prefect.states import Completed, Failed, State

from recsys.errors import RecsysError, first_line
from recsys.pipelines.orchestration import prefect_api, unmasked
from recsys.pipelines.orchestration.events import tell
from recsys.pipelines.orchestration.run_log import recorded
from recsys.pipelines.orchestration.titles import configuration_name, run_title
from recsys.pipelines.steps import as_task, graph
from recsys.pipelines.time_limit import may_end_process
from recsys.pipelines.watch import Watch, watch
from recsys.processes import registered
from recsys.runs import WarehouseBusy
from recsys.settings import RunSettings
from recsys.settings.pretrain import load_pretrain_settings
from recsys.settings.read import load_settings
from recsys.storage.addresses import masked
from recsys.storage.intact import naming_damage


def _alone(step: str, settings: RunSettings, **options: Any) -> dict[str, Any]:
    """The step's `NAME_alone`, whose module is imported when it runs."""
    module = importlib.import_module(f"recsys.pipelines.{step}")
    watch().enter()
    with recorded(), graph():
        report: dict[str, Any] = getattr(module, f"{step}_alone")(settings, as_task, **options)
    return report


@flow(name="nightly", flow_run_name=run_title)
def nightly(config: str, overrides: list[str] | None = None, timezone: str | None = None) -> State[dict[str, Any]]:
    """The night: ingest, represent, train, evaluate, refit, retrieve, judge, publish, export, and one MLflow run around it.

    Nothing that readers see changes before `publish`: until then the new bundle and the new candidates lie beside. A
    night that `judge` keeps back ends there: it is finished, and what it built stays beside until the next night. The
    state's message is the verdict. A scheduled night is skipped where another run holds the warehouse. `timezone` is
    that of the date in the run's name.
    """  # noqa: E501 - the first line is what Prefect's UI shows
    scheduled = deployment.get_id() is not None
    if scheduled:  # the process is there for this run alone
        may_end_process()
    command = watch()
    command.enter()
    with recorded() as display:
        try:
            command.summary = summary = _night(config, overrides, scheduled, display)
            return _ended(summary, display)
        except Exception as error:
            if prefect_api.failed(error):
                raise
            name, sentence = configuration_name(config, overrides), masked(_sentence(error))
            skipped = scheduled and isinstance(error, WarehouseBusy)
            tell("skipped" if skipped else "failed", name, sentence)
            if not scheduled or not isinstance(error, RecsysError):
                raise
            display.warn(sentence)
            return Completed(name="Skipped", message=sentence) if skipped else Failed(message=sentence)


def _night(config: str, overrides: list[str] | None, scheduled: bool, display: Watch) -> dict[str, Any]:
    """Do the night's work; a scheduled night that loses Prefect on its way goes on without it."""
    from recsys.pipelines.nightly import night

    settings = load_settings(config, unmasked.real(overrides))
    with registered(settings.warehouse), naming_damage(settings.warehouse), graph():
        try:
            return night(settings, as_task)
        except BaseException as error:
            if not scheduled or not prefect_api.failed(error):
                raise
            display.warn(f"Prefect does not answer ({type(error).__name__}); going on without it.")
        return night(settings)


def _ended(summary: dict[str, Any], display: Watch) -> State[dict[str, Any]]:
    """Tell Prefect what came of a night; returns the state that the flow run ends in, whatever Prefect has taken."""
    from recsys.pipelines.nightly import artifact_key, summary_markdown

    verdict, name = summary["verdict"], summary["name"]
    where = {"report": summary.get("report"), "mlflow": summary["mlflow"]["link"], "run_id": summary["run_id"]}
    page = f"\n- report: `{where['report']}`" if where["report"] else ""
    try:
        create_markdown_artifact(
            markdown=summary_markdown(summary) + page,
            key=artifact_key(name),
            description=f"The night of {name}. {verdict['sentence']}",
        )
    except Exception as error:  # what is published is published
        if not prefect_api.failed(error):
            raise
        display.warn(f"Prefect did not take the night's page ({type(error).__name__}); the night itself is complete.")
    tell("published" if verdict["passed"] else "kept-back", name, verdict["sentence"], **where)
    state = "Completed" if verdict["passed"] else "KeptBack"
    return Completed(name=state, message=verdict["sentence"], data=summary)


def _sentence(error: Exception) -> str:
    """Return what an error says; a bug's kind, too."""
    return str(error) if isinstance(error, RecsysError) else f"{type(error).__name__}: {first_line(error)}."


@flow(name="ingest", flow_run_name=run_title)
def ingest_flow(config: str, overrides: list[str] | None = None, rebuild: bool = False) -> dict[str, Any]:
    """Ingest: logs and catalogue into the warehouse's tables."""
    return _alone("ingest", load_settings(config, unmasked.real(overrides)), rebuild=rebuild)


@flow(name="represent", flow_run_name=run_title)
def represent_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Represent: each distinct item sentence becomes a text vector, once."""
    return _alone("represent", load_settings(config, unmasked.real(overrides)))


@flow(name="train", flow_run_name=run_title)
def train_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Train: the tables at one version become a bundle."""
    return _alone("train", load_settings(config, unmasked.real(overrides)))


@flow(name="evaluate", flow_run_name=run_title)
def evaluate_flow(config: str, overrides: list[str] | None = None, bundle: str | None = None) -> dict[str, Any]:
    """Evaluate: a bundle against the untrained baselines, full ranking, on the held-out items."""
    return _alone("evaluate", load_settings(config, unmasked.real(overrides)), bundle=bundle)


@flow(name="refit", flow_run_name=run_title)
def refit_flow(config: str, overrides: list[str] | None = None, bundle: str | None = None) -> dict[str, Any]:
    """Refit: the bundle to serve, of the measured one and all events; figures stay those of the measured one."""
    return _alone("refit", load_settings(config, unmasked.real(overrides)), bundle=bundle)


@flow(name="retrieve", flow_run_name=run_title)
def retrieve_flow(config: str, overrides: list[str] | None = None, bundle: str | None = None) -> dict[str, Any]:
    """Retrieve: the candidate table, each user's top k from a bundle; in a night, `publish` makes it the newest one."""
    return _alone("retrieve", load_settings(config, unmasked.real(overrides)), bundle=bundle)


@flow(name="export", flow_run_name=run_title)
def export_flow(
    config: str, overrides: list[str] | None = None, rollback: bool = False, target: str | None = None
) -> dict[str, Any]:
    """Export: copies of the candidate table for downstream services, in every target of the configuration."""
    settings = load_settings(config, unmasked.real(overrides))
    return _alone("export", settings, rollback=rollback, target=target)


@flow(name="refresh", flow_run_name=run_title)
def refresh_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Refresh: between nights, the rows of the users with new events, in the candidate table and in every target."""
    return _alone("refresh", load_settings(config, unmasked.real(overrides)))


@flow(name="pretrain", flow_run_name=run_title)
def pretrain_flow(config: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """Pre-train: several logs and catalogues become a Recformer, or a text-only sequence model, that reads others."""
    return _alone("pretrain", load_pretrain_settings(config, unmasked.real(overrides)))
