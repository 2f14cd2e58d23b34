"""The rules of what stays, on lists made by hand; files that are shared; many small files made few."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import polars as pl
import pytest
from deltalake import DeltaTable

from recsys.audit import around
from recsys.forgetting.forgotten import add_forgotten, read_forgotten
from recsys.forgetting.sought import Sought
from recsys.releases import record
from recsys.releases.choice import way
from recsys.releases.record import Release
from recsys.retention import folders, tables
from recsys.retention.kept import kept, releases_kept
from recsys.retention.removal import carry_out
from recsys.runs import RunState
from recsys.settings import RetentionSettings
from recsys.settings.read import parse_settings
from recsys.storage.shared import share_files
from recsys.storage.warehouse import SCHEMAS, append, commit_metadata, scan

NOW = datetime(2026, 11, 29, tzinfo=UTC)


def release(run: str, days: float, version: int, by: str = "night") -> Release:
    at = (NOW - timedelta(days=days)).isoformat(timespec="seconds")
    return Release(run=run, at=at, table="w/candidates", version=version, bundle="b", measured="b", metrics={}, by=by)


NIGHTS = [release("a", 40, 0), release("b", 20, 1), release("c", 3, 2), release("d", 2, 3), release("e", 1, 4)]


@pytest.mark.parametrize(
    ("nights", "days", "stay"),
    [(1, 0, "de"), (3, 0, "cde"), (1, 2.5, "de"), (1, 30, "bcde"), (9, 0, "abcde"), (1, 400, "abcde")],
)
def test_the_newest_the_young_and_the_way_back_stay(nights: int, days: float, stay: str) -> None:
    kept = releases_kept(NIGHTS, RetentionSettings(nights=nights, days=days), NOW)
    assert "".join(one.run for one in kept) == stay


def test_after_a_rollback_the_release_before_it_stays() -> None:
    listed = [*NIGHTS, release("d", 0.5, 5, by="rollback")]  # the next rollback goes to c
    kept = releases_kept(listed, RetentionSettings(nights=1, days=0), NOW)
    assert [(one.run, one.version) for one in kept] == [("c", 2), ("d", 5)]


def test_a_start_that_failed_before_its_first_step_is_no_night() -> None:
    tree = {"name": "s", "warehouse": "w", "interactions": {"source": "x"}, "retention": {"nights": 1, "days": 0}}

    def state(key: str, days: float, *steps: str) -> RunState:
        at = (NOW - timedelta(days=days)).isoformat()
        return RunState(key=key, run_id=key, started=at, name="s", steps={one: {} for one in steps})

    newest_first = [state("failed", 1), state("night", 2, "ingest"), state("before", 3), state("old", 4, "ingest")]
    assert kept(parse_settings(tree), [], newest_first, NOW).states == {"failed", "night"}


def test_the_catalogues_of_served_nights_stay() -> None:
    """The gate compares a night's catalogue with that of the served table, however long nights are kept back."""
    tree = {"name": "s", "warehouse": "w", "interactions": {"source": "x"}, "retention": {"nights": 1, "days": 0}}

    def state(key: str, items: int | None) -> RunState:
        steps = {"ingest": {"report": {"versions": {"interactions": 9, "items": items}}}}
        return RunState(key=key, run_id=key, started=NIGHTS[-1].at, name="s", steps=steps)

    states = [state("kept back", 6), state("e", 5), state("d", None), state("c", 3)]
    assert kept(parse_settings(tree), NIGHTS, states, NOW).versions == {"candidates": (3, 4), "items": (5,)}


def test_the_catalogues_of_what_other_configurations_serve_stay(tmp_path: Path) -> None:
    """All of them share the table, which the clean-up of each vacuums."""
    tree = {"warehouse": str(tmp_path), "interactions": {"source": "x"}, "retention": {"nights": 1, "days": 0}}
    settings, other = (parse_settings({**tree, "name": name}) for name in ("s", "other"))
    record.write(other, record.Record(releases=(release("served there", 9, 0),)))

    def state(key: str, name: str, days: float, items: int) -> RunState:
        at = (NOW - timedelta(days=days)).isoformat()
        steps = {"ingest": {"report": {"versions": {"items": items}}}}
        return RunState(key=key, run_id=key, started=at, name=name, steps=steps)

    states = [state("e", "s", 1, 9), state("kept back there", "other", 8, 5), state("served there", "other", 9, 4)]
    assert kept(settings, NIGHTS, states, NOW).versions["items"] == (4, 9)
    abandoned = [states[0], state("served there", "other", 401, 4)]
    assert kept(settings, NIGHTS, abandoned, NOW).versions["items"] == (9,)


def test_what_the_served_night_has_read_stays_and_what_an_abandoned_configuration_has_read_does_not() -> None:
    """The gate looks at the log of the champion's night, however many nights were kept back since."""
    rules = {"nights": 1, "days": 0, "records_days": 400}
    tree = {"name": "s", "warehouse": "w", "interactions": {"source": "x"}, "retention": rules}

    def state(key: str, days: float, interactions: int, name: str = "s") -> RunState:
        at = (NOW - timedelta(days=days)).isoformat()
        steps = {"ingest": {"report": {"versions": {"interactions": interactions}}}}
        return RunState(key=key, run_id=key, started=at, name=name, steps=steps)

    others = [state("x", 9, 4, "in use"), state("y", 399, 2, "in use"), state("z", 401, 1, "abandoned")]
    states = [state("kept back", 1, 9), state("e", 6, 7), state("d", 7, 6), state("c", 8, 5), *others]
    stays = kept(parse_settings(tree), NIGHTS, states, NOW)
    assert stays.read == {"interactions": (2, 4, 6, 7, 9)}
    assert {"e", "d", "z"} <= stays.states and "c" not in stays.states  # records go with a night of their own


def test_nothing_is_kept_of_nothing() -> None:
    assert releases_kept([], RetentionSettings(), NOW) == ()


def test_equal_files_become_one(tmp_path: Path) -> None:
    bundle, copy = tmp_path / "bundle", tmp_path / "models" / "m" / "bundle"
    bundle.mkdir()
    copy.mkdir(parents=True)
    for name, original, other in (("same", b"1" * 9, b"1" * 9), ("changed", b"1" * 9, b"2" * 9), ("own", b"1", b"")):
        (bundle / name).write_bytes(original)
        (copy / name).write_bytes(other)
    assert share_files(f"file://{tmp_path}/models", bundle) == 9
    assert (copy / "same").stat().st_ino == (bundle / "same").stat().st_ino
    assert (copy / "changed").read_bytes() == b"2" * 9 and (copy / "own").read_bytes() == b""
    assert share_files(f"file://{tmp_path}/models", bundle) == 0
    assert share_files("mlflow-artifacts:/1/models", bundle) == 0


def test_many_small_files_become_few_and_no_row_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tables, "MANY", 5)
    settings = parse_settings({"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}})
    rows = pl.DataFrame(
        {
            "encoder": ["e"] * 6,
            "content_hash": [f"{n}" for n in range(6)],
            "vector": [[float(n)] for n in range(6)],
        },
        schema=SCHEMAS["item_vectors"],
    )
    for number in range(6):
        append(tmp_path, "item_vectors", rows[number], expected=number - 1 if number else None, metadata={"n": number})
    before = scan(tmp_path, "item_vectors").sort("content_hash").collect()
    report = carry_out([partial(tables.small_files, settings)], "", dry_run=True)
    assert report.removed == {"small files": 1}
    assert len(DeltaTable(tmp_path / "item_vectors").file_uris()) == 6
    carry_out([partial(tables.small_files, settings)], "", dry_run=False)
    assert len(DeltaTable(tmp_path / "item_vectors").file_uris()) == 1
    assert commit_metadata(tmp_path, "item_vectors") == {"n": 5}  # what the last reading said is still said
    assert scan(tmp_path, "item_vectors").sort("content_hash").collect().equals(before)
    assert not list(tables.small_files(settings))
    assert replace(report, dry_run=False).total == 0


def test_the_list_of_who_is_forgotten_stays_small_on_disk_and_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MANY", 5)
    monkeypatch.setattr(tables, "SINGLE", 5)
    settings = parse_settings({"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}})
    for number in range(6):
        add_forgotten(str(tmp_path), Sought(users=frozenset({f"u{number}"})), NOW)
    before = read_forgotten(str(tmp_path))
    stays = kept(settings, [], [], datetime.now(UTC))
    kinds = (tables.small_files, tables.single_commits)
    report = carry_out([*(partial(kind, settings) for kind in kinds)], "", dry_run=False)
    assert report.removed == {"small files": 1, "single commits": 1} and not report.failed
    assert not list(tables.older_versions(settings, stays))  # they are young
    assert len(DeltaTable(tmp_path / "forgotten").file_uris()) == 1 and read_forgotten(str(tmp_path)) == before
    assert before is not None and all(f"u{number}" in before for number in range(6))


def test_commits_become_a_checkpoint_and_every_version_stays(tmp_path: Path) -> None:
    settings = parse_settings({"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}})
    path = str(tmp_path / "item_vectors")
    rows = pl.DataFrame(
        {"encoder": ["e"] * 12, "content_hash": [f"{n}" for n in range(12)], "vector": [[0.0]] * 12},
        schema=SCHEMAS["item_vectors"],
    )
    for number in range(12):
        append(tmp_path, "item_vectors", rows[number], expected=number - 1 if number else None, metadata={"n": number})
        if number == tables.SINGLE - 2:
            assert not list(tables.single_commits(settings))
    assert tables.commits_since_checkpoint(path) == 12
    report = carry_out([partial(tables.single_commits, settings)], "", dry_run=True)
    assert report.removed == {"single commits": 1} and tables.commits_since_checkpoint(path) == 12
    carry_out([partial(tables.single_commits, settings)], "", dry_run=False)
    assert tables.commits_since_checkpoint(path) == 0 and not list(tables.single_commits(settings))
    assert commit_metadata(tmp_path, "item_vectors") == {"n": 11}
    for version in range(12):
        assert scan(tmp_path, "item_vectors", version).collect().height == version + 1
    append(tmp_path, "item_vectors", rows[:1], expected=11)
    assert tables.commits_since_checkpoint(path) == 1


def test_prepared_data_that_nobody_reads_go(tmp_path: Path) -> None:
    settings = parse_settings(
        {"name": "shop", "warehouse": str(tmp_path / "warehouse"), "interactions": {"source": "log.csv"}}
    )
    home = tmp_path / "warehouse" / "prepared"
    ages = {"log-1": 0, "log-2": 1, "log-3": 2, "log-4": 3, "dataset-1": 40, "dataset-2": 1}  # days
    for name, days in ages.items():
        (home / name).mkdir(parents=True)
        (home / name / "files.json").write_text("{}")
        os.utime(home / name, (NOW.timestamp() - 86_400 * days,) * 2)
    stays = kept(settings, [], [], NOW)
    for dry_run in (True, False):
        report = carry_out([partial(folders.prepared_data, settings, stays)], "", dry_run=dry_run)
        assert [Path(name).name for name in report.names["prepared data"]] == ["dataset-1", "log-4"]
        assert report.freed["prepared data"] == 4
    assert sorted(path.name for path in home.glob("*-*")) == ["dataset-2", "log-1", "log-2", "log-3"]


def test_files_that_a_checkpoint_has_forgotten_go_and_those_of_young_versions_stay(tmp_path: Path) -> None:
    settings = parse_settings({"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}})
    path, day, now = tmp_path / "candidates", 86_400, datetime.now(UTC)  # a table's own times are the machine's

    def publish(number: int) -> Path:
        before = set(path.glob("*.parquet"))
        soon = {"configuration": {"delta.deletedFileRetentionDuration": "interval 0 seconds"}} if not before else {}
        pl.DataFrame({"user_id": [number]}).write_delta(path, mode="overwrite", delta_write_options=soon)
        (made,) = set(path.glob("*.parquet")) - before
        os.utime(made, (now.timestamp() - 99 * day,) * 2)
        return made

    made = [publish(number) for number in range(4)]
    for commit in (path / "_delta_log").glob("*.json"):  # what the second commit took out went long ago
        old = str(int((now.timestamp() - 98 * day) * 1000))
        if commit.name.endswith("1.json"):
            commit.write_text(re.sub(r'("deletionTimestamp":)\d+', rf"\g<1>{old}", commit.read_text()))
    DeltaTable(path).create_checkpoint()
    stray = path / "part-00000-killed.parquet"
    stray.write_bytes(b"x")
    os.utime(stray, (0, 0))
    stays = kept(settings, [], [], now)
    assert not list(tables.older_versions(settings, stays))  # the table's own clean-up knows of none
    for dry_run in (True, False):
        report = carry_out([partial(tables.stray_files, settings, stays)], "", dry_run=dry_run)
        assert report.removed == {"stray files": 1} and "2 files" in report.names["stray files"][0]
    assert [one.exists() for one in (*made, stray)] == [False, True, True, True, False]
    assert scan(tmp_path, "candidates").collect()["user_id"].to_list() == [3]


def test_rows_that_were_rejected_long_ago_go_and_those_of_a_night_that_stays_do_not(tmp_path: Path) -> None:
    settings = parse_settings({"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}})
    days = [40, 31, 29, 1]
    rows = pl.DataFrame(
        {
            "table": "interactions",
            "source": "log.csv",
            "line": [1, 2, 3, 4],
            "raw": ["a", "b", "c", "d"],
            "reason": "r",
            "rejected_at": [NOW - timedelta(days=one) for one in days],
            "user_id": None,
        },
        schema=SCHEMAS["quarantine"],
    )
    for number in range(4):
        append(tmp_path, "quarantine", rows[number], expected=number - 1 if number else None, metadata={"n": number})
    night = RunState(key="k", run_id="r", started=(NOW - timedelta(days=35)).isoformat(), name="s")
    other = replace(night, name="another configuration")  # which read the same log
    unused = replace(other, started=(NOW - timedelta(days=401)).isoformat())
    for states, left in (([night], [31, 29, 1]), ([other], [31, 29, 1]), ([unused], [29, 1])):
        stays = kept(settings, [], states, NOW)
        report = carry_out([partial(tables.rejected_rows, settings, stays)], "", dry_run=False)
        assert not report.failed and not list(tables.rejected_rows(settings, stays))
        held = scan(tmp_path, "quarantine").collect()["rejected_at"].to_list()
        assert sorted(held) == [NOW - timedelta(days=one) for one in left]
        assert commit_metadata(tmp_path, "quarantine") == {"n": 3}


@pytest.mark.parametrize(
    ("listed", "left"),
    [
        ([release("x", 900, 10), release("y", 500, 11), *NIGHTS], "abcde"),  # younger than `records_days`
        ([release("x", 900, 10), release("y", 500, 11), release("z", 410, 12), NIGHTS[0]], "za"),
        ([release("x", 900, 10), release("y", 500, 11), release("x", 405, 12, by="rollback")], "x"),
    ],
)
def test_old_entries_of_the_list_of_releases_go_up_to_the_first_that_can_come_back(
    tmp_path: Path, listed: list[Release], left: str
) -> None:
    tree = {"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}, "retention": {"nights": 1}}
    settings = parse_settings(tree)
    record.write(settings, record.Record(releases=tuple(listed)))
    stays = kept(settings, listed, [], NOW)
    carry_out([partial(folders.release_list, settings, stays)], "", dry_run=False)
    held = record.releases(settings)
    assert "".join(one.run for one in held) == left
    assert way(held)[-2:] == way(listed)[-2:]  # a rollback goes where it went before
    assert not list(folders.release_list(settings, stays))


def test_a_file_that_a_killed_process_was_writing_into_a_table_goes_a_day_later(tmp_path: Path) -> None:
    settings = parse_settings({"name": "s", "warehouse": str(tmp_path), "interactions": {"source": "x"}})
    rows = pl.DataFrame({"encoder": "e", "content_hash": "1", "vector": [[1.0]]}, schema=SCHEMAS["item_vectors"])
    append(tmp_path, "item_vectors", rows, expected=None)
    (whole,) = (tmp_path / "item_vectors").glob("part-*.parquet")
    killed, own = whole.with_name(f"{whole.name}#1"), whole.with_name("mine.parquet#1")
    for path in (killed, own):
        path.write_bytes(b"PAR1")
    assert not DeltaTable(tmp_path / "item_vectors").vacuum(
        full=True, retention_hours=0, enforce_retention_duration=False
    )
    assert around.unfinished(str(tmp_path)) == [killed]
    assert not list(tables.half_written_files(settings))  # somebody may be writing it
    os.utime(killed, (0, 0))
    report = carry_out([partial(tables.half_written_files, settings)], "", dry_run=False)
    assert report.freed == {"unfinished file": 4} and not killed.exists() and own.exists() and whole.exists()
