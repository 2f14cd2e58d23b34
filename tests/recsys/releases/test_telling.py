"""A real MLflow store after switches: the alias, and who chose what and why, on both runs."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import LoggedModelOutput, LoggedModelStatus

from recsys.pipelines import cli
from recsys.pipelines.promote import promote, rollback
from recsys.releases.record import read, releases
from recsys.releases.telling import tell
from recsys.tracking import log as tracking
from tests.recsys.releases.shop import NAME, Shop

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new MLflow database to copy: making one takes seconds."""
    folder = tmp_path_factory.mktemp("store")
    shop = Shop(folder / "w", tracking={"uri": f"sqlite:///{folder}/mlflow.db"})
    tracking.open_store(shop.settings)
    return folder / "mlflow.db"


class Told:
    """A shop and its store; nights are real runs with registered models."""

    def __init__(self, root: Path, database: Path) -> None:
        (root / "mlruns").mkdir()
        shutil.copy(database, root / "mlruns" / "mlflow.db")
        self.uri = f"sqlite:///{root}/mlruns/mlflow.db"
        self.shop = Shop(root / "w", export={"path": str(root / "export")}, tracking={"uri": self.uri})
        self.store = tracking.open_store(self.shop.settings)
        self.config = root / "recsys.toml"
        self.config.write_text(
            f'name = "{NAME}"\nwarehouse = "{root}/w"\n[interactions]\nsource = "log.csv"\n'
            f'[export]\npath = "{root}/export"\n[tracking]\nuri = "{self.uri}"\n'
        )

    def run(self) -> str:
        """A run that has logged and registered a model, and says something of itself."""
        client, run = self.store.client, tracking.start_run(self.store, "night")
        model = client.create_logged_model(self.store.experiment_id, name=NAME, source_run_id=run)
        client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
        client.log_outputs(run, [LoggedModelOutput(model.model_id, step=0)])
        if not client.search_registered_models(f"name = '{NAME}'"):
            client.create_registered_model(NAME)
        client.create_model_version(NAME, model.artifact_location, run_id=run, model_id=model.model_id)
        tracking.describe(self.store, run, "Its report.")
        return run

    def night(self) -> str:
        run = self.run()
        self.shop.night(run)
        tell(self.shop.settings, self.store)
        return run

    def champion(self) -> str:
        return str(self.store.client.get_model_version_by_alias(NAME, "champion").run_id)

    def tags(self, run: str) -> dict[str, Any]:
        return dict(self.store.client.get_run(run).data.tags)


@pytest.fixture
def told(tmp_path: Path, database: Path) -> Told:
    return Told(tmp_path, database)


def test_alias_and_reasons_follow_what_is_served(told: Told) -> None:
    first, second = told.night(), told.night()
    assert told.champion() == second
    report = rollback(told.shop.settings, "cold items are gone")
    assert told.champion() == first and told.shop.served() == {first}
    assert (report["served"]["run"], report["instead"]["run"], report["finished"]) == (first, second, False)
    who = report["served"]["who"]
    for run, said in ((first, "**Brought back**"), (second, f"**Replaced** by the run {first}")):
        tags = told.tags(run)
        assert (tags["recsys.why"], tags["recsys.by"], tags["recsys.who"]) == ("cold items are gone", "rollback", who)
        note = tags["mlflow.note.content"]
        assert note.startswith(said) and f"by {who}: cold items are gone" in note and note.endswith("Its report.")
    kept = told.run()
    told.shop.kept_back(kept)
    promote(told.shop.settings, kept[:10], "the drift is the sale")
    assert told.champion() == kept and told.shop.served() == {kept}
    assert told.tags(kept)["recsys.by"] == "promote" and "**Promoted**" in told.tags(kept)["mlflow.note.content"]
    before = told.tags(kept)["mlflow.note.content"]
    tell(told.shop.settings, told.store)
    assert told.tags(kept)["mlflow.note.content"] == before


def test_a_rollback_does_not_wait_for_mlflow(told: Told, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = told.night(), told.night()
    (tmp_path / "mlruns" / "mlflow.db").rename(tmp_path / "away.db")
    (tmp_path / "mlruns" / "mlflow.db").write_text("no database")
    assert cli.execute(["rollback", str(told.config), "--why", "wrong"]) == 0
    assert "MLflow is told by the next night" in " ".join(capsys.readouterr().err.split())
    assert told.shop.served() == {first} and read(told.shop.settings).untold == 1
    (tmp_path / "away.db").replace(tmp_path / "mlruns" / "mlflow.db")
    told.store = tracking.open_store(told.shop.settings)
    assert told.champion() == second
    tell(told.shop.settings, told.store)  # as the next night begins
    assert told.champion() == first and told.tags(first)["recsys.why"] == "wrong"


def test_the_commands(told: Told, capsys: pytest.CaptureFixture[str]) -> None:
    def done(*words: str) -> tuple[int, str]:
        code = cli.execute([words[0], str(told.config), *words[1:]])
        out = capsys.readouterr()
        return code, " ".join((out.out + out.err).split())

    code, text = done("releases")
    assert code == 0 and "Nothing of shop is served yet" in text
    code, text = done("rollback", "--why", "x")
    assert code == 2 and "There is no warehouse" in text
    first, second, kept = told.night(), told.night(), told.run()
    told.shop.kept_back(kept)
    code, text = done("rollback", "--why", " ")
    assert code == 2 and "--why is empty" in text
    code, text = done("rollback")
    assert code == 2 and "--why" in text
    code, text = done("promote", second[:8], "--why", "x")
    assert code == 2 and "is served already" in text
    code, text = done("releases")
    assert code == 0 and first in text and "served now" in text and f"Built and not served: {kept}" in text
    code, text = done("rollback", "--to", first[:8], "--why", "x")
    assert code == 0 and f"The run {first} is served now instead of {second} (rollback by" in text
    code, text = done("promote", kept[:8], "--why", "y", "--json")
    assert code == 0 and f'"run": "{kept}"' in text
    assert [one.run for one in releases(told.shop.settings)] == [first, second, first, kept]
