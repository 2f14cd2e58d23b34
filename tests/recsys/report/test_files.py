"""Pages on disk: names, the latest, pseudonyms, and forgetting."""

from __future__ import annotations

import stat
from pathlib import Path

from recsys.forgetting.sought import Sought
from recsys.report.files import KEY_FILE, LATEST, forget, page_name, page_of, pages, pseudonyms, write_page

EARLY, LATE = "2026-11-27T01:00:00+00:00", "2026-11-28T01:00:00+00:00"


def test_the_latest_page_is_that_of_the_last_night_even_when_an_earlier_one_is_made_again(tmp_path: Path) -> None:
    write_page(tmp_path, EARLY, "a1", "early")
    assert (tmp_path / LATEST).read_text() == "early"
    write_page(tmp_path, LATE, "b2", "late")
    path = write_page(tmp_path, EARLY, "a1", "early, again")
    assert (tmp_path / LATEST).read_text() == "late"
    assert path.read_text() == "early, again"
    assert [page.name for page in pages(tmp_path)] == [page_name(EARLY, "a1"), page_name(LATE, "b2")]


def test_a_page_is_found_by_the_beginning_of_its_run_where_it_is_the_only_one(tmp_path: Path) -> None:
    write_page(tmp_path, EARLY, "a123", "")
    write_page(tmp_path, LATE, "a145", "")
    found = page_of(tmp_path, "a12")
    assert found is not None and found.name == page_name(EARLY, "a123")
    assert page_of(tmp_path, "a1") is None
    assert page_of(tmp_path, "zz") is None


def test_names_are_of_the_same_moment_whatever_its_zone() -> None:
    assert page_name("2026-11-28T02:00:00+01:00", "r") == page_name(LATE, "r")


def test_a_pseudonym_stays_and_is_of_its_warehouse_alone(tmp_path: Path) -> None:
    one, again, other = pseudonyms(tmp_path / "a"), pseudonyms(tmp_path / "a"), pseudonyms(tmp_path / "b")
    assert one("42") == again("42") == one(42)
    assert one("42") != one("43")
    assert one("42") != other("42")
    assert "42" not in (one("42"), one("43"))
    assert stat.S_IMODE((tmp_path / "a" / KEY_FILE).stat().st_mode) == 0o600


def test_forgetting_deletes_the_pages_that_show_a_user_and_no_other(tmp_path: Path) -> None:
    called = pseudonyms(tmp_path / "runs")
    shop = tmp_path / "reports" / "shop"
    hidden = write_page(shop, EARLY, "a", f'<tr data-user="{called("u1")}">')
    other = write_page(shop, EARLY, "b", f'<tr data-user="{called("u11")}">')
    named = write_page(shop, LATE, "c", '<tr data-user="u1">')
    assert forget(tmp_path / "reports", Sought(users=frozenset(["u1"])), called) == 2
    assert not hidden.exists() and not named.exists() and other.exists()
    assert not (shop / LATEST).exists()
