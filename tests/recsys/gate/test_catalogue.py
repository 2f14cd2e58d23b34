"""A catalogue that was cut off takes items off the shelf: the night is kept back for as long as the file stays so."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.gate.catalogue import NAME, check_catalogue, check_listed, days_between
from recsys.gate.judge import Night, judge
from recsys.gate.verdict import Verdict
from recsys.ingestion.ingest import ingest
from recsys.pipelines.steps import plain
from recsys.releases.record import Release
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.table.build import build
from tests.recsys.gate import shop

VERSIONS = TableVersions(interactions=0, items=1)


def settings_of(folder: Path, **sections: Any) -> Settings:
    return parse_settings({**shop.tree(folder), "items": {"source": "items.csv"}, **sections})


def write_items(folder: Path, share: float) -> None:
    lines = [f"{item},{item % 7}" for item in range(round(shop.ITEMS * share))]
    (folder / "items.csv").write_text("\n".join(["item_id,shelf", *lines]) + "\n")


def judged_again(settings: Settings, first: Night, champion: Release) -> Verdict:
    """The verdict on a night that reads the catalogue again and trains nothing."""
    ingested = ingest(settings)
    built = build(settings, ingested.versions, first.served, "again", first.as_of)
    night = replace(first, ingested=plain(ingested), retrieved=plain(built), before=first.ingested)
    return judge(settings, ingested.versions, night, champion)


def checked(verdict: Verdict) -> dict[str, Any]:
    return next(check for check in verdict.checks if check["name"] == NAME)


def test_a_catalogue_that_was_cut_off_is_kept_back_until_it_is_whole(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    shop.write_log(tmp_path, shop.EVENTS)
    write_items(tmp_path, 1)
    versions, first = shop.night(settings, "first", None)
    assert checked(judge(settings, versions, first, None))["sentence"] == "Nothing was served before."
    champion = shop.publish_night(settings, first)
    write_items(tmp_path, 0.6)
    for _ in range(2):  # the second time the file is as it was on the night before
        verdict = judged_again(settings, first, champion)
        assert not verdict.passed and verdict.reasons == [
            "Items of the catalogue before: The catalogue no longer lists 80 of the 200 items that it listed for the "
            "table served now."
        ]
    later = replace(first, as_of=first.as_of + timedelta(days=3, hours=1))
    check = checked(judged_again(settings, later, champion))
    assert check["status"] == "passed" and check["limit"] == pytest.approx(0.8**3)
    assert check["sentence"].endswith("That table was made 3 days ago, and gate.min_listed is for one day.")
    write_items(tmp_path, 1)
    verdict = judged_again(settings, first, champion)
    assert verdict.passed and checked(verdict)["value"] == 1.0


def test_some_items_may_leave_and_others_come() -> None:
    before = pl.Series(range(100))
    assert check_listed(before, pl.Series(range(10, 300)), 0.8).value == pytest.approx(0.9)
    assert check_listed(before, pl.Series(range(21, 300)), 0.8).failed
    assert check_listed(before, before.cast(pl.String), 0.8).value == 1.0
    few = check_listed(before.head(19), before.head(1), 0.8)
    assert (few.status, few.sentence) == ("skipped", "19 items are too few for a share (20 are needed).")


def test_the_limit_follows_the_days_since_the_served_table() -> None:
    """A range that loses 3% a day is published after ten nights that were kept back for another reason."""
    before = pl.Series(range(1_000))
    left = before.head(round(1_000 * 0.97**10))
    assert check_listed(before, left, 0.8).failed and not check_listed(before, left, 0.8, days=10).failed
    assert check_listed(before, before.head(500), 0.8, days=1).failed
    now = datetime(2026, 5, 11, 3, tzinfo=UTC)
    hours = {1: 1, 25: 1, 47: 1, 48: 2, 241: 10}
    assert {many: days_between(now - timedelta(hours=many), now) for many in hours} == hours
    assert days_between(None, now) == 1


@pytest.mark.parametrize(("sections", "begins", "before", "said"), [
    ({"items": None}, {}, 0, "There is no catalogue."),
    ({"retrieve": {"items": "all"}}, {}, 0, "Items that the catalogue no longer lists are recommended, too (retrieve."),
    ({}, {"items": {"shop.db: goods": "id = 3"}}, 0, "Only new and changed rows of the catalogue were read; the other"),
    ({}, {}, None, "The table served now was made without a catalogue."),
    ({}, {}, 0, "The catalogue of the table served now cannot be read: There is no table"),
    ({"gate": {"min_listed": "off"}}, {}, 0, "Switched off."),
])  # fmt: skip
def test_what_cannot_be_compared_is_said(
    tmp_path: Path, sections: dict[str, Any], begins: dict[str, Any], before: int | None, said: str
) -> None:
    check = check_catalogue(settings_of(tmp_path, **sections), VERSIONS, {"begins": begins}, before, 1)
    assert check.status == "skipped" and check.sentence.startswith(said)
