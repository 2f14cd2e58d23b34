"""Updates of some users' rows: a kill leaves the old rows or the new ones, and readers see one or the other."""

from __future__ import annotations

import time
from pathlib import Path

import polars as pl
import pytest

from recsys.errors import RecsysError
from recsys.exports import redis as redis_module
from recsys.exports import rows as shaping
from recsys.exports import sqlite as sqlite_module
from recsys.exports.base import Candidates, Sink
from tests.recsys.exports.conftest import Postgresql, Redis
from tests.recsys.exports.everywhere import Everywhere
from tests.recsys.exports.targets import kill_in_the_middle, many, publish, reading, sink_of

KINDS = ["db", "cache", "lite"]
USERS = 3_000
HALF = [f"u{number:06d}" for number in range(0, USERS, 2)]
OLD = many(USERS, "old")
NEW = {**OLD, **{user: ["new"] * 10 for user in HALF}}


@pytest.fixture
def everywhere(tmp_path: Path, postgresql: Postgresql, redis: Redis) -> Everywhere:
    return Everywhere(tmp_path, postgresql, redis)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("moments", [[0.1, 0.25], pytest.param([n / 30 for n in range(20)], marks=pytest.mark.slow)])
def test_a_kill_leaves_the_old_rows_or_the_new_ones(everywhere: Everywhere, name: str, moments: list[float]) -> None:
    export, root = everywhere.targets[name], everywhere.folder / "warehouse"
    sink = sink_of(**export)
    sink.write(publish(root, many(10, "former"), "r0"))
    old = publish(root, OLD, "r1")
    new = publish(root, NEW, "r1")
    found: list[bool] = []

    def whole() -> None:
        read = everywhere.read(name)
        assert read in (OLD, NEW)
        found.append(read == NEW)

    for moment in moments:
        _until_free(sink, old)
        kill_in_the_middle(new, [moment], whole, HALF, old, **export)
        if found[-1]:
            old, new = publish(root, OLD, "r1"), publish(root, NEW, "r1")
    _until_free(sink, old)
    assert sink.update(new, pl.Series("user_id", HALF), old).updated == len(HALF)
    assert everywhere.read(name) == NEW and sink.rollback().version == 0
    assert everywhere.read(name) == many(10, "former")


def _until_free(sink: Sink, candidates: Candidates) -> None:
    """Wait until the server has found that a client is gone, and its transaction with it."""
    for _ in range(100):
        try:
            sink.write(candidates)
            return
        except RecsysError as error:
            assert "Another export" in str(error), error
            time.sleep(0.1)


@pytest.mark.parametrize("name", KINDS)
def test_readers_see_old_rows_or_new_ones(everywhere: Everywhere, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping, "BATCH_ROWS", 500)
    sink, root = sink_of(**everywhere.targets[name]), everywhere.folder / "warehouse"
    since = publish(root, many(300, "0"), "r1")
    sink.write(since)
    with reading(lambda: {items[0] for items in everywhere.read(name).values()}) as seen:
        for number in (1, 2):
            newer = publish(root, many(300, str(number)), "r1")
            assert sink.update(newer, pl.Series("user_id", list(many(300, "x"))), since).updated == 300
            since = newer
    assert seen[0] == {"0"} and set().union(*seen) <= {"0", "1", "2"}
    assert {items[0] for items in everywhere.read(name).values()} == {"2"}
    if name != "cache":  # there a reader asks for one user after another
        assert all(len(found) == 1 for found in seen)


def test_too_many_users_for_one_transaction_of_redis_are_a_generation(
    everywhere: Everywhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "USERS_AT_ONCE", 2)
    sink, root = sink_of(**everywhere.targets["cache"]), everywhere.folder / "warehouse"
    old = publish(root, many(3, "old"), "r1")
    sink.write(old)
    client = everywhere.redis.client()
    generation = client.get("shop:current")
    report = sink.update(publish(root, many(3, "new"), "r1"), pl.Series("user_id", list(many(3, "x"))), old)
    assert report.updated is None and everywhere.read("cache") == many(3, "new")
    leaving = client.pttl(f"shop:{generation}:u000000")  # who has just asked for the generation finds his user
    assert 0 < leaving <= redis_module.LEAVE_SECONDS * 1_000 and client.get("shop:former") is None


def test_a_table_that_somebody_has_changed_is_written_whole(everywhere: Everywhere) -> None:
    root, users = everywhere.folder / "warehouse", pl.Series("user_id", ["u000000"])
    for name in ("db", "lite"):
        sink = sink_of(**everywhere.targets[name])
        old = publish(root, many(3, "old"), "r1")
        sink.write(old)
        if name == "db":
            everywhere.postgresql.query("alter table candidates drop column score")
        else:
            with sink.database(writing=True) as database:  # type: ignore[attr-defined]
                assert isinstance(database, sqlite_module._Sqlite)
                database.connection.execute('alter table candidates rename column "score" to "value"')
        assert sink.update(publish(root, many(3, "new"), "r1"), users, old).updated is None
        assert everywhere.read(name) == many(3, "new")


def test_a_failing_update_leaves_the_old_rows(everywhere: Everywhere) -> None:
    root, users = everywhere.folder / "warehouse", pl.Series("user_id", ["u000000"])
    old = publish(root, many(3, "old"), "r1")
    new = publish(root, many(3, "n\0w"), "r1")  # which PostgreSQL takes for no text
    sink = sink_of(**everywhere.targets["db"])
    sink.write(old)
    with pytest.raises(RecsysError, match=r"failed, and nothing was changed: invalid byte .* \(column item_id"):
        sink.update(new, users, old)
    assert everywhere.read("db") == many(3, "old") and sink.holds(old)
    cache = sink_of(**everywhere.targets["cache"])
    cache.write(old)
    everywhere.redis.client().config_set("maxmemory", "1")
    try:
        with pytest.raises(RecsysError, match=r"failed, and readers see the old copy: .*maxmemory"):
            cache.update(new, users, old)
    finally:
        everywhere.redis.client().config_set("maxmemory", "0")
    assert everywhere.read("cache") == many(3, "old") and cache.holds(old)
    assert cache.update(new, users, old).updated == 1 and everywhere.read("cache")["u000000"] == ["n\0w"] * 10
