"""A command that cannot work leaves no trace: neither beside the configuration nor in the working directory."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.pipelines.cli import execute

LOG = "user_id,item_id,timestamp\n" + "".join(f"u{user},i{item},{item}\n" for user in range(4) for item in range(4))
SHOP = 'name = "shop"\n[interactions]\nsource = "log.csv"\n'
WRONG = {  # what is wrong: the configuration, and a word of the sentence
    "key": (SHOP + "[train]\nepoch = 1\n", "did you mean train.epochs"),
    "value": (SHOP + '[train]\nepochs = "many"\n', "train.epochs = 'many'"),
    "TOML": (SHOP + "[train\n", "not valid TOML"),
    "source": (SHOP.replace("log", "lag"), "There is no lag.csv"),
    "pattern": (SHOP.replace("log", "l*g*x"), "matches no file"),
    "column": (SHOP + 'columns = { user_id = "customer" }\n', "no column 'customer'"),
    "time zone": (SHOP + 'timezone = "Mars/Olympus"\n', "is not a time zone"),
    "catalogue": (SHOP + '[items]\nsource = "items.csv"\ntext = ["title"]\n', "There is no items.csv"),
    "id map": (SHOP + '[items]\nsource = "log.csv"\nid_map = { source = "map.csv" }\n', "There is no map.csv"),
    "rule's list": (SHOP + '[rules.shown]\nkind = "allow"\nitems = "shown.txt"\n', "rules.shown.items names"),
    "users' list": (SHOP + '[retrieve]\nusers = "users.txt"\n', "retrieve.users names"),
    "index": (SHOP + '[retrieve]\nindex = "none such"\n', "is no index that FAISS"),
    "no fallback": (SHOP + '[retrieve]\nfallback = false\nunknown_user = "x"\n', "retrieve.fallback = false; leave"),
    "segment": (SHOP + '[retrieve]\nsegment = "land"\n', "retrieve.segment = 'land' is no categorical attribute"),
    "export": (SHOP + '[export]\npath = "log.csv"\n', "holds something that no export has written"),
    "tracking": (SHOP + '[tracking]\nuri = "mlruns"\n', "is a plain folder"),
    "text model": (SHOP + '[text]\nmodel = "./models/small"\n', "There is no folder ./models/small"),
    "warm start": (SHOP + '[train]\nwarm_start = "bundles/shop"\n', "There is no bundle bundles/shop"),
    "state root": ('state_root = "s3://bucket"\n' + SHOP, "it is a folder of this machine"),
}
OF_SOURCES = ("source", "pattern", "column", "time zone", "catalogue", "id map", "tracking")
ON_TABLES = ["represent", "train", "evaluate", "refit", "retrieve", "export", "refresh", "tune", "gc", "report"]
ON_TABLES += ["rollback --why x", "promote r1 --why x", "forget --user u1", "features"]


def test_folders_that_stand_for_columns_are_columns(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for user in range(4):
        part = folder / "shop" / "log" / f"user_id=00{user}" / "part.parquet"
        part.parent.mkdir(parents=True)
        pl.DataFrame({"item_id": ["a", "b", "c"], "timestamp": [1, 2, 3]}).write_parquet(part)
    (folder / "shop" / "recsys.toml").write_text(SHOP.replace("log.csv", "log/*/*.parquet"))
    assert execute(["ingest", str(folder / "shop" / "recsys.toml")]) == 0, capfd.readouterr().err


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "home").mkdir()
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "log.csv").write_text(LOG)
    monkeypatch.chdir(tmp_path / "home")
    monkeypatch.setenv("PREFECT_API_URL", "")
    return tmp_path


def content(folder: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


@pytest.mark.parametrize(
    ("command", "what"),
    [
        *(("run", what) for what in WRONG),
        *(("ingest", what) for what in OF_SOURCES),
        ("backtest", "source"),
        ("backtest", "segment"),
    ],
)
def test_a_wrong_configuration_writes_nothing(
    command: str, what: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    text, said = WRONG[what]
    (folder / "shop" / "recsys.toml").write_text(text)
    before = content(folder)
    code = execute([command, "../shop/recsys.toml"])
    assert (code, said in " ".join(capfd.readouterr().err.split())) == (2, True)
    assert content(folder) == before


@pytest.mark.parametrize("command", ON_TABLES)
def test_a_command_that_needs_a_warehouse_makes_none(command: str, folder: Path) -> None:
    (folder / "shop" / "recsys.toml").write_text(SHOP)
    before = content(folder)
    name, *more = command.split()
    assert execute([name, "../shop/recsys.toml", *more]) == 2
    assert content(folder) == before


def test_what_is_written_lies_beside_the_configuration(folder: Path) -> None:
    (folder / "shop" / "recsys.toml").write_text(SHOP)
    assert execute(["ingest", str(folder / "shop" / "recsys.toml")]) == 0
    assert {path.name for path in (folder / "shop").iterdir()} == {"log.csv", "recsys.toml", "warehouse", "mlruns"}
    assert list((folder / "home").iterdir()) == []
