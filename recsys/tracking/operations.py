"""Requests to MLflow, each a function of a store and of values that JSON can hold.

An operation that is done twice ends as if it had been done once: after a connection broke nobody knows whether the
server had taken it. Run ids that begin with `LOCAL` are of runs that were begun while the store did not answer.
MLflow is imported with the first operation: it takes a second of CPU, which who opens no store is spared.
"""

from __future__ import annotations

import base64
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, Final

from recsys.running import LOCAL

if TYPE_CHECKING:
    from recsys.tracking.store import Store

PARENT_TAG: Final = "mlflow.parentRunId"
STEP_TAG: Final = "recsys.step"
RUN_TAG: Final = "recsys.run"  # the night's short id, of its own run and of its steps'
LOCAL_TAG: Final = "recsys.local_id"
PROCESS_TAG: Final = "recsys.process"
DESCRIPTION_TAG: Final = "mlflow.note.content"  # what the UI shows on top of a run
KIND_TAG: Final = "recsys.kind"  # of the model
ATTEMPTS_TAG: Final = "recsys.attempts"  # of a night that failed before it had a run: how many steps did
NAME_TAG: Final = "recsys.name"  # of the configuration
VERDICT_TAG: Final = "recsys.verdict"
SENTENCE_TAG: Final = "recsys.verdict_sentence"
CHAMPION_TAG: Final = "recsys.champion"  # "yes", or "until ..." where another took over
CHAMPION_ALIAS: Final = "champion"
_A_BATCH: Final = {"params": 100, "metrics": 1000}
_TABLES_TAG: Final = "mlflow.loggedArtifacts"  # where the UI reads which artifacts are tables


def real_id(store: Store, run: str) -> str:
    """The store's id of a run.

    Raises
    ------
    LookupError
        The store has no such run.
    """
    if not run.startswith(LOCAL):
        return run
    if run not in store.ids:
        found = store.client.search_runs([store.experiment_id], f"tags.`{LOCAL_TAG}` = '{run}'", max_results=1)
        if not found:
            raise LookupError(f"the run {run} was never begun in this store")
        store.ids[run] = str(found[0].info.run_id)
    return store.ids[run]


def create(store: Store, *, run: str, name: str, tags: Mapping[str, str], time: int) -> str:
    """Begin a run and return the store's id; one that was begun under this local id before is taken."""
    if store.repeating:
        try:
            return real_id(store, run)
        except LookupError:
            pass
    made = store.client.create_run(
        store.experiment_id, run_name=name, start_time=time, tags=_tags(store, {**tags, LOCAL_TAG: run})
    )
    store.ids[run] = str(made.info.run_id)
    return store.ids[run]


def _tags(store: Store, tags: Mapping[str, str]) -> dict[str, str]:
    return {key: real_id(store, value) if key == PARENT_TAG else value for key, value in tags.items()}


def resume(store: Store, *, run: str, process: str | None) -> None:
    """Set a run back to `RUNNING`, and close those of its steps that a kill left open."""
    run = real_id(store, run)
    store.client.update_run(run, status="RUNNING")
    if process is not None:
        store.client.set_tag(run, PROCESS_TAG, process)
    for child in children(store, run):
        if child.info.status == "RUNNING":
            store.client.set_terminated(child.info.run_id, "KILLED")


def children(store: Store, run: str) -> list[Any]:
    """The nested runs of a run, oldest first."""
    from mlflow.entities import ViewType

    return list(
        store.client.search_runs(
            [store.experiment_id],
            filter_string=f"tags.`{PARENT_TAG}` = '{real_id(store, run)}'",
            run_view_type=ViewType.ACTIVE_ONLY,
            order_by=["attributes.start_time ASC"],
        )
    )


def end(store: Store, *, run: str, status: str, time: int, error: str | None = None) -> None:
    """Close a run, with an error's sentence as a tag."""
    run = real_id(store, run)
    if error is not None:
        store.client.set_tag(run, "recsys.error", error)
    store.client.set_terminated(run, status, end_time=time)


def end_all(store: Store, *, process: str) -> None:
    """Close as `KILLED` what a process that has gone left `RUNNING`."""
    query = f"tags.`{PROCESS_TAG}` = '{process}' and attributes.status = 'RUNNING'"
    experiments = [experiment.experiment_id for experiment in store.client.search_experiments()]
    for run in store.client.search_runs(experiments, query):
        store.client.set_terminated(run.info.run_id, "KILLED")


def adopt(store: Store, *, run: str, parent: str) -> None:
    """Nest a step's run that began before its parent was known; it is called as nested steps are."""
    run = real_id(store, run)
    store.client.set_tag(run, PARENT_TAG, real_id(store, parent))
    store.client.update_run(run, name=store.client.get_run(run).data.tags.get(STEP_TAG))


def gather(
    store: Store,
    *,
    run: str,
    name: str,
    tags: Mapping[str, str],
    begun: int,
    time: int,
    steps: Sequence[str],
    status: str,
    error: str,
) -> None:
    """Nest failed steps in the run of a night that came no further; right after such a run, they are added to it."""
    try:
        own: str | None = real_id(store, run)
    except LookupError:  # a record of an earlier version, whose run begins here
        own = None
    found = store.client.search_runs(
        [store.experiment_id],
        f"tags.`{NAME_TAG}` = '{tags[NAME_TAG]}'",
        order_by=["attributes.start_time DESC"],
        max_results=2,
    )
    last = next((one for one in found if one.info.run_id != own), None)
    if last is not None and ATTEMPTS_TAG in last.data.tags:
        if own is not None:
            store.client.delete_run(own)
        run = str(last.info.run_id)
    elif own is None:
        create(store, run=run, name=name, tags=tags, time=begun)
    for step in steps:
        adopt(store, run=step, parent=run)
    tag(store, run=run, key=ATTEMPTS_TAG, value=str(len(children(store, run))))
    tag(store, run=run, key="mlflow.note.content", value=f"The night came no further than this step: {error}.")
    end(store, run=run, status=status, time=time, error=error)


def delete(store: Store, *, run: str) -> None:
    """Take a run away; MLflow keeps it among the deleted."""
    store.client.delete_run(real_id(store, run))


def tag(store: Store, *, run: str, key: str, value: str) -> None:
    """Set a tag."""
    store.client.set_tag(real_id(store, run), key, value)


def note(store: Store, *, run: str, text: str) -> None:
    """Add a paragraph to what the UI shows on top of a run; one that is there already is not added again."""
    run = real_id(store, run)
    held = store.client.get_run(run).data.tags.get(DESCRIPTION_TAG, "")
    if text not in held:
        store.client.set_tag(run, DESCRIPTION_TAG, f"{text}\n\n{held}".rstrip())


def mark(store: Store, *, run: str, values: Mapping[str, str]) -> None:
    """Set tags of a run, of the models that it logged, and of their registered versions."""
    run, client = real_id(store, run), store.client
    for key, value in values.items():
        client.set_tag(run, key, value)
    for model_id in logged_models(store, run):
        client.set_logged_model_tags(model_id, dict(values))
    for version in versions_of(store, run):
        for key, value in values.items():
            client.set_model_version_tag(version.name, version.version, key, value)


def champion(store: Store, *, name: str, version: str | None, run: str | None, moment: str) -> None:
    """Move the alias of what is served to a version, and tag runs: the new one, and until when the former one was."""
    client = store.client
    if version is not None:
        run = run or client.get_model_version(name, version).run_id
    elif run is not None:
        version = next((str(one.version) for one in versions_of(store, run) if one.name == name), None)
    if version is not None:
        client.set_registered_model_alias(name, CHAMPION_ALIAS, version)
    if not run:
        return
    run = real_id(store, run)
    former = client.search_runs(
        [store.experiment_id], f"tags.`{CHAMPION_TAG}` = 'yes' and tags.`{NAME_TAG}` = '{name}'"
    )
    for other in former:
        if other.info.run_id != run:
            mark(store, run=other.info.run_id, values={CHAMPION_TAG: f"until {moment}"})
    mark(store, run=run, values={CHAMPION_TAG: "yes", NAME_TAG: name})


def logged_models(store: Store, run: str) -> list[str]:
    """The ids of the models that a run has logged."""
    outputs = store.client.get_run(real_id(store, run)).outputs
    return [output.model_id for output in (outputs.model_outputs if outputs else [])]


def versions_of(store: Store, run: str) -> list[Any]:
    """The registered versions of the models of a run."""
    return list(store.client.search_model_versions(f"run_id = '{real_id(store, run)}'"))


def params(store: Store, *, run: str, values: Mapping[str, str]) -> None:
    """Log parameters."""
    from mlflow.entities import Param

    given, size = [Param(name, value) for name, value in values.items()], _A_BATCH["params"]
    for start in range(0, len(given), size):
        store.client.log_batch(real_id(store, run), params=given[start : start + size])


def metrics(
    store: Store,
    *,
    run: str,
    values: Mapping[str, float],
    time: int,
    step: int,
    model_id: str | None = None,
    dataset: Sequence[str] | None = None,
) -> None:
    """Log numbers; with `model_id` they are the model's as well, on a data set of this name and digest."""
    from mlflow.entities import Metric

    run, size = real_id(store, run), _A_BATCH["metrics"]
    name, digest = dataset or (None, None)
    of = {"model_id": model_id, "run_id": run if model_id else None, "dataset_name": name, "dataset_digest": digest}
    given = [Metric(name, value, time, step, **of) for name, value in values.items()]
    for start in range(0, len(given), size):
        store.client.log_batch(run, metrics=given[start : start + size])


def series(store: Store, *, run: str, points: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Log metrics at several steps: for each name, points of step, value and milliseconds since 1970."""
    from mlflow.entities import Metric

    run, size = real_id(store, run), _A_BATCH["metrics"]
    given = [Metric(name, value, int(time), int(step)) for name, line in points.items() for step, value, time in line]
    for start in range(0, len(given), size):
        store.client.log_batch(run, metrics=given[start : start + size])


def inputs(store: Store, *, run: str, datasets: Sequence[Mapping[str, str]], context: str) -> None:
    """Log dataset inputs."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag("mlflow.data.context", context)]
    store.client.log_inputs(real_id(store, run), [DatasetInput(Dataset(**dataset), tags) for dataset in datasets])


def artifact(store: Store, *, run: str, path: str, text: str | None = None, encoded: str = "") -> None:
    """Write an artifact: text, or bytes in base64."""
    place = PurePosixPath(path)
    with tempfile.TemporaryDirectory(prefix="recsys-artifact-") as folder:
        file = Path(folder) / place.name
        file.write_bytes(base64.b64decode(encoded) if text is None else text.encode())
        parent = str(place.parent) if place.parent != PurePosixPath(".") else None
        store.client.log_artifact(real_id(store, run), str(file), parent)


def table(store: Store, *, run: str, path: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table artifact, which the UI shows as a table."""
    text = json.dumps({"columns": list(columns), "data": [list(row) for row in rows]}, indent=2)
    artifact(store, run=run, path=path, text=text)
    run = real_id(store, run)
    known = json.loads(store.client.get_run(run).data.tags.get(_TABLES_TAG, "[]"))
    entry = {"path": path, "type": "table"}
    store.client.set_tag(run, _TABLES_TAG, json.dumps(known if entry in known else [*known, entry]))


def bundle(store: Store, **content: Any) -> dict[str, str | None]:
    """Log a bundle as a model; see `registry.log_bundle`."""
    from recsys.tracking import registry  # imports much of MLflow

    return registry.log_model(store, **content)


OPERATIONS: Final[Mapping[str, Callable[..., Any]]] = {
    function.__name__: function
    for function in (
        create,
        resume,
        end,
        end_all,
        adopt,
        gather,
        delete,
        tag,
        note,
        mark,
        champion,
        params,
        metrics,
        series,
        inputs,
        artifact,
        table,
        bundle,
    )
}
