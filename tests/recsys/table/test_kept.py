"""Rows of users without news stay where nothing that decides on them has changed, and are those of a whole build."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from recsys.night.fit import fit
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage import stream
from recsys.table import build
from recsys.table.built import BuiltCandidates
from recsys.table.refresh import changed_since, refresh
from tests.recsys.table.shops import NOW, TeaShop

LATER = NOW + timedelta(days=1)
WHOLE = 42  # users whose lists the model fills; of the last one it knows nothing


def built(shop: TeaShop, settings: Settings | None = None) -> BuiltCandidates:
    bundle = Path(shop.settings.warehouse, "bundles", shop.table()["bundle"][0])
    return build.build(settings or shop.settings, shop.read(), bundle, "run-2", LATER)


def rows(of: BuiltCandidates) -> pl.DataFrame:
    return pl.read_parquet(stream.paths(of.staged))


def anew(shop: TeaShop, monkeypatch: pytest.MonkeyPatch) -> pl.DataFrame:
    with monkeypatch.context() as patch:
        patch.setattr(build, "kept_rows", lambda *_: None)
        return rows(built(shop))


def test_a_table_of_kept_and_new_rows_is_that_of_a_whole_build(shop: TeaShop, monkeypatch: pytest.MonkeyPatch) -> None:
    shop.buy([("u03", "cup 5", 20), ("one", "tea 4", 20), ("new 'one", "pot 2", 20)])
    shop.buy([("u05", "tea 1", 22)], "back")
    report = built(shop)
    assert report.kept == WHOLE - 3  # u03, u05 and one have news
    assert rows(report).equals(anew(shop, monkeypatch))
    made = rows(report)
    assert set(made["run"]) == {"run-2"} and set(made["as_of"]) == {LATER} and made.equals(made.sort("user_id", "rank"))


def test_without_news_all_rows_but_those_of_the_fallback_stay(shop: TeaShop, monkeypatch: pytest.MonkeyPatch) -> None:
    report = built(shop)
    assert report.kept == WHOLE and report.users == WHOLE + 1
    assert rows(report).equals(anew(shop, monkeypatch))


def test_the_users_who_are_asked_for_alone_have_rows(shop: TeaShop) -> None:
    (shop.root / "some.txt").write_text("u01\nu02\n")
    (shop.root / "less.txt").write_text("u01\nu02\n")
    asked = shop.with_retrieve(users="some.txt")
    assert built(shop, asked).kept == 0  # other settings than those of the table
    bundle = Path(shop.settings.warehouse, "bundles", shop.table()["bundle"][0])
    build.publish(asked, build.build(asked, shop.read(), bundle, "run-2", LATER))
    (shop.root / "some.txt").write_text("u02\nu04\n")
    report = built(shop, asked)
    assert report.kept == 1 and set(rows(report)["user_id"]) == {"u02", "u04"}


def changed(shop: TeaShop, what: str) -> Settings:
    """The settings, with a shop in which something that decides on rows has changed."""
    tree: dict[str, Any] = shop.settings.model_dump(mode="json")
    if what == "catalogue":
        with (shop.root / "items.csv").open("a") as file:
            file.write("mug 1,mug 1\n")
    elif what == "k":
        tree["retrieve"]["k"] = 3
    elif what == "items that count by others' events":
        tree["filter"]["min_item_interactions"] = 2
    return parse_settings(tree)


@pytest.mark.parametrize("what", ["catalogue", "k", "items that count by others' events"])
def test_all_rows_are_made_anew_where_something_else_has_changed(shop: TeaShop, what: str) -> None:
    assert built(shop, changed(shop, what)).kept == 0


@pytest.mark.parametrize(
    ("rule", "kept"),
    [
        ({"kind": "never", "where": [{"column": "title", "one_of": ["tea 1"]}]}, True),
        ({"kind": "not_again", "days": 30}, False),  # it looks at the time
    ],
)
def test_rules_that_look_at_the_time_keep_no_row(shop: TeaShop, rule: dict[str, Any], kept: bool) -> None:
    ruled = parse_settings({**shop.settings.model_dump(mode="json"), "rules": {"mine": rule}})
    assert built(shop, ruled).kept == 0  # the table was made without the rule
    build.publish(ruled, built(shop, ruled))
    assert (built(shop, ruled).kept > 0) is kept


def test_another_bundle_keeps_no_row(shop: TeaShop) -> None:
    path = Path(shop.settings.warehouse, "bundles", shop.table()["bundle"][0])
    other = shop.settings.model_copy(update={"seed": 1})
    versions = shop.read()
    bundle = fit(other, versions).bundle
    assert Path(bundle).name != path.name
    assert build.build(shop.settings, versions, bundle, "run-2", LATER).kept == 0


def test_after_a_refresh_under_other_rules_no_row_stays(shop: TeaShop) -> None:
    """The refresh makes the rows of one user; those of all others are as the rules before made them."""
    deny = {"kind": "deny", "items": "denied.txt"}
    ruled = parse_settings({**shop.settings.model_dump(mode="json"), "rules": {"denied": deny}})
    (shop.root / "denied.txt").write_text("tea 1\n")
    build.publish(ruled, built(shop, ruled))
    refresh_one(shop, ruled, 20)
    assert built(shop, ruled).kept == WHOLE  # by the same rules
    (shop.root / "denied.txt").write_text("tea 1\ntea 2\n")
    refresh_one(shop, ruled, 21)
    report = built(shop, ruled)
    assert report.kept == 0 and not {"tea 1", "tea 2"} & set(rows(report)["item_id"])
    refresh_one(shop, ruled, 22)  # by the rules of the refresh before, which made one user's rows
    assert built(shop, ruled).kept == 0


def refresh_one(shop: TeaShop, settings: Settings, day: int) -> None:
    shop.buy([("u03", "cup 5", day)])
    versions, bundle = shop.read(), Path(shop.settings.warehouse, "bundles", shop.table()["bundle"][0])
    news = changed_since(settings, versions)
    assert news.users is not None and news.users.to_list() == ["u03"]
    refresh(settings, versions, news, bundle, "run-2", LATER)
