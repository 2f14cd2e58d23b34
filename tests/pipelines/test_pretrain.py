"""`recsys pretrain` from files to a folder, and `recsys train` from that folder."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient

from recsys.pipelines import cli

PRETRAIN = """
name = "words"
data_root = "."
warehouse = "store"
[catalogues.one]
interactions = { source = "one.json", format = "json" }
items = { source = "one-items.json", format = "json", text = ["title"] }
[catalogues.two]
held_out = true
interactions = { source = "two.json", format = "json" }
items = { source = "two-items.json", format = "json", text = ["title"] }
[recformer]
dimensions = 16
heads = 2
layers = 1
vocabulary = 300
max_items = 4
max_tokens = 24
[train]
steps = 6
batch_size = 16
learning_rate = 0.003
evaluate_every = 3
evaluate_pairs = 32
[tracking]
uri = "sqlite:///mlflow.db"
"""
TRAIN = """
name = "shop"
warehouse = "shop"
[interactions]
source = "two.json"
format = "json"
[items]
source = "two-items.json"
format = "json"
text = ["title"]
[model]
kind = "recformer"
[recformer]
init = "store/pretrained/words"
max_items = 3
max_tokens = 24
second_stage_epochs = 1
[train]
epochs = 1
batch_size = 16
learning_rate = 0.001
[tracking]
uri = "sqlite:///mlflow.db"
"""


def write_shop(name: str, seed: int) -> None:
    generator = np.random.default_rng(seed)
    kinds = generator.permutation(["lamp", "drill", "brush", "valve", "spoon", "tent"])
    titles = [f"{generator.choice(['red', 'blue', 'new'])} {kinds[n % 6]} {n}" for n in range(30)]
    histories = {f"u{n}": [f"i{6 * k + n % 6}" for k in generator.permutation(5)] for n in range(40)}
    Path(f"{name}.json").write_text(json.dumps(histories))
    Path(f"{name}-items.json").write_text(json.dumps({f"i{n}": title for n, title in enumerate(titles)}))


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert cli.execute([*arguments, "--json"]) == 0, capsys.readouterr()
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.mark.integration
def test_what_is_pretrained_is_what_a_training_starts_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], database: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(database, "mlflow.db")
    write_shop("one", 0)
    write_shop("two", 1)
    Path("words.toml").write_text(PRETRAIN)
    Path("shop.toml").write_text(TRAIN)
    report = answer(capsys, "pretrain", "words.toml")
    assert report["steps"] == 6 and report["resumed"] is None
    assert report["catalogues"]["one"]["events"] == 40 * 3  # the last two of each user are nobody's to learn from
    assert report["catalogues"]["two"]["events"] == 40 * 5
    assert [entry["step"] for entry in report["history"]] == [0, 3, 6]
    folder = Path(report["folder"])
    assert folder.parent == Path("store/pretrained") and (folder / "weights.safetensors").is_file()
    assert json.loads(Path("store/pretrained/words.latest.json").read_text()) == {"path": folder.name}
    client = MlflowClient("sqlite:///mlflow.db")
    curve = client.get_metric_history(report["mlflow_run"], "val/contrastive_accuracy")
    assert [point.step for point in curve] == [0, 3, 6]
    assert client.get_run(report["mlflow_run"]).data.params["recformer.max_items"] == "4"
    again = answer(capsys, "pretrain", "words.toml")
    assert again["identity"] == report["identity"] and again["folder"] == report["folder"]

    answer(capsys, "ingest", "shop.toml")
    trained = answer(capsys, "train", "shop.toml")
    assert [entry["stage"] for entry in trained["history"]] == [0, 1, 2]
    features = json.loads((Path(trained["bundle"]) / "features.json").read_text())
    assert features["init"] == folder.name
    assert features["shape"]["items"] == 3 and features["shape"]["dimensions"] == 16
    found = answer(capsys, "recommend", trained["bundle"], "--history", "i1,i7", "-k", "3")
    assert len(found["items"]) == 3


def test_an_unknown_key_names_the_nearest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("words.toml").write_text(PRETRAIN)
    assert cli.execute(["pretrain", "words.toml", "--set", "train.stepps=3", "--json"]) == 2
    assert "did you mean train.steps?" in json.loads(capsys.readouterr().out)["error"]
