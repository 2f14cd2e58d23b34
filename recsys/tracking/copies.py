"""MLflow's copies of bundles: second names of the same files on one disk, files of their own elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from recsys.errors import RecsysError
from recsys.storage.addresses import masked
from recsys.tracking.registry import model_name
from recsys.tracking.store import origin, unavailable

from mlflow.exceptions import MlflowException  # isort: skip
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # isort: skip

if TYPE_CHECKING:
    from recsys.tracking.store import Store


def copies_of(store: Store, label: str) -> list[str]:
    """Addresses of the models that hold a bundle, by its label; the newest first."""
    try:
        found = store.client.search_logged_models([store.experiment_id], f"name = '{model_name(label)}'")
    except MlflowException as error:
        if not unavailable(error):
            raise
        return []
    return [str(model.artifact_location) for model in found]


def bring(store: Store, place: str, label: str, name: str, folder: Path) -> Path | None:
    """Return a bundle's file in MLflow's copy, downloaded to a folder where it is elsewhere; None: it has none.

    Raises
    ------
    RecsysError
        The place of the copy does not answer.
    """
    parts = urlsplit(place)
    if parts.scheme in ("", "file"):
        path = Path(unquote(parts.path)) / "artifacts" / label / name
        return path if path.is_file() else None
    try:
        repository = get_artifact_repository(place, tracking_uri=store.uri)
        return Path(repository.download_artifacts(f"artifacts/{label}/{name}", str(folder)))
    except (MlflowException, OSError) as error:
        if unavailable(error):
            raise RecsysError(f"MLflow's copy in {masked(place)} does not answer ({origin(error)}).") from error
        return None
