from __future__ import annotations

import json
from typing import Any

import pytest

from recsys.features.declaration import Feature, check_features, declared, describe, require_same

SHOP = (
    Feature(name="brand", lookups=2),
    Feature(name="price", kind="numeric", buckets=8),
    Feature(name="tags", kind="multi", pooling="attention"),
    Feature(name="brand x price", kind="crossed", of=("brand", "price")),
)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"lookups": 0}, "'brand' asks for 0 look-ups; allowed are 1 to 8"),
        ({"lookups": 9}, "'brand' asks for 9 look-ups"),
        ({"kind": "list"}, "'brand' has kind 'list'; choose one of single, multi, numeric, crossed"),
        ({"kind": "multi", "pooling": "max"}, "'brand' has pooling 'max'; choose one of mean, sum, attention"),
        ({"kind": "numeric", "buckets": 1}, "'brand' asks for 1 buckets"),
        ({"kind": "crossed", "of": ("a",)}, r"'brand' is of kind 'crossed' with of = \['a'\]; .* two or more"),
        ({"of": ("a", "b")}, "'brand' is of kind 'single'"),
    ],
)
def test_a_bad_setting_names_the_feature(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Feature(name="brand", **setting)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ([], "no feature is declared"),
        ([Feature(name="a"), Feature(name="a", lookups=2)], "'a' is declared twice"),
        (
            [Feature(name="brand"), Feature(name="x", kind="crossed", of=("brand", "brnd"))],
            "'x' crosses the unknown feature 'brnd'; did you mean 'brand'?",
        ),
        (
            [*SHOP, Feature(name="x", kind="crossed", of=("brand", "tags"))],
            "'x' crosses 'tags', which is of kind 'multi'; only single-valued",
        ),
    ],
)
def test_features_that_make_no_sense_together(features: list[Feature], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_features(features)


def test_a_declaration_passes_through_json() -> None:
    text = json.dumps(describe(SHOP))
    assert declared(json.loads(text)) == SHOP
    assert "buckets" not in json.loads(text)[0]  # only what the kind uses


def test_a_damaged_declaration_says_where() -> None:
    with pytest.raises(ValueError, match="has no field 'look_ups'"):
        declared([{"name": "a", "look_ups": 2}])
    with pytest.raises(ValueError, match="has no name"):
        declared([{"kind": "single"}])


@pytest.mark.parametrize(
    ("current", "message"),
    [
        (SHOP[:2], "trained with feature 'tags', which the data lack; add it or train anew"),
        ((*SHOP, Feature(name="size")), "does not know feature 'size' of the data; remove it or train anew"),
        (
            (Feature(name="brand", lookups=3), *SHOP[1:]),
            "feature 'brand' has lookups 2 in the bundle and 3 in the data; declare it as in the bundle",
        ),
        ((SHOP[0], Feature(name="price"), *SHOP[2:3]), "feature 'price' has buckets 8 in the bundle and None"),
    ],
)
def test_other_features_than_the_bundles_are_refused(current: tuple[Feature, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_same(SHOP, current)


def test_the_same_features_in_another_order_are_the_same() -> None:
    require_same(SHOP, reversed(SHOP))
