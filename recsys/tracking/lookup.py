"""Return whether runs that are named elsewhere are still in MLflow, with their files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from recsys.errors import RecsysError
from recsys.storage.addresses import masked
from recsys.tracking.operations import LOCAL, real_id
from recsys.tracking.retention import REMOVED_TAG
from recsys.tracking.store import origin, unavailable

from mlflow.exceptions import MlflowException  # isort: skip

if TYPE_CHECKING:
    from recsys.tracking.store import Store


def lacking_runs(store: Store, runs: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the runs that MLflow does not have whole, each with what is wrong.

    Raises
    ------
    RecsysError
        MLflow does not answer.
    """
    for run in runs:
        try:
            found = store.client.get_run(real_id(store, run))
            if found.info.lifecycle_stage != "active":
                yield run, "MLflow has it among the deleted runs"
            elif REMOVED_TAG not in found.data.tags and not store.client.list_artifacts(found.info.run_id):
                yield run, "its files are gone, and no clean-up has noted that"
        except LookupError:
            if not run.startswith(LOCAL):
                raise
            yield run, "MLflow has not taken it yet"
        except MlflowException as error:
            if unavailable(error):
                raise RecsysError(f"The MLflow store {masked(store.uri)} does not answer ({origin(error)}).") from error
            yield run, "MLflow does not know it"
