"""Verdict, champion and reasons in a real sqlite store."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from recsys.settings.read import parse_settings
from recsys.tracking import decisions
from recsys.tracking import log as tracking

VERDICT: Mapping[str, Any] = {
    "passed": True,
    "sentence": "Published: better than yesterday's by 0.0040 [0.0021, 0.0059].",
    "reasons": [],
    "metric": "ndcg@10",
    "champion": {"run": "r", "difference": 0.004, "low": 0.0021, "high": 0.0059, "outcome": "better"},
    "baselines": {"text+transitions": {"difference": 0.03, "low": 0.02, "high": 0.04, "outcome": "better"}},
    "checks": [],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> tracking.Store:
    folder = tmp_path_factory.mktemp("decisions")
    uri = f"sqlite:///{folder}/mlflow.db"
    return tracking.open_store(
        parse_settings({"name": "shop", "interactions": {"source": "log.csv"}, "tracking": {"uri": uri}})
    )


def night(store: tracking.Store) -> tuple[str, str, str]:
    """A run that logged and registered a model: run, model and version."""
    run = tracking.start_run(store, "night")
    model = store.client.create_logged_model(store.experiment_id, name="shop", source_run_id=run)
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus

    store.client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    store.client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
    if not store.client.search_registered_models("name = 'shop'"):
        store.client.create_registered_model("shop")
    made = store.client.create_model_version("shop", model.artifact_location, run_id=run, model_id=model.model_id)
    return run, model.model_id, str(made.version)


def test_a_verdict_is_on_run_model_and_version(store: tracking.Store, tmp_path: Path) -> None:
    run, model, version = night(store)
    decisions.set_verdict(store, run, VERDICT)
    known = store.client.get_run(run).data
    wanted = {"recsys.verdict": "passed", "recsys.verdict_sentence": VERDICT["sentence"]}
    for tags in (
        known.tags,
        store.client.get_logged_model(model).tags,
        store.client.get_model_version("shop", version).tags,
    ):
        assert {key: tags.get(key) for key in wanted} == wanted
    assert known.metrics == {
        "gate/passed": 1.0,
        "gate/minus_champion": 0.004,
        "gate/minus_champion_low": 0.0021,
        "gate/minus_champion_high": 0.0059,
        "gate/minus_text_transitions": 0.03,
    }
    assert known.tags["mlflow.note.content"] == VERDICT["sentence"]
    file = Path(store.client.download_artifacts(run, decisions.VERDICT_FILE, str(tmp_path)))
    assert json.loads(file.read_text()) == VERDICT


def test_what_is_kept_back_says_so(store: tracking.Store) -> None:
    run = tracking.start_run(store, "night")
    decisions.set_verdict(store, run, {"passed": False, "sentence": "Kept back: worse.", "champion": None})
    known = store.client.get_run(run).data
    assert known.tags["recsys.verdict"] == "kept back"
    assert known.metrics == {"gate/passed": 0.0}


def test_the_champion_moves_and_the_former_one_says_until_when(store: tracking.Store) -> None:
    (first, _, one), (second, model, two) = night(store), night(store)
    decisions.set_champion(store, "shop", one)
    assert store.client.get_model_version_by_alias("shop", "champion").version == int(one)
    decisions.set_champion(store, "shop", run_id=second)  # the version is looked up
    assert store.client.get_model_version_by_alias("shop", "champion").version == int(two)
    tags = {run: store.client.get_run(run).data.tags["recsys.champion"] for run in (first, second)}
    assert tags[second] == "yes" and tags[first].startswith("until 20")
    assert store.client.get_logged_model(model).tags["recsys.champion"] == "yes"
    decisions.set_champion(store, "shop", one)  # rolled back
    assert store.client.get_run(first).data.tags["recsys.champion"] == "yes"
    assert store.client.get_model_version_by_alias("shop", "champion").version == int(one)


def test_a_run_whose_model_is_not_registered_is_tagged_alone(store: tracking.Store) -> None:
    run = tracking.start_run(store, "night")
    decisions.set_champion(store, "another", run_id=run)
    assert store.client.get_run(run).data.tags["recsys.champion"] == "yes"
    assert not store.client.search_registered_models("name = 'another'")


def test_a_reason_is_recorded_without_secrets(store: tracking.Store) -> None:
    run, _, version = night(store)
    decisions.tag_why(store, run, "see http://ann:hunter2@wiki/1", by="rollback")
    for tags in (store.client.get_run(run).data.tags, store.client.get_model_version("shop", version).tags):
        assert (tags["recsys.why"], tags["recsys.by"]) == ("see http://***@wiki/1", "rollback")


def test_decisions_wait_for_a_store_that_does_not_answer(tmp_path: Path) -> None:
    settings = parse_settings(
        {
            "name": "shop",
            "warehouse": str(tmp_path / "warehouse"),
            "interactions": {"source": "log.csv"},
            "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"},
        }
    )
    store = tracking.open_store(settings)
    store.lost, store._ask_at = "gone", float("inf")
    run = tracking.start_run(store, "night")
    decisions.set_verdict(store, run, VERDICT)
    decisions.set_champion(store, "shop", run_id=run)
    store.spool.close()  # type: ignore[union-attr]
    again = tracking.open_store(settings)
    (known,) = again.client.search_runs([again.experiment_id])
    assert known.data.tags["recsys.verdict"] == "passed" and known.data.tags["recsys.champion"] == "yes"
