"""The command `recsys tune`: a search from the shell, its configuration, and its runs in MLflow."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from mlflow import MlflowClient

from recsys.errors import InputError
from recsys.pipelines import cli, tune
from recsys.settings.read import load_settings
from recsys.storage.locks import lock_file
from recsys.tuning import study as searching
from recsys.tuning.trial import Measured
from recsys.tuning.tuned import MARK
from tests.recsys.tuning.shop import write_shop


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory, database: Path) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    shutil.copy(database, folder / "mlflow.db")
    path = write_shop(folder)
    assert cli.execute(["ingest", str(path)]) == 0
    return path


def asked(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any], str]:
    capsys.readouterr()
    code = cli.execute(["tune", *arguments, "--json"])
    told = capsys.readouterr()
    return code, json.loads(told.out), told.err


@pytest.mark.integration
def test_a_search_from_the_shell(ingested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = ingested.with_name("ring-tuned.toml")
    overrides = ["--set", "train.weight_decay=0.02"]
    code, report, error = asked(capsys, str(ingested), "--trials", "3", *overrides)
    assert code == 0 and report["trials"] == 3 and report["written"] == output.as_posix()
    assert "Trial 1 of 3: NDCG@10" in error
    best = report["best"]
    assert best["value"] == max(trial["value"] for trial in report["all"] if trial["value"] is not None)

    # the configuration: the same but for the override and the best values, comments included
    text = output.read_text()
    assert text.startswith(MARK) and "# A ring." in text and "# narrow" in text
    tuned, before = load_settings(output), load_settings(ingested, ["train.weight_decay=0.02"])
    changed = {"learning_rate": best["values"]["train.learning_rate"]}
    model = {"dimensions": best["values"]["model.dimensions"], "heads": best["values"]["model.heads"]}
    assert tuned == before.model_copy(
        update={
            "train": before.train.model_copy(update=changed),
            "model": before.model.model_copy(update=model),
        }
    )
    assert tomlkit.parse(report["settings"]).unwrap() == {"train": changed, "model": model}

    # the same command goes on in the same run, whose nested runs are the trials
    code, again, error = asked(capsys, str(ingested), "--trials", "4", *overrides)
    assert code == 0 and again["earlier"] == 3 and again["all"][:3] == report["all"]
    assert "goes on after 3 trials" in error and again["mlflow_run"] == report["mlflow_run"]
    client = MlflowClient(load_settings(ingested).tracking.uri)
    parent = client.get_run(report["mlflow_run"])
    assert parent.info.status == "FINISHED" and parent.data.metrics["tune/best"] == again["best"]["value"]
    nested = client.search_runs(
        [parent.info.experiment_id], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'", order_by=["start_time"]
    )
    assert [run.info.run_name for run in nested] == ["trial 1", "trial 2", "trial 3", "trial 4"]
    for run, trial in zip(nested, again["all"], strict=True):
        assert run.data.tags["recsys.trial"] == trial["state"]
        assert run.data.params["model.heads"] == str(trial["values"]["model.heads"])
        assert run.data.metrics.get("trial/value") == trial["value"]
    finished = next(run for run, trial in zip(nested, again["all"], strict=True) if trial["state"] == "finished")
    points = client.get_metric_history(finished.info.run_id, "val/ndcg_at_10")
    assert [point.step for point in points] == [1, 2]
    bundles = Path(load_settings(ingested).warehouse) / "bundles"
    assert not bundles.exists()  # trials leave none

    assert cli.execute(["tune", str(ingested), "--trials", "4", *overrides]) == 0
    shown = capsys.readouterr().out
    assert "best trials" in shown and f"recsys run {output}" in shown and "[train]\nlearning_rate = " in shown


@pytest.mark.integration
def test_ctrl_c_ends_with_the_best_so_far(
    ingested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    count = 0

    def trained(*_: Any, **__: Any) -> Measured:
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        return Measured(value=0.25, serves="model", model=0.25, epochs=2, best_epoch=1, seconds=0.0)

    monkeypatch.setattr(searching, "measure", trained)
    output = tmp_path / "best.toml"
    code, report, error = asked(capsys, str(ingested), "-o", str(output), "--set", "seed=9")
    assert code == 130 and report["stopped"] == "interrupted" and report["best"]["value"] == 0.25
    assert "the same command goes on where it was" in error and load_settings(output).seed == 9
    client = MlflowClient(load_settings(ingested).tracking.uri)
    experiment = client.get_run(report["mlflow_run"]).info.experiment_id
    nested = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{report['mlflow_run']}'")
    assert {run.info.run_name: run.info.status for run in nested} == {"trial 1": "FINISHED", "trial 2": "KILLED"}


def test_what_cannot_be_done_is_told(ingested: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def refused(*arguments: str) -> str:
        code, report, _ = asked(capsys, str(ingested), *arguments)
        assert code == 2
        return str(report["error"])

    assert "retrieve.k" in refused("--set", "tune={'retrieve.k' = [10, 20]}")
    assert "did you mean train.learning_rate" in refused("--set", "tune={'train.learning_rat' = [0.1, 0.2]}")
    assert "--timeout soon is no duration" in refused("--timeout", "soon")
    (tmp_path / "mine.toml").write_text("name = 'mine'\n")
    assert "mine.toml exists and `recsys tune` has not written it" in refused("-o", str(tmp_path / "mine.toml"))
    assert (tmp_path / "mine.toml").read_text() == "name = 'mine'\n"
    assert "is the configuration itself" in refused("-o", str(ingested))
    assert "run `recsys ingest CONFIG` first" in refused("--set", f"warehouse={tmp_path}")


def test_two_searches_of_one_name_do_not_meet(ingested: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(load_settings(ingested).warehouse) / "tuning"
    folder.mkdir(exist_ok=True)
    with lock_file(folder / "ring.lock"):
        code, report, _ = asked(capsys, str(ingested), "--trials", "1")
    assert code == 1 and "Another search (process" in report["error"] and "'ring' is running" in report["error"]


@pytest.mark.parametrize(
    ("text", "seconds"), [("2h", 7200), ("90m", 5400), ("1h30m", 5400), ("45s", 45), ("1.5H", 5400), ("1d 2h", 93600)]
)
def test_durations(text: str, seconds: float) -> None:
    assert tune.seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "2", "h", "2 weeks", "-2h", "2h left", "0m"])
def test_what_is_no_duration_is_told(text: str) -> None:
    with pytest.raises(InputError, match="--timeout"):
        tune.seconds_of(text)
