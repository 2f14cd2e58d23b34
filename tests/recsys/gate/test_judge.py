"""Two nights without MLflow, judged again with planted defects: each turns the gate red with its own reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args

import numpy as np
import polars as pl
import pytest

from recsys.bundles.bundle import Bundle
from recsys.columns import INTERACTIONS, ITEM_ID, RANK, USER_ID
from recsys.errors import RecsysError
from recsys.evaluation import former
from recsys.gate import log
from recsys.gate.judge import Night, judge
from recsys.gate.lists import former_table
from recsys.gate.verdict import Verdict
from recsys.pipelines.steps import plain
from recsys.releases.record import Release
from recsys.retrieval import index
from recsys.retrieval.factory import build_approximate
from recsys.retrieval.index import ItemIndex
from recsys.settings import Settings
from recsys.storage import stream, warehouse
from recsys.storage.warehouse import SCHEMAS, TableVersions
from tests.recsys.gate import shop

Nights = tuple[Settings, Release, TableVersions, Night]


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Nights:
    """The first night's release, and the second night, which has a day and a half of new rows."""
    folder = tmp_path_factory.mktemp("shop")
    settings = shop.settings_of(folder)
    shop.write_log(folder, shop.EVENTS - 3)
    _, first = shop.night(settings, "first", None)
    release = shop.publish_night(settings, first)
    shop.write_log(folder, shop.EVENTS)
    return settings, release, *shop.night(settings, "second", dict(first.ingested))


def judged(nights: Nights, night: Night | None = None) -> Verdict:
    """The second night's verdict."""
    settings, release, versions, own = nights
    return judge(settings, versions, night or own, release)


def checks(verdict: Verdict) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in verdict.checks}


def failed(verdict: Verdict) -> set[str]:
    return {check["name"] for check in verdict.checks if check["status"] == "failed"}


def with_ranks(night: Night, rank: int) -> Night:
    frame = night.values.frame.with_columns(pl.lit(rank, pl.Int64).alias(RANK))
    return replace(night, values=replace(night.values, frame=frame))


def with_rows(settings: Settings, night: Night, change: Callable[[pl.DataFrame], pl.DataFrame]) -> Night:
    """The night with other rows beside the table."""
    rows = stream.scan_staged(stream.Staged(**night.retrieved["staged"]))
    assert rows is not None
    frame = change(rows.collect())
    staged = stream.stage(settings.warehouse, "planted", dict(frame.schema), [frame])
    return replace(night, retrieved={**night.retrieved, "staged": plain(staged)})


def test_a_sane_second_night_passes(nights: Nights) -> None:
    verdict = judged(nights)
    assert verdict.passed, verdict.reasons
    assert (verdict.metric, verdict.confidence) == ("ndcg@10", nights[0].gate.confidence)
    assert verdict.champion is not None and verdict.champion["run"] == "first"
    assert set(verdict.baselines) == {"popularity", "transitions"}
    made = {check["name"]: check["status"] for check in verdict.checks}
    for name in ("users of the table before", "recall of the index", "full lists", "promise of the table before"):
        assert made[name] == "passed"
    assert made["drift of items"] == made["drift of hours"] == made["drift of events of a user on a day"] == "passed"
    assert made["new rows"] == made["newest event"] == made["drift of weekdays"] == "skipped"
    assert judged(nights) == verdict  # a restarted night has the same one


def test_a_warehouse_that_was_moved_is_compared_with_its_own_table(nights: Nights) -> None:
    settings, release, versions, night = nights
    moved = replace(release, table=f"/where/it/was/{release.table_name}")
    assert judge(settings, versions, night, moved) == judged(nights)


def test_a_first_night_is_compared_with_baselines_only(nights: Nights) -> None:
    settings, _, versions, night = nights
    verdict = judge(settings, versions, night, None)
    assert verdict.sentence.startswith("Published: nothing was served before; the best baseline (")
    assert verdict.champion is None
    assert checks(verdict)["drift"]["sentence"] == "Nothing was served before."


def test_a_leaked_target_is_too_good(nights: Nights) -> None:
    verdict = judged(nights, with_ranks(nights[3], 1))
    assert failed(verdict) == {"test against validation", "jump over the champion"}
    assert all("Look for a target that leaks" in reason for reason in verdict.reasons)


def test_a_promise_that_the_served_table_did_not_keep_hints_at_a_leak(nights: Nights) -> None:
    settings, release, versions, night = nights
    events = log.events(settings.warehouse, versions.interactions).select(pl.col(ITEM_ID).max()).collect().item()
    wrong = with_rows(settings, night, lambda rows: rows.with_columns(pl.lit(events, pl.Int64).alias(ITEM_ID)))
    version = stream.publish(stream.Staged(**wrong.retrieved["staged"]))
    table = f"{settings.warehouse}/planted"
    promised = replace(release, table=table, version=version, metrics={"test/hr_at_10": 0.9})
    rows = pl.scan_parquet(stream.paths(stream.Staged(**wrong.retrieved["staged"])))
    older = rows.with_columns(pl.lit(0, pl.Int64).alias("interactions_version")).collect()
    staged = stream.stage(settings.warehouse, "planted", dict(older.schema), [older])
    promised = replace(promised, version=stream.publish(staged))
    assert "promise of the table before" in failed(judge(settings, versions, night, promised))


def test_a_night_worse_than_yesterday_and_than_counting_is_kept_back(nights: Nights) -> None:
    verdict = judged(nights, with_ranks(nights[3], 99))
    assert verdict.sentence.startswith("Kept back: worse than the one of ")
    assert verdict.champion is not None and verdict.champion["outcome"] == "worse"
    assert any(reason.startswith("Worse than the baseline transitions by ") for reason in verdict.reasons)
    first = judge(nights[0], nights[2], with_ranks(nights[3], 99), None)
    assert first.sentence.startswith("Kept back: worse than the baseline transitions by ")


def test_popularity_in_disguise(nights: Nights) -> None:
    settings, _, versions, night = nights
    counts = log.events(settings.warehouse, versions.interactions).group_by(ITEM_ID).len().collect()
    popular = counts.sort("len", ITEM_ID, descending=[True, False])[ITEM_ID].head(10).to_list()

    def same_for_all(rows: pl.DataFrame) -> pl.DataFrame:
        return rows.with_columns(pl.col(RANK).replace_strict(dict(enumerate(popular, 1))).alias(ITEM_ID))

    verdict = judged(nights, with_rows(settings, night, same_for_all))
    assert failed(verdict) == {"popularity in disguise", "the same list for everybody"}


def test_half_the_users_missing(nights: Nights) -> None:
    half = nights[3].values.frame[USER_ID].unique().sort().head(shop.USERS // 2)
    missing = with_rows(nights[0], nights[3], lambda rows: rows.filter(~pl.col(USER_ID).is_in(half.implode())))
    verdict = judged(nights, missing)
    assert failed(verdict) == {"users of the table before"}
    assert verdict.sentence == (
        "Kept back: users of the table before: 60 of 120 users of the table served now are missing from the new one."
    )


def test_an_index_with_bad_recall(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    def stale(bundle: Bundle) -> Any:
        """An index over the vectors of other items."""
        vectors = bundle.vectors.copy()
        vectors[1:] = vectors[1:][np.random.default_rng(0).permutation(len(vectors) - 1)]
        codes = np.flatnonzero(bundle.allowed)
        other = build_approximate(vectors, codes, "HNSW8,Flat", lengthened=False)
        return ItemIndex(vectors=bundle.vectors, codes=codes, approximate=other)

    monkeypatch.setattr(Bundle, "index", stale)
    monkeypatch.setattr(index, "FEW", 1)  # so that the shop is not too small for an index
    verdict = judge(nights[0], nights[2], nights[3], None)
    assert failed(verdict) == {"recall of the index"}
    assert verdict.sentence.startswith("Kept back: recall of the index: The search (HNSW8,Flat) finds ")


def test_a_drifted_day(nights: Nights, tmp_path: Path) -> None:
    """A day on which everybody is sent to three items by night, as by a broken feed."""
    settings, _, versions, _ = nights
    events = log.events(settings.warehouse, versions.interactions).collect()
    end = events["timestamp"].max()
    assert isinstance(end, datetime)
    rows = [
        {
            USER_ID: user,
            ITEM_ID: number % 3,
            "timestamp": (end + timedelta(days=2)).replace(hour=3, minute=number % 60),
            "event": "",
            "weight": None,
            "position": 10_000_000 + number,
        }
        for number, user in enumerate(events[USER_ID].unique().sort())
    ]
    schema = {**SCHEMAS[INTERACTIONS], USER_ID: pl.Int64, ITEM_ID: pl.Int64}
    root = str(tmp_path)
    before = warehouse.append(root, INTERACTIONS, events.select(*schema), expected=None)
    version = warehouse.append(root, INTERACTIONS, pl.DataFrame(rows, schema=schema), expected=before)
    found = {check.name: check for check in log.drift_checks(log.new_rows(root, before, version), None, 0.25)}
    assert found["drift of items"].failed and found["drift of hours"].failed
    (none,) = log.drift_checks(log.new_rows(root, before, before), None, 0.25)
    assert (none.status, none.sentence) == ("skipped", "There are no new rows.")
    assert log.added_rows(root, version) == [len(rows)]
    assert log.volumes(root, [before], version) == (len(rows), [])


def test_a_log_that_cannot_be_compared_leaves_each_check_once(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: Any) -> Any:
        raise RecsysError("The version is gone.")

    monkeypatch.setattr(log, "new_rows", gone)
    verdict = judged(nights)
    made = [check["name"] for check in verdict.checks]
    assert len(made) == len(set(made))
    found = checks(verdict)
    assert found["users of the table before"]["status"] == "passed"
    for name in ("drift", "promise of the table before"):
        assert found[name]["status"] == "skipped" and "The version is gone." in found[name]["sentence"]


def test_a_champion_that_cannot_be_measured_is_said_and_keeps_nothing_back(nights: Nights) -> None:
    settings, release, versions, night = nights
    gone = replace(release, measured=f"{settings.warehouse}/bundles/shop-gone")
    verdict = judge(settings, versions, night, gone)
    assert verdict.passed and verdict.champion is None
    assert "not compared with the one of " in verdict.sentence and "shop-gone" in verdict.sentence


def test_a_question_that_the_champion_learned_from_is_a_draw(nights: Nights, monkeypatch: pytest.MonkeyPatch) -> None:
    worse = with_ranks(nights[3], 99)
    compared = judged(nights, worse).champion
    assert compared is not None and compared["outcome"] == "worse"
    monkeypatch.setattr(former, "learned_before", lambda *given: np.ones(len(given[-1]), dtype=bool))
    drawn = judged(nights, worse).champion
    assert drawn is not None and drawn["difference"] == 0.0


def test_values_of_another_test_part_are_refused(nights: Nights) -> None:
    settings, release, versions, night = nights
    other = replace(night, values=replace(night.values, frame=night.values.frame.head(50)))
    with pytest.raises(RecsysError, match="evaluate again"):
        judge(settings, versions, other, release)


def test_a_gate_that_is_off_publishes_without_a_verdict(nights: Nights) -> None:
    off = shop.settings_of(Path(nights[0].data_root), enabled=False)
    verdict = judge(off, nights[2], with_ranks(nights[3], 99), nights[1])
    assert verdict.passed and verdict.sentence == "Published without a verdict: the gate is off (gate.enabled)."


def test_every_limit_can_be_off(nights: Nights) -> None:
    names = [
        name for name, field in type(nights[0].gate).model_fields.items() if type(None) in get_args(field.annotation)
    ]
    off = shop.settings_of(Path(nights[0].data_root), champion=False, baselines=False, **dict.fromkeys(names, "off"))
    verdict = judge(off, nights[2], with_ranks(nights[3], 99), nights[1])
    assert verdict.passed and not verdict.baselines and verdict.champion is None
    assert {check["status"] for check in verdict.checks} == {"skipped"}


def test_the_first_day_after_a_pause_is_not_compared_with_whole_weeks(tmp_path: Path) -> None:
    """A closed week must not turn the day after it red: one weekday never looks like seven."""
    root, first = str(tmp_path), datetime(2026, 6, 1, 12, tzinfo=UTC)
    schema = {**SCHEMAS[INTERACTIONS], USER_ID: pl.Int64, ITEM_ID: pl.Int64}

    def on(days: range) -> pl.DataFrame:
        rows = [
            {
                USER_ID: user,
                ITEM_ID: (user + day) % 5,
                "timestamp": first + timedelta(days=day),
                "event": "",
                "position": 100 * day + user,
            }
            for day in days
            for user in range(30)
        ]
        return pl.DataFrame([{**row, "weight": None} for row in rows], schema=schema)

    before = warehouse.append(root, INTERACTIONS, on(range(28)), expected=None)
    day = warehouse.append(root, INTERACTIONS, on(range(38, 39)), expected=before)
    checks = {check.name: check for check in log.drift_checks(log.new_rows(root, before, day), None, 0.25)}
    assert checks["drift of weekdays"].status == checks["drift of hours"].status == "skipped"
    week = warehouse.append(root, INTERACTIONS, on(range(39, 46)), expected=day)
    checks = {check.name: check for check in log.drift_checks(log.new_rows(root, before, week), None, 0.25)}
    assert checks["drift of weekdays"].status == "passed"


def test_rows_that_were_read_between_nights_are_of_the_night_that_follows(tmp_path: Path) -> None:
    root, schema = str(tmp_path), {**SCHEMAS[INTERACTIONS], USER_ID: pl.Int64, ITEM_ID: pl.Int64}
    version = None
    for rows in (100, 3, 4, 5, 2, 2):
        one = {USER_ID: 1, ITEM_ID: 1, "timestamp": None, "event": "", "weight": None, "position": 0}
        frame = pl.DataFrame([one] * rows, schema=schema)
        version = warehouse.append(root, INTERACTIONS, frame, expected=version)
    assert log.volumes(root, [0, 3], 5) == (4, [12])
    assert log.volumes(root, [0, 3, 5], 5) == (0, [12, 4])  # refreshes took all
    assert log.volumes(root, [0, 0, 9], 5) == (None, [])  # the log was read anew since: its versions count from 0


def test_a_refreshed_table_is_of_its_night_for_drift_and_of_its_refresh_for_its_promise(tmp_path: Path) -> None:
    schema = {**SCHEMAS["candidates"], USER_ID: pl.Int64, ITEM_ID: pl.Int64}
    row = dict.fromkeys(schema, None) | {USER_ID: 1, "interactions_version": 5}
    frame = pl.DataFrame([row, row | {USER_ID: 2, "interactions_version": 3}], schema=schema)
    warehouse.append(str(tmp_path), "candidates", frame, expected=None)
    former = former_table(f"{tmp_path}/candidates", 0)
    assert former is not None and (former.night, former.interactions) == (3, 5)
