"""MLflow: one run per night with nested step runs, the tables it read and the numbers it made.

Everything goes through `MlflowClient` with explicit run ids. MLflow's active run is thread-local state, and a
step may run in a thread of a scheduler.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import tomlkit

from recsys import telemetry
from recsys.addresses import local_database, masked
from recsys.config import RunSettings
from recsys.errors import InputError, RecsysError

telemetry.off()  # before the import, which reads the switches

from mlflow import MlflowClient  # noqa: E402
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, ViewType  # noqa: E402
from mlflow.exceptions import MlflowException  # noqa: E402

PARENT_TAG = "mlflow.parentRunId"
DESCRIPTION_TAG = "mlflow.note.content"  # what the UI shows on top of a run
EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}  # in the UI: machine learning, not prompts
STEP_TAG = "recsys.step"
_DIGEST_LENGTH = 36
_PARAM_LENGTH = 6000
_PARAMS_A_BATCH = 100
_METRICS_A_BATCH = 1000
_NAME = re.compile(r"[A-Za-z0-9_\-. /:]+")


@dataclass(frozen=True, kw_only=True)
class Store:
    """An MLflow store that answers, and the experiment in it.

    Attributes
    ----------
    uri
        The tracking URI as configured; show it only through `masked`.
    """

    client: MlflowClient
    uri: str
    experiment: str
    experiment_id: str


def open_store(settings: RunSettings) -> Store:
    """Open the store that `tracking.uri` names and find or create the experiment.

    Raises
    ------
    InputError
        The URI is of a kind that MLflow no longer supports, or the experiment was deleted.
    RecsysError
        The store does not answer; one sentence, without passwords.
    """
    uri = settings.tracking.uri
    experiment = settings.tracking.experiment or settings.name
    scheme = urlsplit(uri).scheme
    if scheme in ("", "file") or len(scheme) == 1:
        raise InputError(
            f"tracking.uri = {masked(uri)!r} is a plain folder, which MLflow no longer writes to; "
            "use a database such as sqlite:///mlruns/mlflow.db or the address of an MLflow server."
        )
    database = local_database(uri)
    artifacts: str | None = None
    if database is not None:
        try:
            database.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"The folder {database.parent} of tracking.uri cannot be created: {error.strerror}."
            ) from None
        artifacts = (database.parent / "artifacts").as_uri()
    try:
        with _impatient():
            client = MlflowClient(tracking_uri=uri, registry_uri=uri)
            experiment_id = _experiment(client, experiment, artifacts)
    except RecsysError:
        raise
    except Exception as error:
        raise RecsysError(
            f"The MLflow store {masked(uri)} does not answer ({_origin(error)}); start it or change tracking.uri."
        ) from error
    return Store(client=client, uri=uri, experiment=experiment, experiment_id=experiment_id)


def _experiment(client: MlflowClient, name: str, artifacts: str | None) -> str:
    found = client.get_experiment_by_name(name)
    if found is None:
        try:
            return str(client.create_experiment(name, artifact_location=artifacts, tags=EXPERIMENT_TAGS))
        except MlflowException:  # another process was faster
            found = client.get_experiment_by_name(name)
            if found is None:
                raise
    if found.lifecycle_stage != "active":
        raise InputError(
            f"The MLflow experiment {name!r} was deleted; restore it with "
            f"`mlflow experiments restore --experiment-id {found.experiment_id}` or set tracking.experiment."
        )
    return str(found.experiment_id)


@contextlib.contextmanager
def _impatient() -> Iterator[None]:
    """MLflow tries an address for minutes; for the first call, before any work, seconds are enough."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
    before = {name: os.environ.get(name) for name in wanted}
    for name, value in wanted.items():
        os.environ.setdefault(name, value)
    try:
        yield
    finally:
        for name, old in before.items():
            if old is None:
                os.environ.pop(name, None)


def _origin(error: BaseException) -> str:
    """The error at the bottom: MLflow's own words wrap several libraries' accounts of it."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    """A message's first line without its end stop, shortened, without secrets."""
    lines = str(error).strip().splitlines() or [""]
    return masked(lines[0])[:200].rstrip(". ")


# --- runs -----------------------------------------------------------------------------------------


def start_run(store: Store, name: str, tags: Mapping[str, str] | None = None) -> str:
    """Create a run and return its id; it stays `RUNNING` until `end_run`."""
    source = {"mlflow.source.name": "recsys", "mlflow.source.type": "JOB"}
    run = store.client.create_run(store.experiment_id, run_name=name, tags={**source, **(tags or {})})
    return str(run.info.run_id)


def resume_run(store: Store, run_id: str) -> bool:
    """Set an earlier run back to `RUNNING`; False where the store no longer has it."""
    try:
        run = store.client.get_run(run_id)
    except MlflowException:
        return False
    if run.info.lifecycle_stage != "active" or run.info.experiment_id != store.experiment_id:
        return False
    store.client.update_run(run_id, status="RUNNING")
    for child in child_runs(store, run_id):  # steps that the kill left open
        if child.info.status == "RUNNING":
            store.client.set_terminated(child.info.run_id, "KILLED")
    return True


def end_run(store: Store, run_id: str, status: str = "FINISHED", error: BaseException | None = None) -> None:
    """Close a run as `FINISHED`, `FAILED` or `KILLED`, with the error's sentence as a tag."""
    if error is not None:
        store.client.set_tag(run_id, "recsys.error", f"{type(error).__name__}: {_first_line(error)}")
    store.client.set_terminated(run_id, status)


@contextlib.contextmanager
def step_run(store: Store, step: str, parent: str | None = None) -> Iterator[str]:
    """A run for one step, nested under `parent` where given; closed as failed when the step raises."""
    tags = {STEP_TAG: step} | ({PARENT_TAG: parent} if parent else {})
    name = step if parent else f"{step} {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    run_id = start_run(store, name, tags)
    try:
        yield run_id
    except BaseException as error:
        status = "FAILED" if isinstance(error, Exception) else "KILLED"
        with contextlib.suppress(Exception):  # the step's own error is the one to show
            end_run(store, run_id, status, error)
        raise
    end_run(store, run_id)


def adopt(store: Store, run_id: str, parent: str) -> None:
    """Nest a step's run that began before its parent was known; it is called as nested steps are."""
    store.client.set_tag(run_id, PARENT_TAG, parent)
    step = store.client.get_run(run_id).data.tags.get(STEP_TAG)
    store.client.update_run(run_id, name=step)


def describe(store: Store, run_id: str, markdown: str) -> None:
    """The text that the UI shows on top of a run."""
    store.client.set_tag(run_id, DESCRIPTION_TAG, markdown)


def child_runs(store: Store, run_id: str) -> list[Any]:
    """The nested runs of a run, oldest first."""
    return list(
        store.client.search_runs(
            [store.experiment_id],
            filter_string=f"tags.`{PARENT_TAG}` = '{run_id}'",
            run_view_type=ViewType.ACTIVE_ONLY,
            order_by=["attributes.start_time ASC"],
        )
    )


def run_link(store: Store, run_id: str, host: str = "http://127.0.0.1:5000") -> str:
    """The run's page: on the server itself, or on `recsys ui` where the store is a database."""
    parts = urlsplit(store.uri)
    if parts.scheme in ("http", "https"):
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"
    return f"{host}/#/experiments/{store.experiment_id}/runs/{run_id}"


# --- what a run reports ---------------------------------------------------------------------------


def check_name(name: str) -> str:
    """The name itself when MLflow accepts it for a metric.

    Raises
    ------
    ValueError
        Characters that MLflow rejects, such as the `@` of `ndcg@10`; use `columns.metric_name`.
    """
    unsafe = name.startswith("/") or any(part in ("", ".", "..") for part in name.split("/"))
    if unsafe or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is not a metric name; letters, digits, _ - . space : and / are, as in test/ndcg_at_10"
        )
    return name


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested settings as MLflow parameters: dotted names, values as text, long ones cut, secrets masked.

    >>> flatten({"train": {"epochs": 3}, "text": ["a", "b"]})
    {'train.epochs': '3', 'text': '["a", "b"]'}
    """
    flat: dict[str, str] = {}
    for key, value in tree.items():
        name = re.sub(r"[^A-Za-z0-9_\-. /:]", "_", f"{prefix}{key}")[:250]
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}.")
            continue
        text = masked(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        flat[name] = text if len(text) <= _PARAM_LENGTH else text[: _PARAM_LENGTH - 1] + "…"
    return flat


def log_settings(store: Store, run_id: str, settings: RunSettings) -> None:
    """Log the settings as parameters and as `config.toml` and `config.json`."""
    tree = settings.model_dump(mode="json")
    params = [Param(name, value) for name, value in flatten(tree).items()]
    for start in range(0, len(params), _PARAMS_A_BATCH):
        store.client.log_batch(run_id, params=params[start : start + _PARAMS_A_BATCH])
    log_text(store, run_id, "config.json", masked(json.dumps(tree, indent=2, ensure_ascii=False)))
    log_text(store, run_id, "config.toml", masked(tomlkit.dumps(_with_none_said(tree))))


def _with_none_said(tree: Mapping[str, Any]) -> dict[str, Any]:
    """None as "none", as a configuration has it: TOML has no word for it, and an absent key means the default."""
    return {
        key: _with_none_said(value) if isinstance(value, Mapping) else "none" if value is None else value
        for key, value in tree.items()
    }


def log_tables(
    store: Store,
    run_id: str,
    root: str,
    versions: Mapping[str, int | None],
    digest: str | None = None,
    context: str = "training",
) -> None:
    """Log table versions and content digests as dataset inputs.

    Parameters
    ----------
    root
        The warehouse.
    versions
        Table name to Delta version; None where there is no such table.
    digest
        Of the sources' content (hex); MLflow has room for the beginning.
    """
    inputs = []
    for table, number in versions.items():
        if number is None:
            continue
        source = json.dumps({"uri": masked(f"{root.rstrip('/')}/{table}"), "version": number})
        ending = f"v{number}"
        name = f"{digest[: _DIGEST_LENGTH - len(ending) - 1]}-{ending}" if digest else ending
        dataset = Dataset(
            name=table,
            digest=name,
            source_type="delta_table",
            source=source,
            profile=json.dumps({"version": number}),
        )
        inputs.append(DatasetInput(dataset, [InputTag("mlflow.data.context", context)]))
    if inputs:
        store.client.log_inputs(run_id, inputs)


def log_metrics(
    store: Store, run_id: str, metrics: Mapping[str, Any], *, step: int = 0, model_id: str | None = None
) -> None:
    """Log the numbers of a mapping under their own names; other values are left out.

    Raises
    ------
    ValueError
        A name that MLflow does not accept.
    """
    now = int(time.time() * 1000)
    batch = [
        Metric(check_name(name), float(value), now, step, model_id=model_id, run_id=run_id if model_id else None)
        for name, value in metrics.items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    ]
    for start in range(0, len(batch), _METRICS_A_BATCH):
        store.client.log_batch(run_id, metrics=batch[start : start + _METRICS_A_BATCH])


def log_text(store: Store, run_id: str, path: str, text: str) -> None:
    """Write a text artifact such as `report.md`."""
    store.client.log_text(run_id, text, path)


def log_table(store: Store, run_id: str, path: str, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length as a table artifact (`*.json`), which the UI shows as a table."""
    if not path.endswith(".json"):
        raise ValueError(f"{path!r}: a table artifact is a .json file")
    store.client.log_dict(run_id, {"columns": list(columns), "data": _rows(columns)}, path)
    store.client.set_tag(run_id, "mlflow.loggedArtifacts", json.dumps(_tables(store, run_id, path)))


def _tables(store: Store, run_id: str, path: str) -> list[dict[str, str]]:
    """The run's list of table artifacts with this one added; the UI reads it from a tag."""
    known = json.loads(store.client.get_run(run_id).data.tags.get("mlflow.loggedArtifacts", "[]"))
    entry = {"path": path, "type": "table"}
    return known if entry in known else [*known, entry]


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*columns.values(), strict=True)]


def markdown_table(columns: Mapping[str, Sequence[Any]]) -> str:
    """Columns of equal length as a markdown table.

    >>> print(markdown_table({"user": [1], "items": ["a|b"]}))
    | user | items |
    | --- | --- |
    | 1 | a\\|b |
    """
    lines = [list(columns), ["---"] * len(columns), *_rows(columns)]
    cell = [[str(value).replace("|", "\\|").replace("\n", " ") for value in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in cell)


def log_figure(store: Store, run_id: str, path: str, figure: Any) -> None:
    """Write a matplotlib figure, for example as `plots/loss.png`."""
    store.client.log_figure(run_id, figure, path)
