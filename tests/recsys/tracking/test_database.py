"""MLflow's sqlite file: whole, whatever the moment of a kill, and never without what was in it."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient

from recsys.errors import RecsysError
from recsys.tracking import database as tracking_database

OLDER = "bf29a5ff90ea"  # a revision before several of the tables

KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.tracking import telemetry
telemetry.off()
import sqlalchemy, sqlalchemy.engine
from recsys.tracking import database as tracking_database
left = int(sys.argv[2])
def count(*_):
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
sqlalchemy.event.listen(sqlalchemy.engine.Engine, "before_cursor_execute", count)
tracking_database.prepare(Path(sys.argv[1]))
print("made", flush=True)
"""


def kill_in(path: Path, statement: int) -> subprocess.CompletedProcess[str]:
    """Prepare the store in a process that is killed at its so many-th SQL statement."""
    root = str(Path(tracking_database.__file__).parents[2])
    return subprocess.run(
        [sys.executable, "-c", KILLED, str(path), str(statement)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as database:
        return database.execute(sql).fetchall()


def migrated_to(path: Path, revision: str) -> None:
    """A store as an older MLflow made it, or as a kill between two migrations leaves it."""
    from alembic import command
    from mlflow.store.db.utils import _get_alembic_config
    from mlflow.store.tracking.dbmodels.initial_models import Base
    from sqlalchemy import create_engine

    from recsys.tracking import telemetry

    engine = create_engine(f"sqlite:///{path}")
    with telemetry.quiet("mlflow", "alembic"):
        Base.metadata.create_all(engine)
        config = _get_alembic_config(f"sqlite:///{path}")
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
    engine.dispose()


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("older") / "mlflow.db"
    migrated_to(path, OLDER)
    return path


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory, older: Path) -> Path:
    """An older store with an experiment in it."""
    path = tmp_path_factory.mktemp("used") / "mlflow.db"
    path.write_bytes(older.read_bytes())
    with closing(sqlite3.connect(path)) as database:
        for number, name in ((0, "Default"), (1, "shop")):
            database.execute(
                "insert into experiments (experiment_id, name, artifact_location, lifecycle_stage) "
                "values (?, ?, 'file:///a', 'active')",
                (number, name),
            )
        database.commit()
    return path


def opens(path: Path) -> list[str]:
    """The experiments that MLflow finds in the store."""
    return sorted(e.name for e in MlflowClient(f"sqlite:///{path}").search_experiments())


def left_overs(path: Path) -> list[str]:
    return [p.name for p in path.parent.iterdir() if ".writing-" in p.name]


@pytest.mark.parametrize("statement", [150])
def test_a_kill_while_the_store_is_made_leaves_none(tmp_path: Path, statement: int) -> None:
    path = tmp_path / "mlruns" / "mlflow.db"
    done = kill_in(path, statement)
    assert done.returncode == -signal.SIGKILL and not path.exists() and left_overs(path)
    assert tracking_database.prepare(path) is None
    assert opens(path) == ["Default"] and not left_overs(path)


def test_a_store_that_an_earlier_kill_left_half_made_is_made_anew(tmp_path: Path, older: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(older.read_bytes())
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table _alembic_tmp_tags (key text)")
        database.execute("create table if not exists webhooks (key text)")
    said = tracking_database.prepare(path)
    assert said is not None and "half made" in said
    assert opens(path) == ["Default"]


@pytest.mark.parametrize("content", [b"", None])
def test_an_empty_file_is_no_store(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "mlflow.db"
    if content is None:
        query(path, "create table alembic_version (version_num text)")
    else:
        path.write_bytes(content)
    tracking_database.prepare(path)
    assert opens(path) == ["Default"]


def test_an_older_store_is_migrated_and_kept(tmp_path: Path, used: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(used.read_bytes())
    said = tracking_database.prepare(path)
    assert said is not None and f"mlflow.db.{OLDER}.backup" in said
    assert opens(path) == ["Default", "shop"]
    backup = path.with_name(f"mlflow.db.{OLDER}.backup")
    assert query(backup, "select name from experiments order by name") == [("Default",), ("shop",)]
    assert query(backup, "select * from alembic_version") == [(OLDER,)]
    assert tracking_database.prepare(path) is None and not left_overs(path)


def test_a_kill_in_a_migration_leaves_the_old_store(tmp_path: Path, used: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(used.read_bytes())
    assert kill_in(path, 40).returncode == -signal.SIGKILL
    assert query(path, "select * from alembic_version") == [(OLDER,)]
    assert query(path, "pragma integrity_check") == [("ok",)]
    tracking_database.prepare(path)
    assert opens(path) == ["Default", "shop"]


def test_a_used_store_that_cannot_be_migrated_stays_as_it_was(tmp_path: Path, used: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(used.read_bytes())
    with closing(sqlite3.connect(path)) as database:
        database.execute("create table guardrails (key text)")  # as a kill of an earlier program left it
        database.commit()
    before = path.read_bytes()
    with pytest.raises(RecsysError, match=r"mlflow.db cannot be migrated .* it is as it was"):
        tracking_database.prepare(path)
    assert path.read_bytes() == before and not left_overs(path)


def test_two_processes_make_one_store(tmp_path: Path) -> None:
    path = tmp_path / "mlruns" / "mlflow.db"
    root = str(Path(tracking_database.__file__).parents[2])
    command = [sys.executable, "-c", KILLED, str(path), "0"]
    both = [subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0] for process in both] == ["made\n", "made\n"]
    assert opens(path) == ["Default"] and not left_overs(path)


def test_a_file_that_is_no_database_is_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"a letter to my aunt" * 100)
    with pytest.raises(RecsysError, match=r"mlflow.db cannot be used: file is not a database"):
        tracking_database.prepare(path)
    (tmp_path / "file").write_text("")
    with pytest.raises(RecsysError, match=r"cannot be written: (Not a directory|File exists)"):
        tracking_database.prepare(tmp_path / "file" / "mlflow.db")
