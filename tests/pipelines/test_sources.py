"""Nights whose log and catalogue come from a real server of PostgreSQL, with a password from a block of Prefect."""

from __future__ import annotations

import contextlib
import gc
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from adbc_driver_postgresql import dbapi
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL
from prefect.testing.utilities import prefect_test_harness

from recsys.columns import QUARANTINE
from recsys.datasets.synthetic import generate
from recsys.errors import InputError, RecsysError
from recsys.pipelines import cli, nightly, steps
from recsys.pipelines.orchestration.secrets import secret_block
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.environment import expanded
from recsys.storage.warehouse import scan
from tests.servers import OWNER, PASSWORD, WRITTEN, Postgresql

pytestmark = [
    pytest.mark.integration,
    # Prefect's clients leave their connections to the garbage collector
    pytest.mark.filterwarnings("ignore:unclosed <socket:ResourceWarning"),
    pytest.mark.filterwarnings("ignore:.*socket.socket:pytest.PytestUnraisableExceptionWarning"),
]

CONFIG = """
name = "shop"
warehouse = {folder!r}
[interactions]
source = "postgresql://{owner}:${{prefect:shop-password}}@127.0.0.1:{port}/postgres"
query = "select * from log where item_id <> 'nothing'"
watermark = "timestamp"
[items]
source = "postgresql://{owner}:${{SHOP_PASSWORD}}@127.0.0.1:{port}/postgres"
table = "public.goods"
text = ["title"]
[text]
dimensions = 16
[model]
max_length = 20
dimensions = 16
text = false
[train]
epochs = 1
refit = "none"
[evaluate]
baselines = ["popularity"]
[retrieve]
k = 5
[retrieve.users]
source = "${{SHOP_DB}}"
query = "select distinct user_id from log where user_id < 'u00050'"
[tracking]
uri = "sqlite:///{folder}/mlruns/mlflow.db"
"""


NEW = "insert into log select distinct user_id, 'new', (select max(timestamp) from log), 'view' from log limit 3"


@pytest.fixture(scope="module")
def harness() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=1800):
        Secret(value=WRITTEN).save("shop-password", overwrite=True)
        yield
        gc.collect()


def fill(server: Postgresql, folder: Path) -> pl.DataFrame:
    generate(folder, users=100, items=220)
    log = pl.read_csv(folder / "interactions.csv", try_parse_dates=True, schema_overrides={"user_id": pl.String})
    goods = pl.read_ndjson(folder / "items.jsonl")
    with contextlib.closing(dbapi.connect(server.address(), autocommit=True)) as connection:
        for name, frame in (("log", log), ("goods", goods)):
            with contextlib.closing(connection.cursor()) as cursor:
                cursor.adbc_ingest(name, frame.to_arrow(), mode="create")
    return log


def told(folder: Path) -> str:
    """All that the files of a folder say; Parquet unpacked."""
    texts = []
    for path in sorted(folder.rglob("*")):
        if path.suffix == ".parquet":
            texts.append(repr(pl.read_parquet(path).to_dicts()))
        elif path.is_file():
            texts.append(path.read_bytes().decode("utf-8", "replace"))
    return "\n".join(texts)


def shop_of(server: Postgresql, folder: Path, database: Path) -> tuple[str, Path, pl.DataFrame]:
    """A configuration, its warehouse, and the log that the server has; one more event has no user."""
    log = fill(server, folder)
    server.query("insert into log select null, item_id, timestamp, event from log limit 1")
    warehouse = folder / "warehouse"
    (warehouse / "mlruns").mkdir(parents=True)
    shutil.copy(database, warehouse / "mlruns" / "mlflow.db")
    config = folder / "recsys.toml"
    config.write_text(CONFIG.format(folder=str(warehouse), owner=OWNER, port=server.port))
    return str(config), warehouse, log


def refused(settings: Settings, *_: Any) -> dict[str, Any]:
    raise RecsysError("There is no room.")


def test_a_login_is_kept_nowhere(
    postgresql: Postgresql, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config, warehouse, log = shop_of(postgresql, tmp_path, database)
    monkeypatch.setenv("SHOP_PASSWORD", WRITTEN)
    address = f"postgresql://{OWNER}:{WRITTEN}@127.0.0.1:{postgresql.port}/postgres"  # by the command, in clear
    command = ["ingest", config, "--set", f"interactions.source={address}"]
    assert cli.execute(command) == 0
    postgresql.query(NEW)
    assert cli.execute(command) == 0
    assert len(scan(str(warehouse), "interactions").collect()) == log.unique().height + 3
    sources = scan(str(warehouse), QUARANTINE).collect()["source"].unique().to_list()
    assert len(sources) == 1 and sources[0].startswith(f"postgresql://127.0.0.1:{postgresql.port}/postgres: query ")
    assert (
        cli.execute(["ingest", config, "--set", f"interactions.source={address.replace(WRITTEN, 'wr0ng-word')}"]) == 2
    )
    printed = "".join(capfd.readouterr())
    assert "password authentication failed" in printed and "read from timestamp = " in printed
    said = told(warehouse) + printed
    for secret in (WRITTEN, PASSWORD, "wr0ng-word"):
        assert secret not in said


@pytest.mark.slow
def test_a_night_from_a_server(
    postgresql: Postgresql, harness: None, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    config, warehouse, log = shop_of(postgresql, tmp_path, database)
    monkeypatch.setenv("SHOP_PASSWORD", WRITTEN)
    monkeypatch.setenv("SHOP_DB", postgresql.address())
    with monkeypatch.context() as stopped:  # after ingest
        stopped.setattr(nightly, "represent_task", steps.compute_task(refused))
        with pytest.raises(RecsysError, match="no room"):
            nightly.night(load_settings(config))
    summary = nightly.nightly(config)
    assert summary["resumed"] and summary["tables"]["versions"]["interactions"] == 0
    assert summary["tables"]["rejected"]["interactions"] == 1  # by the stopped run, and not read again
    users = log["user_id"].unique()
    assert summary["candidates"]["users"] == len(users.filter(users < "u00050"))
    postgresql.query(
        "insert into log select distinct user_id, 'new', (select max(timestamp) from log), 'view' from log limit 3"
    )
    with monkeypatch.context() as stopped:
        stopped.setattr(nightly, "represent_task", steps.compute_task(refused))
        with pytest.raises(RecsysError, match="no room"):
            nightly.nightly(config)
    assert len(scan(str(warehouse), "interactions").collect()) == log.unique().height + 3

    monkeypatch.setenv("SHOP_PASSWORD", "wr0ng-word")
    assert cli.execute(["ingest", config]) == 2
    printed = "".join(capfd.readouterr())
    assert "password authentication failed" in printed
    with get_client(sync_client=True) as client:
        kept = [repr(run) for run in (*client.read_flow_runs(), *client.read_task_runs(), *client.read_logs())]
    tmp_database = Path(str(PREFECT_API_DATABASE_CONNECTION_URL.value()).partition("///")[2])
    said = "\n".join([told(warehouse), told(tmp_database.parent), printed, repr(summary), *kept])
    for secret in (WRITTEN, PASSWORD, "wr0ng-word", WRITTEN.replace("%", "%%")):
        assert secret not in said


@pytest.mark.slow
def test_secrets_that_are_not_there(harness: None) -> None:
    assert expanded("postgresql://a:${prefect:shop-password}@host", "items.source") == f"postgresql://a:{WRITTEN}@host"
    with pytest.raises(InputError, match="Prefect has no block 'gone' of the kind Secret"):
        secret_block("gone")
    with pytest.raises(InputError, match=r"items\.source needs a secret of the kind 'vault', and there are prefect"):
        expanded("${vault:x}", "items.source")
