"""Lists by rules against a brute force over all items, and what holds for any rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.ranking.blend import Blended
from recsys.retrieval.index import build_index
from recsys.rules.apply import Rules
from recsys.rules.choose import _relevance
from recsys.serving.fallback import Fallback, Popular
from recsys.serving.lists import Lists, floor, lists
from tests.recsys.candidates import ring
from tests.recsys.ranking.blends import blend_of, random_weights
from tests.recsys.rules.shops import Scorer, histories_of, made, shop_of

seeds = st.integers(0, 2**32 - 1)
CAP: dict[str, Any] = {"kind": "at_most", "column": "brand", "n": 2}
SECOND: dict[str, Any] = {"kind": "at_most", "column": "genres", "separator": "|", "n": 3}
STOCK: dict[str, Any] = {"kind": "only", "where": [{"column": "stock", "at_least": 1}]}
BOOST: dict[str, Any] = {"kind": "boost", "where": [{"column": "stock", "at_most": 1}], "by": 0.7}
LESS: dict[str, Any] = {"kind": "boost", "where": [{"column": "brand", "one_of": ["x"]}], "by": -0.4}
LOW: dict[str, Any] = {"kind": "min_score", "score": 0.5}
PIN: dict[str, Any] = {"kind": "pin", "items": [5, 3], "place": 2}


def catalogue_of(size: int, rng: np.random.Generator) -> pl.DataFrame:
    brands, genres = ["x", "y", "z", None], ["A", "B", "A|B", None]
    return pl.DataFrame(
        {
            "item_id": np.arange(size) + 1,
            "brand": [brands[i] for i in rng.integers(0, 4, size)],
            "genres": [genres[i] for i in rng.integers(0, 4, size)],
            "stock": rng.integers(0, 4, size),
        }
    )


def case(seed: int, size: int = 40, users: int = 7) -> tuple[Scorer, Sequences, pl.DataFrame]:
    rng = np.random.default_rng(seed)
    vectors = np.vstack([np.zeros(3), np.round(rng.normal(size=(size, 3)), 1)]).astype(np.float32)
    scorer = Scorer(build_index(vectors, np.arange(size + 1) > 0), rng.normal(size=(users, 3)).astype(np.float32))
    had = [rng.permutation(size)[: rng.integers(1, 9)] + 1 for _ in range(users)]
    return scorer, histories_of(*[one.tolist() for one in had]), catalogue_of(size, rng)


def ask(scorer: Scorer, histories: Sequences, rules: Rules | None, k: int, fallback: Fallback | None = None) -> Lists:
    shelf, lower = floor(scorer, rules, fallback=fallback)  # type: ignore[arg-type]
    return lists(scorer, histories, k=k, shelf=shelf, fallback=lower, rules=rules)  # type: ignore[arg-type]


def brute_force(
    scores: np.ndarray, seen: set[int], catalogue: pl.DataFrame, rules: dict[str, Any], k: int
) -> list[int]:
    """Every item in its order, one by one: what the rules say, said again."""
    rows = [{}, *catalogue.to_dicts()]
    allowed = [c for c in range(1, len(rows)) if not ("stock" in rules and rows[c]["stock"] < 1)]
    value = scores.astype(np.float32).copy()
    for code in allowed:
        if "boost" in rules and rows[code]["stock"] <= 1:
            value[code] += np.float32(0.7)
        if "less" in rules and rows[code]["brand"] == "x":
            value[code] += np.float32(-0.4)
    free = [c for c in sorted(allowed, key=lambda c: (-value[c], c)) if c not in seen]
    free = [c for c in free if not ("low" in rules and scores[c] < 0.5)]
    places = {1 + at: c for at, c in enumerate((5, 3)) if "pin" in rules and c in allowed and c not in seen}
    places = {place: c for place, c in places.items() if place < k}
    counts: dict[str, int] = {}

    def named(code: int) -> list[tuple[str, int]]:
        brand, genres = rows[code]["brand"], rows[code]["genres"]
        found = [(f"brand {brand}", 2)] if "cap" in rules and brand is not None else []
        return found + [(f"genre {one}", 3) for one in (genres or "").split("|") if one and "second" in rules]

    for code in places.values():
        for name, _ in named(code):
            counts[name] = counts.get(name, 0) + 1
    picked = []
    for code in free:
        if len(picked) + len(places) == k:
            break
        if code not in places.values() and all(counts.get(name, 0) < most for name, most in named(code)):
            picked.append(code)
            for name, _ in named(code):
                counts[name] = counts.get(name, 0) + 1
    found: list[int] = []
    for place in range(k):
        if place in places:
            found.append(places[place])
        elif picked:
            found.append(picked.pop(0))
    return found


KINDS = {"cap": CAP, "second": SECOND, "stock": STOCK, "boost": BOOST, "less": LESS, "low": LOW, "pin": PIN}


@given(seeds, st.sets(st.sampled_from(sorted(KINDS)), min_size=1), st.integers(1, 12))
@settings(max_examples=60)
def test_lists_are_those_of_a_brute_force_over_all_items(seed: int, kinds: set[str], k: int) -> None:
    scorer, histories, catalogue = case(seed)
    rules = {name: KINDS[name] for name in sorted(kinds)}
    found = ask(scorer, histories, made(rules, shop_of(catalogue)), k)
    dense = scorer.queries @ scorer.index.vectors.T
    for user in range(len(histories)):
        expected = brute_force(dense[user], set(histories.history(user).tolist()), catalogue, rules, k)
        codes = found.codes[user][found.codes[user] != PADDING].tolist()
        assert codes == expected


@given(seeds, st.integers(1, 12), st.booleans())
@settings(max_examples=40)
def test_rules_that_change_nothing_leave_the_lists_as_they_are(seed: int, k: int, blended: bool) -> None:
    scorer, histories, catalogue = case(seed)
    if blended:
        scorer, histories, catalogue = blend_case(seed)
    size = len(scorer.index.vectors) - 1
    popular = Popular(counts=np.random.default_rng(seed).random((1, size + 1)).astype(np.float32))
    fallback = Fallback(popular=popular, allowed=np.arange(size + 1) > 0)
    nothing = {
        "many": CAP | {"n": 1000},
        "all": {"kind": "min_score", "score": -1e6},
        "same": BOOST | {"by": 0.0},
        "old": {"kind": "repeat", "where": [{"column": "stock", "above": 100}]},
        "now": {"kind": "diverse", "column": "brand", "weight": 0.0, "pool": 1},
    }
    ruled = ask(scorer, histories, made(nothing, shop_of(catalogue)), k, fallback)
    plain = ask(scorer, histories, None, k, fallback)
    for name in ("codes", "scores", "rungs", "zero"):
        np.testing.assert_array_equal(getattr(ruled, name), getattr(plain, name))
    assert ruled.names.tolist() == plain.names.tolist()


def blend_case(seed: int) -> tuple[Scorer, Sequences, pl.DataFrame]:
    blended: Blended = random_weights(blend_of(ring.data(), candidates=3), seed % 97)
    scorer = Scorer(ring.items(), ring.queries(), blended)
    own = ring.histories()
    histories = Sequences(users=pl.Series("user_id", range(len(own))), items=own.items, offsets=own.offsets)
    return scorer, histories, catalogue_of(ring.V, np.random.default_rng(seed))


@given(seeds, st.integers(1, 30), st.booleans(), st.floats(0, 1))
@settings(max_examples=40)
def test_caps_hold_lists_are_distinct_and_as_long_as_they_can_be(
    seed: int, k: int, blended: bool, weight: float
) -> None:
    scorer, histories, catalogue = blend_case(seed) if blended else case(seed)
    size = len(scorer.index.vectors) - 1
    rules = {"cap": CAP, "stock": STOCK, "mixed": {"kind": "diverse", "column": "genres", "weight": weight, "pool": 9}}
    made_rules = made(rules, shop_of(catalogue))
    fallback = Fallback(popular=Popular(counts=np.ones((1, size + 1), np.float32)), allowed=np.arange(size + 1) > 0)
    found = ask(scorer, histories, made_rules, k, fallback)
    brands = [None, *catalogue["brand"].to_list()]
    for user, row in enumerate(found.codes):
        codes = [int(code) for code in row if code != PADDING]
        seen = set(histories.history(user).tolist())
        assert len(codes) == len(set(codes)) and not set(codes) & seen
        assert all(made_rules.allowed[code] for code in codes)
        of = [brands[code] for code in codes]
        assert all(of.count(brand) <= 2 for brand in set(of) - {None})
        left = {c for c in np.flatnonzero(made_rules.allowed).tolist() if c not in seen}
        most = sum(1 for c in left if brands[c] is None)
        most += sum(min(2, sum(1 for c in left if brands[c] == b)) for b in ("x", "y", "z"))
        assert len(codes) == min(found.codes.shape[1], k, most)


def test_only_users_whose_lists_are_short_are_asked_for_again() -> None:
    vectors = np.vstack([np.zeros(2), [[20 - i, 0] for i in range(10)], [[0, 30 - i] for i in range(10)]])
    scorer = Scorer(
        build_index(vectors.astype(np.float32), np.arange(21) > 0), np.array([[1, 0], [0.1, 1]], np.float32)
    )
    catalogue = pl.DataFrame({"item_id": range(20), "brand": ["x"] * 10 + [f"{i}" for i in range(10)]})
    rules = made({"cap": {"kind": "at_most", "column": "brand", "n": 1}}, shop_of(catalogue))
    found = ask(scorer, histories_of([], []), rules, 3)
    assert found.codes.tolist() == [[1, 11, 12], [11, 12, 13]]
    assert scorer.requests == [2, 1]


@pytest.mark.parametrize("k", [1, 4])
def test_a_diverse_list_is_that_of_the_definition(k: int) -> None:
    scorer, histories, catalogue = case(3)
    rules = made({"d": {"kind": "diverse", "column": "brand", "weight": 0.4, "pool": 20}}, shop_of(catalogue))
    found = ask(scorer, histories, rules, k)
    dense, brands = scorer.queries @ scorer.index.vectors.T, [None, *catalogue["brand"].to_list()]
    for user in range(len(histories)):
        seen = set(histories.history(user).tolist())
        order = [c for c in sorted(range(1, 41), key=lambda c: (-dense[user, c], c)) if c not in seen][:20]
        chosen: list[int] = []
        best, last, about = dense[user, order[0]], dense[user, order[-1]], (order, chosen, dense[user])

        def value(code: int, of: Any = about, best: float = best, last: float = last) -> tuple[float, int]:
            order, chosen, scores = of
            alike = any(brands[code] is not None and brands[code] == brands[other] for other in chosen)
            return round(float(0.6 * (scores[code] - last) / (best - last) - 0.4 * alike), 6), -order.index(code)

        for _ in range(k):
            chosen.append(max((code for code in order if code not in chosen), key=value))
        assert found.codes[user].tolist() == chosen


def test_rows_of_the_fallback_are_less_relevant_than_those_of_the_model() -> None:
    scores = np.array([[5.0, 3.0, 1.0, -1.0], [-1.0, -2.0, 0.0, 0.0], [7.0, 7.0, 0.0, 0.0]], dtype=np.float32)
    own = np.array([[True, True, False, False], [False, False, False, False], [True, True, False, False]])
    there = np.array([[True] * 4, [True, True, False, False], [True, True, False, False]])
    assert _relevance(there, scores, own).tolist() == [[1.0, 0.5, 0.25, 0.0], [0.5, 0.0, 0.0, 0.0], [0.0] * 4]
