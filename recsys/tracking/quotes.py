"""Files of MLflow's runs that quote users: found, and taken away or written without them.

Looked at are the runs of a configuration, the steps nested in them, and steps that were run alone.
"""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from recsys.tracking.old import of_nobody, of_warehouse, search
from recsys.tracking.operations import NAME_TAG, PARENT_TAG
from recsys.tracking.retention import REMOVED_TAG
from recsys.tracking.spool import QUOTING
from recsys.tracking.store import unavailable

from mlflow.exceptions import MlflowException  # isort: skip
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository  # isort: skip

if TYPE_CHECKING:
    from recsys.tracking.store import Store

_CONFIG: Final = "config.json"
Rewrite = Callable[[bytes], bytes | None]  # a file's content without what is sought; None: the whole file goes
Whose = Callable[["Store", Iterable[Any]], Iterable[Any]]
Quotes = Callable[[str, bytes, datetime], bool]  # whether a file (name, content, begin of its run) quotes


@dataclass(frozen=True, kw_only=True)
class Quoting:
    """A file of a run that quotes what is sought."""

    run: str
    path: str
    content: bytes


def quoting(store: Store, name: str, quotes: Quotes, *, nobodys: bool = False) -> Iterator[Quoting]:
    """Files of a configuration's runs that quote what is sought.

    Parameters
    ----------
    nobodys
        Look at runs of earlier versions that may be another warehouse's, and at no others.

    Raises
    ------
    RecsysError
        MLflow does not answer.
    """
    with store.reached():
        for run in _runs_of(store, name, of_nobody if nobodys else of_warehouse):
            begun = datetime.fromtimestamp(run.info.start_time / 1000, UTC)
            for file in store.client.list_artifacts(run.info.run_id):
                if file.path in QUOTING:
                    content = _content(store, run.info.run_id, file.path)
                    if content is not None and quotes(file.path, content, begun):
                        yield Quoting(run=str(run.info.run_id), path=file.path, content=content)


def without(store: Store, file: Quoting, content: bytes | None) -> None:
    """Delete a file of a run, and write what is left of it.

    Raises
    ------
    RecsysError
        MLflow does not answer, or its files cannot be deleted.
    """
    with store.reached():
        place = str(store.client.get_run(file.run).info.artifact_uri)
        # never written in place: other names may lead to the same bytes
        get_artifact_repository(place, tracking_uri=store.uri).delete_artifacts(file.path)
        if content is not None:
            with tempfile.TemporaryDirectory(prefix="recsys-artifact-") as folder:
                aside = Path(folder) / file.path
                aside.write_bytes(content)
                store.client.log_artifact(file.run, str(aside))


def rows_without(content: bytes, goes: Callable[[Any], pl.Expr]) -> bytes | None:
    """Parquet without some rows, with the file's own metadata; None where it cannot be read.

    Parameters
    ----------
    goes
        Which rows go, as an expression for the file's columns.
    """
    try:
        about = pl.read_parquet_metadata(io.BytesIO(content))
        frame = pl.read_parquet(io.BytesIO(content))
        kept, written = frame.filter(~goes(frame.schema)), io.BytesIO()
        kept.write_parquet(written, metadata={key: value for key, value in about.items() if key != "ARROW:schema"})
    except (pl.exceptions.PolarsError, OSError):
        return None
    return written.getvalue()


def _runs_of(store: Store, name: str, whose: Whose) -> Iterator[Any]:
    nights: set[str] = set()
    for run in whose(store, _search(store, f"tags.`{NAME_TAG}` = '{name}'")):
        nights.add(str(run.info.run_id))
        yield run
    for run in whose(store, _search(store, "")):
        tags, parent = run.data.tags, run.data.tags.get(PARENT_TAG)
        if NAME_TAG not in tags and (parent in nights if parent else is_named(store, run, name)):
            yield run


def _search(store: Store, query: str) -> Iterator[Any]:
    return (run for run in search(store, query) if REMOVED_TAG not in run.data.tags)


def is_named(store: Store, run: Any, name: str) -> bool:
    """Return whether a step that was run alone is of a configuration."""
    content = _content(store, run.info.run_id, _CONFIG)
    try:
        return content is not None and json.loads(content)["name"] == name
    except (ValueError, KeyError, TypeError):
        return False


def _content(store: Store, run: str, path: str) -> bytes | None:
    try:
        with tempfile.TemporaryDirectory(prefix="recsys-artifact-") as folder:
            return Path(store.client.download_artifacts(run, path, folder)).read_bytes()
    except OSError:
        return None
    except MlflowException as error:
        if unavailable(error):
            raise
        return None
