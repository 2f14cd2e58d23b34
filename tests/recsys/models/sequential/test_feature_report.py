from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.models.registry import estimator_for
from recsys.models.sequential.build import build_model, item_features
from recsys.models.sequential.feature_encoders import fit_encoders
from recsys.pipelines import cli
from recsys.settings import Settings
from recsys.settings.read import load_settings

CONFIG = """
name = "ring"
warehouse = "warehouse"
[interactions]
source = "log.csv"
[items]
source = "items.jsonl"
text = ["title"]
[items.categorical]
kind = {}
[model]
dimensions = 16
text = false
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Users on a ring of 60 items of two kinds; ten more items of a third kind are in the catalogue alone."""
    monkeypatch.chdir(tmp_path)
    lines = ["user_id,item_id,timestamp"]
    lines += [f"{user},i{(user + n) % 60},{1_600_000_000 + n}" for user in range(60) for n in range(6)]
    Path("log.csv").write_text("\n".join(lines) + "\n")
    items = [{"item_id": f"i{n}", "title": f"Item {n}", "kind": ["even", "odd"][n % 2]} for n in range(60)]
    items += [{"item_id": f"new{n}", "title": f"New {n}", "kind": "rare"} for n in range(10)]
    Path("items.jsonl").write_text("\n".join(map(json.dumps, items)))
    Path("recsys.toml").write_text(CONFIG)
    return "recsys.toml"


def report(config: str, *overrides: str, memory: float | None = None) -> tuple[Settings, dict[str, Any]]:
    settings = load_settings(config, overrides)
    return settings, estimator_for(settings).feature_report(ingest(settings).versions, memory)


def test_the_report_tells_of_the_table_that_would_be_trained(config: str) -> None:
    settings, told = report(config)
    ids, kinds = told["features"]
    assert (ids["feature"], ids["values"], ids["lookups"]) == ("item_id", 70, 2)
    assert (kinds["feature"], kinds["values"], kinds["lookups"]) == ("kind", 3, 2)
    assert ids["unseen"] == 10 * 2 and kinds["unseen"] == 10 * 2  # of the ten new items, whose kind nobody had
    assert ids["bytes"] == ids["rows"] * 8 * 4
    assert 0 < told["table"]["used_share"] < 1
    from recsys.data.prepare import prepare

    dataset = prepare(settings, ingest(settings).versions)
    features = item_features(dataset, fit_encoders(settings, dataset), None)
    table = build_model(settings, features).tower.table
    assert table is not None
    assert (told["table"]["rows"], told["table"]["width"]) == (table.rows, table.width)
    assert report(config, "model.table_rows=50")[1]["table"]["rows"] == 50
    assert [use["feature"] for use in report(config, "model.ids=false")[1]["features"]] == ["kind"]
    json.dumps(told, allow_nan=False)


def test_a_suggestion_can_be_set(config: str) -> None:
    _, told = report(config, memory=0.004)
    suggestion = told["suggestion"]
    assert suggestion["bytes"] <= 4000 and suggestion["confused_expected"]["item_id"] < 1
    _, after = report(config, *(f"model.{k}={suggestion[k]}" for k in ("id_lookups", "table_rows")))
    assert after["table"]["bytes"] == suggestion["bytes"]
    assert [entry["share"] for entry in told["budgets"]] == [1.0, 0.5, 0.25, 0.1]


def test_what_has_no_table_or_no_memory_is_one_sentence(config: str) -> None:
    for overrides, memory, message in (
        ((), 0.000_5, r"0.0005 MB hold fewer than 16 rows of the table; allow at least 0\.001 MB"),
        (("model.ids=false", "model.attributes=false", "model.text=true"), None, "no feature in the multiplexed table"),
        (("model.kind=text",), None, 'model.kind = "text" has no multiplexed table'),
    ):
        with pytest.raises(InputError, match=message):
            report(config, *overrides, memory=memory)


def test_the_command(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    ingest(load_settings(config, ()))
    assert cli.execute(["features", config, "--memory", "0.01", "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["suggestion"]["memory"] == 10_000
    assert cli.execute(["features", config]) == 0
    shown = capsys.readouterr().out
    assert "item_id" in shown and "--set model.id_lookups=2" in shown


def test_the_command_without_tables(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.execute(["features", config, "--json"]) == 2
    assert "recsys ingest" in json.loads(capsys.readouterr().out)["error"]
