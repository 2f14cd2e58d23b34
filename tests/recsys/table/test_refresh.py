"""Between nights: rows of users with new events are made anew, as the night would; all others stay as they were."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import tomlkit
from deltalake import DeltaTable
from hypothesis import given
from hypothesis import strategies as some

from recsys.errors import InputError, RecsysError
from recsys.exports import several
from recsys.exports.base import Candidates
from recsys.ingestion.ingest import ingest
from recsys.pipelines import refresh as module
from recsys.pipelines.cli import execute
from recsys.pipelines.refresh import refresh_alone
from recsys.releases.commands import rollback
from recsys.releases.record import releases
from recsys.releases.switch import settle
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage import stream
from recsys.storage.warehouse import TableVersions, commit_metadata, commit_properties, latest_version
from recsys.table import build
from recsys.table import refresh as refreshing
from recsys.table.refresh import Changed, Refreshed, changed_since, merged
from tests.recsys.audit.forgetting import forget
from tests.recsys.exports.targets import ROOT
from tests.recsys.table.shops import NAMES, NOW, K, TeaShop, lists

LATER = NOW + timedelta(hours=1)


def refreshed(shop: TeaShop, settings: Settings | None = None) -> Refreshed:
    settings = settings or shop.settings
    versions = shop.read()
    changed = changed_since(settings, versions)
    release = releases(settings)[-1]
    bundle = Path(settings.warehouse, "bundles", Path(release.bundle).name)
    done = refreshing.refresh(settings, versions, changed, bundle, release.run, LATER)
    settle(settings)
    return done


def test_the_rows_of_users_with_new_events_are_those_that_a_night_would_make(shop: TeaShop) -> None:
    before = shop.table()
    shop.buy([("u03", "cup 5", 20), ("one", "tea 4", 20), ("new 'one", "pot 2", 20), ("zed", "gone", 20)])
    shop.buy([("a view", "tea 1", 21)], "view")
    shop.buy([("u05", "tea 1", 22)], "back")  # u05 brings the last thing back
    done = refreshed(shop)
    changed = ["a view", "new 'one", "one", "u03", "u05", "zed"]
    assert done.users.to_list() == changed and (done.new_users, done.gone_users) == (3, 0)
    assert (done.rows, done.replaced, done.version, done.before) == (6 * K, 3 * K, 1, 0)
    after = shop.table()
    is_changed = pl.col("user_id").is_in(changed)
    assert after.filter(~is_changed).equals(before.filter(~pl.col("user_id").is_in(changed)))
    assert after.equals(after.sort("user_id", "rank")) and len(after) == len(before) + 3 * K
    new = after.filter(is_changed)
    assert set(new["as_of"]) == {LATER} and set(new["run"]) == {"run-1"} and new["interactions_version"].n_unique() == 1
    bundle = Path(shop.settings.warehouse, "bundles", before["bundle"][0])
    whole = build.build(shop.settings, shop.read(), bundle, "run-1", LATER)
    night = pl.read_parquet(stream.paths(whole.staged))
    own = ~pl.col("source").str.starts_with("fallback")  # what sells was counted when the bundle was made
    assert new.filter(own).equals(night.filter(is_changed & own)) and len(new.filter(own)) >= 4 * K
    assert set(lists(new)) == set(changed)
    assert "cup 5" not in lists(new)["u03"]  # had


def test_one_commit_says_what_it_is_and_the_release_stays_the_same_one(shop: TeaShop) -> None:
    shop.buy([("u03", "cup 5", 20)])
    refreshed(shop)
    said = commit_metadata(shop.settings.warehouse, "candidates")
    assert (said["run"], said["name"], said["refresh"], said["log"]["version"]) == ("run-1", "tea", 1, 1)
    (release,) = releases(shop.settings)
    assert (release.run, release.version, release.by) == ("run-1", 1, "night")
    assert len(lists(shop.table(0))) == 43  # the old version stays, for readers that have it open
    assert changed_since(shop.settings, shop.read()).nothing
    with pytest.raises(InputError, match="there is nothing to go back to"):
        rollback(shop.settings, None, "why")


def test_a_rollback_after_a_refresh_goes_to_the_release_before_as_it_was_last(shop: TeaShop, first: Any) -> None:
    shop.buy([("u03", "cup 5", 20)])
    refreshed(shop)
    served = shop.table()
    shop.publish(first[1], "run-2", LATER)
    shop.buy([("u04", "cup 5", 21)])
    refreshed(shop)
    assert rollback(shop.settings, None, "why").release.run == "run-1"
    assert shop.table().equals(served)
    found = changed_since(shop.settings, shop.read())  # the rows say what they know
    assert found.users is not None and found.users.to_list() == ["u04"]
    shop.publish(first[1], "run-3", LATER)
    assert [one.run for one in releases(shop.settings)] == ["run-1", "run-2", "run-1", "run-3"]


def test_users_who_left_the_log_lose_their_rows(shop: TeaShop) -> None:
    text = (shop.root / "log.csv").read_text()
    (shop.root / "log.csv").write_text("".join(line for line in text.splitlines(True) if not line.startswith("u07,")))
    versions = ingest(shop.settings, rebuild=True).versions
    changed = changed_since(shop.settings, versions)
    assert changed.users is not None and "u07" in changed.users
    done = refreshing.refresh(shop.settings, versions, changed, first_bundle(shop), "run-1", LATER)
    assert done.gone_users == 1 and "u07" not in lists(shop.table()) and len(lists(shop.table())) == 42


def first_bundle(shop: TeaShop) -> Path:
    return Path(shop.settings.warehouse, "bundles", shop.table()["bundle"][0])


def test_after_a_forget_all_users_are_made_anew_and_the_forgotten_stay_away(shop: TeaShop) -> None:
    shop.buy([("u03", "cup 5", 20)])
    shop.read()
    forget(shop.settings, ["u09"])
    shop.buy([("u09", "cup 5", 21), ("u10", "cup 5", 21)])
    versions = shop.read()
    changed = changed_since(shop.settings, versions)
    assert changed.users is None  # the version that the table was made of is gone
    done = refreshing.refresh(shop.settings, versions, changed, first_bundle(shop), "run-1", LATER)
    table = shop.table()
    assert done.users.len() == 42 == len(lists(table)) and "u09" not in lists(table)
    assert set(table["as_of"]) == {LATER}


def test_some_users_and_the_user_whom_nobody_knows(shop: TeaShop) -> None:
    (shop.root / "some.txt").write_text("u03\nu04\n")
    shop.buy([("u03", "cup 5", 20), ("u05", "cup 5", 20)])
    done = refreshed(shop, shop.with_retrieve(users="some.txt"))
    assert (done.rows, done.gone_users) == (K, 1)  # who is not wanted any more has no rows
    shop.buy([("nobody", "cup 5", 21)])
    with pytest.raises(InputError, match="'nobody' is a user of the log"):
        refreshed(shop, shop.with_retrieve(unknown_user="nobody"))
    shop.buy([("few", "cup 5", 22)])
    assert "few" not in lists(shop.table())
    done = refreshed(shop, shop.with_retrieve(fallback=False))
    assert "few" not in lists(shop.table()) and done.users.to_list() == ["few", "nobody"]


def test_refreshed_rows_obey_the_rules_of_now(shop: TeaShop) -> None:
    before = shop.table()
    shop.buy([("u03", "cup 5", 20), ("new", "zzz", 20)])
    (shop.root / "denied.txt").write_text("tea 1\ntea 2\n")
    tree = shop.settings.model_dump(mode="json") | {"rules": {"denied": {"kind": "deny", "items": "denied.txt"}}}
    done = refreshed(shop, parse_settings(tree))
    after = shop.table()
    new = lists(after, ["u03", "new"])
    assert done.users.to_list() == ["new", "u03"] and all(
        len(set(items) - {"tea 1", "tea 2"}) == K for items in new.values()
    )
    assert lists(after, ["u04"]) == lists(before, ["u04"])
    assert commit_metadata(shop.settings.warehouse, "candidates")["rules"] == "denied"


def test_what_a_killed_refresh_left_is_deleted_and_the_next_ends_as_one_would(
    shop: TeaShop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.buy([("u03", "cup 5", 20)])
    folder = shop.root / "warehouse" / "candidates"

    def killed(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(stream, "publish", killed)  # rows are written, and nobody sees them
        with pytest.raises(KeyboardInterrupt):
            refreshed(shop)
    assert len(list(folder.glob("*.parquet"))) == 2 and len(shop.table()) == 43 * K
    with monkeypatch.context() as patch:
        calls = iter([settle, killed])
        patch.setattr(module, "settle", lambda *given, **more: next(calls)(*given, **more))
        with pytest.raises(KeyboardInterrupt):  # after the commit, before the list of releases
            refresh_alone(shop.settings)
    assert len(list(folder.glob("*.parquet"))) == 2
    report = refresh_alone(shop.settings)
    assert report["users"] == 0 and report["version"] == 1 == releases(shop.settings)[-1].version
    assert not list((shop.root / "warehouse" / "runs" / "refresh").iterdir())
    staged = stream.stage(shop.settings.warehouse, "candidates", dict(shop.table().schema), [shop.table()], token="t0k")
    stream.publish(staged)  # and killed before it says so
    shop.publish(str(first_bundle(shop)), "run-2", LATER)
    stream.discard_unfinished(staged.path, "t0k", 1)
    assert len(shop.table(2)) == 43 * K


KILLED = """
import json, sys
from recsys.pipelines.refresh import refresh_alone
from recsys.settings.read import parse_settings
settings = parse_settings(json.loads(sys.argv[1]))
print("begin", flush=True)
refresh_alone(settings)
print("end", flush=True)
"""


@pytest.mark.slow
def test_a_killed_refresh_leaves_old_rows_or_new_ones_and_the_next_ends_in_the_same_state(shop: TeaShop) -> None:
    database = shop.root / "x.db"
    export = {"files": {"path": str(shop.root / "export")}, "db": {"kind": "sqlite", "path": str(database)}}
    tree = shop.settings.model_dump(mode="json") | {"export": export}
    settings = parse_settings(tree)
    several.export(settings, Candidates(path=f"{settings.warehouse}/candidates", version=0, run="run-1"))
    ended = 0
    for number in range(20):
        before = lists(shop.table())
        shop.buy([("u03", NAMES[number % 6], 20 + number), (f"new{number:02d}", "tea 1", 20)])
        command = [sys.executable, "-c", KILLED, json.dumps(tree)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        assert process.stdout is not None and process.stdout.readline() == "begin\n"
        time.sleep(0.15 * number)
        process.kill()
        ended += "end" in process.stdout.read()
        process.wait()
        process.stdout.close()
        killed = lists(shop.table())
        assert killed.keys() - before.keys() in (set(), {f"new{number:02d}"})  # nothing of it, or all
        assert {user: items for user, items in killed.items() if user not in ("u03", f"new{number:02d}")} == {
            user: items for user, items in before.items() if user != "u03"
        }
        for copy in (_in_files(shop), _in_database(database)):
            assert copy in (before, killed)
        refresh_alone(settings)
        whole = lists(shop.table())
        assert len(whole) == 43 + number + 1 and _in_files(shop) == _in_database(database) == whole
    assert 0 < ended < 20


def _in_files(shop: TeaShop) -> Mapping[str, list[str]]:
    return lists(pl.read_parquet(shop.root / "export"))


def _in_database(path: Path) -> Mapping[str, list[str]]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("select user_id, rank, item_id from candidates").fetchall()
    return lists(pl.DataFrame(rows, schema=["user_id", "rank", "item_id"], orient="row"))


def test_of_refreshed_versions_the_last_two_stay(shop: TeaShop) -> None:
    for day in range(20, 24):
        shop.buy([("u03", "cup 5", day)])
        refreshed(shop)
    kept = [version for version in range(5) if _opens(shop, version)]
    assert kept == [0, 3, 4]  # the night's own, too


def test_a_clean_up_between_two_refreshes_takes_no_version_from_readers(shop: TeaShop) -> None:
    path = str(shop.root / "warehouse" / "candidates")
    for day in (20, 21):
        shop.buy([("u03", "cup 5", day)])
        refreshed(shop)
        said = commit_properties(commit_metadata(shop.settings.warehouse, "candidates"))  # as `recsys gc` does
        DeltaTable(path).vacuum(0, dry_run=False, enforce_retention_duration=False, commit_properties=said)
    assert [one["operation"] for one in DeltaTable(path).history(2)] == ["VACUUM END", "VACUUM START"]
    shop.buy([("u03", "cup 5", 22)])
    done = refreshed(shop)
    assert _opens(shop, done.before) and _opens(shop, done.version)


def _opens(shop: TeaShop, version: int) -> bool:
    try:
        return len(shop.table(version)) > 0
    except (OSError, pl.exceptions.PolarsError):
        return False


def test_nothing_served_a_lost_bundle_and_a_damaged_table_are_a_sentence_each(shop: TeaShop, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Nothing of 'tea' is served yet, so there is nothing to refresh"):
        refresh_alone(TeaShop(tmp_path / "other").settings)
    shop.buy([("u03", "cup 5", 20)])
    bundle = first_bundle(shop)
    (bundle / "manifest.json").rename(bundle / "away")
    with pytest.raises(InputError, match=r"run run-1 cannot be refreshed, as its bundle is not whole .*restore it"):
        refresh_alone(shop.settings)
    assert latest_version(shop.settings.warehouse, "interactions") == 0  # found before anything is read
    (bundle / "away").rename(bundle / "manifest.json")
    DeltaTable(str(shop.root / "warehouse" / "candidates")).optimize.z_order(["item_id"])
    with pytest.raises(RecsysError, match=r"not in the order in which they were published \(was the table compacted"):
        refresh_alone(shop.settings)


def test_the_command_says_what_it_did_and_changes_nothing_where_nothing_is_new(
    shop: TeaShop, capsys: pytest.CaptureFixture[str]
) -> None:
    tree = shop.settings.model_dump(mode="json", exclude_defaults=True)
    tree["export"] = {
        "files": {"path": str(shop.root / "export")},
        "db": {"kind": "sqlite", "path": str(shop.root / "x.db")},
    }
    config = shop.root / "c.toml"
    config.write_text(tomlkit.dumps(tree))
    assert execute(["export", str(config), "--json"]) == 0
    capsys.readouterr()
    assert execute(["refresh", str(config)]) == 0
    assert capsys.readouterr().out.startswith("Nothing new in the log, the table stays at version 0, ")
    shop.buy([("u03", "cup 5", 20), ("new", "cup 5", 20)])
    assert execute(["refresh", str(config), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["users"], told["new_users"], told["rows"], told["version"]) == (2, 1, 2 * K, 1)
    assert told["targets"]["files"]["updated"] is None and told["targets"]["db"]["updated"] == 2
    assert len(pl.read_parquet(shop.root / "export")) == 44 * K
    assert execute(["refresh", str(config)]) == 0
    assert "stays at version 1, " in capsys.readouterr().out


# --- parts --------------------------------------------------------------------------------------------------------

ids = some.text(alphabet="abé'", min_size=1, max_size=2)


def frame(users: list[str], item: str) -> pl.DataFrame:
    rows = [(user, rank, item) for user in sorted(users) for rank in (1, 2)]
    return pl.DataFrame(rows, schema={"user_id": pl.String, "rank": pl.Int32, "item_id": pl.String}, orient="row")


def cut(whole: pl.DataFrame, sizes: list[int]) -> Iterator[pl.DataFrame]:
    start = 0
    for size in sizes:
        yield whole.slice(start, size)
        start += size
    yield whole.slice(start)


@given(some.sets(ids), some.sets(ids), some.lists(some.integers(0, 5)), some.lists(some.integers(0, 5)))
def test_merging_two_sorted_sides_is_sorting_them_together(
    old: set[str], new: set[str], cuts: list[int], others: list[int]
) -> None:
    kept, fresh = frame(list(old - new), "old"), frame(list(new), "new")
    came = list(merged(cut(kept, cuts), cut(fresh, others)))
    both = pl.concat([kept, fresh]).sort("user_id", "rank")
    assert (pl.concat(came) if came else both.clear()).equals(both)


def test_a_version_that_nobody_knows_means_everybody(shop: TeaShop) -> None:
    now = TableVersions(interactions=0)
    assert changed_since(shop.settings, now).nothing
    shutil.rmtree(shop.root / "warehouse" / "interactions")
    versions = shop.read()  # a log of its own, whose versions count from 0 again
    assert versions.interactions == 0 and changed_since(shop.settings, versions).users is None
    assert Changed(users=None, since=0, now=0).nothing is False
