"""Each kind of rule by hand, in a shop of six items."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.attributes import attribute_values
from recsys.errors import InputError
from recsys.retrieval.index import build_index
from recsys.serving.fallback import Fallback, Popular
from recsys.serving.lists import Lists, floor, lists
from recsys.settings import UserSettings
from tests.recsys.rules.shops import CATALOGUE, DAY, NOW, Scorer, histories_of, ids, made, shop_of

SCORES = {"a": 6.0, "b": 5.0, "c": 4.0, "d": 3.0, "e": 2.0, "f": 1.0}  # the model's, for every user
MOMENT = int(NOW.timestamp() * 1_000_000)


def model(users: int = 3) -> Scorer:
    vectors = np.array([[0.0], *([score] for score in SCORES.values())], dtype=np.float32)
    return Scorer(build_index(vectors, np.arange(7) > 0), np.ones((users, 1), dtype=np.float32))


def ask(rules: dict[str, Any], *histories: list[int], k: int = 3, fallback: bool = False, **more: Any) -> Lists:
    """The lists of users with these histories, by default one who has had nothing that is known."""
    about = {name: more.pop(name) for name in ("times", "attributes") if name in more}
    given = histories_of(*(histories or ([1],)), **about)
    shop = shop_of(user_attributes=("country", "group"), **more.pop("shop", {}))
    found = made(rules, shop)
    scorer = model(len(given))
    popular = Fallback(popular=Popular(counts=np.array([[0, 1, 2, 3, 4, 5, 6]], np.float32)), allowed=np.arange(7) > 0)
    shelf, lower = floor(scorer, found, fallback=popular if fallback else None)  # type: ignore[arg-type]
    options = {"exclude_seen": False, **more}
    return lists(scorer, given, k=k, shelf=shelf, fallback=lower, rules=found, **options)  # type: ignore[arg-type]


WHERE = {"column": "brand", "one_of": ["X"]}


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ({"kind": "only", "where": [{"column": "in_stock", "one_of": [True]}]}, "abde"),
        ({"kind": "only", "where": [{"column": "price", "below": 25}, WHERE]}, "ab"),
        ({"kind": "never", "where": [WHERE]}, "def"),
        ({"kind": "never", "where": [WHERE, {"column": "price", "above": 15}]}, "adef"),
        # a: until the end of this day; b: until yesterday; c: from one o'clock; d: always; e: since today; f: over
        ({"kind": "valid", "from_column": "from", "until_column": "until"}, "ade"),
        ({"kind": "valid", "from_column": "from"}, "abdef"),
        ({"kind": "valid", "until_column": "until"}, "acde"),
        ({"kind": "min_score", "score": 3.0}, "abcd"),
        ({"kind": "at_most", "column": "brand", "n": 1}, "adf"),
        ({"kind": "at_most", "column": "brand", "n": 2}, "abdef"),
        ({"kind": "at_most", "column": "genres", "separator": "|", "n": 1}, "ade"),  # f has the A of a
        ({"kind": "boost", "where": [WHERE], "by": -10.0}, "defabc"),
        ({"kind": "boost", "where": [{"column": "price", "below": 6}], "by": 3.5}, "aebfcd"),
        ({"kind": "pin", "items": ["f"], "place": 2}, "afbcde"),
        ({"kind": "pin", "items": ["f", "d"], "place": 1}, "fdabce"),
        ({"kind": "diverse", "column": "brand", "weight": 0.0}, "abcdef"),
        # relevance falls by 1/5: a; then d (0.5 x 0.4 = 0.2) against b (0.5 x 0.8 - 0.5 < 0); f has no brand
        ({"kind": "diverse", "column": "brand", "weight": 0.5}, "adfbce"),
        ({"kind": "diverse", "column": "brand", "weight": 0.5, "pool": 3}, "abcdef"),
    ],
)
def test_a_rule_by_hand(rule: dict[str, Any], expected: str) -> None:
    assert ids(ask({"one": rule}, k=6).codes) == [expected]
    assert ids(ask({"one": rule}, k=2).codes) == [expected[:2]]


def test_numbers_in_conditions_have_the_catalogues_decimal_sign() -> None:
    catalogue = CATALOGUE.with_columns(price=pl.Series(["9,99", "5", "30,00", "20,0", "20,01", "?"]))
    rule = {"cheap": {"kind": "only", "where": [{"column": "price", "at_most": 20}]}}
    for decimal, allowed, lost in ((",", "abd", 1), (".", "b", 5)):
        found = made(rule, shop_of(catalogue, decimal=decimal))
        assert ids(np.flatnonzero(found.allowed)[None, :]) == [allowed]
        (remark,) = found.remarks
        assert remark.startswith(f"{lost} of 6 values of 'price'") and f"is {decimal!r}" in remark


def test_lists_of_ids_come_from_files(tmp_path: Path) -> None:
    (tmp_path / "some.txt").write_text("b\n\nunknown\n e \n")
    pl.DataFrame({"item_id": ["a", "b"], "why": ["", ""]}).write_csv(tmp_path / "some.csv")
    where = {"shop": {"data_root": str(tmp_path)}}
    assert ids(ask({"x": {"kind": "allow", "items": "some.txt"}}, k=6, **where).codes) == ["be"]
    assert ids(ask({"x": {"kind": "deny", "items": "some.csv"}}, k=6, **where).codes) == ["cdef"]


def test_a_market_is_what_user_and_item_share() -> None:
    users = pl.DataFrame({"country": ["AT", "FR", None]})
    rule = {"kind": "market", "user": "country", "item": "countries", "separator": "|"}
    codes = ask({"m": rule}, [1], [1], [1], k=6, attributes=users).codes
    assert ids(codes) == ["ade", "cd", "abcdef"]
    codes = ask({"m": rule | {"unknown": "none"}}, [1], [1], [1], k=6, attributes=users).codes
    assert ids(codes) == ["ade", "cd", "d"]  # d is sold everywhere
    several = pl.DataFrame({"country": [["AT", "FR"], ["DE"], []]})
    assert ids(ask({"m": rule}, [1], [1], [1], k=6, attributes=several).codes) == ["acde", "abdf", "abcdef"]


@pytest.mark.parametrize("kind", [pl.Int64, pl.Float64, pl.String])
def test_numbers_of_users_and_items_meet_however_their_tables_hold_them(kind: type[pl.DataType]) -> None:
    """Whole floats are integers, as nulls make floats of a column."""
    regions = pl.Series("region", [49, 33, 49, 1, None, 33], dtype=pl.Int64).cast(kind)
    declared = UserSettings.model_validate({"source": "u.parquet", "categorical": {"country": {"column": "region"}}})
    rows = pl.DataFrame({"region": [49.0, 33.0, None]})
    more: dict[str, Any] = {"k": 6, "shop": {"catalogue": CATALOGUE.with_columns(regions)}}
    rule = {"m": {"kind": "market", "user": "country", "item": "region"}}
    for users in (attribute_values("users", declared, rows), rows.rename({"region": "country"})):  # or a numeric one
        found = ask(rule, [1], [1], [1], attributes=users, **more)
        assert ids(found.codes) == ["ace", "bef", "abcdef"]
        pin = {"p": {"kind": "pin", "items": ["f"], "where": [{"column": "country", "one_of": [49]}]}}
        assert ids(ask(pin, [1], [1], [1], attributes=users).codes) == ["fab", "abc", "abc"]


TIMES = np.array([MOMENT - 40 * DAY, MOMENT - 10 * DAY, MOMENT - 2 * DAY])


@pytest.mark.parametrize(
    ("rules", "exclude_seen", "expected"),
    [
        ({"n": {"kind": "not_again", "days": 5}}, False, "abdef"),
        ({"n": {"kind": "not_again", "days": 15}}, False, "adef"),
        ({"n": {"kind": "not_again", "days": 5}}, True, "def"),
        ({"r": {"kind": "repeat", "where": [WHERE]}}, True, "abcdef"),
        ({"r": {"kind": "repeat", "where": [{"column": "price", "below": 25}]}}, True, "abdef"),
        ({"r": {"kind": "repeat", "where": [WHERE], "after_days": 20}}, True, "adef"),
        ({"r": {"kind": "repeat", "where": [WHERE]}, "n": {"kind": "not_again", "days": 5}}, True, "abdef"),
        ({"n": {"kind": "not_again", "days": 5}, "r": {"kind": "repeat", "where": [WHERE]}}, True, "abdef"),
    ],
)
def test_what_was_had_comes_again_or_not(rules: dict[str, Any], exclude_seen: bool, expected: str) -> None:
    assert ids(ask(rules, [1, 2, 3], k=6, times=TIMES, exclude_seen=exclude_seen).codes) == [expected]


def test_an_item_comes_again_by_its_last_event_and_events_without_a_time_are_of_now() -> None:
    rule = {"r": {"kind": "repeat", "where": [WHERE], "after_days": 5}}
    assert ids(ask(rule, [1, 2, 1], k=6, times=TIMES, exclude_seen=True).codes) == ["bcdef"]
    assert ids(ask(rule, [1, 2], k=6, exclude_seen=True).codes) == ["cdef"]
    assert ids(ask({"n": {"kind": "not_again", "days": 5}}, [1, 2], k=6).codes) == ["cdef"]


@pytest.mark.parametrize("fallback", [False, True])
def test_a_boost_loses_no_item_above_the_least_score(fallback: bool) -> None:
    """The fifth of six items is below it, so the sixth is, too, and no boost of theirs counts."""
    rules = {
        "low": {"kind": "min_score", "score": 3.0},
        "more": {"kind": "boost", "where": [{"column": "price", "below": 6}], "by": 3.0},
    }
    found = ask(rules, k=5, fallback=fallback)
    assert ids(found.codes) == ["abcdf" if fallback else "abcd"]
    assert found.names[0, :4].tolist() == ["vector"] * 4


def test_pins_obey_the_other_rules_and_count_for_the_caps() -> None:
    stock = {"kind": "only", "where": [{"column": "in_stock", "one_of": [True]}]}
    assert ids(ask({"s": stock, "p": {"kind": "pin", "items": ["c", "e"]}}, k=4).codes) == ["aebd"]  # e keeps its place
    assert ids(ask({"p": {"kind": "pin", "items": ["c"]}}, [3], k=4, exclude_seen=True).codes) == ["abde"]
    few = {"kind": "at_most", "column": "brand", "n": 1}
    found = ask({"few": few, "p": {"kind": "pin", "items": ["b", "c"], "place": 2}}, k=4)
    assert ids(found.codes) == ["dbcf"]  # both pins stay; a has their brand
    assert found.names.tolist() == [["vector", "rule-p", "rule-p", "vector"]]
    assert found.scores.tolist() == [[3.0, 1.0, 1.0, 1.0]]  # of the next below: sorted by score they keep their places


def test_pins_for_some_users_and_two_at_one_place() -> None:
    users = pl.DataFrame({"group": ["new", "old", None]})
    new = {"kind": "pin", "items": ["f"], "where": [{"column": "group", "one_of": ["new"]}]}
    assert ids(ask({"p": new}, [1], [1], [1], attributes=users).codes) == ["fab", "abc", "abc"]
    both = {"p": {"kind": "pin", "items": ["f"]}, "q": {"kind": "pin", "items": ["f", "e"]}}
    assert ids(ask(both).codes) == ["fea"]


def test_the_fallback_obeys_the_rules_but_for_scores() -> None:
    few = {"kind": "at_most", "column": "brand", "n": 1}
    low = {"kind": "min_score", "score": 5.5}
    boost = {"kind": "boost", "where": [WHERE], "by": 100.0}
    found = ask({"few": few, "low": low, "more": boost}, [], [2], k=3, fallback=True)
    assert ids(found.codes) == ["fec", "afe"]  # the second user's: a by the model, then what sells
    assert found.rungs.tolist() == [[2, 2, 2], [0, 2, 2]]
    assert (np.diff(found.scores, axis=1) < 0).all()
    assert found.by_fallback.tolist() == [True, False] and found.filled.tolist() == [False, True]


def test_only_named_rules_are_applied() -> None:
    rules = {"stock": {"kind": "only", "where": [{"column": "in_stock", "one_of": [True]}]}, "x": WHERE_NOT}
    assert made(rules, names=["stock"]).names == ("stock",)
    with pytest.raises(InputError, match=r"no rule 'stok'.*did you mean 'stock'"):
        made(rules, names=["stok"])


WHERE_NOT = {"kind": "never", "where": [WHERE]}


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"kind": "onyl"}, r"rules\.x\.kind = 'onyl'.*did you mean 'only'"),
        ({"where": []}, r"rules\.x\.kind is missing"),
        ({"kind": "at_most", "n": 1, "colum": "brand"}, r"rules\.x\.colum; did you mean rules\.x\.column"),
        ({"kind": "at_most", "n": 0, "column": "brand"}, r"rules\.x\.n = 0"),
        ({"kind": "at_most", "n": 1, "column": "brnd"}, "rules.x looks at the column 'brnd'.*did you mean 'brand'"),
        ({"kind": "only", "where": [{"column": "stock", "one_of": [True]}]}, "did you mean 'in_stock'"),
        ({"kind": "only", "where": [{"column": "brand", "one_of": ["x"]}]}, "leaves none of the 6 items.*value is 'X'"),
        ({"kind": "valid"}, "needs from_column, until_column or both"),
        ({"kind": "valid", "from_column": "title"}, "times in the column 'title'.*'red shoe' is none"),
        ({"kind": "market", "user": "contry", "item": "countries"}, "user attribute 'contry'.*did you mean 'country'"),
        ({"kind": "pin", "items": ["g"]}, "pins 'g', which is no item"),
        ({"kind": "allow", "items": "nowhere.txt"}, "rules.x.items names .*nowhere.txt, and there is no such file"),
        ({"kind": "not_again", "days": 3}, "rules.x.days counts from when.*the log has no time"),
        ({"kind": "diverse"}, "compares items by their text, and the newest catalogue has none"),
        ({"kind": "diverse", "weight": 1.5}, r"rules\.x\.weight = 1\.5"),
        ({"kind": "boost", "where": [WHERE], "by": 1e39}, r"rules\.x\.by = 1e\+39"),
        ({"kind": "boost", "where": [WHERE], "by": -1e39}, r"rules\.x\.by = -1e\+39"),
        ({"kind": "min_score", "score": 1e39}, r"rules\.x\.score = 1e\+39"),
    ],
)
def test_one_sentence_for_a_rule_that_does_not_fit(rule: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        made({"x": rule}, shop_of(user_attributes=("country",), timed=False))


def test_conditions_that_no_item_meets_are_remarked_on() -> None:
    rules = made({"b": {"kind": "boost", "where": [{"column": "brand", "one_of": ["y"]}], "by": 1.0}})
    assert rules.remarks == ("No item meets a condition of rules.b (brand one_of [\"y\"]); the nearest value is 'Y'.",)


def test_pins_that_another_rule_leaves_out_are_remarked_on() -> None:
    stock = {"kind": "only", "where": [{"column": "in_stock", "one_of": [True]}]}
    rules = made({"banner": {"kind": "pin", "items": ["a", "c"]}, "stock": stock})
    assert rules.remarks == ("rules.banner pins c, which rules.stock leaves out; it is shown to nobody.",)
    assert made({"banner": {"kind": "pin", "items": ["a", "c"]}}).remarks == ()


def test_diversity_by_text_takes_what_is_called_otherwise() -> None:
    vectors = np.zeros((7, 2), dtype=np.float32)
    vectors[1:4], vectors[4] = (2, 0), (0, 3)
    rules = {"d": {"kind": "diverse", "weight": 0.5}}
    found = ask(rules, k=3, shop={"texts": lambda: vectors})
    assert ids(found.codes) == ["ade"]  # d points elsewhere, e has no text and is like nothing
    assert CATALOGUE.height == 6


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([20301231, None], "the column 'end' of the newest catalogue, and numbers such as 20301231 are dates written"),
        ([20301231, 99991231], "the number 20301231, counted from 1970, is the moment 1970-08-23; write them as 2024"),
        ([2027, 2028], "numbers such as 2027 are years; write them as 2024-03-31"),
        (["20301231", ""], "numbers such as 20301231 are dates written as numbers"),
        (["2030-12-31", "2027"], "numbers such as 2027 are years"),
        ([253_402_300_799, 1_900_000_000], "the number 253402300799, counted from 1970, is the moment 1978-01-11"),
        ([0, 1_900_000_000], "the number 0, counted from 1970, .* leave empty what has no time"),
        ([["2030-12-31"], []], r"it holds lists or objects \(List\(String\)\)"),
    ],
)
def test_numbers_that_are_hardly_moments_do_not_end_everything(values: list[Any], message: str) -> None:
    catalogue = CATALOGUE.head(2).with_columns(pl.Series("end", values))
    with pytest.raises(InputError, match=message):
        made({"x": {"kind": "valid", "until_column": "end"}}, shop_of(catalogue))


def test_numbers_and_days_that_are_moments_stay() -> None:
    for values in (
        [1_900_000_000, None],
        ["1900000000", "2030-01-01"],
        pl.Series([0, 1_900_000_000 * 10**6]).cast(pl.Datetime("us")),
        ["1970-01-01", "2030-01-01"],
    ):
        catalogue = CATALOGUE.head(2).with_columns(pl.Series("end", values))
        made({"x": {"kind": "valid", "until_column": "end"}}, shop_of(catalogue))
    begins = CATALOGUE.with_columns(begin=pl.lit(0))  # since ever
    made({"x": {"kind": "valid", "from_column": "begin"}}, shop_of(begins))
