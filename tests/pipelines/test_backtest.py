"""Backtests of a small shop: real trainings, tables and MLflow runs, and a log whose counts are made a second time."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.backtest import replay
from recsys.backtest.plan import Night
from recsys.backtest.replay import Built, build, settings_at
from recsys.backtest.tables import begin_tables, open_source, tables_at
from recsys.backtest.variants import SERVED, read_variants
from recsys.columns import ITEM_ID, RANK, USER_ID
from recsys.ingestion.ingest import ingest
from recsys.pipelines import backtest, cli
from recsys.pipelines.backtest import backtest_alone
from recsys.settings import Settings
from recsys.settings.read import load_settings, parse_settings
from recsys.storage.warehouse import scan
from recsys.tracking import log as tracking

pytestmark = pytest.mark.integration

START = datetime(2026, 3, 1, tzinfo=UTC)
DAYS = 30
NIGHTS = 3
CONFIG = """
name = "shop"
data_root = {data!r}
warehouse = {warehouse!r}
[interactions]
source = "log.csv"
[model]
max_length = 8
dimensions = 8
[train]
epochs = 2
evaluate_every = 1
batch_size = 32
[blend]
kind = "never"
[evaluate]
cutoffs = [5]
baselines = ["popularity"]
[retrieve]
k = 5
[tracking]
uri = {uri!r}
"""
Events = list[tuple[int, int, datetime]]


def some_events(seed: int = 0) -> Events:
    """Users of whom some come for the first time in the last days, and who have some items twice."""
    rng, events = np.random.default_rng(seed), []
    for user in range(50):
        first = 0 if user < 42 else DAYS - 3
        for _ in range(8):
            hour = int(rng.integers(first * 24, DAYS * 24))
            events.append((user, int(rng.integers(15)), START + timedelta(hours=hour, minutes=user)))
    events.append((0, 3, START + timedelta(days=DAYS - 1, hours=23)))
    return events


def write_log(folder: Path, events: Events) -> None:
    lines = [f"{user},{item},{when.isoformat()}" for user, item, when in events]
    (folder / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database to copy: making one takes seconds."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    tree = {"name": "other", "interactions": {"source": "x.csv"}, "tracking": {"uri": f"sqlite:///{path}"}}
    tracking.open_store(parse_settings(tree))
    return path


def write_config(folder: Path, database: Path, events: Events | None = None) -> str:
    (folder / "mlruns").mkdir(parents=True)
    shutil.copy(database, folder / "mlruns" / "mlflow.db")
    write_log(folder, some_events() if events is None else events)
    path = folder / "recsys.toml"
    path.write_text(
        CONFIG.format(data=str(folder), warehouse=str(folder / "warehouse"), uri=f"sqlite:///{folder}/mlruns/mlflow.db")
    )
    return str(path)


def replayed(config: str, **options: Any) -> dict[str, Any]:
    return backtest_alone({SERVED: load_settings(config)}, nights=NIGHTS, every="1d", **options)


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, database: Path) -> tuple[str, dict[str, Any]]:
    """A backtest of a log that was never ingested, and its report."""
    config = write_config(tmp_path_factory.mktemp("first"), database)
    return config, replayed(config)


def lasting(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The nights without what differs from run to run."""
    nights = json.loads(json.dumps(report["nights"]))
    for night in nights:
        night.pop("mlflow_run", None)
        for built in night["built"].values():
            for name in ("seconds", "bundle", "served"):  # a bundle's id is of its warehouse's path, too
                built.pop(name)
            built.pop("version")  # a table that was made twice is another version
    return nights


def test_every_count_of_each_night(first: tuple[str, dict[str, Any]]) -> None:
    _, report = first
    assert report == json.loads(json.dumps(report, allow_nan=False))
    events = some_events()
    for number, night in enumerate(report["nights"]):
        at = START + timedelta(days=DAYS - NIGHTS + number)
        assert night["night"] == f"{at:%Y-%m-%d}"
        before = [(user, item) for user, item, when in events if when < at]
        window = [(user, item) for user, item, when in events if at <= when < at + timedelta(days=1)]
        targets = set(window) - set(before)
        known = {user for user, _ in before}
        assert night["known"] == {
            "events": len(before),
            "users": len(known),
            "items": len({item for _, item in before}),
        }
        asked = {user for user, _ in targets}
        counts = night["window"]
        assert (counts["events"], counts["users"]) == (len(window), len({user for user, _ in window}))
        assert (counts["asked"], counts["targets"]) == (len(asked), len(targets))
        assert counts["new_users"] == len(asked - known)
        assert counts["repeats"] == len(set(window) & set(before))
        served = night["rankers"]["served"]
        assert served["users_with_list"] == len(asked & known)
        assert served["coverage_users"] == pytest.approx(len(asked & known) / len(asked))
        assert night["built"]["served"]["users"] == len(known)
        assert ("former" in night["rankers"]) == (number > 0)
        assert {"popularity", "recent-popularity", "transitions", "item-neighbours"} <= set(night["rankers"])
    assert sum(night["window"]["new_users"] for night in report["nights"]) > 0
    assert sum(night["window"]["repeats"] for night in report["nights"]) > 0
    assert report["verdict"].startswith("Over 3 nights and ")
    assert any("popularity serves them under every name" in note for note in report["notes"])


def test_only_results_stay_and_mlflow_has_a_run_a_night_under_one(first: tuple[str, dict[str, Any]]) -> None:
    config, report = first
    folder = Path(report["folder"])
    assert not (folder / "nights").exists()
    assert sorted(path.name for path in (folder / "results").iterdir()) == [
        f"night-00{n}.{ending}" for n in (1, 2, 3) for ending in ("json", "parquet")
    ]
    assert pl.read_parquet(folder / "results" / "night-001.parquet").schema["user"] == pl.Int32  # no ids
    store = tracking.open_store(load_settings(config))
    nights = tracking.child_runs(store, report["mlflow"]["run"])
    assert [run.info.run_name for run in nights] == [f"night {night['night']}" for night in report["nights"]]
    assert {run.info.status for run in nights} == {"FINISHED"}
    parent = store.client.get_run(report["mlflow"]["run"])
    assert parent.data.tags["mlflow.note.content"].startswith(report["verdict"])
    points = store.client.get_metric_history(parent.info.run_id, f"served/{report['metric']}")
    assert [point.step for point in points] == [1, 2, 3]
    plots = store.client.list_artifacts(parent.info.run_id, "plots")
    assert [one.path for one in plots] == ["plots/nights.png"]


def test_a_finished_backtest_is_answered_from_its_results(
    first: tuple[str, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, report = first
    monkeypatch.setattr(backtest, "build", lambda *_: pytest.fail("trained again"))
    again = replayed(config)
    assert again["resumed"] == NIGHTS
    assert again["nights"] == report["nights"]
    assert again["mlflow"]["run"] == report["mlflow"]["run"]


@pytest.mark.parametrize(
    "moment", [pytest.param("before the training ends", marks=pytest.mark.slow), "before the result is written"]
)
def test_a_killed_backtest_goes_on_with_equal_results(
    first: tuple[str, dict[str, Any]],
    moment: str,
    tmp_path: Path,
    database: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = write_config(tmp_path, database)
    with monkeypatch.context() as patch:
        if moment == "before the training ends":
            real_fit = replay.fit

            def fit(settings: Settings, versions: Any, *rest: Any) -> Any:
                if versions.interactions == 1:
                    raise KeyboardInterrupt
                return real_fit(settings, versions, *rest)

            patch.setattr(replay, "fit", fit)
        else:
            real = backtest.measure

            def measure(*arguments: Any, **more: Any) -> Any:
                if "former" in arguments[2]:
                    raise KeyboardInterrupt
                return real(*arguments, **more)

            patch.setattr(backtest, "measure", measure)
        with pytest.raises(KeyboardInterrupt):
            replayed(config)
    (folder,) = (path for path in (tmp_path / "warehouse" / "backtests").glob("shop-*") if path.is_dir())
    assert [path.name for path in sorted((folder / "results").glob("*.json"))] == ["night-001.json"]
    report = replayed(config)
    assert report["resumed"] == 1
    assert lasting(report) == lasting(first[1])
    assert report["means"] == first[1]["means"]
    store = tracking.open_store(load_settings(config))
    status = [run.info.status for run in tracking.child_runs(store, report["mlflow"]["run"])]
    assert sorted(status) == ["FINISHED", "FINISHED", "FINISHED", "KILLED"]


def test_the_user_s_warehouse_is_read_and_not_touched(
    first: tuple[str, dict[str, Any]], tmp_path: Path, database: Path
) -> None:
    config = write_config(tmp_path, database)
    settings = load_settings(config)
    ingest(settings)

    def files() -> dict[str, str]:
        root = Path(settings.warehouse)
        found = (path for path in root.rglob("*") if path.is_file())
        return {
            name: hashlib.sha256(path.read_bytes()).hexdigest()
            for path in found
            if (name := path.relative_to(root).as_posix()).split("/")[0] not in ("backtests", "prepared", "runs")
        }

    before = files()
    (tmp_path / "log.csv").unlink()  # the log is the warehouse's; its sources may be gone
    report = replayed(config)
    assert files() == before
    assert not any(name.startswith(("candidates", "bundles")) for name in before)
    assert lasting(report) == lasting(first[1])
    assert "as it was last ingested" in report["notes"][0]


def test_what_comes_after_a_night_changes_no_row_of_its_table(tmp_path: Path, database: Path) -> None:
    at = START + timedelta(days=DAYS - NIGHTS)
    events = some_events()
    future = [(user, 99, when + timedelta(hours=2)) for user, _, when in events[::3] if when >= at]
    tables: list[pl.DataFrame] = []
    for name, log in (("one", events), ("other", [event for event in events if event[2] < at] + future)):
        settings = load_settings(write_config(tmp_path / name, database, log))
        root = tmp_path / name / "nights"
        source = open_source(settings, tmp_path / name / "log")
        begin_tables(root, source)
        moment = round(at.timestamp() * 1_000_000)
        then = settings_at(settings, root, 1)
        built: Built = build(then, tables_at(root, source, moment), Night(number=1, at=moment, until=moment + 1), None)
        tables.append(scan(root, built.table).select(USER_ID, RANK, ITEM_ID).collect().sort(USER_ID, RANK))
    assert len(tables[0]) > 100
    assert tables[0].equals(tables[1])


def test_variants_side_by_side_and_a_warm_start_from_the_night_before(tmp_path: Path, database: Path) -> None:
    config = write_config(tmp_path, database)
    variants = read_variants(config, ["train.warm_start=previous"], ["train.epochs=1 retrieve.exclude_seen=false"])
    (_, other) = variants
    assert other == "train.epochs-1 retrieve.exclude_seen-false"
    report = backtest_alone(variants, nights=2, every="1d")
    assert report["variants"] == [SERVED, other]
    assert other in report["differences"]
    assert [night["built"][SERVED]["warm_start"] for night in report["nights"]] == [False, True]
    assert any("are kept as targets" in note for note in report["notes"])  # one of them may recommend repeats


def test_variants_of_one_training_share_its_bundle(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, database)
    trained: list[str] = []
    real = replay.fit

    def fit(settings: Settings, *rest: Any) -> Any:
        trained.append(settings.name)
        return real(settings, *rest)

    monkeypatch.setattr(replay, "fit", fit)
    variants = read_variants(config, ["train.refit=none"], ["train.refit=all"])
    report = backtest_alone(variants, nights=2, every="1d")
    assert len(trained) == 2  # one a night
    for night in report["nights"]:
        none, again = night["built"]["served"], night["built"]["train.refit-all"]
        assert (none["refit"], again["refit"]) == ("none", "all")
        assert none["served"] == none["bundle"] == again["bundle"] != again["served"]


def test_windows_without_events_are_counted_and_said(tmp_path: Path, database: Path) -> None:
    at = START + timedelta(days=DAYS - 2)
    events = [event for event in some_events() if not at <= event[2] < at + timedelta(days=1)]
    report = replayed(write_config(tmp_path, database, events))
    assert [night["empty"] for night in report["nights"]] == [False, True, False]
    assert report["measured"] == 2
    assert "former" in report["nights"][2]["rankers"]
    assert any(note.startswith("Windows without a question") and f"{at:%Y-%m-%d}" in note for note in report["notes"])


@pytest.fixture
def config(tmp_path: Path, database: Path) -> Iterator[str]:
    yield write_config(tmp_path, database)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--every", "40d"], "as long as the whole log"),
        (["--nights", "28", "--every", "1d"], "needs 20 at least"),
        (["--every", "soon"], "write hours, days or weeks"),
        (["--compare", "interactions.separator=;"], "changes interactions, and all variants replay one log"),
        (["--compare", "train.epochs=9", "--compare", "train.epochs=9"], "says the same as train.epochs-9"),
        (["--compare", " "], "--compare is empty"),
    ],
)
def test_wrong_input_is_one_sentence(
    config: str, arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_log(Path(config).parent, [event for event in some_events() if event[2] > START + timedelta(hours=30)])
    assert cli.execute(["backtest", config, "--json", *arguments]) == 2
    assert sentence in json.loads(capsys.readouterr().out)["error"]


def test_a_set_that_changes_nothing_lends_its_label(config: str) -> None:
    variants = read_variants(config, [], ["train.epochs=2", "train.epochs=3"])
    assert list(variants) == ["train.epochs-2", "train.epochs-3"]
    assert variants["train.epochs-2"] == load_settings(config)
