"""A shop after a night whose users have conspicuous ids: where they stand, and that `forget` leaves none anywhere."""

from __future__ import annotations

import io
import json
import logging
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, chdir, closing, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tomlkit

from recsys.audit import forgetting
from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import latest_bundle
from recsys.errors import RecsysError
from recsys.exports.sqlite import SqliteSink
from recsys.forgetting.sought import Sought
from recsys.ingestion.ingest import ingest
from recsys.observe.lines import JsonLines
from recsys.pipelines import cli, nightly
from recsys.pipelines import forget as module
from recsys.pipelines.check import check
from recsys.pipelines.evaluate import evaluate_alone
from recsys.pipelines.forget import forget
from recsys.releases.record import champion
from recsys.service.following import ChampionSource
from recsys.service.models import RecommendRequest
from recsys.service.served import load
from recsys.settings import Settings
from recsys.settings.read import load_settings
from recsys.storage.warehouse import scan
from recsys.tracking.log import open_store
from tests.recsys.gate import shop

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PREFIX = "user-secret-"
SECRET = f"{PREFIX}4711"  # the first user by id, who is in every sample
ITEM = "item-recalled-77"
ODD = (  # rows that nobody can read, of users who have sound ones
    f"{PREFIX}5002,i3",
    f"{PREFIX}5003;i3;100",
    f",i3,{PREFIX}5004",
    f"{PREFIX}5005,i3,100,x",
    f'"{PREFIX}5006""x",i3,no',
)


def write_log(folder: Path, *more: str) -> None:
    """The shop's log with telling ids: users by name, one of them the conspicuous one, and one conspicuous item."""
    lines = ["user_id,item_id,timestamp"]
    for user, history in enumerate(shop.histories()):
        name = SECRET if user == 7 else f"{PREFIX}{5000 + user}"
        times = [1_700_000_000 + shop.HALF_A_DAY * n + 300 * user for n in range(shop.EVENTS)]
        lines += [f"{name},{_item(item)},{time}" for item, time in zip(history, times, strict=True)]
    (folder / "log.csv").write_text("\n".join([*lines, *more]) + "\n")


def _item(item: int) -> str:
    return ITEM if item == 77 else f"i{item}"


def write_config(folder: Path, **more: Any) -> Settings:
    tree = shop.tree(folder) | {
        "gate": {"enabled": False},
        "tracking": {"uri": f"sqlite:///{folder}/mlflow.db"},
        "export": {
            "files": {"kind": "files", "path": str(folder / "out")},
            "lite": {"kind": "sqlite", "path": str(folder / "lite.db"), "layout": "wide"},
            "duck": {"kind": "duckdb", "path": str(folder / "duck.db")},
            "lake": {"kind": "delta", "path": str(folder / "lake")},
        },
    }
    tree["interactions"] = {"source": "log.csv", "max_rejected_share": 0.5}
    (folder / "recsys.toml").write_text(tomlkit.dumps(tree | more))
    return load_settings(folder / "recsys.toml")


@pytest.fixture(scope="module")
def after_a_night(tmp_path_factory: pytest.TempPathFactory, database: Path) -> tuple[Path, str]:
    """A folder with everything, and all that the night said."""
    folder = tmp_path_factory.mktemp("secret")
    shutil.copy(database, folder / "mlflow.db")
    write_config(folder)
    write_log(folder, f"{SECRET},i3,oops", f"{PREFIX}5001,i3,oops", *ODD)
    said = io.StringIO()
    with ExitStack() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.enter_context(chdir(folder))  # MLflow's files are put where the process runs
        for heard in (logging.StreamHandler(said), lines := logging.StreamHandler(said)):
            logging.getLogger().addHandler(heard)
            patch.callback(logging.getLogger().removeHandler, heard)
        lines.setFormatter(JsonLines())
        for command in (["run", "--no-prefect"], ["status"], ["status", "--json"], ["check", "--deep"], ["gc"]):
            assert cli.execute([command[0], str(folder / "recsys.toml"), *command[1:]]) == 0, said.getvalue()
    prepared = folder / "warehouse" / "prepared" / "log-1234"
    prepared.mkdir(parents=True)  # arrays that hold histories
    (prepared / "users.arrow").write_bytes(b"\0\0" + SECRET.encode())
    return folder, said.getvalue()


@pytest.fixture
def folder(after_a_night: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder as it was after the night, for one test."""
    source = after_a_night[0]
    aside = source.with_name(source.name + "-aside")
    shutil.copytree(source, aside, symlinks=True)
    monkeypatch.chdir(source)
    yield source
    shutil.rmtree(source)
    aside.rename(source)


def test_ids_stand_in_tables_exports_and_the_values_beside_them_alone(
    folder: Path, after_a_night: tuple[Path, str]
) -> None:
    said = after_a_night[1]
    assert "MLflow run" in said and '{"time": ' in said
    assert PREFIX not in said  # neither the terminal nor a log names anybody, in words or in JSON
    settings = load_settings(folder / "recsys.toml")
    held = {str(path.relative_to(folder)).partition("/")[0] for path in naming(folder, PREFIX)}
    assert held == {"log.csv", "warehouse", "lite.db", ".out.versions", ".duck.db.versions", "lake"}
    inside = {path.relative_to(folder / "warehouse").parts[0] for path in naming(folder / "warehouse", PREFIX)}
    assert inside == {"interactions", "quarantine", "candidates", "evaluations", "prepared"}
    # asked for, they are shown
    with_ids = settings.model_copy(update={"report": settings.report.model_copy(update={"show_user_ids": True})})
    told = evaluate_alone(with_ids)
    assert all(str(one["user_id"]).startswith(PREFIX) for one in told["examples"])


def test_a_refused_log_says_why_without_naming_anybody(folder: Path) -> None:
    settings = load_settings(folder / "recsys.toml", ["interactions.max_rejected_share=0.0"])
    with pytest.raises(RecsysError, match=r"for example log.csv line \d+: '<user>,i3,oops'") as refused:
        ingest(settings)
    assert PREFIX not in str(refused.value)


def test_a_forgotten_user_is_nowhere_and_stays_away(folder: Path) -> None:
    settings = load_settings(folder / "recsys.toml")
    dry = forget(settings, [SECRET], dry_run=True)
    assert not dry["clean"] and len(naming(folder / "warehouse", SECRET)) > 3
    counted = {one["name"]: one["found"] for one in dry["places"]}
    assert counted[str(folder / "warehouse" / "interactions")] == shop.EVENTS
    report = forget(settings, [SECRET])
    assert report["clean"], report
    assert report["removed"] == {"interactions": 13, "quarantine": 1, "candidates": 10}
    went = {one["name"]: one["removed"] for one in report["places"]}
    assert went == counted  # the dry run told the truth
    (folder / "log.csv").unlink()  # the source is the owner's
    assert naming(folder, SECRET) == []
    assert {run.info.run_id for run in quoted(settings, SECRET)} == set()
    proof = json.loads(Path(report["proof"]).read_text())
    assert proof["clean"] and len(proof["hashes"]) == 1 and SECRET not in json.dumps(proof)
    write_log(folder)
    assert ingest(settings).rows_added == {"interactions": 0}
    again = forget(settings, [SECRET])  # a second call finds nothing to do
    assert again["clean"] and not sum(again["removed"].values())


def test_forgotten_items_and_old_events_are_gone_for_good(folder: Path) -> None:
    settings = load_settings(folder / "recsys.toml")
    whole = scan(settings.warehouse, "interactions").collect()
    floor = whole["timestamp"].min() + (whole["timestamp"].max() - whole["timestamp"].min()) / 2
    served = load(ChampionSource(settings).target())  # type: ignore[arg-type]
    assert ITEM in served.recommender.bundle.vocabulary.items
    report = forget(settings, items=[ITEM], before=floor.isoformat())
    assert report["clean"], report
    left = whole.filter(pl.col("item_id") != ITEM, pl.col("timestamp") >= floor)
    assert report["removed"]["interactions"] == len(whole) - len(left)
    assert scan(settings.warehouse, "interactions").collect().sort("position").equals(left.sort("position"))
    assert not scan(settings.warehouse, "candidates").filter(pl.col("item_id") == ITEM).collect().height
    assert ITEM not in pl.read_parquet(folder / "out")["item_id"].to_list()
    with closing(sqlite3.connect(folder / "lite.db")) as lite:
        assert ITEM not in str(lite.execute("select * from candidates").fetchall())
    assert any("bundles that list an item" in note for note in report["notes"])
    write_log(folder)
    assert ingest(settings).rows_added == {"interactions": 0}  # neither comes back
    now = load(ChampionSource(settings).target(), served)  # type: ignore[arg-type]
    history = list(now.recommender.bundle.vocabulary.items[:3])
    answer, _ = now.answer([RecommendRequest(history=history, k=200)])[0]
    assert ITEM not in [one["item_id"] for one in answer.items]  # type: ignore[union-attr]
    nightly.night(settings)
    bundle = read_bundle(latest_bundle(settings.warehouse, settings.name))
    assert ITEM not in bundle.vocabulary.items
    assert forget(settings, items=[ITEM])["clean"]
    assert [path.name for path in (folder / "warehouse" / "bundles").glob("shop-*") if ITEM in listed(path)] == []


def listed(bundle: Path) -> list[str]:
    return list(pl.read_parquet(bundle / "vocabulary.parquet")["item_id"])


@pytest.mark.parametrize("place", range(0, 17, 4))
def test_a_kill_anywhere_is_made_good_by_the_second_call(
    folder: Path, monkeypatch: pytest.MonkeyPatch, place: int
) -> None:
    settings, found = load_settings(folder / "recsys.toml"), forgetting.places

    def killed(asked: forgetting.Asked) -> list[Any]:
        some = found(asked)
        at = min(place, len(some) - 1)

        def die() -> int:
            some[at].remove()  # done, and nobody is told
            raise KeyboardInterrupt

        return [*some[:at], forgetting.replace(some[at], remove=die), *some[at + 1 :]]

    monkeypatch.setattr(module, "places", killed)
    with pytest.raises(KeyboardInterrupt):
        forget(settings, [SECRET])
    monkeypatch.setattr(module, "places", found)
    assert "a `recsys forget` left something" in [one["what"] for one in check(settings)["findings"]]
    assert forget(settings, [SECRET])["clean"]
    assert check(settings)["sound"]
    (folder / "log.csv").unlink()
    assert naming(folder, SECRET) == []
    assert champion(settings) is not None


def test_a_target_that_is_down_is_said_and_the_next_call_finishes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def down(*_: Any, **__: Any) -> Any:
        raise RecsysError("The database does not answer.")

    arguments = ["forget", str(folder / "recsys.toml"), "--user", SECRET, "--json"]
    with monkeypatch.context() as patch:
        patch.setattr(SqliteSink, "database", down)
        capsys.readouterr()
        assert cli.execute(arguments) == 1
    report = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in report["places"] if one["error"]] == ["export.lite (sqlite)"]
    assert "export.lite (sqlite) may still hold it: The database does not answer." in report["sentence"]
    assert SECRET.encode() in (folder / "lite.db").read_bytes()
    assert cli.execute(["check", str(folder / "recsys.toml"), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [one["what"] for one in findings if one["part"] == "forgotten"] == ["a `recsys forget` left something"]
    assert cli.execute(arguments) == 0
    assert SECRET.encode() not in (folder / "lite.db").read_bytes()
    capsys.readouterr()
    assert cli.execute(["check", str(folder / "recsys.toml"), "--json"]) == 0, capsys.readouterr().out


def test_wrong_questions_remove_nothing(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = str(folder / "recsys.toml")
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{SECRET}\nnobody\n\n")
    before = len(naming(folder, SECRET))
    for arguments, said in (
        (["--user", "nobody"], "The user that was given is in no table"),
        (["--user", SECRET, "--user", "nobody", "--user", "noone"], "user 2 of the 3 that were given, and 1 more"),
        (["--items", "nothing"], "The item that was given is in no table"),
        (["--before", "soon"], "--before soon is no date"),
        (["--before", "2999-01-01"], "is in the future"),
        (["--users", str(tmp_path / "absent")], "cannot be read"),
        ([], "Nothing is to be forgotten"),
    ):
        assert cli.execute(["forget", config, *arguments]) == 2
        assert said in " ".join(capsys.readouterr().err.split())
    assert cli.execute(["forget", config, "--users", str(ids), "--dry-run"]) == 0
    assert len(naming(folder, SECRET)) == before
    assert cli.execute(["forget", config, "--users", str(ids)]) == 0  # of a list, some may be unknown
    assert "ids that no table has" in capsys.readouterr().out


def naming(folder: Path, text: str) -> list[Path]:
    """Files that hold a text, Parquet and databases by their content, too; MLflow's files included."""
    found = []
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or path.is_symlink():
            continue
        content = path.read_bytes()
        if path.suffix == ".parquet":
            content += str(pl.read_parquet(path).to_dicts()).encode()
        if text.encode() in content:
            found.append(path)
    return found


def quoted(settings: Settings, user: str) -> list[Any]:
    """Runs of MLflow with a file that shows a user by the pseudonym."""
    store = open_store(settings)
    sought = Sought(users=frozenset([user]))
    asked = forgetting.Asked(
        settings=settings,
        sought=sought,
        called=module.pseudonyms(module.runs.state_folder(settings.warehouse)),
        store=store,
        candidates=lambda: None,  # type: ignore[arg-type, return-value]
    )
    place = next(one for one in forgetting.places(asked) if one.name.startswith("MLflow"))
    return list(range(place.count()))
