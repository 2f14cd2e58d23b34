"""The shop that rules are made for: the newest catalogue, the bundle's own, and what a night tries before it works."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest

from recsys.errors import InputError
from recsys.rules.apply import rules_of
from recsys.serving.shop import check_rules, shop_of
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions, overwrite
from tests.recsys.table.test_build import NOW, make_log, settings_of

STOCK: dict[str, Any] = {"kind": "only", "where": [{"column": "in_stock", "one_of": [True]}]}


@pytest.fixture
def versions(tmp_path: Path) -> TableVersions:
    """Tables of a log of 60 items and of a catalogue that says of 20 of them that they are in stock."""
    log = make_log(tmp_path)
    items = pl.DataFrame({"item_id": [place * 10 for place in range(60)]})
    items = items.with_columns(
        pl.col("item_id").cast(pl.String).alias("title"), (pl.col("item_id") < 200).alias("in_stock")
    )
    return TableVersions(interactions=log.interactions, items=overwrite(tmp_path, "items", items, expected=None))


def with_rules(root: Path, rules: dict[str, Any], **more: Any) -> Any:
    more = {"items": {"source": "items.csv", "text": ["title"]}, "data_root": str(root), "rules": rules, **more}
    return settings_of(root, **more)


def test_a_night_tries_its_rules_on_the_newest_catalogue(tmp_path: Path, versions: TableVersions) -> None:
    assert check_rules(with_rules(tmp_path, {}), versions, NOW) == ()
    assert check_rules(with_rules(tmp_path, {"stock": STOCK}), versions, NOW) == ()
    (tmp_path / "few.txt").write_text("0\n10\n990\n")
    rules = {
        "stock": STOCK,
        "few": {"kind": "allow", "items": "few.txt"},
        "p": {"kind": "pin", "items": [0], "place": 11},
    }
    assert check_rules(with_rules(tmp_path, rules), versions, NOW) == (
        "The rules leave 2 items, so no list has retrieve.k = 10 rows.",
        "rules.p pins items down to place 11, and lists end at retrieve.k = 10.",
    )


def test_conditions_read_numbers_as_the_catalogue_writes_them(tmp_path: Path, versions: TableVersions) -> None:
    items = pl.DataFrame({"item_id": [0, 10, 20], "title": ["", "", ""], "price": ["9,99", "5", "30,00"]})
    here = replace(versions, items=overwrite(tmp_path, "items", items, expected=versions.items))
    source = {"source": "items.csv", "separator": ";", "decimal": ",", "text": ["title"]}
    rules = {"cheap": {"kind": "only", "where": [{"column": "price", "at_most": 20}]}}
    assert check_rules(with_rules(tmp_path, rules, items=source), here, NOW) == (
        "The rules leave 2 items, so no list has retrieve.k = 10 rows.",
    )


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (
            STOCK | {"where": [{"column": "in_stok", "one_of": [True]}]},
            "'in_stok', which the newest catalogue does not",
        ),
        ({"kind": "deny", "items": "gone.txt"}, "gone.txt, and there is no such file"),
        ({"kind": "only", "where": [{"column": "title", "one_of": ["x"]}]}, "rules.x leaves none of the 60 items"),
        (
            {"kind": "repeat", "where": STOCK["where"], "after_days": 3},
            "rules.x.after_days counts.*the log has no time",
        ),
    ],
)
def test_it_says_in_one_sentence_what_does_not_fit(
    tmp_path: Path, versions: TableVersions, rule: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        check_rules(with_rules(tmp_path, {"x": rule}), versions, NOW)
    assert "\n" not in str(error.value)


def test_without_a_warehouse_the_catalogue_is_the_bundles_own() -> None:
    catalogue = pl.DataFrame({"item_id": [1, 2], "title": ["one", "two"]})
    served: Any = SimpleNamespace(bundle=SimpleNamespace(catalogue=catalogue, label="shop-12"), blended=None)
    tree = {
        "name": "s",
        "interactions": {"source": "l.csv"},
        "rules": {"stock": STOCK, "p": {"kind": "pin", "items": [2]}},
    }
    settings = parse_settings(tree)
    shop = shop_of(settings, served, NOW)
    with pytest.raises(InputError, match="'in_stock', which the catalogue of the bundle shop-12 does not have"):
        rules_of(settings, shop)
    pinned = rules_of(settings, shop, names=["p"])
    assert pinned is not None and pinned.names == ("p",)
    assert rules_of(settings, shop, names=[]) is None
    assert parse_settings(settings.model_dump(mode="json")) == settings
