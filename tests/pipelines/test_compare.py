from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from recsys.evaluation.users import UserValues, from_parquet, to_parquet, with_stand_ins, write_file
from recsys.pipelines import cli
from recsys.report.files import stand_ins

CONFIG = 'name = "shop"\nwarehouse = "{warehouse}"\n[interactions]\nsource = "log.csv"\n'


def values(lead: int, users: int = 50) -> bytes:
    """The first `lead` users are hits."""
    frame = pl.DataFrame(
        {
            "user_id": [f"u{n:02}" for n in range(users)],
            "target": ["i1"] * users,
            "rank": pl.Series([1 if n < lead else None for n in range(users)], dtype=pl.Int64),
        }
    )
    return to_parquet(UserValues(frame=frame, about={"name": "shop", "bundle": f"shop-{lead}", "served": "model"}))


@pytest.fixture(autouse=True)
def nights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two warehouses, each with a configuration and a night, whose bundles were evaluated."""
    monkeypatch.chdir(tmp_path)
    for name, lead in (("old", 10), ("new", 30)):
        bundle = Path(name) / "bundles" / f"shop-{lead}"
        bundle.mkdir(parents=True)
        (bundle / "manifest.json").write_text("{}")
        (bundle.parent / "shop.latest.json").write_text(json.dumps({"path": bundle.name, "bundle": "0"}))
        write_file(Path(name) / "evaluations" / f"{bundle.name}.parquet", values(lead))
        (Path(name) / "runs").mkdir()
        state = {"steps": {"train": {"report": {"bundle": str(bundle)}}}}
        (Path(name) / "runs" / "0.json").write_text(json.dumps(state))
        Path(f"{name}.toml").write_text(CONFIG.format(warehouse=name))


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("old.toml", "new.toml"),
        ("old/bundles/shop-10", "new/bundles/shop-30"),
        ("old/runs/0.json", "new/runs/0.json"),
        ("old/evaluations/shop-10.parquet", "new.toml"),
    ],
)
def test_runs_are_found_by_configuration_bundle_record_and_file(
    old: str, new: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.execute(["compare", old, new, "--metric", "hr@10", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (found,) = report["comparisons"]
    assert (found["reference"], found["run"], found["outcome"]) == (old, new, "better")
    assert found["difference"] == pytest.approx(20 / 50)
    assert [run["bundle"] for run in report["runs"]] == ["shop-10", "shop-30"]


def test_set_changes_every_configuration_that_is_compared(capsys: pytest.CaptureFixture[str]) -> None:
    Path("state").mkdir()
    Path("new").rename("state/warehouse")
    Path("new.toml").write_text('name = "shop"\n[interactions]\nsource = "log.csv"\n')
    runs = ["state/warehouse/evaluations/shop-30.parquet", "new.toml"]
    assert cli.execute(["compare", *runs, "--set", "state_root=state", "--json"]) == 0
    assert [run["bundle"] for run in json.loads(capsys.readouterr().out)["runs"]] == ["shop-30", "shop-30"]


def test_pseudonyms_and_ids_of_one_warehouse_are_the_same_users(capsys: pytest.CaptureFixture[str]) -> None:
    shared = Path("old/evaluations/shared.parquet")  # as MLflow has it
    held = from_parquet(values(30), "x")
    write_file(shared, to_parquet(with_stand_ins(held, stand_ins(Path("old/runs")))))
    assert "u00" not in str(from_parquet(shared.read_bytes(), "x").frame.to_dicts())
    assert cli.execute(["compare", "old.toml", str(shared), "--metric", "hr@10", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["comparisons"][0]["difference"] == pytest.approx(20 / 50)
    assert cli.execute(["compare", "new.toml", str(shared)]) == 2
    assert "MLflow's users are pseudonyms of their warehouse" in " ".join(capsys.readouterr().err.split())


def test_the_table_ends_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["compare", "old.toml", "new.toml", "--metric", "hr@10", "--metric", "ndcg@5"]) == 0
    shown = capsys.readouterr().out
    assert "corrected for 2 comparisons (Holm)" in shown
    assert "new.toml is better than old.toml by 0.4000 HR@10 (95% interval +0." in shown
    assert "new.toml is better than old.toml by 0.4000 NDCG@5" in shown
    assert "smallest detectable" in shown


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["old/runs/0.json", "new/runs/0.json", "--set", "state_root=/state"], "changes configurations, and none is"),
        (["old.toml"], "takes two or more different runs, and 1 is named"),
        (["old.toml", "old.toml"], "takes two or more different runs"),
        (["old.toml", "nowhere"], "There is no run 'nowhere'"),
        (["old.toml", "0" * 32], "There is no MLflow store sqlite:///mlruns/mlflow.db"),
        (["old.toml", "small.parquet"], "were measured on different test parts (50 and 40 rows, 40 with"),
        (["old.toml", "new/bundles/shop-31"], "The bundle new/bundles/shop-31 has no evaluation in"),
        (["old.toml", "broken.json"], "broken.json is no record of a night that has trained"),
        (["old.toml", "new.toml", "--metric", "gini@10"], "--metric gini@10 has no value per user"),
    ],
)
def test_one_sentence_for_what_cannot_be_compared(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_file(Path("small.parquet"), values(10, users=40))
    other = Path("new/bundles/shop-31")
    other.mkdir()
    (other / "manifest.json").write_text("{}")
    Path("broken.json").write_text("{}")
    assert cli.execute(["compare", *arguments]) == 2
    assert sentence in " ".join(capsys.readouterr().err.split())
