"""Artifacts of earlier runs, read from an MLflow store."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Final

# isort: split - after the store, which switches telemetry off
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from recsys.errors import InputError, RecsysError
from recsys.running import short
from recsys.storage.addresses import local_database, masked
from recsys.tracking.operations import PARENT_TAG, RUN_TAG
from recsys.tracking.store import open_client, origin, unavailable

_WHOLE: Final = 32  # digits of an id
_SHOWN: Final = 3  # ids of which a beginning says too little


def read_artifact(uri: str, run_id: str, path: str) -> bytes:
    """Return an artifact of a run or, for a night, of the newest of its steps that has it.

    Parameters
    ----------
    run_id
        Whole, or an unambiguous beginning.

    Raises
    ------
    InputError
        The store has no such run or several, or the run no such artifact.
    RecsysError
        The store does not answer.
    """
    database = local_database(uri)
    if database is not None and not database.is_file():
        raise InputError(f"There is no MLflow store {masked(uri)} (looked in {Path.cwd()}); name another with --uri.")
    try:
        client = open_client(uri)
        run_id = _whole(client, uri, run_id)
        run = client.get_run(run_id)
        nested = client.search_runs(
            [run.info.experiment_id],
            filter_string=f"tags.`{PARENT_TAG}` = '{run_id}'",
            order_by=["attributes.start_time DESC"],
        )
        for one in (run, *nested):
            if any(file.path == path for file in client.list_artifacts(one.info.run_id)):
                with tempfile.TemporaryDirectory(prefix="recsys-artifact-") as folder:
                    return Path(client.download_artifacts(one.info.run_id, path, folder)).read_bytes()
    except MlflowException as error:
        if unavailable(error):
            raise RecsysError(f"The MLflow store {masked(uri)} does not answer ({origin(error)}).") from error
        raise InputError(f"The MLflow store {masked(uri)} has no run {run_id}; check the id, or name --uri.") from None
    raise InputError(
        f"The MLflow run {run_id} and its steps have no artifact {path}; it is no evaluation, or one of an earlier "
        "version: evaluate again."
    )


def _whole(client: MlflowClient, uri: str, asked: str) -> str:
    """Return the id of the run that a text begins, or that bears it as its own short id."""
    if len(asked) == _WHOLE:
        return asked
    everywhere = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(everywhere, f"attributes.run_id LIKE '{asked}%'")
    if not found:  # a night that began while the store did not answer has another id there
        tagged = client.search_runs(everywhere, f"tags.`{RUN_TAG}` LIKE '{asked}%'")
        found = [run for run in tagged if PARENT_TAG not in run.data.tags]
    ids = [str(run.info.run_id) for run in found]
    if len(ids) == 1:
        return ids[0]
    if ids:
        several = ", ".join(map(short, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
        raise InputError(
            f"{len(ids)} runs of the MLflow store {masked(uri)} begin with {asked}: {several}; give more digits."
        )
    raise InputError(f"The MLflow store {masked(uri)} has no run {asked}; check the id, or name --uri.")
