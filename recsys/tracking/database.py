"""MLflow's own sqlite file, made and migrated aside, so that a kill leaves the whole old one or the whole new one.

MLflow makes its tables in some sixty migrations, which sqlite does not take back when the process dies between two of
them; a file that was left so opens never again. Here the migrations run on a file beside, which is renamed into place
when it is complete. A store of an older MLflow is copied, the copy migrated, and the old file kept as a back-up.
"""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from recsys.errors import RecsysError, first_line
from recsys.storage.files import WRITING, file_aside
from recsys.storage.locks import lock_file

_ALEMBIC: Final = "alembic_version"
_OWN_ROWS: Final = {_ALEMBIC: 99, "experiments": 1, "workspaces": 1}  # rows that MLflow itself puts in


def prepare(path: Path) -> str | None:
    """Bring the sqlite file to MLflow's newest tables; make it where it is missing or was left half made.

    Returns
    -------
    str | None
        A sentence where a file that was there was replaced.

    Raises
    ------
    RecsysError
        The folder or the file cannot be written, is no store of MLflow, or cannot be migrated; it is then as it was.
    """
    from mlflow.store.db.utils import _get_latest_schema_revision

    newest = str(_get_latest_schema_revision())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if (found := _look(path)) is not None and found.revision == newest:
            return None
        with _alone(path):
            for left in path.parent.glob(f".{path.name}{WRITING}*"):  # nobody else is at it: whatever its age
                left.unlink(missing_ok=True)
            found = _look(path)
            if found is not None and found.revision == newest:  # another process was faster
                return None
            return _replace(path, found, newest)
    except OSError as error:
        raise RecsysError(f"The MLflow store {path} cannot be written: {error.strerror or error}.") from error
    except sqlite3.Error as error:
        raise RecsysError(f"The MLflow store {path} cannot be used: {first_line(error)}.") from error


@dataclass(frozen=True)
class _Found:
    """An sqlite file: its tables' revision, and whether anybody has put something into them."""

    revision: str | None
    used: bool


def _look(path: Path) -> _Found | None:
    if not path.exists():
        return None
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as database:
        tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
        versions = database.execute("select version_num from alembic_version").fetchall() if _ALEMBIC in tables else []
        revision = str(versions[0][0]) if len(versions) == 1 else None
        used = any(
            database.execute(f'select count(*) from "{table}"').fetchone()[0] > _OWN_ROWS.get(table, 0)
            for table in tables
            if not table.startswith(("sqlite_", "_alembic_tmp_"))
        )
    return _Found(revision, used)


def _replace(path: Path, found: _Found | None, newest: str) -> str | None:
    if found is None or not found.used:
        with file_aside(path) as aside:
            _migrate(path, aside, new=True)
        again = f"The MLflow store {path} held nothing and was left half made; it was made anew."
        return None if found is None else again
    backup = path.with_name(f"{path.name}.{found.revision or 'unknown'}.backup")
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as old:
        old.execute("begin immediate")  # nobody writes to the old file any more
        with file_aside(path) as aside:
            with contextlib.closing(sqlite3.connect(path)) as source, contextlib.closing(
                sqlite3.connect(aside)
            ) as copy:  # fmt: skip
                source.backup(copy)
            _migrate(path, aside, new=False)
            backup.unlink(missing_ok=True)
            backup.hardlink_to(path)
    return (
        f"The MLflow store {path} was brought to the tables of this MLflow ({newest}); "
        f"the one before is kept as {backup.name}."
    )


def _migrate(path: Path, aside: Path, *, new: bool) -> None:
    from mlflow.store.db.utils import _initialize_tables, _upgrade_db
    from sqlalchemy import URL, create_engine, event

    engine = create_engine(URL.create("sqlite", database=str(aside)))

    @event.listens_for(engine, "connect")
    def no_waiting(connection: Any, _: Any) -> None:
        connection.execute("pragma synchronous = off")  # the file counts once it is renamed, and is synchronised before

    try:
        with _quiet():
            (_initialize_tables if new else _upgrade_db)(engine)
    except Exception as error:
        raise RecsysError(
            f"The MLflow store {path} cannot be {'made' if new else 'migrated to this version of MLflow'} "
            f"({type(error).__name__}: {first_line(error)[:200]}); it is as it was. "
            f"{'Free some space' if new else 'Use the MLflow that wrote it, or move it away'}, "
            "or change tracking.uri."
        ) from error
    finally:
        engine.dispose()
        for journal in path.parent.glob(f"{aside.name}-*"):
            journal.unlink(missing_ok=True)


@contextlib.contextmanager
def _alone(path: Path) -> Iterator[None]:
    """One process at a time makes the file; a killed one lets go."""
    with lock_file(path.with_name(f".{path.name}.lock"), wait=True):
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the migrations' accounts of themselves."""
    names = ("mlflow", "alembic")
    levels = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
