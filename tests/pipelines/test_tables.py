"""Commands on the tables: rejected rows by reason, reading anew, forgetting users, and damaged tables."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.evaluation.users import UserValues, to_parquet, write_file
from recsys.exports.files import Candidates, export
from recsys.pipelines import cli
from recsys.settings.read import load_settings
from recsys.storage.stream import overwrite_streamed
from recsys.storage.warehouse import SCHEMAS, scan
from recsys.tracking import log as tracking

pytestmark = pytest.mark.integration

CONFIG = """
name = "shop"
data_root = {folder!r}
warehouse = {warehouse!r}
[interactions]
source = "log.csv"
max_rejected_share = 0.9
timezone = "UTC"
[export]
path = {export!r}
[tracking]
uri = "sqlite:///{folder}/mlflow.db"
"""
LOG = "user_id,item_id,timestamp\nann,1,2024-01-01 10:00:00\nbob,2,2024-01-02 10:00:00\nTotal,2,\nbob,3,oops\n,3,oops\n"


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, database: Path) -> str:
    folder = tmp_path_factory.mktemp("shop")
    shutil.copy(database, folder / "mlflow.db")
    path = folder / "recsys.toml"
    path.write_text(
        CONFIG.format(folder=str(folder), warehouse=str(folder / "warehouse"), export=str(folder / "export"))
    )
    (folder / "log.csv").write_text(LOG)
    return str(path)


def answer(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, Any]]:
    capsys.readouterr()
    code = cli.execute([*arguments, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_commands_on_tables(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    folder = Path(config).parent
    warehouse = str(folder / "warehouse")
    assert cli.execute(["ingest", config]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[lines.index(next(line for line in lines if line.startswith("rejected "))) :][:3] == [
        "rejected       interactions: missing timestamp, 1 row",
        "               interactions: missing user_id, 1 row",
        "               interactions: unparsable time, 1 row",
    ]
    code, report = answer(capsys, "ingest", config)
    assert code == 0 and report["reasons"]["interactions"]["unparsable time"] == 1
    store = tracking.open_store(load_settings(config))
    told = store.client.get_run(report["mlflow_run"]).data.tags[tracking.DESCRIPTION_TAG]
    assert "- interactions: unparsable time, 1 row" in told

    code, report = answer(capsys, "ingest", config, "--set", "interactions.timezone=Europe/Berlin")
    assert code == 2 and "interactions.timezone ('UTC' -> 'Europe/Berlin') has changed" in report["error"]
    berlin = ("--set", "interactions.timezone=Europe/Berlin")
    code, report = answer(capsys, "ingest", config, "--rebuild", *berlin)
    assert (code, report["rows_added"]) == (0, {"interactions": 2})

    schema = {**SCHEMAS["candidates"], "user_id": pl.String(), "item_id": pl.Int64()}
    for run in ("r1", "r2"):
        rows = [{"run": run, "user_id": user, "rank": 1, "item_id": 3, "score": 1.0} for user in ("ann", "bob")]
        frames = iter([pl.DataFrame(rows, schema=schema)])
        version = overwrite_streamed(warehouse, "candidates", schema, frames, metadata={"name": "shop"})
        export(load_settings(config), Candidates(path=f"{warehouse}/candidates", version=version))
    commit = folder / "warehouse" / "candidates" / "_delta_log" / f"{1:020d}.json"
    content = commit.read_bytes()
    commit.write_bytes(b"")
    code, report = answer(capsys, "export", config)
    assert code == 1 and "recsys retrieve" in report["error"]
    commit.write_bytes(content)
    evaluation = folder / "warehouse" / "evaluations" / "shop-0.parquet"
    both = pl.DataFrame({"user_id": ["ann", "bob"], "target": ["3", "3"], "rank": [1, 2]})
    write_file(evaluation, to_parquet(UserValues(frame=both, about={})))
    code, report = answer(capsys, "forget", config, "--user", "ann", *berlin)
    assert code == 0 and report["clean"]
    assert [one["removed"] for one in report["places"] if one["name"].endswith("evaluations")] == [1]
    assert pl.read_parquet(evaluation)["user_id"].to_list() == ["bob"]
    assert '"ann"' not in Path(report["proof"]).read_text() and json.loads(Path(report["proof"]).read_text())["clean"]
    assert report["removed"] == {"interactions": 1, "quarantine": 0, "candidates": 1}
    assert pl.read_parquet(folder / "export")["user_id"].to_list() == ["bob"]
    assert len(list((folder / ".export.versions").glob("v*"))) == 1
    assert scan(warehouse, "interactions").collect()["user_id"].to_list() == ["bob"]
    code, report = answer(capsys, "forget", config, "--user", "nobody", *berlin)
    assert code == 2 and "is in no table" in report["error"]

    for file in (folder / "warehouse" / "interactions").glob("*.parquet"):
        file.write_bytes(b"")
    code, report = answer(capsys, "ingest", config, *berlin)
    assert code == 1 and "has 0 bytes" in report["error"] and "--rebuild" in report["error"]
    code, report = answer(capsys, "ingest", config, "--rebuild", *berlin)  # as the sentence says
    assert (code, report["rows_added"], report["forgotten"]) == (0, {"interactions": 1}, 1)
