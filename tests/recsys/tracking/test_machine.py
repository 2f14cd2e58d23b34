"""Measures of the machine during a run, in a real store and in one that does not answer."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from recsys.settings.read import parse_settings
from recsys.tracking import log as tracking
from recsys.tracking.machine import Machine, watched


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tracking.Store:
    folder: Path = tmp_path_factory.mktemp("machine")
    tree = {
        "name": "shop",
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
    }
    return tracking.open_store(parse_settings(tree))


def sampled(machine: Machine, samples: int) -> None:
    while len(machine._taken) < samples:
        time.sleep(0.01)


def test_samples_are_system_metrics_of_the_run(store: tracking.Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.01")
    run = tracking.start_run(store, "night")
    with watched(store) as machine:
        sampled(machine, 2)
        machine.send()  # nobody knows the run yet: they are kept
        assert len(machine._taken) >= 2
        machine.run_id = run
        machine.send()
    points = store.client.get_metric_history(run, "system/process_memory_usage_megabytes")
    assert [point.step for point in points] == list(range(len(points))) and len(points) >= 2
    assert all(point.value > 1 for point in points)
    metrics = store.client.get_run(run).data.metrics
    assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} <= metrics.keys()


def test_a_store_that_does_not_answer_gets_them_later(store: tracking.Store) -> None:
    run = tracking.start_run(store, "night")
    store.lost, store._ask_at = "gone", float("inf")
    with watched(store, run) as machine:
        sampled(machine, 1)
    assert store.spool is not None
    assert {record["operation"] for record in store.spool.records()} == {"series"}
    assert store.ask()
    assert "system/process_memory_usage_megabytes" in store.client.get_run(run).data.metrics


def test_a_run_that_never_began_gets_none(store: tracking.Store) -> None:
    with watched(store) as machine:
        sampled(machine, 1)
    assert store.unsent() is None
