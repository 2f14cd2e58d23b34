"""All targets at once on real servers: updates between nights, the way back, and users who are forgotten."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import obstore
import polars as pl
import pytest

from recsys.errors import RecsysError
from recsys.exports import several
from recsys.exports.base import Candidates
from recsys.exports.registry import sinks_of
from recsys.forgetting.sought import Sought
from recsys.releases.commands import rollback
from tests.recsys.audit.forgetting import forget
from tests.recsys.exports.conftest import ObjectStore, Postgresql, Redis
from tests.recsys.exports.everywhere import Everywhere, Lists
from tests.recsys.exports.targets import publish
from tests.recsys.releases.shop import Shop

ODD = "x'); drop table candidates; -- \\ %s {} ünï"
FIRST: Lists = {"ann": ["x", "y"], "bob": ["z"]}
SECOND: Lists = {"ann": ["v", "w"], "bob": ["z"], "cid": ["q"], ODD: ["o"]}
CHANGED: Lists = {"ann": ["w", "v"], "bob": ["z"], "eve": ["new"], ODD: ["p", "o"]}
USERS = pl.Series("user_id", sorted(["ann", "cid", "eve", ODD]))
PARTIAL = {"db", "arrays", "cache", "lite"}  # targets that change rows in place


@pytest.fixture
def everywhere(tmp_path: Path, postgresql: Postgresql, redis: Redis, object_store: ObjectStore) -> Everywhere:
    found = Everywhere(tmp_path, postgresql, redis, object_store)
    store = found.objects()
    for batch in obstore.list(store):
        obstore.delete(store, [held["path"] for held in batch])
    return found


def nights(everywhere: Everywhere) -> tuple[Candidates, Candidates]:
    """Two nights, in every target."""
    first = publish(everywhere.folder / "warehouse", FIRST, "r1")
    several.export(everywhere.settings(), first)
    second = publish(everywhere.folder / "warehouse", SECOND, "r2")
    several.export(everywhere.settings(), second)
    return first, second


def test_an_update_and_the_way_back_in_every_target(everywhere: Everywhere) -> None:
    settings, names = everywhere.settings(), list(everywhere.targets)
    _, second = nights(everywhere)
    refreshed = publish(everywhere.folder / "warehouse", CHANGED, "r2")
    report = several.update(settings, refreshed, USERS, second)["targets"]
    assert {name: everywhere.read(name) for name in names} == dict.fromkeys(names, CHANGED)
    assert {name for name, of in report.items() if of["updated"] == 4} == PARTIAL
    assert (report["db"]["rows"], report["arrays"]["rows"], report["cache"]["rows"]) == (5, 3, 3)
    again = several.update(settings, refreshed, USERS, second)["targets"]
    assert all(of == {"held": True, "kind": of["kind"], "version": 2} for of in again.values())
    for sink in sinks_of(settings):
        assert sink.holds(refreshed) and not sink.holds(second)
        with pytest.raises(RecsysError, match=r"holds version 2 .*\(run r2\), which is newer than version 1"):
            sink.update(second, USERS, second)
    taken = several.rollback(settings)["targets"]  # to the night before, not to the table before the refresh
    assert {(of["version"], of["instead"]) for of in taken.values()} == {(0, 2)}
    assert {name: everywhere.read(name) for name in names} == dict.fromkeys(names, FIRST)
    left = several.update(settings, refreshed, USERS, second)["targets"]  # what somebody took back stays so
    assert all(of == {"left": True, "kind": of["kind"], "version": 0, "run": "r1"} for of in left.values())
    several.export(settings, refreshed)
    assert {name: everywhere.read(name) for name in names} == dict.fromkeys(names, CHANGED)


def test_a_rollback_of_the_release_takes_every_target_back(everywhere: Everywhere) -> None:
    shop, names = Shop(everywhere.folder / "warehouse", export=everywhere.targets), list(everywhere.targets)
    for run, users in (("a", ["ann"]), ("b", ["ann", "bob"])):
        shop.night(run, users)
        assert {name: set(everywhere.read(name)) for name in names} == {name: set(users) for name in names}
    assert rollback(shop.settings, None, "why").release.run == "a"
    assert {name: set(everywhere.read(name)) for name in names} == {name: {"ann"} for name in names}
    assert rollback(shop.settings, None, "and back", to="b").release.run == "b"
    assert {name: set(everywhere.read(name)) for name in names} == {name: {"ann", "bob"} for name in names}


def test_a_target_that_missed_a_version_is_written_whole(everywhere: Everywhere) -> None:
    settings = everywhere.settings("db", "arrays", "cache", "lite")
    first = publish(everywhere.folder / "warehouse", FIRST, "r1")
    for name in ("db", "cache"):  # the others have no copy yet
        several.export(everywhere.settings(name), first)
    second = publish(everywhere.folder / "warehouse", SECOND, "r1")
    third = publish(everywhere.folder / "warehouse", CHANGED, "r1")
    report = several.update(settings, third, pl.Series("user_id", ["ann"]), second)["targets"]
    assert {of["updated"] for of in report.values()} == {None}
    assert all(everywhere.read(name) == CHANGED for name in ("db", "arrays", "cache", "lite"))
    fourth = publish(everywhere.folder / "warehouse", SECOND, "r1")
    several.update(settings, fourth, None, fourth)  # nobody knows who changed
    assert all(everywhere.read(name) == SECOND for name in ("db", "arrays", "cache", "lite"))


def test_a_forgotten_user_is_in_no_copy_of_any_target(everywhere: Everywhere) -> None:
    settings, names = everywhere.settings(), list(everywhere.targets)
    _, second = nights(everywhere)
    refreshed = publish(everywhere.folder / "warehouse", CHANGED, "r2")
    several.update(settings, refreshed, USERS, second)
    theirs, items = Sought(users=frozenset(["ann", ODD])), Sought(items=frozenset(["w", "z"]))
    held = {sink.target: (sink.count(theirs), sink.count(items)) for sink in sinks_of(settings)}
    assert all(users and of_items for users, of_items in held.values()), held  # old copies count, too
    assert (held["lite"][0], held["db"][0]) == (6, 6)  # four rows that readers see, and two of the night before
    done = forget(settings, ["ann", ODD], ["w"])
    assert all(one.is_clean for one in done.values()), done
    left: Lists = {user: items for user, items in CHANGED.items() if user not in ("ann", ODD)}
    assert {name: everywhere.read(name) for name in names} == dict.fromkeys(names, left)
    for sink in sinks_of(settings):
        with pytest.raises(RecsysError, match="keeps no copy older"):
            sink.rollback()
        assert (sink.count(theirs), sink.count(Sought(items=frozenset(["w"])))) == (0, 0)
        assert sink.count(Sought(users=frozenset(["bob"]))) == 1
    # nor in anything that lies around: files, tables, keys, objects
    for path in [*everywhere.folder.glob("*"), *everywhere.folder.glob(".*")]:
        for file in [path] if path.is_file() else path.rglob("*"):
            found = _bytes(file) if file.is_file() else b""
            at = found.find(b"ann")
            assert at < 0, (file, found[max(0, at - 60) : at + 60])
    tables = "select relname::text from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    assert sorted(everywhere.postgresql.query(tables)) == [("arrays",), ("candidates",)]
    client = everywhere.redis.client()
    assert not [key for key in client.scan_iter("*") if key.endswith((":ann", ODD))]
    store = everywhere.objects()
    held = [one["path"] for batch in obstore.list(store) for one in batch]
    assert len(held) == 2 and not any(b"ann" in _plain(bytes(obstore.get(store, path).bytes()), path) for path in held)


def _bytes(file: Path) -> bytes:
    return _plain(file.read_bytes(), file.name)


def _plain(content: bytes, name: str) -> bytes:
    """Return bytes in which a name can be found: Parquet packs them."""
    return str(pl.read_parquet(content).to_dicts()).encode() if name.endswith(".parquet") else content


def test_what_a_target_holds_of_odd_rows_survives_an_update(everywhere: Everywhere, tmp_path: Path) -> None:
    numbers: dict[Any, Any] = {"score": pl.Series([float("nan"), 1.0, float("inf")])}
    settings = everywhere.settings("db", "arrays", "cache", "lite")
    before = publish(tmp_path / "warehouse", {"ann": ["x"], "bob": ["y", "z"]}, "r1", **numbers)
    several.export(settings, before)
    numbers["score"] = pl.Series([1.0, float("nan"), float("-inf")])
    after = publish(tmp_path / "warehouse", {"ann": ["'"], "bob": ['"', "\\\n{}"]}, "r1", **numbers)
    several.update(settings, after, pl.Series("user_id", ["ann", "bob", "cid"]), before)
    for name in ("db", "arrays", "cache", "lite"):
        assert everywhere.read(name) == {"ann": ["'"], "bob": ['"', "\\\n{}"]}
    empty = publish(tmp_path / "warehouse", {}, "r1")
    several.update(settings, empty, pl.Series("user_id", ["ann", "bob"]), after)
    assert [everywhere.read(name) for name in ("db", "arrays", "cache", "lite")] == [{}] * 4
