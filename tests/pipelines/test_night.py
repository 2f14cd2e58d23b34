"""Whole nights on a small generated shop: real tables, real MLflow, real FAISS, Prefect's own test server."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import polars as pl
import pytest
from deltalake import DeltaTable
from prefect import flow
from prefect._internal.concurrency.cancellation import CancelledError
from prefect.artifacts import Artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import LogFilter, LogFilterFlowRunId
from prefect.exceptions import TerminationSignal
from prefect.testing.utilities import prefect_test_harness
from prometheus_client.parser import text_string_to_metric_families
from rich.console import Console

from recsys import runs
from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import latest_bundle
from recsys.data import prepare as preparing
from recsys.data.prepare import Dataset
from recsys.datasets.synthetic import generate
from recsys.errors import InputError, RecsysError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.users import from_parquet
from recsys.features import text as encoders
from recsys.observe.lines import log
from recsys.pipelines import cli, flows, nightly, steps
from recsys.pipelines import evaluate as evaluation
from recsys.pipelines import retrieve as retrieval
from recsys.pipelines import train as training
from recsys.pipelines.orchestration import deploy, events, launch, prefect_api
from recsys.pipelines.status import status
from recsys.pipelines.terminal.console import show_night
from recsys.pipelines.terminal.progress import Show
from recsys.pipelines.time_limit import StepOverran
from recsys.pipelines.ui import page
from recsys.pipelines.watch import Watch, watching
from recsys.running import short
from recsys.settings import Settings
from recsys.settings.read import load_settings, parse_settings
from recsys.storage.warehouse import current_versions, latest_version, scan
from recsys.tracking import log as tracking
from recsys.tracking.artifacts import read_artifact

pytestmark = [
    pytest.mark.integration,
    # Prefect's clients leave their connections to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

CONFIG = """
name = "tiny_Shop"
data_root = {data!r}
warehouse = {warehouse!r}
[interactions]
source = "interactions.csv"
[items]
source = "items.jsonl"
text = ["title"]
categorical = {{ brand = {{}}, category = {{}} }}
[filter]
min_user_interactions = 5
repeats = "first"
[text]
dimensions = 16
[model]
max_length = 20
dimensions = 16
text = false
[train]
epochs = 2
evaluate_every = 1
[evaluate]
cutoffs = [5, 10]
baselines = ["popularity", "transitions"]
[retrieve]
k = 10
[export]
path = {export!r}
[tracking]
uri = {uri!r}
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    generate(folder, users=120, items=400)
    return folder


def write_config(folder: Path, data: Path, database: Path) -> str:
    (folder / "mlruns").mkdir()
    shutil.copy(database, folder / "mlruns" / "mlflow.db")
    path = folder / "recsys.toml"
    path.write_text(
        CONFIG.format(
            data=str(data),
            warehouse=str(folder / "warehouse"),
            export=str(folder / "export"),
            uri=f"sqlite:///{folder}/mlruns/mlflow.db",
        )
    )
    return str(path)


@pytest.fixture
def config(tmp_path: Path, data: Path, database: Path) -> str:
    return write_config(tmp_path, data, database)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, data: Path, database: Path) -> tuple[Settings, dict[str, Any]]:
    """A night without Prefect, and its summary."""
    folder = tmp_path_factory.mktemp("night")
    settings = load_settings(write_config(folder, data, database), [f"metrics.textfile={folder / 'tiny.prom'}"])
    with (folder / "log.jsonl").open("w") as file, contextlib.redirect_stderr(file), contextlib.closing(log):
        log.choose("json")
        with watching(Show()):
            return settings, nightly.night(settings)


@pytest.fixture(scope="module")
def harness() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=1800):
        yield
        gc.collect()


def candidates(settings: Settings, summary: dict[str, Any]) -> pl.DataFrame:
    table = scan(settings.warehouse, "candidates", summary["candidates"]["version"])
    return table.select("user_id", "rank", "item_id", "score").sort("user_id", "rank").collect()


def test_the_summary_names_everything(first: tuple[Settings, dict[str, Any]]) -> None:
    settings, summary = first
    assert summary == json.loads(json.dumps(summary, allow_nan=False))
    assert summary["resumed"] is False
    assert 0 < summary["metrics"]["test/ndcg_at_10"] <= 1
    assert set(summary["baselines"]) == {
        "model",
        "popularity",
        "transitions",
    }  # the blend serves, the model alone beside
    for baseline in summary["baselines"].values():
        assert set(baseline) == set(summary["metrics"])
    assert summary["candidates"]["k"] == 10
    assert summary["candidates"]["rows"] == len(candidates(settings, summary))
    done = ["ingest", "represent", "train", "evaluate", "refit", "retrieve", "judge", "publish", "export", "report"]
    *by_step, total = summary["seconds"].values()
    assert list(summary["seconds"]) == [*done, "total"] and sum(by_step) < total + 0.1
    assert (Path(summary["bundle"]) / "manifest.json").is_file()
    lineage = read_bundle(summary["bundle"]).manifest["lineage"]
    assert lineage["refit"] == {"kind": "all", "measured": Path(summary["refit"]["measured"]).name}
    assert summary["refit"]["reason"] in nightly.summary_markdown(summary)
    newest = latest_bundle(settings.warehouse, settings.name)
    assert newest == Path(summary["bundle"])  # what is served is published
    rows = scan(settings.warehouse, "candidates", summary["candidates"]["version"]).select("bundle").unique().collect()
    assert rows["bundle"].to_list() == [newest.name]
    again = evaluate(settings, current_versions(settings.warehouse), summary["refit"]["measured"])
    assert summary["metrics"] == pytest.approx(again.metrics)  # figures are those of the measured one
    assert summary["export"]["rows"] == summary["candidates"]["rows"]


def test_users_left_out_and_leads_are_in_the_summary(first: tuple[Settings, dict[str, Any]]) -> None:
    settings, summary = first
    users = scan(settings.warehouse, "interactions").select(pl.col("user_id").n_unique()).collect().item()
    served = summary["candidates"]
    assert served["users"] == served["log_users"] == users and served["empty_lists"] == 0
    assert summary["left_out"]["users"] < users
    assert summary["left_out"]["by"][0] == "filter.min_user_interactions = 5"
    assert summary["withdrawals"] == {"rows": 0, "events": 0, "lessened": 0, "unmatched": 0}
    assert set(summary["differences"]) == set(summary["baselines"])
    assert summary["untrained"] is None
    page = nightly.summary_markdown(summary)
    lead = summary["differences"]["popularity"]["test/hr_at_10"]["mean"]
    assert f"- blend minus popularity: test/hr_at_10 {lead:+.4f} (" in page


def test_the_ui_opens_at_the_experiments_runs(first: tuple[Settings, dict[str, Any]]) -> None:
    settings, summary = first
    link = tracking.run_link(tracking.open_store(settings), summary["run_id"])
    runs = link.partition("?")[0].rpartition("/")[0] + "?workflowType=machine_learning"
    assert page(settings.tracking.uri, 5000, settings.name) == runs
    assert page(settings.tracking.uri, 5000) == runs  # the newest one, where no configuration names it
    for elsewhere in (page(settings.tracking.uri, 5000, "another"), page("postgresql://db/mlflow", 5000)):
        assert elsewhere == "http://127.0.0.1:5000/#/experiments?workflowType=machine_learning"


def test_everything_is_in_mlflow(first: tuple[Settings, dict[str, Any]]) -> None:
    settings, summary = first
    store = tracking.open_store(settings)
    run = store.client.get_run(summary["run_id"])
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "2"
    assert "| test/ndcg_at_10 |" in run.data.tags["mlflow.note.content"]  # the run's page opens with the table
    kind = store.client.get_experiment(store.experiment_id).tags["mlflow.experimentKind"]
    assert kind == "custom_model_development"
    assert run.data.metrics["test/ndcg_at_10"] == pytest.approx(summary["metrics"]["test/ndcg_at_10"])
    assert run.data.metrics["baselines/hr_at_10_popularity"] == pytest.approx(
        summary["baselines"]["popularity"]["test/hr_at_10"]
    )
    contexts = {i.dataset.name: i.tags[0].value for i in run.inputs.dataset_inputs}
    assert contexts == {"interactions": "training", "items": "training", "test": "evaluation"}
    wanted = {"recsys.name": "tiny_Shop", "recsys.kind": "bert4rec", "mlflow.source.name": "recsys"}
    assert {key: run.data.tags.get(key) for key in wanted} == wanted and len(run.data.tags["recsys.data"]) == 64
    assert run.data.metrics["system/process_memory_usage_megabytes"] > 10
    assert not [name for name in run.data.params if name.startswith(("recformer", "tracking", "train.negatives"))]
    curve = store.client.get_metric_history(summary["run_id"], "test_at_k/ndcg")
    assert (curve[0].step, curve[-1].step) == (1, 10)
    assert {point.step: point.value for point in curve}[10] == pytest.approx(summary["metrics"]["test/ndcg_at_10"])
    names = {artifact.path for artifact in store.client.list_artifacts(summary["run_id"])}
    assert {"config.toml", "config.json", "plots", "candidates.json", "candidates.md", "report.md"} <= names
    assert "report.html" in names
    plots = {artifact.path for artifact in store.client.list_artifacts(summary["run_id"], "plots")}
    assert plots == {"plots/training.png", "plots/metrics.png", "plots/popularity.png"}
    children = {child.info.run_name: child for child in tracking.child_runs(store, summary["run_id"])}
    assert sorted(children) == sorted(["ingest", "represent", "train", "evaluate", "refit", "retrieve", "export"])
    for one in (children["train"].info.run_id, summary["run_id"]):  # nights are compared by curves, too
        points = store.client.get_metric_history(one, "train/loss")
        assert [point.step for point in points] == [1, 2]
    assert [point.step for point in store.client.get_metric_history(one, "train/loss_next-item")] == [1]
    assert [point.step for point in store.client.get_metric_history(one, "train/loss_cloze")] == [2]
    assert {"blend/model", "blend/blend"} <= children["train"].data.metrics.keys()


def test_a_night_leaves_a_page_that_can_be_made_again(
    first: tuple[Settings, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings, summary = first
    page_path = Path(summary["report"])
    assert page_path.parent == Path(settings.warehouse) / "reports" / "tiny_Shop"
    assert page_path.name.endswith(f"Z-{summary['run_id']}.html")
    content = page_path.read_text(encoding="utf-8")
    assert (page_path.parent / "latest.html").read_text(encoding="utf-8") == content
    assert read_artifact(settings.tracking.uri, summary["run_id"], "report.html").decode() == content
    for section in ("Quality", "For whom", "Training", "Data", "10 users, drawn at random", "Time and memory"):
        assert section in content
    assert "most memory held" in content and "events per " in content
    shown = {example["user_id"] for example in summary["examples"]}
    assert shown and all(user.startswith("~") for user in shown)
    config = str(Path(settings.warehouse).parent / "recsys.toml")
    page_path.unlink()
    assert cli.execute(["report", config, "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert made == {"path": page_path.as_posix(), "run": summary["run_id"], "made": True}
    assert page_path.read_text(encoding="utf-8") == content
    assert cli.execute(["report", config, "--run", summary["run_id"][:8]]) == 0
    assert page_path.name in "".join(capsys.readouterr().out.split())
    assert cli.execute(["report", config, "--run", "nobody"]) == 2
    assert "no record of the run 'nobody' of 'tiny_Shop'" in capsys.readouterr().err


def test_an_evaluation_keeps_slices_and_users_and_is_compared_by_run(
    first: tuple[Settings, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings, summary = first
    store = tracking.open_store(settings)
    (child,) = [run for run in tracking.child_runs(store, summary["run_id"]) if run.info.run_name == "evaluate"]
    names = {artifact.path for artifact in store.client.list_artifacts(child.info.run_id)}
    assert {"metrics.json", "slices.json", "users.parquet", "plots"} <= names
    assert child.data.metrics["test/recall_at_10"] == pytest.approx(summary["metrics"]["test/hr_at_10"])
    assert {"test/novelty_at_10", "test/miscalibration_category_at_10"} <= child.data.metrics.keys()
    slices = json.loads(read_artifact(settings.tracking.uri, summary["run_id"], "slices.json"))
    rows = [dict(zip(slices["columns"], row, strict=True)) for row in slices["data"]]
    assert {"history_length", "target_popularity", "item:category"} <= {row["dimension"] for row in rows}
    users = from_parquet(read_artifact(settings.tracking.uri, summary["run_id"], "users.parquet"), "users.parquet")
    assert users.frame["ndcg_at_10"].mean() == pytest.approx(summary["metrics"]["test/ndcg_at_10"])
    for row in rows:
        of = users.frame[row["dimension"]]
        inside = of.list.contains(row["value"]) if of.dtype == pl.List else of == row["value"]
        assert row["n"] == inside.sum()
        assert row["hr_at_10"] == pytest.approx(users.frame["hit_at_10"].filter(inside.fill_null(False)).mean())
    assert cli.execute(["compare", summary["run_id"], summary["bundle"], "--uri", settings.tracking.uri]) == 0
    assert "no user's value differs" in " ".join(capsys.readouterr().out.split())
    assert cli.execute(["compare", "0" * 32, summary["bundle"], "--uri", settings.tracking.uri]) == 2
    assert f"has no run {'0' * 32}" in capsys.readouterr().err


def test_each_rule_has_a_price(first: tuple[Settings, dict[str, Any]], tmp_path: Path, capsys: Any) -> None:
    settings, summary = first
    assert summary["rules"] is None
    show_night(Console(width=160), summary, None)  # a night without rules
    assert "price of each rule" not in capsys.readouterr().out
    (tmp_path / "out.txt").write_text("\n".join(str(item) for item in range(1, 40)))
    rules = {
        "few": {"kind": "at_most", "column": "brand", "n": 2},
        "out": {"kind": "deny", "items": str(tmp_path / "out.txt")},
        "again": {"kind": "repeat", "where": [{"column": "category", "missing": False}], "after_days": 1},
    }
    ruled = parse_settings({**settings.model_dump(mode="json"), "rules": rules})
    report = evaluation.evaluate_alone(ruled, bundle=summary["bundle"])
    priced = report["report"]["rules"]
    prices = {row["name"]: row for row in priced["prices"]}
    assert list(prices) == ["all rules", "few", "out", "again"] and priced["questions"] > 0
    for row in prices.values():
        ndcg = row["ndcg_at_10"]
        assert ndcg["difference"] == pytest.approx(ndcg["with"] - ndcg["without"], abs=1e-12)
        assert ndcg["low"] <= ndcg["difference"] <= ndcg["high"] and 0 <= row["moved"] <= row["rows"]
    assert prices["few"]["moved"] and prices["few"]["ndcg_at_10"]["with"] == prices["out"]["ndcg_at_10"]["with"]
    show_night(Console(width=160), summary | {"rules": priced}, None)
    assert "few (at_most)" in capsys.readouterr().out
    assert "| few (at_most) |" in nightly.summary_markdown(summary | {"rules": priced})
    store = tracking.open_store(ruled)
    run = store.client.get_run(report["mlflow_run"])
    assert run.data.metrics["rules/few/moved_share"] == prices["few"]["moved"] / prices["few"]["rows"]
    assert json.loads(run.data.params["rules.few.n"]) == 2


def test_the_night_has_one_id_everywhere(first: tuple[Settings, dict[str, Any]]) -> None:
    settings, summary = first
    run = short(summary["run_id"])
    folder = Path(settings.warehouse).parent
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    assert {(line["run"], line["night"]) for line in lines if line["logger"] == "recsys"} == {(run, "tiny_Shop")}
    tables = ("interactions", "items", "item_vectors", "candidates")
    commits = {DeltaTable(f"{settings.warehouse}/{table}").history(1)[0]["recsys.run"] for table in tables}
    rows = scan(settings.warehouse, "candidates", summary["candidates"]["version"]).select("run").unique().collect()
    assert commits == {summary["run_id"]} == set(rows["run"])
    store = tracking.open_store(settings)
    steps_ = tracking.child_runs(store, summary["run_id"])
    assert {one.data.tags["recsys.run"] for one in steps_} == {run} and steps_[0].info.run_name == "ingest"
    assert store.client.get_run(summary["run_id"]).data.tags["recsys.run"] == run
    assert runs.state_of(runs.state_folder(settings.warehouse), summary["run_id"]) is not None
    assert read_artifact(settings.tracking.uri, run, "users.parquet")


def test_the_log_and_the_metrics_say_what_the_steps_did(first: tuple[Settings, dict[str, Any]]) -> None:
    settings, summary = first
    folder = Path(settings.warehouse).parent
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    ended = {line["step"]: line for line in lines if line.get("event") == "step ends"}
    assert set(summary["seconds"]) - {"total"} <= set(ended)
    assert ended["retrieve"]["rows"] == summary["candidates"]["rows"] == ended["publish"]["rows"]
    assert ended["ingest"]["rows_read"] > 0 and ended["ingest"]["peak_bytes"] > 2**20
    assert ended["judge"]["verdict"] == "passed"
    (night,) = [line for line in lines if line.get("event") == "night ends"]
    assert night["verdict"] == "published" and night["ndcg_at_10"] == summary["metrics"]["test/ndcg_at_10"]
    (listed,) = [one for one in status(settings, 5)["nights"] if one["run"] == summary["run_id"]]
    assert night["seconds"] == summary["seconds"]["total"] and listed["seconds"] == round(night["seconds"])
    families = text_string_to_metric_families((folder / "tiny.prom").read_text())
    told = {family.name: family.samples for family in families}
    assert told["recsys_rows_published"][0].value == summary["candidates"]["rows"]
    assert told["recsys_night_info"][0].labels["run"] == short(summary["run_id"])
    assert {sample.labels["step"] for sample in told["recsys_step_seconds"]} >= set(summary["seconds"]) - {"total"}


def test_every_line_of_a_step_alone_bears_its_run(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["ingest", config, "--log-format", "json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [lines[0]["event"], lines[-1]["event"]] == ["step begins", "step ends"]
    (run,) = {line["run"] for line in lines}
    assert {(line["night"], line["step"]) for line in lines} == {("tiny_Shop", "ingest")}
    store = tracking.open_store(load_settings(config))
    (kept,) = store.client.search_runs([store.client.get_experiment_by_name("tiny_Shop").experiment_id])
    assert kept.info.run_id.startswith(run)


def test_the_bundle_is_a_registered_model_that_answers(first: tuple[Settings, dict[str, Any]]) -> None:
    import mlflow.pyfunc

    settings, summary = first
    store = tracking.open_store(settings)
    version = store.client.get_model_version_by_alias("tiny_Shop", "candidate")
    assert version.run_id == summary["run_id"] and Path(summary["bundle"]).name in version.description
    model_id = summary["mlflow"]["model"]["model_uri"].removeprefix("models:/")
    logged = store.client.get_logged_model(model_id)
    metrics = {metric.key: metric for metric in logged.metrics}
    assert metrics["test/ndcg_at_10"].dataset_name == "test"
    assert json.loads(logged.tags["mlflow.modelVersions"]) == [{"name": "tiny_Shop", "version": str(version.version)}]
    assert logged.name == Path(summary["bundle"]).name and logged.model_type == "bert4rec"
    assert logged.params == store.client.get_run(summary["run_id"]).data.params
    assert "NDCG@10" in version.description and len(version.tags["recsys.data"]) == 64
    folder = store.client.get_logged_model(model_id).artifact_location.removeprefix("file://")
    assert not [path for path in Path(folder).rglob("*") if path.suffix in (".pkl", ".pickle", ".pyc")]
    model = mlflow.pyfunc.load_model(folder)
    history = candidates(settings, summary)["item_id"].head(3).to_list()
    answers = model.predict([{"history": history, "k": 4}, {"history": history[:1]}])
    assert [len(answer.items) for answer in answers] == [4, 10]
    assert not set(history) & set(answers[0].items)


def test_failed_starts_in_a_row_are_one_run(config: str, data: Path) -> None:
    settings = load_settings(config, ["interactions.time_format=%d.%m.%Y"])  # which only reading finds wrong
    for _ in range(2):
        with pytest.raises(InputError, match="rejected"):
            nightly.night(settings)
    store = tracking.open_store(settings)
    tops = [run for run in store.client.search_runs([store.experiment_id]) if tracking.PARENT_TAG not in run.data.tags]
    (top,) = tops
    assert top.info.status == "FAILED" and top.info.run_name.startswith("tiny_Shop 20")
    assert top.data.tags["recsys.attempts"] == "2" and "rejected" in top.data.tags["mlflow.note.content"]
    steps_ = tracking.child_runs(store, top.info.run_id)
    assert [(run.info.run_name, run.info.status) for run in steps_] == [("ingest", "FAILED")] * 2
    (night,) = status(settings, 7)["nights"]  # the newest start, which has no other record
    assert night["state"] == "failed after the start" and "rejected" in night["sentence"]
    assert short(night["run"]) == steps_[-1].data.tags["recsys.run"]


def test_the_same_night_again_is_a_new_run_with_the_same_candidates(
    first: tuple[Settings, dict[str, Any]],
) -> None:
    settings, summary = first
    again = nightly.night(settings)
    assert again["resumed"] is False and again["run_id"] != summary["run_id"]
    assert again["bundle"] == summary["bundle"] and again["tables"] == summary["tables"]
    assert candidates(settings, again).equals(candidates(settings, summary))


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [("path", "recsys.toml", "no export has written"), ("columns", {"itme_id": "x"}, "did you mean 'item_id'")],
)
def test_an_export_that_cannot_be_is_said_before_any_work(
    config: str, key: str, value: Any, sentence: str, tmp_path: Path
) -> None:
    settings = load_settings(config)
    wrong = str(tmp_path / value) if key == "path" else value
    settings = settings.model_copy(update={"export": settings.export.model_copy(update={key: wrong})})
    with pytest.raises(InputError, match=sentence):
        nightly.night(settings)
    assert not (tmp_path / "warehouse").exists()


def test_a_failed_night_goes_on_where_it_stopped(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from recsys.pipelines import retrieve

    settings = load_settings(config)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(retrieve.retrieval, "build", full)
        with pytest.raises(OSError, match="No space left"):
            nightly.night(settings)
    store = tracking.open_store(settings)
    query = "attributes.status = 'FAILED' and params.seed = '0'"
    (failed,) = store.client.search_runs([store.experiment_id], query)
    assert failed.data.tags["recsys.error"].startswith("OSError")
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    summary = nightly.night(settings)
    assert summary["resumed"] is True and summary["run_id"] == failed.info.run_id
    assert store.client.get_run(summary["run_id"]).info.status == "FINISHED"


KILLED = """
import sys
import torch
torch.set_num_threads(1)  # as in conftest.py: other thread counts round differently
from recsys.pipelines import evaluate, nightly
from recsys.settings.read import load_settings
def wait(*_):
    print("evaluating", flush=True)
    sys.stdin.read()
evaluate.evaluation.evaluate = wait
nightly.night(load_settings(sys.argv[1], sys.argv[3:]))
"""


@pytest.mark.slow
def test_a_night_stopped_between_building_and_publishing_publishes_what_it_built(
    config: str, first: tuple[Settings, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(config)
    before = nightly.night(settings)
    with monkeypatch.context() as broken:
        broken.setattr(nightly, "publish_task", steps.compute_task(unpublished))
        with pytest.raises(RecsysError, match="no room"):
            nightly.night(settings)
    assert latest_version(settings.warehouse, "candidates") == before["candidates"]["version"]
    with monkeypatch.context() as unbuilt:
        unbuilt.setattr(nightly, "retrieve_task", None)  # whoever runs it fails
        summary = nightly.night(settings)
    assert summary["resumed"] and summary["candidates"]["version"] == before["candidates"]["version"] + 1
    assert candidates(settings, summary).equals(candidates(*first))
    assert {"short_lists", "empty_lists"} <= set(summary["candidates"])
    assert summary["export"]["version"] == summary["candidates"]["version"]


def test_candidates_that_somebody_overtook_are_built_again(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(config)
    with monkeypatch.context() as broken:
        broken.setattr(nightly, "publish_task", steps.compute_task(unpublished))
        with pytest.raises(RecsysError, match="no room"):
            nightly.night(settings)
    built = {path.name for path in Path(settings.warehouse, "candidates").glob("*.parquet")}
    bundle = str(next(Path(settings.warehouse, "bundles").iterdir()))
    retrieval.retrieve_alone(settings, bundle=bundle)
    summary = nightly.night(settings)
    assert summary["resumed"] and summary["candidates"]["version"] == 1
    assert not built & {path.name for path in Path(settings.warehouse, "candidates").glob("*.parquet")}


def unpublished(settings: Settings, *_: Any) -> dict[str, Any]:
    raise RecsysError("There is no room.")


def test_a_night_with_another_export_path_trains_no_second_time(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(config)
    with monkeypatch.context() as broken:
        broken.setattr(nightly, "export_task", steps.compute_task(unwritable))
        with pytest.raises(RecsysError, match="no room"):
            nightly.night(settings)
    elsewhere = load_settings(config, [f"export.path={tmp_path / 'elsewhere'}"])
    with monkeypatch.context() as untrained:
        for name in ("represent", "train", "evaluate", "refit", "retrieve"):
            untrained.setattr(nightly, f"{name}_task", None)  # whoever runs it fails
        summary = nightly.night(elsewhere)
    assert summary["resumed"] and summary["export"]["held"]  # the start has made up for it already
    assert (tmp_path / "elsewhere").exists()
    assert nightly.night(load_settings(config, ["retrieve.k=3"]))["candidates"]["k"] == 3


def unwritable(settings: Settings, candidates: dict[str, Any], parent: str | None = None) -> dict[str, Any]:
    raise RecsysError("There is no room.")


def test_a_killed_night_ends_in_the_state_of_one_that_was_not(
    config: str, first: tuple[Settings, dict[str, Any]]
) -> None:
    command = [sys.executable, "-c", KILLED, config]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "evaluating\n"
        os.kill(process.pid, signal.SIGKILL)
    settings = load_settings(config)
    summary = nightly.night(settings)
    assert summary["resumed"] is True
    assert summary["metrics"] == first[1]["metrics"]
    assert candidates(settings, summary).equals(candidates(*first))
    store = tracking.open_store(settings)
    children = tracking.child_runs(store, summary["run_id"])
    evaluations = [child.info.status for child in children if child.info.run_name == "evaluate"]
    assert evaluations == ["KILLED", "FINISHED"]
    others = {child.info.status for child in children if child.info.run_name != "evaluate"}
    assert others == {"FINISHED"}


def test_what_a_killed_night_left_is_cleared_by_the_next_start(config: str, tmp_path: Path) -> None:
    scratch = tmp_path / "temporary"
    scratch.mkdir()
    command = [sys.executable, "-c", KILLED, config, "--set", "seed=1"]
    environment = {**os.environ, "TMPDIR": str(scratch)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None and process.stdout.readline() == "evaluating\n"
        assert [path.name.partition("-")[0] for path in scratch.iterdir()] == ["recsys"]
        os.kill(process.pid, signal.SIGKILL)
    settings = load_settings(config)
    store = tracking.open_store(settings)
    running = "attributes.status = 'RUNNING'"
    assert len(store.client.search_runs([store.experiment_id], running)) == 2  # the night and its evaluation
    assert cli.execute(["export", config, "--json"]) == 2  # any command will do: there is nothing to export yet
    with steps.tracked(settings):
        assert not list(scratch.iterdir())
        assert not store.client.search_runs([store.experiment_id], running)
    assert not list((Path(settings.warehouse) / "runs" / "processes").iterdir())


def test_a_night_outlives_its_mlflow(
    config: str,
    first: tuple[Settings, dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from mlflow import MlflowClient

    real = training.fit

    def fit(settings: Settings, versions: Any, on_epoch: Any, say: Any) -> Any:
        def after(entry: dict[str, Any]) -> None:
            with steps.tracked(settings) as store:  # the server dies after the first epoch
                store.client = MlflowClient("http://127.0.0.1:9")
            on_epoch(entry)

        return real(settings, versions, after, say)

    with monkeypatch.context() as patch:
        patch.setattr(training, "fit", fit)
        assert cli.execute(["run", config, "--no-prefect", "--json"]) == 0
    told = capsys.readouterr()
    summary = json.loads(told.out)
    settings = load_settings(config)
    assert candidates(settings, summary).equals(candidates(*first)) and summary["export"]["rows"] > 0
    file = Path(summary["mlflow"]["unsent"]["file"])
    assert told.err.count("does not answer any more") == 1 and f"kept in {file}" in told.err
    assert (Path(settings.warehouse) / "bundles" / "tiny_Shop.latest.json").is_file()
    store = tracking.open_store(settings)  # the next start
    assert not file.exists()
    run = store.client.get_run(summary["run_id"])
    assert run.info.status == "FINISHED" and "| test/ndcg_at_10 |" in run.data.tags["mlflow.note.content"]
    assert {child.info.status for child in tracking.child_runs(store, summary["run_id"])} == {"FINISHED"}
    (train,) = [c for c in tracking.child_runs(store, summary["run_id"]) if c.info.run_name == "train"]
    points = store.client.get_metric_history(train.info.run_id, "train/loss")
    assert [point.step for point in points] == [1, 2]
    assert store.client.get_model_version_by_alias("tiny_Shop", "candidate").run_id == summary["run_id"]


def test_a_step_is_recorded_before_mlflow_is_told(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def tell(*_: object, **__: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(training, "_log_blend", tell)
        with pytest.raises(Killed):
            nightly.night(load_settings(config))
    monkeypatch.setattr(training, "fit", lambda *_: pytest.fail("trained again"))
    assert nightly.night(load_settings(config))["resumed"] is True


KILLED_IN_TRAINING = """
import sys
import torch
torch.set_num_threads(1)
from recsys.pipelines import nightly
from recsys.settings.read import load_settings
from recsys.training import checkpoint
class Eager(checkpoint.Checkpoints):
    saves = 0
    def __init__(self, folder, *, seconds):
        super().__init__(folder, seconds=0, share=1e9)
    def save(self, state):
        super().save(state)
        self.saves += 1
        if self.saves == 3:
            print("training", flush=True)
            sys.stdin.read()
checkpoint.Checkpoints = Eager
nightly.night(load_settings(sys.argv[1]))
"""


def test_a_night_that_was_killed_in_training_goes_on_inside_it(
    config: str, first: tuple[Settings, dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", KILLED_IN_TRAINING, config]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "training\n"
        os.kill(process.pid, signal.SIGKILL)
    settings = load_settings(config)
    checkpoints = Path(settings.warehouse) / "runs" / "training"
    assert len(list(checkpoints.iterdir())) == 1
    assert cli.execute(["run", config, "--no-prefect", "--json"]) == 0
    told = capsys.readouterr()
    summary = json.loads(told.out)
    place = summary["training_resumed"]
    assert (place["epoch"], place["step"]) > (1, 1)
    assert f"Training resumed at epoch {place['epoch']}, step {place['step']}." in told.err
    assert summary["metrics"] == first[1]["metrics"]
    assert candidates(settings, summary).equals(candidates(*first))
    assert not list(checkpoints.iterdir())
    (train,) = [
        child
        for child in tracking.child_runs(tracking.open_store(settings), summary["run_id"])
        if child.info.run_name == "train" and child.info.status == "FINISHED"
    ]
    points = tracking.open_store(settings).client.get_metric_history(train.info.run_id, "train/loss")
    assert [point.step for point in points] == [1, 2]  # the curve is whole


@pytest.fixture
def emitted(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Events that the night gives to Prefect to send."""
    sent: list[dict[str, Any]] = []
    monkeypatch.setattr(events, "emit_event", lambda **event: sent.append(event))
    return sent


def on_server(found: Callable[[], Any]) -> Any:
    """Wait until the server has what is sent to it in the background."""
    for _ in range(600):
        if value := found():
            return value
        time.sleep(0.1)
    raise AssertionError("The server has not got it.")


def test_prefect_has_the_nights_lines_artifact_and_event(
    config: str, harness: None, emitted: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    settings = load_settings(config, ["train.epochs=1"])
    summary = launch.run_night(settings, config, ["train.epochs=1"], Show())
    assert summary["epochs"] == 1
    artifact = Artifact.get("night-tiny-shop")
    assert artifact is not None and isinstance(artifact.data, str)
    assert "| test/ndcg_at_10 |" in artifact.data and summary["mlflow"]["link"] in artifact.data
    assert f"- report: `{summary['report']}`" in artifact.data
    (event,) = emitted
    assert event["event"] == "recsys.night.published"
    assert event["resource"] == {"prefect.resource.id": "recsys.night.tiny_Shop", "prefect.resource.name": "tiny_Shop"}
    assert event["payload"]["sentence"] == summary["verdict"]["sentence"]
    assert event["payload"]["report"] == summary["report"] and event["payload"]["mlflow"] == summary["mlflow"]["link"]
    told = capsys.readouterr().err
    assert told.count("The night takes about") == 1 and "Finished in state" not in told  # no line twice
    with get_client(sync_client=True) as client:
        run = next(run for run in client.read_flow_runs() if {"recsys", "tiny_Shop"} <= set(run.tags))
        assert run.state is not None and run.state.is_completed() and run.expected_start_time is not None
        assert f"run:{short(summary['run_id'])}" in run.tags
        assert run.name == f"tiny_Shop {run.expected_start_time.astimezone():%Y-%m-%d}"
        of = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run.id]))
        on_server(lambda: [line for line in client.read_logs(of) if line.message.startswith("The night takes about")])


def scheduled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the flow take itself for one that a deployment's schedule has started."""
    monkeypatch.setattr(flows.deployment, "get_id", lambda: "deployment")
    monkeypatch.setattr(flows, "may_end_process", lambda: None)


def test_a_scheduled_night_that_fails_ends_with_its_sentence(
    config: str, harness: None, emitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    scheduled(monkeypatch)
    state = nightly.nightly(config, ["interactions.source=nowhere.csv"], return_state=True)
    (event,) = emitted
    assert state.is_failed() and state.message is not None and "nowhere.csv" in state.message
    assert "Traceback" not in state.message and "\n" not in state.message
    assert event["event"] == "recsys.night.failed" and event["payload"]["sentence"] == state.message


def test_a_scheduled_night_that_meets_another_is_skipped_and_one_by_hand_fails(
    config: str, harness: None, emitted: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings(config)
    with runs.locked(settings.warehouse):
        with pytest.raises(runs.WarehouseBusy):
            nightly.nightly(config)
        scheduled(monkeypatch)
        state = nightly.nightly(config, return_state=True)
    assert state.is_completed() and state.name == "Skipped"
    assert state.message is not None and state.message.startswith(f"Another run (process {os.getpid()}) is writing")
    assert [event["event"] for event in emitted] == ["recsys.night.failed", "recsys.night.skipped"]


@pytest.mark.parametrize("error", [httpx.ConnectError("gone"), CancelledError()])
def test_a_scheduled_night_that_loses_prefect_goes_on_without_it(
    config: str, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def night(settings: Settings, run: steps.Run = steps.as_function) -> dict[str, Any]:
        if run is steps.as_task:
            raise error
        return {"by": "functions"}

    monkeypatch.setattr(nightly, "night", night)
    assert flows._night(config, None, True, Watch()) == {"by": "functions"}
    with pytest.raises(type(error)):  # the command goes on by itself
        flows._night(config, None, False, Watch())


def test_a_scheduled_night_that_somebody_stops_does_not_go_on(config: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def night(settings: Settings, run: steps.Run = steps.as_function) -> dict[str, Any]:
        raise TerminationSignal(signal=signal.SIGTERM)

    monkeypatch.setattr(nightly, "night", night)
    with pytest.raises(TerminationSignal):
        flows._night(config, None, True, Watch())


def test_a_deployment_is_registered_once_for_a_name_and_says_who_runs_it(
    config: str, tmp_path: Path, harness: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefect_api, "named", lambda: True)

    def register(**more: Any) -> Any:
        given = {"config": config, "cron": "0 3 * * *", "timezone": "Europe/Berlin"} | more
        _, report = deploy.register(deploy.Plan(**given))
        with get_client(sync_client=True) as client:
            return report, client.read_deployment_by_name("nightly/tiny_Shop")

    report, first = register()
    assert report["run by"].startswith("nobody yet") and first.job_variables == {}
    assert first.concurrency_options is None  # the warehouse's lock keeps a second night out
    with pytest.raises(InputError, match=r"has no work pool unknown \(it has: .*\); `prefect work-pool create unknown"):
        register(pool="unknown")
    with get_client(sync_client=True) as client:
        for name, kind in {"here": "process", "ships": "docker"}.items():
            client.create_work_pool(WorkPoolCreate(name=name, type=kind, base_job_template={}))
    with pytest.raises(InputError, match="ships is of the type docker, whose runs need an image"):
        register(pool="ships")
    with pytest.raises(InputError, match="here starts processes, which have no image"):
        register(pool="here", image="shop:1")
    report, found = register(pool="here", cron="30 4 * * *", overrides=("train.epochs=1",))
    assert (found.id, found.work_pool_name, found.job_variables) == (first.id, "here", {"working_dir": str(tmp_path)})
    assert [one.schedule.cron for one in found.schedules] == ["30 4 * * *"]  # the former schedule is gone
    assert found.parameters["overrides"] == ["train.epochs=1"]
    assert report["run by"].endswith("`prefect worker start --pool here`")
    _, found = register(pool="ships", image="shop:1")
    assert found.job_variables == {"image": "shop:1", "volumes": [f"{tmp_path}:{tmp_path}"]}
    _, found = register()
    assert found.work_pool_name is None and found.job_variables == {} and "overrides" not in found.parameters
    (tmp_path / "other.toml").write_text(Path(config).read_text())
    with pytest.raises(InputError, match=r"the deployment nightly/tiny_Shop of the configuration .*recsys\.toml"):
        register(config=str(tmp_path / "other.toml"))


def test_a_step_of_prefects_that_overruns_its_limit_ends_and_masks_what_it_says(config: str, harness: None) -> None:
    outer = signal.setitimer(signal.ITIMER_REAL, 0.0)  # the test runner's own time-out

    def export(settings: Settings) -> dict[str, Any]:
        time.sleep(60)
        return {}

    def publish(settings: Settings) -> dict[str, Any]:
        raise RecsysError("postgresql://me:word@db does not answer.")

    @flow(name="limited")
    def limited(step: str) -> dict[str, Any]:
        settings = load_settings(config, ["limits.timeout_minutes.export=0.001"])
        return steps.as_task({"export": steps.io_task(export), "publish": steps.compute_task(publish)}[step], settings)

    with pytest.raises(StepOverran, match=r"The step export was ended after 0\.001 min"):
        limited("export")
    with pytest.raises(RecsysError, match=r"postgresql://.*@db does not answer\.$") as caught:
        limited("publish")
    assert ":word@" not in str(caught.value)
    signal.setitimer(signal.ITIMER_REAL, *outer)


def arrays(dataset: Dataset) -> list[bytes]:
    split = dataset.split
    parts = [split.train, split.serving, split.validation.histories, split.test.histories]
    return [array.tobytes() for part in parts for array in (part.items, part.offsets)]


@pytest.mark.parametrize(
    "run", [steps.as_function, pytest.param(steps.as_task, marks=pytest.mark.slow)], ids=["functions", "tasks"]
)
def test_a_night_loads_everything_once(
    config: str, monkeypatch: pytest.MonkeyPatch, harness: None, run: steps.Run
) -> None:
    made: dict[str, list[Any]] = {"data": [], "text model": [], "store": []}

    def counted(what: str, module: Any, name: str) -> None:
        real = getattr(module, name)

        def called(*arguments: Any, **options: Any) -> Any:
            made[what].append(real(*arguments, **options))
            return made[what][-1]

        monkeypatch.setattr(module, name, called)

    counted("data", preparing, "_obtain")
    counted("text model", encoders, "load_encoder")
    counted("store", tracking, "open_store")
    text = ["model.text=true", 'evaluate.baselines=["text+transitions"]', 'items.text=["title", "brand"]']
    settings = load_settings(config, text)
    if run is steps.as_task:
        flow(lambda: nightly.night(settings, run), name="once")()
    else:
        nightly.night(settings, run)
    assert {what: len(calls) for what, calls in made.items()} == {"data": 1, "text model": 1, "store": 1}
    (dataset,) = made["data"]
    again = preparing.prepare(settings, current_versions(settings.warehouse))  # nothing is kept after the night
    assert again is not dataset and arrays(again) == arrays(dataset)  # no step has written into what it shared


def test_wrong_input_comes_out_of_the_flow_as_it_is(config: str, harness: None) -> None:
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        nightly.nightly(config, ["interactions.source=nowhere.csv"])


def test_reading_is_tried_again_and_only_then(harness: None) -> None:
    calls: list[str] = []

    def reading(settings: Settings, kind: str) -> dict[str, Any]:
        calls.append(kind)
        if calls.count(kind) == 1:
            raise ConnectionResetError("reset") if kind == "network" else InputError("bad rows.")
        return {"kind": kind}

    tree = {"name": "shop", "interactions": {"source": "log.csv"}, "limits": {"retry_seconds": 0}}

    @flow(name="reading")
    def read(kind: str) -> dict[str, Any]:
        return steps.as_task(steps.io_task(reading), parse_settings(tree), kind)

    assert read("network") == {"kind": "network"}
    with pytest.raises(InputError):
        read("input")
    assert calls == ["network", "network", "input"]


def test_steps_one_by_one(config: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "")

    def step(*arguments: str) -> dict[str, Any]:
        assert cli.execute([*arguments, "--json"]) == 0
        answer: dict[str, Any] = json.loads(capsys.readouterr().out)
        return answer

    assert step("ingest", config)["rows_added"]["items"] == 400
    assert step("ingest", config)["rows_added"]["items"] == 0
    assert "encoded" in step("represent", config)
    bundle = step("train", config)["bundle"]
    assert step("evaluate", config)["metrics"]["test/hr_at_10"] > 0
    assert cli.execute(["evaluate", config]) == 0
    assert re.search(r"test/hr_at_10 .*\d\.\d{4}", capsys.readouterr().out)
    figures = step("evaluate", config)["metrics"]
    refitted = step("refit", config)
    assert refitted["kind"] == "all" and Path(refitted["measured"]).name == Path(bundle).name
    assert cli.execute(["evaluate", config, "--json"]) == 0  # the newest bundle is the refitted one now
    told = capsys.readouterr()
    assert json.loads(told.out)["metrics"] == figures
    assert f"the figures are of {Path(bundle).name}, which it was made of." in " ".join(told.err.split())
    assert step("retrieve", config, "--set", "retrieve.k=3")["k"] == 3
    assert step("export", config)["rows"] > 0
    item = pl.read_parquet(Path(bundle) / "vocabulary.parquet")["item_id"][0]
    assert len(step("recommend", bundle, "--history", item, "-k", "2")["items"]) == 2
    assert len(step("similar", bundle, "--item", item)["items"]) == 10


def test_the_ui_serves_the_store(first: tuple[Settings, dict[str, Any]], tmp_path: Path) -> None:
    import socket
    import urllib.request

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "recsys",
        "ui",
        "--uri",
        first[0].tracking.uri,
        "--port",
        str(port),
    ]
    root = str(Path(cli.__file__).parents[2])
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": root},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        # where the tests run in the background of a shell, Ctrl-C is ignored, and children inherit that
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as process:
        try:
            while True:
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/health") as answer:
                        assert answer.status == 200
                        break
                except OSError:
                    assert process.poll() is None  # as long as it takes to start
                    time.sleep(0.2)
        finally:
            process.send_signal(signal.SIGINT)
            code = process.wait()
    assert code == 0
    with socket.socket() as freed:  # MLflow's own children have gone too
        assert freed.connect_ex(("127.0.0.1", port)) != 0
