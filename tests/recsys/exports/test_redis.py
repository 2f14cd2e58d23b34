"""Readers of a real Redis see one whole generation, whatever happens."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.errors import InputError, RecsysError
from recsys.exports import redis as module
from recsys.exports import rows as shaping
from tests.recsys.exports.targets import ODD, kill_in_the_middle, many, publish, reading, sink_of
from tests.servers import PASSWORD, WRITTEN, Redis

OLD, NEW = {"ann": ["x", "y"], "bob": ["z"]}, {"ann": ["w"]}


def target(server: Redis, **more: Any) -> dict[str, Any]:
    return {"kind": "redis", "address": server.address, **more}


def seen(server: Redis, prefix: str = "shop") -> dict[str, Any]:
    """Read each user's object, as a reader does."""
    client = server.client()
    generation = client.get(f"{prefix}:current")
    head = f"{prefix}:{generation}"
    return {key[len(head) + 1 :]: json.loads(client.get(key)) for key in client.scan_iter(f"{head}*")}


def keys(server: Redis) -> set[str]:
    """Return the generations that are there for more than the minute that readers get."""
    client = server.client()
    leaving = range(module.LEAVE_SECONDS * 1_000 + 1)
    return {key.split(":")[1] for key in client.scan_iter("shop:v*") if client.pttl(key) not in leaving}


def test_a_key_a_user(redis: Redis, tmp_path: Path) -> None:
    sink = sink_of(**target(redis))
    sink.check()
    assert not sink.present()
    candidates = publish(tmp_path / "warehouse", ODD)
    report = sink.write(candidates)
    assert {user: found["item_id"] for user, found in seen(redis).items()} == ODD
    assert seen(redis)["a"] == {"item_id": ODD["a"], "score": pytest.approx([1, 1 / 2, 1 / 3])}
    assert (report.rows, report.version, report.columns) == (3, 0, ["item_id", "score"])
    assert report.path == f"redis://***@127.0.0.1:{redis.port}/0 shop:*"
    assert sink.present() and sink.holds(candidates)
    everything = {"user_id": "who", "item_id": "sku", "as_of": "at", "run": "run"}
    sink_of(**target(redis, columns=everything, prefix="other")).write(candidates)
    assert seen(redis, "other")["b c"] == {
        "who": "b c",
        "sku": ["ünï\ncode"],
        "at": "2026-01-02T03:04:05.000678Z",
        "run": "r1",
    }


def test_again_older_and_back(redis: Redis, tmp_path: Path) -> None:
    sink = sink_of(**target(redis))
    with pytest.raises(RecsysError, match="none can be taken back"):
        sink.rollback()
    older, newer = publish(tmp_path / "warehouse", OLD), publish(tmp_path / "warehouse", NEW, "r2")
    sink.write(older)
    sink.write(newer)
    sink.write(newer)
    assert set(seen(redis)) == {"ann"} and len(keys(redis)) == 2
    with pytest.raises(RecsysError, match=r"holds version 1 .*\(run r2\), which is newer than version 0"):
        sink.write(older)
    client = redis.client()
    former = client.get("shop:former")
    assert (
        0 < client.pttl(f"shop:{former}:bob") <= 48 * 3_600_000
        and client.pttl(f"shop:{client.get('shop:current')}:ann") == -1
    )
    back = sink.rollback()
    assert (back.version, back.instead) == (0, 1) and set(seen(redis)) == {"ann", "bob"}
    assert client.pttl(f"shop:{former}:bob") == -1 and keys(redis) == {former}
    with pytest.raises(RecsysError, match="keeps no copy older than that of version 0"):
        sink.rollback()
    sink.write(newer)
    client.pexpire(f"shop:{former}:bob", 0)  # as time does
    with pytest.raises(RecsysError, match="or it has expired"):
        sink.rollback()
    assert set(seen(redis)) == {"ann"}
    sink.write(publish(tmp_path / "warehouse", {"cid": ["v"]}, "r3"), keep=False)
    assert set(seen(redis)) == {"cid"} and len(keys(redis)) == 1
    with pytest.raises(InputError, match="holds the candidates of the configuration 'shop', and this one is 'other'"):
        sink_of("other", **target(redis, prefix="shop")).check()


def test_readers_see_whole_generations(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shaping, "BATCH_ROWS", 500)
    sink = sink_of(**target(redis))
    sink.write(publish(tmp_path / "warehouse", many(300, "0"), "r0"))

    def read() -> set[Any]:
        client = redis.client()
        generation = client.get("shop:current")
        lists = client.mget([f"shop:{generation}:u{number:06d}" for number in range(300)])
        return {None if found is None else json.loads(found)["item_id"][0] for found in lists}

    with reading(read) as found:
        for number in (1, 2):
            sink.write(publish(tmp_path / "warehouse", many(300, str(number)), f"r{number}"))
    assert found[0] == {"0"} and all(one in [{"0"}, {"1"}, {"2"}] for one in found)


@pytest.mark.parametrize(
    "moments", [[0.0, 0.03, 0.1], pytest.param([n / 40 for n in range(20)], marks=pytest.mark.slow)]
)
def test_a_kill_leaves_the_old_keys_or_the_new_ones(
    redis: Redis, tmp_path: Path, moments: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = sink_of(**target(redis))
    sink.write(publish(tmp_path / "warehouse", many(2_000, "old"), "r0"))
    newer = publish(tmp_path / "warehouse", many(2_000, "new"), "r1")

    def whole() -> None:
        found = seen(redis)
        assert len(found) == 2_000 and len({tuple(one["item_id"]) for one in found.values()}) == 1

    kill_in_the_middle(newer, moments, whole, **target(redis))
    monkeypatch.setattr(module, "IDLE_SECONDS", -1)
    sink.write(newer)
    assert {one["item_id"][0] for one in seen(redis).values()} == {"new"} and len(keys(redis)) == 2
    assert sink.rollback().version == 0
    whole()
    assert len(keys(redis)) == 1


def test_an_older_run_that_ends_later_is_refused(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sink_of(**target(redis))
    older, newer = publish(tmp_path / "warehouse", OLD), publish(tmp_path / "warehouse", NEW, "r2")
    real = module.RedisSink._load

    def while_another_ends(self: Any, *arguments: Any) -> int:
        monkeypatch.setattr(module.RedisSink, "_load", real)
        sink.write(newer)
        return real(self, *arguments)

    monkeypatch.setattr(module.RedisSink, "_load", while_another_ends)
    with pytest.raises(RecsysError, match="which is newer than version 0; nothing was changed"):
        sink.write(older)
    assert set(seen(redis)) == {"ann"} and len(keys(redis)) == 1


def test_a_server_that_goes_away_or_is_full(redis: Redis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sink = sink_of(**target(redis))
    candidates = publish(tmp_path / "warehouse", many(2_000, "new"))
    redis.client().config_set("maxmemory", "1")
    with pytest.raises(RecsysError, match=r"failed, and readers see the old copy: .*maxmemory"):
        sink.write(candidates)
    redis.client().config_set("maxmemory", "0")
    assert keys(redis) == set() and not sink.present()
    monkeypatch.setattr(shaping, "BATCH_ROWS", 1_000)
    real = module.members_of

    def and_stop(wanted: dict[str, str]) -> Any:
        def shaped(frame: pl.DataFrame) -> pl.DataFrame:
            if frame.height and frame[module._USER][0] > "u001000":
                redis.stop()
            return real(wanted)(frame)

        return shaped

    with monkeypatch.context() as patch:
        patch.setattr(module, "members_of", and_stop)
        with pytest.raises(RecsysError, match="cannot be reached") as caught:
            sink.write(candidates)
    assert isinstance(caught.value.__cause__, OSError) and PASSWORD not in str(caught.value)
    with pytest.raises(RecsysError, match="cannot be reached"):
        sink.check()
    redis.start()
    assert sink.write(candidates).rows == 2_000


@pytest.mark.parametrize(
    ("address", "sentence"),
    [
        ("redis://:s3cret@127.0.0.1:{port}/0", r"check the user and the password in export\.out\.address"),
        ("redis://127.0.0.1:{port}/0", r"check the user and the password in export\.out\.address"),
        ("redis://:s3c/ret@127.0.0.1:{port}/0", r"no address of Redis: write signs such as @"),
        ("http://:s3cret@127.0.0.1:{port}/0", r"no address of Redis: it has the form"),
        ("redis://:${{NO_SUCH}}@127.0.0.1:{port}/0", r"needs the environment variable NO_SUCH"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_a_password(redis: Redis, address: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        sink_of(kind="redis", address=address.format(port=redis.port)).check()
    assert "s3c" not in str(caught.value) and WRITTEN not in str(caught.value)


def test_what_is_somebody_elses_stays(redis: Redis, tmp_path: Path) -> None:
    redis.client().set("shop:current", "theirs")
    sink = sink_of(**target(redis))
    with pytest.raises(InputError, match="holds something that no export has written"):
        sink.write(publish(tmp_path / "warehouse", OLD))
    redis.client().delete("shop:current")
    redis.client().lpush("shop:current", "theirs")
    with pytest.raises(RecsysError, match="WRONGTYPE"):
        sink.check()


def test_odd_values(redis: Redis, tmp_path: Path) -> None:
    sink = sink_of(**target(redis))
    lists = {"a": ["x", "y"]}
    sink.write(publish(tmp_path / "warehouse", lists, user_id=pl.Series([None, "a"]), score=[math.nan, math.inf]))
    assert seen(redis) == {"": {"item_id": ["x"], "score": [None]}, "a": {"item_id": ["y"], "score": [None]}}
    sink.write(publish(tmp_path / "warehouse", {}, "r2"))
    assert seen(redis) == {} and sink.present()
    assert sink.rollback().version == 0 and set(seen(redis)) == {"", "a"}
