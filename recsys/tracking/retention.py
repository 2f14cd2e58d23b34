"""Files of old runs in MLflow. Their parameters, metrics and tags stay, so that a year can still be compared."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from recsys.tracking.old import began, going
from recsys.tracking.operations import NAME_TAG, versions_of

if TYPE_CHECKING:
    from recsys.tracking.store import Store

REMOVED_TAG: Final = "recsys.files_removed"  # of a run: when its files went


def old_runs(store: Store, name: str, keep: Collection[str], before: datetime) -> Iterator[tuple[str, int]]:
    """Yield a configuration's runs that began before a moment and still have files, with their bytes (0: unknown).

    The steps of a night go with it, and before it: the values per user are theirs.

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
        query = f"tags.`{NAME_TAG}` = '{name}' and {began(before)}"
        for whole in going(store, query, lambda night: REMOVED_TAG not in night.data.tags, keep):
            for run in whole:
                if REMOVED_TAG not in run.data.tags:
                    yield str(run.info.run_id), disk_size(store, run)


def remove_files(store: Store, run_id: str) -> None:
    """Delete a run's artifacts, the models that it has logged, and their versions in the registry.

    Raises
    ------
    RecsysError
        The store does not answer, or refuses.
    """
    client = store.client
    with store.reached():
        run = client.get_run(run_id)
        for one in versions_of(store, run_id):
            for tag in one.tags:  # a deleted version keeps them
                client.delete_model_version_tag(one.name, one.version, tag)
            client.delete_model_version(one.name, one.version)
        for place in _places(store, run):
            empty(store, place)
        client.set_tag(run_id, REMOVED_TAG, datetime.now(UTC).isoformat(timespec="seconds"))


def empty(store: Store, place: str) -> None:
    """Delete the files below the address of a run or of a model."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    with contextlib.suppress(FileNotFoundError, NotImplementedError):  # without files there is nothing to delete
        get_artifact_repository(place, tracking_uri=store.uri).delete_artifacts()


def disk_size(store: Store, run: Any) -> int:
    """Bytes on this machine of a run's files and of the models that it has logged; 0 where others keep them."""
    if run.info.lifecycle_stage != "active":  # its models are gone with it
        return _size(str(run.info.artifact_uri))
    return sum(map(_size, _places(store, run)))


def _places(store: Store, run: Any) -> list[str]:
    """Return where the run's files lie, and those of the models that it has logged."""
    models = run.outputs.model_outputs if run.outputs else []
    located = [store.client.get_logged_model(output.model_id).artifact_location for output in models]
    return [str(run.info.artifact_uri), *map(str, located)]


def _size(place: str) -> int:
    """Bytes of a folder of this machine that nothing else shares; 0 for a place elsewhere."""
    parts = urlsplit(place)
    if parts.scheme not in ("", "file"):
        return 0
    files = [file.stat() for file in Path(unquote(parts.path)).rglob("*") if file.is_file()]
    return sum(file.st_size for file in files if file.st_nlink == 1)
