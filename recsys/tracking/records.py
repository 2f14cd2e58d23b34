"""Old runs that leave MLflow for good: with their figures, files, models and versions, steps before their nights.

A database gives the space of what was deleted to what comes next. A server lets nobody delete for good, so there they
are marked as deleted, and `mlflow gc` on its machine ends what was begun. Only runs that this program has made for the
configuration go: runs and experiments of others are not looked at.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from recsys.tracking.old import began, going
from recsys.tracking.operations import NAME_TAG, STEP_TAG, logged_models
from recsys.tracking.quotes import is_named
from recsys.tracking.retention import disk_size, empty, remove_files

if TYPE_CHECKING:
    from recsys.tracking.store import Store


def can_delete(store: Store) -> bool:
    """Return whether runs can leave the store for good: it is a database, which no server stands before."""
    return _database(store) is not None


def old_records(store: Store, name: str, keep: Collection[str], before: datetime) -> Iterator[tuple[str, int]]:
    """Yield a configuration's runs that began before a moment, with the bytes of their files; nested ones first.

    Parameters
    ----------
    keep
        Nights that stay, with the runs that are nested in them.

    Raises
    ------
    RecsysError
        The store does not answer.
    """
    with store.reached():
        own = partial(_is_own, store, name)
        for whole in going(store, began(before), own, keep, deleted=can_delete(store)):
            yield from ((str(one.info.run_id), disk_size(store, one)) for one in whole)


def delete(store: Store, run_id: str) -> None:
    """Delete a run, its files, and the models that it has logged.

    Raises
    ------
    RecsysError
        The store does not answer, or refuses.
    """
    with store.reached():
        run = store.client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            remove_files(store, run_id)
            for model in logged_models(store, run_id):
                store.client.delete_logged_model(model)
            store.client.delete_run(run_id)
        else:
            empty(store, str(run.info.artifact_uri))
        database = _database(store)
        if database is not None:
            _delete_for_good(database, run_id)


def _is_own(store: Store, name: str, run: Any) -> bool:
    """Return whether a run is a night of the configuration, or a step of it that was run alone."""
    tags = run.data.tags
    if NAME_TAG in tags:
        return bool(tags[NAME_TAG] == name)
    return STEP_TAG in tags and (store.experiment == name or is_named(store, run, name))


def _database(store: Store) -> Any:
    """MLflow's own access to a database; None for a server."""
    found = store.client._tracking_client.store
    return found if hasattr(found, "_hard_delete_run") else None


def _delete_for_good(database: Any, run_id: str) -> None:
    """Delete a run as `mlflow gc` does, which would take runs of others, too; and what only this run names."""
    from mlflow.store.tracking.dbmodels.models import SqlDataset, SqlInput, SqlInputTag, SqlLoggedModel

    with database.ManagedSessionMaker(read_only=False) as session:
        models = [one.model_id for one in session.query(SqlLoggedModel).filter_by(source_run_id=run_id)]
        ends = [run_id, *models]
        links = session.query(SqlInput).filter(SqlInput.source_id.in_(ends) | SqlInput.destination_id.in_(ends)).all()
        read = {link.source_id for link in links if link.source_type == "DATASET"}
        for link in links:
            session.query(SqlInputTag).filter_by(input_uuid=link.input_uuid).delete(synchronize_session=False)
            session.delete(link)
        session.flush()
        for dataset in read:
            if session.query(SqlInput).filter_by(source_id=dataset).first() is None:
                session.query(SqlDataset).filter_by(dataset_uuid=dataset).delete(synchronize_session=False)
    for model in models:
        database._hard_delete_logged_model(model)
    database._hard_delete_run(run_id)
