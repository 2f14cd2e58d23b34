"""Artifacts of earlier runs, read from an MLflow store."""

from __future__ import annotations

import tempfile
from pathlib import Path

from recsys.errors import InputError, RecsysError
from recsys.storage.addresses import local_database, masked
from recsys.tracking.operations import PARENT_TAG
from recsys.tracking.store import open_client, origin, unavailable

from mlflow.exceptions import MlflowException  # isort: skip - after the store, which switches telemetry off


def read_artifact(uri: str, run_id: str, path: str) -> bytes:
    """Return an artifact of a run or, for a night, of the newest of its steps that has it.

    Raises
    ------
    InputError
        The store has no such run, or the run no such artifact.
    RecsysError
        The store does not answer.
    """
    database = local_database(uri)
    if database is not None and not database.is_file():
        raise InputError(f"There is no MLflow store {masked(uri)} (looked in {Path.cwd()}); name another with --uri.")
    try:
        client = open_client(uri)
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
