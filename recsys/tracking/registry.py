"""The bundle as a model of MLflow: code beside the files, registered under the configuration's name."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import tempfile
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recsys.storage.shared import share_files
from recsys.tracking import log as tracking
from recsys.tracking import operations as tracking_operations  # first: they switch MLflow's telemetry off

with warnings.catch_warnings():  # MLflow warns of its own types while it is imported
    warnings.simplefilter("ignore")
    import mlflow.pyfunc

from mlflow.entities import LoggedModelOutput, LoggedModelStatus  # isort: skip
from mlflow.exceptions import MlflowException  # isort: skip
from mlflow.models.model import Model  # isort: skip

if TYPE_CHECKING:
    from recsys.tracking.store import Store

CANDIDATE_ALIAS = "candidate"  # the newest registered bundle; `latest` is a word that MLflow refuses
VERSIONS_TAG = "mlflow.modelVersions"  # of a logged model: where the UI reads that it is registered
DESCRIPTION = (
    "What the configuration {name} trains, a version a night. `champion` is what is served, `candidate` the newest. "
    'Load it with `mlflow.pyfunc.load_model("models:/{name}@champion")`.'
)
_OF_RUNS = frozenset({tracking_operations.LOCAL_TAG, tracking_operations.PROCESS_TAG, "recsys.error"})
_PACKAGES = (  # what loading a bundle imports; named, so that MLflow need not import the model to find out
    "torch", "numpy", "numba", "polars", "pyarrow", "deltalake", "faiss-cpu", "safetensors", "pydantic", "scipy",
    "transformers", "sentence-transformers",
)  # fmt: skip


def log_bundle(
    store: Store,
    run_id: str,
    bundle: str | Path,
    *,
    example: Sequence[Any],
    metrics: Mapping[str, Any] | None = None,
    register_as: str | None = None,
) -> dict[str, str | None]:
    """Log a bundle as a pyfunc model and, where a name is given, as a version of a registered model.

    The model is code (`recsys/serving/mlflow_model.py` and the packages it imports) beside the bundle's files;
    nothing is pickled. Its input is a list of `{"history": [...], "k": 10}`, its output a list of
    `{"items": [...], "scores": [...]}`. Doing it again for the same run adds nothing.

    Parameters
    ----------
    example
        A history of raw item ids; it is answered once, to prove that the model loads.
    metrics
        Numbers to tie to the model besides the run.

    Returns
    -------
    dict
        `model_uri`, `name` and `version`; None where not registered, or where the store will be told later.
    """
    made = store.send(
        "bundle",
        run=run_id,
        bundle=str(Path(bundle).absolute()),
        example=[str(item) for item in example],
        values=tracking.numbers(metrics or {}),
        time=int(time.time() * 1000),
        register_as=register_as,
    )
    return dict(made or {"model_uri": None, "name": register_as, "version": None})


def log_model(
    store: Store,
    *,
    run: str,
    bundle: str,
    example: list[str],
    values: Mapping[str, float],
    time: int,
    register_as: str | None,
) -> dict[str, str | None]:
    """The operation behind `log_bundle`: what the store has of it is not done again."""
    client, run_id = store.client, tracking_operations.real_id(store, run)
    model_id, location = _logged_model(store, run_id)
    known = client.get_run(run_id)  # what the run says of itself, the model says, too
    tags = {key: value for key, value in known.data.tags.items() if key.startswith("recsys.") and key not in _OF_RUNS}
    if commit := known.data.tags.get("mlflow.source.git.commit"):
        tags["recsys.commit"] = commit
    if model_id is None:
        logged = client.create_logged_model(
            store.experiment_id,
            name=model_name(Path(bundle).name),
            source_run_id=run_id,
            tags=tags,
            params=known.data.params,
            model_type=tags.get(tracking_operations.KIND_TAG, "recommender"),
        )
        model_id, location = logged.model_id, logged.artifact_location
        with tempfile.TemporaryDirectory(prefix="recsys-model-") as folder:
            path = Path(folder) / "model"
            _save(path, bundle, example, Model(run_id=run_id, model_uuid=model_id, model_id=model_id))
            with _patient():
                client.log_model_artifacts(model_id, str(path))
        share_files(str(logged.artifact_location), Path(bundle))
        client.finalize_logged_model(model_id, LoggedModelStatus.READY)
        client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])
    if values:
        tracking_operations.metrics(
            store, run=run_id, values=values, time=time, step=0, model_id=model_id, dataset=_measured_on(known)
        )
    number = None
    if register_as:
        said = _described(Path(bundle).name, values, tags.get(tracking_operations.SENTENCE_TAG))
        number = _register(store, run_id, register_as, model_id, str(location), said, tags)
    return {"model_uri": f"models:/{model_id}", "name": register_as, "version": number}


def model_name(label: str) -> str:
    """A bundle's label without the characters that MLflow refuses in the name of a logged model."""
    return re.sub(r"[/:.%\"']", "_", label)


def _measured_on(run: Any) -> tuple[str, str] | None:
    """Name and digest of the data set that the run was evaluated on."""
    for one in run.inputs.dataset_inputs if run.inputs else []:
        if any(tag.key == "mlflow.data.context" and tag.value == "evaluation" for tag in one.tags):
            return one.dataset.name, one.dataset.digest
    return None


def _described(label: str, values: Mapping[str, float], verdict: str | None) -> str:
    """A version's description: the bundle, what it reaches, and the verdict on its night.

    >>> _described("shop-1a2b", {"test/ndcg_at_10": 0.35921}, "Published: no worse than yesterday's.")
    "Bundle shop-1a2b; test NDCG@10 0.3592. Published: no worse than yesterday's."
    """
    shown = [
        f"{name} {values[key]:.4f}"
        for key, name in (("test/ndcg_at_10", "NDCG@10"), ("test/hr_at_10", "HR@10"))
        if key in values
    ]
    reached = f"; test {', '.join(shown)}" if shown else ""
    return " ".join(part for part in (f"Bundle {label}{reached}.", verdict) if part)


@contextlib.contextmanager
def _patient() -> Iterator[None]:
    """A server may take its time to store a large file."""
    name = "MLFLOW_HTTP_REQUEST_TIMEOUT"
    before = os.environ.get(name)
    os.environ[name] = str(max(120, int(before or 0)))
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _logged_model(store: Store, run_id: str) -> tuple[str | None, str | None]:
    """The finished model that this run has logged already."""
    outputs = store.client.get_run(run_id).outputs
    for output in outputs.model_outputs if outputs else []:
        model = store.client.get_logged_model(output.model_id)
        if model.status == LoggedModelStatus.READY:
            return model.model_id, model.artifact_location
    return None, None


def _save(path: Path, bundle: str | Path, example: list[str], model: Model) -> None:
    """Write the pyfunc model to a folder; a tenth of a second besides copying the bundle."""
    code = Path(__file__).parents[1]
    requirements = [f"{name}=={number}" for name in _PACKAGES if (number := _installed(name))]
    with _silent():
        mlflow.pyfunc.save_model(
            path=str(path),
            python_model=str(code / "serving" / "mlflow_model.py"),
            artifacts={"bundle": str(bundle)},
            code_paths=[str(code)],
            input_example=[{"history": example}],
            pip_requirements=requirements,
            mlflow_model=model,
        )


def _installed(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]
    except PackageNotFoundError:
        return None


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without MLflow's remarks about the model's own requirements."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _register(
    store: Store, run_id: str, name: str, model_id: str, location: str, description: str, tags: Mapping[str, str]
) -> str:
    """The model's version under a name, created once a run; the alias `candidate` moves to it."""
    client = store.client
    known = [one for one in tracking_operations.versions_of(store, run_id) if one.name == name]
    if known:
        number = str(known[0].version)
    else:
        with contextlib.suppress(MlflowException):  # there already
            client.create_registered_model(name, description=DESCRIPTION.format(name=name))
        made = client.create_model_version(
            name, location, run_id=run_id, model_id=model_id, description=description, tags=dict(tags)
        )
        number = str(made.version)
    _link(store, model_id, name, number)
    client.set_registered_model_alias(name, CANDIDATE_ALIAS, number)
    return number


def _link(store: Store, model_id: str, name: str, number: str) -> None:
    """Tell the logged model of its version; MLflow's `register_model` does so, its client does not."""
    versions = json.loads(store.client.get_logged_model(model_id).tags.get(VERSIONS_TAG, "[]"))
    one = {"name": name, "version": number}
    if one not in versions:
        store.client.set_logged_model_tags(model_id, {VERSIONS_TAG: json.dumps([*versions, one])})
