"""A table's log: what stays can be opened however old it is, and the log does not grow without end."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys import runs
from recsys.errors import InputError
from recsys.releases.choice import lack
from recsys.releases.record import releases
from recsys.retention import commits
from recsys.retention.collect import collect
from recsys.retention.kept import kept
from recsys.retention.removal import carry_out
from recsys.runs import RunState
from recsys.settings.read import parse_settings
from recsys.storage.intact import is_kept
from recsys.storage.warehouse import SCHEMAS, append, commit_metadata, scan
from tests.recsys.releases.shop import Shop

COMMITS = 3
DAYS = 40  # over the 30 days after which Delta's own writer deletes commits


def make_old(log: Path, up_to: int = 1_000) -> None:
    """Let the files of a log, up to a version, have been written long ago."""
    for file in log.glob("0*"):
        if int(file.name[:20]) <= up_to:
            os.utime(file, (time.time() - DAYS * 86_400,) * 2)


def versions(log: Path) -> list[int]:
    return sorted(int(file.name[:20]) for file in log.glob("*.json"))


def refreshed(shop: Shop, run: str, times: int) -> None:
    """Commit rows of the served run again, as `recsys refresh` does."""
    bundle = shop.bundle(run)
    for _ in range(times):
        shop.table(run, bundle)


def test_the_release_before_comes_back_though_its_commit_is_old(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "warehouse", retention={"nights": 1, "days": 30})
    shop.night("before")
    shop.night("served")
    log = shop.root / "candidates" / "_delta_log"
    refreshed(shop, "served", 3)
    DeltaTable(shop.path("candidates")).create_checkpoint()  # as a clean-up does at every tenth version
    make_old(log)
    refreshed(shop, "served", COMMITS)
    DeltaTable(shop.path("candidates")).create_checkpoint()
    for _ in range(2):  # the clean-up commits, too
        assert not collect(shop.settings, None, now=datetime.now(UTC)).failed
        before = releases(shop.settings)[0]
        assert before.run == "before" and lack(shop.settings, before) is None
    assert scan(shop.settings.warehouse, "candidates", before.version).collect()["run"].unique().to_list() == ["before"]


def test_commits_before_what_can_come_back_go(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "warehouse", retention={"nights": 1, "days": 0})
    for run in "abcd":
        shop.night(run)
        DeltaTable(shop.path("candidates")).create_checkpoint()
    log = shop.root / "candidates" / "_delta_log"
    report = collect(shop.settings, None)
    assert not report.failed and report.removed["old commits"] == 1
    assert versions(log)[0] == 2 and not (log / f"{1:020}.checkpoint.parquet").exists()
    states = {one.run: lack(shop.settings, one) is None for one in releases(shop.settings)}
    assert states == {"a": False, "b": False, "c": True, "d": True}
    assert "old commits" not in collect(shop.settings, None).removed


STATE = {"ingest": {"report": {"versions": {"interactions": 3, "items": None}}}}


@pytest.mark.parametrize(
    ("steps", "first"),
    [({}, 6), (STATE, 2), ({"ingest": {"report": {"versions": {"interactions": 1}}}}, 0)],
    ids=["none", "a checkpoint", "the first commit"],
)
def test_the_log_stays_from_the_checkpoint_of_the_oldest_version_that_somebody_asks_for(
    tmp_path: Path, steps: Mapping[str, dict[str, object]], first: int
) -> None:
    settings = parse_settings({"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}})
    path, now = tmp_path / "interactions", datetime.now(UTC)
    schema = {**SCHEMAS["interactions"], "user_id": pl.Int64(), "item_id": pl.Int64()}
    row = pl.DataFrame([[1, 2, now, "view", 1.0, 0]], schema=schema, orient="row")
    for number in range(12):
        append(tmp_path, "interactions", row, expected=number - 1 if number else None)
        if number in (2, 6, 10):
            DeltaTable(path).create_checkpoint()
    make_old(path / "_delta_log", 8)  # 30 days ago, version 8 was the newest
    night = RunState(key="k", run_id="r", started=(now - timedelta(days=1)).isoformat(), name="s", steps=dict(steps))
    stays = kept(settings, [], [night], now)
    for dry_run in (True, False):
        report = carry_out([partial(commits.old_commits, settings, stays)], "", dry_run=dry_run)
        assert report.removed == ({"old commits": 1} if first else {})
    assert versions(path / "_delta_log") == list(range(first, 12))
    for version in range(12):
        assert is_kept(str(path), version) is (version >= first)
    assert scan(tmp_path, "interactions", first).collect().height == first + 1
    if first:
        with pytest.raises(InputError, match="has no version"):
            scan(tmp_path, "interactions", first - 1)
    assert commit_metadata(tmp_path, "interactions") == {}  # of all commits that are left
    append(tmp_path, "interactions", row, expected=11)
    assert scan(tmp_path, "interactions").collect().height == 13
    assert not list(commits.old_commits(settings, stays))


def test_a_young_log_and_one_without_checkpoints_stay(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "warehouse", retention={"nights": 1, "days": 30})
    shop.night("a")
    refreshed(shop, "a", 2)
    stays = kept(shop.settings, releases(shop.settings), list(runs.states(tmp_path)), datetime.now(UTC))
    assert not list(commits.old_commits(shop.settings, stays))
    make_old(shop.root / "candidates" / "_delta_log")
    assert not list(commits.old_commits(shop.settings, stays))
