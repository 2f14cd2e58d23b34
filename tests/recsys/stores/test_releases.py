"""Releases of a warehouse in an object store: switched, taken back, forgotten, from this machine and another."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from recsys.bundles.store import latest_bundle
from recsys.errors import RecsysError
from recsys.pipelines.steps import is_transient
from recsys.releases.commands import promote, rollback
from recsys.releases.record import champion
from recsys.storage.warehouse import append, scan
from tests.recsys.audit.forgetting import forget
from tests.recsys.releases.shop import NOW, Shop
from tests.recsys.stores.conftest import Faulty
from tests.recsys.stores.test_bundles import moved


def test_nights_are_switched_and_taken_back(prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shop = Shop(prefix, export={"path": str(tmp_path / "export")})
    shop.night("r1")
    shop.night("r2")
    assert shop.whole() and shop.served() == {"r2"}
    rollback(shop.settings, None, "a test")
    assert shop.whole() and shop.served() == {"r1"}
    shop.kept_back("r3")
    promote(shop.settings, None, "r3", "a test")
    assert shop.served() == {"r3"}
    moved(monkeypatch, tmp_path / "other")  # which knows what is served, and nothing of before
    last = champion(shop.settings)
    assert last is not None and last.run == "r3" and shop.served() == {"r3"}
    with pytest.raises(RecsysError):
        rollback(shop.settings, None, "a test")
    shop.night("r4")
    rollback(shop.settings, None, "a test")
    assert shop.served() == {"r3"}


@pytest.mark.parametrize("what", ["PUT .*_delta_log", "PUT .*latest.json"])
def test_a_switch_that_the_store_breaks_off_is_finished_by_the_next(what: str, prefix: str, faulty: Faulty) -> None:
    shop = Shop(prefix)
    shop.night("r1")
    faulty.fails("close", what)
    with pytest.raises(RecsysError) as caught:
        shop.night("r2")
    assert is_transient(caught.value) and "\n" not in str(caught.value)
    faulty.fails("", "$nothing")
    shop.night("r3")
    assert shop.served() == {"r3"}
    rollback(shop.settings, None, "a test")
    assert shop.served() == {"r1" if "delta" in what else "r2"}


def test_a_commit_whose_answer_is_lost_is_done(prefix: str, faulty: Faulty) -> None:
    shop = Shop(prefix)
    faulty.fails("lost", "PUT .*_delta_log", times=1)
    shop.night("r1")
    faulty.fails("lost", "PUT .*(_delta_log|latest.json)", times=2)
    shop.night("r2")
    assert shop.served() == {"r2"}
    rows = pl.DataFrame({"salt": ["s"], "digest": ["d"], "forgotten_at": [NOW]})
    rows = rows.cast({"forgotten_at": pl.Datetime("us", "UTC")})
    faulty.fails("lost", "PUT .*_delta_log", times=1)
    assert append(prefix, "forgotten", rows, expected=None) == 0
    faulty.fails("lost", "PUT .*_delta_log", times=1)
    assert append(prefix, "forgotten", rows, expected=0) == 1
    with pytest.raises(RecsysError, match="Another process has written the table"):
        append(prefix, "forgotten", rows, expected=0)
    assert scan(prefix, "forgotten").collect().height == 2


def test_forgotten_users_are_gone_from_the_store(prefix: str) -> None:
    shop = Shop(prefix)
    shop.night("r1")
    shop.night("r2")
    assert forget(shop.settings, ["ann"])["candidates"].removed == 2
    assert set(scan(prefix, "candidates").select(pl.col("user_id")).collect()["user_id"]) == {"bob"}
    assert latest_bundle(prefix, "shop").is_dir()
