"""Artifacts of runs that are named by the beginning of their ids."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from recsys.errors import InputError
from recsys.settings.read import parse_settings
from recsys.tracking import log as tracking
from recsys.tracking.artifacts import read_artifact


@pytest.fixture
def store(tmp_path: Path, database: Path) -> tracking.Store:
    shutil.copy(database, tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    return tracking.open_store(
        parse_settings({"name": "s", "interactions": {"source": "x.csv"}, "tracking": {"uri": uri}})
    )


def test_a_run_is_named_by_a_beginning_that_no_other_has(store: tracking.Store) -> None:
    ids = [tracking.start_run(store, "night") for _ in range(17)]  # two begin with the same one of 16 digits
    tracking.log_text(store, ids[0], "who.txt", "me")
    assert read_artifact(store.uri, ids[0], "who.txt") == read_artifact(store.uri, ids[0][:12], "who.txt") == b"me"
    shared, times = Counter(run_id[0] for run_id in ids).most_common(1)[0]
    with pytest.raises(InputError, match=rf"{times} runs of the MLflow store .* begin with {shared}: .*more digits"):
        read_artifact(store.uri, shared, "who.txt")
    with pytest.raises(InputError, match="has no run"):
        read_artifact(store.uri, "x" * 6, "who.txt")


def test_a_night_that_began_while_the_store_was_away_keeps_its_id(store: tracking.Store) -> None:
    night = tracking.start_run(store, "night", {"recsys.run": "zzaa0011"})
    tracking.start_run(store, "train", {"recsys.run": "zzaa0011", tracking.PARENT_TAG: night})
    tracking.log_text(store, night, "who.txt", "me")
    assert read_artifact(store.uri, "zzaa", "who.txt") == b"me"
