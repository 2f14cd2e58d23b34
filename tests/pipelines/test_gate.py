"""Nights that the gate judges: a sane second night passes, planted defects keep a night back, and nothing changes then.

Two real nights on a small generated shop, the second with two days of new rows, are judged again with defects.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys import runs
from recsys.bundles.bundle import Bundle
from recsys.bundles.store import latest_bundle
from recsys.columns import INTERACTIONS, ITEM_ID, RANK, USER_ID
from recsys.datasets.synthetic import generate
from recsys.evaluation.users import from_parquet, local_path
from recsys.gate import log
from recsys.gate.judge import Night, judge
from recsys.gate.verdict import Verdict
from recsys.pipelines import cli, nightly
from recsys.pipelines.steps import plain
from recsys.releases.record import releases
from recsys.retrieval.index import build_index, item_index
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage import stream, warehouse
from recsys.storage.warehouse import SCHEMAS, TableVersions, current_versions
from recsys.tracking import log as tracking

pytestmark = pytest.mark.integration

CONFIG = """
name = "shop"
data_root = {folder!r}
warehouse = {warehouse!r}
[interactions]
source = "log.csv"
[items]
source = "items.jsonl"
text = ["title"]
categorical = {{ brand = {{}}, category = {{}} }}
[filter]
repeats = "first"
[text]
dimensions = 16
[model]
max_length = 20
dimensions = 16
text = false
[train]
epochs = 1
[evaluate]
cutoffs = [10]
baselines = ["popularity", "transitions"]
[retrieve]
k = 10
[export]
path = {export!r}
[tracking]
uri = {uri!r}
"""
TOO_OLD = ["gate.max_age_hours=1"]  # the shop's log ends long ago


def write_log(folder: Path, until: str) -> None:
    pl.read_csv(folder / "whole.csv", infer_schema=False).filter(pl.col("timestamp") < until).write_csv(
        folder / "log.csv"
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of two nights."""
    folder = tmp_path_factory.mktemp("shop")
    made = generate(folder, users=200, items=400)
    made.interactions.rename(folder / "whole.csv")
    write_config(folder)
    for until in ("2024-12-29", "2024-12-31"):
        write_log(folder, until)
        nightly.night(load_settings(folder / "recsys.toml"))
    return folder


def write_config(folder: Path) -> None:
    places = {"warehouse": str(folder / "warehouse"), "export": str(folder / "export")}
    uri = f"sqlite:///{folder}/mlflow.db"
    (folder / "recsys.toml").write_text(CONFIG.format(folder=str(folder), uri=uri, **places))


@pytest.fixture
def copied(shop: Path, tmp_path: Path) -> Path:
    """A copy of the shop, for another night."""
    folder = tmp_path / "shop"
    shutil.copytree(shop, folder)
    write_config(folder)
    return folder


@pytest.fixture(scope="module")
def settings(shop: Path) -> Settings:
    return load_settings(shop / "recsys.toml")


def second_night(settings: Settings) -> tuple[TableVersions, Night, runs.RunState]:
    state = next(runs.states(runs.state_folder(settings.warehouse)))
    reports = {name: done["report"] for name, done in state.steps.items()}
    path = local_path(settings.warehouse, reports["train"]["bundle"])
    night = Night(
        ingested=reports["ingest"],
        trained=reports["train"],
        evaluated=reports["evaluate"],
        retrieved=reports["retrieve"],
        before=None,
        values=from_parquet(path.read_bytes(), str(path)),
        served=reports["refit"]["bundle"],
        measured=reports["refit"]["measured"],
        as_of=datetime.fromisoformat(state.started),
    )
    return current_versions(settings.warehouse), night, state


def judged(settings: Settings, night: Night) -> Verdict:
    """The second night's verdict, with the first one's release as the champion."""
    return judge(settings, current_versions(settings.warehouse), night, releases(settings)[0])


def checks(verdict: Verdict) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in verdict.checks}


def failed(verdict: Verdict) -> set[str]:
    return {check["name"] for check in verdict.checks if check["status"] == "failed"}


def with_ranks(night: Night, ranks: np.ndarray | int) -> Night:
    frame = night.values.frame.with_columns(pl.lit(ranks).cast(pl.Int64).alias(RANK))
    return replace(night, values=replace(night.values, frame=frame))


def with_rows(settings: Settings, night: Night, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Night:
    """The night with other rows beside the table."""
    rows = stream.scan_staged(stream.Staged(**night.retrieved["staged"]))
    assert rows is not None
    frame = change(rows.collect())
    schema = dict(frame.schema)
    staged = stream.stage(settings.warehouse, "planted", schema, [frame])
    return replace(night, retrieved={**night.retrieved, "staged": plain(staged)})


def test_a_sane_second_night_is_published(settings: Settings) -> None:
    _, night, state = second_night(settings)
    verdict = state.steps["judge"]["report"]
    assert verdict["passed"], verdict["reasons"]
    assert verdict["sentence"].startswith("Published: ")
    first, second = releases(settings)
    assert verdict["champion"]["run"] == first.run and second.verdict == verdict["sentence"]
    assert set(verdict["baselines"]) == {"popularity", "transitions"}
    made = {check["name"]: check["status"] for check in verdict["checks"]}
    assert made["users of the table before"] == made["recall of the index"] == made["full lists"] == "passed"
    assert made["new rows"] == "skipped" and made["newest event"] == "skipped"
    again = judged(settings, night)
    assert again.passed and again.sentence == verdict["sentence"]


def test_a_leaked_target_is_too_good(settings: Settings) -> None:
    verdict = judged(settings, with_ranks(second_night(settings)[1], 1))
    assert failed(verdict) >= {"test against validation", "jump over the champion"}
    assert "Look for a target that leaks" in verdict.reasons[0]


def test_a_night_worse_than_yesterday_and_than_counting_is_kept_back(settings: Settings) -> None:
    verdict = judged(settings, with_ranks(second_night(settings)[1], 99))
    assert not verdict.passed
    assert verdict.sentence.startswith("Kept back: worse than the one of ")
    assert verdict.champion is not None and verdict.champion["outcome"] == "worse"
    assert any(reason.startswith("Worse than the baseline transitions by ") for reason in verdict.reasons)
    alone = judge(settings, current_versions(settings.warehouse), with_ranks(second_night(settings)[1], 99), None)
    assert alone.sentence.startswith("Kept back: worse than the baseline ")


def test_popularity_in_disguise(settings: Settings) -> None:
    night = second_night(settings)[1]
    popular = log.events(settings.warehouse, 0).group_by(ITEM_ID).len().sort("len", descending=True).collect()[ITEM_ID]
    first = popular.head(10).to_list()

    def same_for_all(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(pl.col(RANK).replace_strict(dict(enumerate(first, 1))).alias(ITEM_ID))

    verdict = judged(settings, with_rows(settings, night, same_for_all))
    assert "the same list for everybody" in failed(verdict)
    assert checks(verdict)["popularity in disguise"]["value"] > 0.5


def test_half_the_users_missing(settings: Settings) -> None:
    night = second_night(settings)[1]
    users = night.values.frame[USER_ID].unique().sort()
    half = users.head(len(users) // 2)
    verdict = judged(
        settings, with_rows(settings, night, lambda rows: rows.filter(~pl.col(USER_ID).is_in(half.implode())))
    )
    assert "users of the table before" in failed(verdict)
    assert "users of the table served now are missing from the new one." in verdict.sentence


def test_an_index_with_bad_recall(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(bundle: Bundle) -> Any:
        """An index over the vectors of other items."""
        vectors = bundle.vectors.copy()
        vectors[1:] = vectors[1:][np.random.default_rng(0).permutation(len(vectors) - 1)]
        return item_index(build_index(vectors, bundle.allowed).index, bundle.vectors)

    night = second_night(settings)[1]
    monkeypatch.setattr(Bundle, "index", stale)
    verdict = judge(settings, current_versions(settings.warehouse), night, None)
    assert failed(verdict) == {"recall of the index"}
    assert verdict.sentence.startswith("Kept back: recall of the index: The index finds ")


def test_a_drifted_day(copied: Path) -> None:
    """A day on which everybody is sent to three items by night, as by a broken feed."""
    settings = load_settings(copied / "recsys.toml")
    root, before = settings.warehouse, current_versions(settings.warehouse).interactions
    events = log.events(root, before).collect()
    end, users = events["timestamp"].max(), events[USER_ID].unique().sort().head(80)
    assert isinstance(end, datetime)
    rare = events.group_by(ITEM_ID).len().sort("len", ITEM_ID)[ITEM_ID].head(3)
    rows = [
        {
            USER_ID: user,
            ITEM_ID: rare[number % 3],
            "timestamp": end.replace(hour=3, minute=number % 60) + (log.WEEK / 7) * 2,
            "event": "view",
            "weight": None,
            "position": 10_000_000 + number,
        }
        for number, user in enumerate(users)
    ]
    schema = {**SCHEMAS[INTERACTIONS], USER_ID: events.schema[USER_ID], ITEM_ID: events.schema[ITEM_ID]}
    version = warehouse.append(root, INTERACTIONS, pl.DataFrame(rows, schema=schema), expected=before)
    found = {check.name: check for check in log.drift_checks(log.new_rows(root, before, version), None, 0.25)}
    assert found["drift of items"].failed and found["drift of hours"].failed
    assert "0 to 4 h went from" in found["drift of hours"].sentence
    (none,) = log.drift_checks(log.new_rows(root, before, before), None, 0.25)
    assert none.status == "skipped"
    assert log.added_rows(root, version)[-1] == 80


def served_state(folder: Path) -> tuple[Any, ...]:
    """Everything that readers see."""
    settings = load_settings(folder / "recsys.toml")
    export = {path.relative_to(folder): path.read_bytes() for path in (folder / "export").rglob("*.json")}
    alias = tracking.open_store(settings).client.get_model_version_by_alias("shop", "champion").version
    table = warehouse.latest_version(settings.warehouse, "candidates")
    return table, latest_bundle(settings.warehouse, "shop").name, releases(settings)[-1].run, alias, export


def test_a_night_that_is_kept_back_changes_nothing_and_the_next_one_replaces_it(
    copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(copied / "recsys.toml")
    before = served_state(copied)
    write_log(copied, "2025-01-01")
    capsys.readouterr()
    assert cli.execute(["run", config, "--no-prefect", "--json", "--set", *TOO_OLD]) == 3
    told = capsys.readouterr()
    summary = json.loads(told.out)
    assert summary["published"] is False and summary["export"] is None and summary["candidates"]["version"] is None
    assert summary["verdict"]["sentence"].startswith("Kept back: newest event: The newest event is of 2024-12-")
    assert summary["verdict"]["sentence"] in told.err
    assert served_state(copied) == before
    settings = load_settings(config)
    state = runs.state_of(runs.state_folder(settings.warehouse), summary["run_id"])
    assert state is not None and state.status == "finished" and "publish" not in state.steps
    staged = stream.Staged(**state.steps["retrieve"]["report"]["staged"])
    assert stream.is_there(staged)  # until the next night
    run = tracking.open_store(settings).client.get_run(summary["run_id"])
    assert run.info.status == "FINISHED" and run.data.tags["recsys.verdict"] == "kept back"
    assert summary["verdict"]["sentence"] in run.data.tags["mlflow.note.content"]
    assert cli.execute(["run", config, "--no-prefect"]) == 0  # the same data, judged by the defaults
    assert "Published: " in capsys.readouterr().out
    assert not stream.is_there(staged)
    after = served_state(copied)
    assert after[0] == before[0] + 1 and after[2:4] != before[2:4]


def test_a_night_killed_between_verdict_and_publishing_goes_on(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*_: Any) -> dict[str, Any]:
        raise Killed

    settings = load_settings(copied / "recsys.toml")
    write_log(copied, "2025-01-01")
    with monkeypatch.context() as patch:
        patch.setattr(nightly.publish_task, "fn", killed)
        with pytest.raises(Killed):
            nightly.night(settings)
    state = next(runs.states(runs.state_folder(settings.warehouse)))
    before = state.steps["judge"]["report"]
    monkeypatch.setattr(nightly.judge_task, "fn", lambda *_: pytest.fail("judged again"))
    summary = nightly.night(settings)
    assert summary["resumed"] and summary["published"]
    assert summary["verdict"] == before
    assert releases(settings)[-1].verdict == before["sentence"]


def test_a_gate_that_is_off_publishes_without_a_verdict(copied: Path) -> None:
    settings = load_settings(copied / "recsys.toml", ["gate.enabled=false"])
    _, night, _ = second_night(settings)
    verdict = judged(settings, night)
    assert verdict.passed and verdict.sentence == "Published without a verdict: the gate is off (gate.enabled)."
