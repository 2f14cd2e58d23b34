"""The list of releases: what is added, what is adopted of an earlier version, and a file that is damaged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from recsys import runs
from recsys.errors import RecsysError
from recsys.releases import record
from recsys.releases.record import Release, add, champion, path_of, releases
from tests.recsys.releases.shop import NAME, Shop


def release(run: str, version: int = 0) -> Release:
    return Release(
        run=run, at="2026-05-01T04:00:00+00:00", table="w/candidates", version=version, bundle="b", measured="b",
        metrics={"test/ndcg_at_10": 0.25},
    )  # fmt: skip


def test_nothing_is_served_at_first(tmp_path: Path) -> None:
    settings = Shop(tmp_path).settings
    assert releases(settings) == () and champion(settings) is None


def test_the_last_release_is_the_champion(tmp_path: Path) -> None:
    settings = Shop(tmp_path).settings
    first, second = release("r1"), replace(release("r2", 1), verdict="Published: better.", by="promote", why="ha")
    add(settings, first)
    add(settings, second)
    assert releases(settings) == (first, second) and champion(settings) == second
    assert path_of(settings) == tmp_path / "runs" / "releases" / f"{NAME}.json"


def test_a_night_that_is_published_twice_is_one_release(tmp_path: Path) -> None:
    settings = Shop(tmp_path).settings
    for one in (release("r1"), release("r2", 1), replace(release("r2", 1), at="later"), release("r1", 2)):
        add(settings, one)
    assert [(one.run, one.version, one.at[:4]) for one in releases(settings)] == [
        ("r1", 0, "2026"), ("r2", 1, "2026"), ("r1", 2, "2026"),
    ]  # fmt: skip


def test_what_an_earlier_version_serves_is_the_first_release(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    bundle = shop.bundle("a")
    shop.table("old", bundle)
    shop.point(bundle)
    figures = {"metrics": {"test/ndcg_at_10": 0.5, "test/none": None}}
    state = runs.RunState(key="k", run_id="old", started="2026-05-01T04:00:00+00:00")
    runs.save(tmp_path / "runs", state.with_step("evaluate", figures, 1.0))
    adopted = champion(shop.settings)
    assert adopted is not None
    assert (adopted.run, adopted.version, adopted.by) == ("old", 0, record.ADOPTED)
    assert adopted.bundle == adopted.measured == str(bundle)
    assert adopted.metrics == {"test/ndcg_at_10": 0.5}
    assert not path_of(shop.settings).exists()  # looking writes nothing
    add(shop.settings, release("new", 1))
    assert [one.run for one in releases(shop.settings)] == ["old", "new"]


def test_the_table_that_is_added_first_is_not_adopted_as_well(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    bundle = shop.bundle("a")
    version = shop.table("new", bundle)
    add(shop.settings, replace(release("new", version), table=str(tmp_path / "candidates"), by="night"))
    assert [(one.run, one.by) for one in releases(shop.settings)] == [("new", "night")]


def test_a_bundle_without_a_table_is_no_release(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.point(shop.bundle("a"))
    assert champion(shop.settings) is None


@pytest.mark.parametrize("text", ["", "[", "[]", '{"releases": [{"run": "a"}]}', '{"releases": 3}', "null"])
def test_a_damaged_list_is_told(tmp_path: Path, text: str) -> None:
    settings = Shop(tmp_path).settings
    add(settings, release("r1"))
    path_of(settings).write_text(text, encoding="utf-8")
    with pytest.raises(RecsysError, match="is damaged; restore it"):
        champion(settings)
    assert path_of(settings).read_text(encoding="utf-8") == text


def test_what_a_later_version_adds_is_left_out(tmp_path: Path) -> None:
    settings = Shop(tmp_path).settings
    add(settings, release("r1"))
    held = json.loads(path_of(settings).read_text(encoding="utf-8"))
    held["releases"][0]["colour"] = "green"
    path_of(settings).write_text(json.dumps(held), encoding="utf-8")
    assert releases(settings) == (release("r1"),)
