from __future__ import annotations

import itertools
import math
from collections import Counter
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.sequences import Sequences
from recsys.evaluation import lists as module
from recsys.evaluation.lists import (
    ListMeasures,
    coverage,
    gini,
    novelty,
    popularity_bands,
    popularity_lift,
    serendipity,
)
from recsys.evaluation.metrics import MISS
from recsys.evaluation.profiles import MOST_CATEGORIES, item_profiles

SIZE = 12
K = 4
GENRES = ("a", "ab", "b", "c", "cab", "d", "", "a", "da", "b", "c", None)  # of codes 1 to 12


def histories(users: list[list[int]]) -> Sequences:
    return Sequences(
        users=pl.Series("user_id", range(len(users))),
        items=np.array(list(itertools.chain(*users)), dtype=np.int32),
        offsets=np.cumsum([0, *map(len, users)]),
    )


def counted(codes: list[int], size: int = SIZE) -> np.ndarray:
    return np.bincount(codes, minlength=size + 1)


def genres() -> pl.DataFrame:
    """Codes 1 to 12: the item's genres, and one value each of a colour; the last item has neither."""
    return pl.DataFrame(
        {
            "genres": [list(names) if names is not None else None for names in GENRES],
            "colour": ["red", "red", None, "blue", "blue", "red", "green", "green", None, "red", "blue", None],
            "price": [float(n) for n in range(SIZE)],
        },
        schema={"genres": pl.List(pl.String), "colour": pl.String, "price": pl.Float64},
    )


def measured(
    top: list[list[int]], past: list[list[int]], popularity: np.ndarray, text: np.ndarray | None = None
) -> ListMeasures:
    found = ListMeasures(item_profiles(popularity, genres(), text), histories(past), cutoffs=(2, K), k=K)
    rows = np.array(top, dtype=np.int32)
    for start in range(0, len(rows), 2):  # blocks
        found.add(rows[start : start + 2])
    return found


some_lists = st.lists(
    st.tuples(
        st.lists(st.integers(1, SIZE), min_size=0, max_size=K, unique=True).map(lambda row: row + [0] * (K - len(row))),
        st.lists(st.integers(1, SIZE), min_size=0, max_size=6),
    ),
    min_size=1,
    max_size=9,
)


@given(some_lists, st.integers(0, 2**32 - 1))
def test_measures_are_their_definitions(users: list[tuple[list[int], list[int]]], seed: int) -> None:
    """Slow loops over users, places and pairs give the same."""
    rng = np.random.default_rng(seed)
    popularity = np.append(0, rng.integers(0, 9, SIZE)).astype(np.float32)
    popularity[1] += 1  # some interaction at least
    text = np.concatenate([np.zeros((1, 3)), rng.standard_normal((SIZE, 3))]).astype(np.float32)
    text[4] = 0
    top, past = [row for row, _ in users], [own for _, own in users]
    allowed = np.arange(SIZE + 1) > 0
    found = measured(top, past, popularity, text).further(allowed, "test")

    places = [code for row in top for code in row if code]
    total = float(popularity.sum())
    if places:
        bits = [-math.log2(max(float(popularity[code]), 1) / total) for code in places]
        assert found[f"test/novelty_at_{K}"] == pytest.approx(sum(bits) / len(bits), abs=1e-9)
        times = Counter(places)
        pairs = sum(abs(times[i] - times[j]) for i in range(1, SIZE + 1) for j in range(1, SIZE + 1))
        # Gini by its other definition: mean absolute difference over all pairs, corrected for n
        expected = pairs / (2 * SIZE * len(places)) * SIZE / (SIZE - 1)
        assert found[f"test/gini_at_{K}"] == pytest.approx(expected, abs=1e-9)
    means = [np.mean([float(popularity[code]) for code in own]) for own in past if own]
    if means and np.mean(means) > 0:
        lift = (np.mean([float(popularity[code]) for code in places]) if places else 0.0) / np.mean(means) - 1
        assert found[f"test/popularity_lift_at_{K}"] == pytest.approx(lift, abs=1e-9)

    names = genres().to_dicts()

    def sets(code: int) -> list[set[str]]:
        row = names[code - 1]
        return [set(row["genres"] or ()), {row["colour"]} - {None}]

    def cosine(one: int, other: int) -> float:
        """Every attribute that an item has weighs the same."""
        common = sum(
            len(a & b) / math.sqrt(len(a) * len(b)) for a, b in zip(sets(one), sets(other), strict=True) if a and b
        )
        return common / math.sqrt(sum(map(bool, sets(one))) * sum(map(bool, sets(other))))

    def mean_distance(row: list[int], has: set[int], near: object) -> float | None:
        own = [code for code in row if code in has]
        far = [1 - near(one, other) for one, other in itertools.combinations(own, 2)]  # type: ignore[operator]
        return float(np.mean(far)) if far else None

    with_attributes = {code for code in range(1, SIZE + 1) if any(sets(code))}
    by_attributes = [mean_distance(row, with_attributes, cosine) for row in top]
    check_mean(found.get(f"test/diversity_attributes_at_{K}"), by_attributes)
    by_text = [
        mean_distance(
            row,
            set(range(1, SIZE + 1)) - {4},
            lambda i, j: text[i] @ text[j] / np.linalg.norm(text[i]) / np.linalg.norm(text[j]),
        )
        for row in top
    ]
    check_mean(found.get(f"test/diversity_text_at_{K}"), by_text, 1e-5)  # sums of text vectors are float32

    def shares(codes: list[int]) -> dict[str, float]:
        weights: Counter[str] = Counter()
        for code in codes:
            for genre in sets(code)[0] if code else ():
                weights[genre] += 1 / len(sets(code)[0])  # type: ignore[assignment]
        return {genre: weight / sum(weights.values()) for genre, weight in weights.items()}

    def jensen_shannon(p: dict[str, float], q: dict[str, float]) -> float:
        middle = {genre: (p.get(genre, 0) + q.get(genre, 0)) / 2 for genre in p.keys() | q.keys()}
        return sum(
            share * math.log2(share / middle[genre]) / 2 for one in (p, q) for genre, share in one.items() if share
        )

    both = [(shares(own), shares(row)) for row, own in users]
    check_mean(
        found.get(f"test/miscalibration_genres_at_{K}"), [jensen_shannon(p, q) if p and q else None for p, q in both]
    )


def check_mean(found: float | None, values: list[float | None], within: float = 1e-9) -> None:
    known = [value for value in values if value is not None]
    assert (found is None) == (not known)
    if found is not None:
        assert found == pytest.approx(np.mean(known), abs=within)


def test_blocks_do_not_matter() -> None:
    rng = np.random.default_rng(0)
    top = np.stack([rng.permutation(SIZE)[:K] + 1 for _ in range(25)]).tolist()
    past = [rng.integers(1, SIZE + 1, 5).tolist() for _ in range(25)]
    popularity = np.arange(SIZE + 1, dtype=np.float32)
    allowed = np.arange(SIZE + 1) > 0
    whole = measured(top, past, popularity).further(allowed, "test")
    with mock.patch.object(module, "BLOCK_USERS", 3):
        assert measured(top, past, popularity).further(allowed, "test") == pytest.approx(whole, abs=1e-6)


def test_the_quality_of_lists() -> None:
    found = measured([[1, 2, 3, 4], [1, 2, 0, 0], [0, 0, 0, 0], [5, 6, 5, 7]], [[1]] * 4, np.ones(SIZE + 1))
    assert found.quality() == {"full_list_share": 2 / 4, "covered_share": 3 / 4, "duplicate_share": 1 / 4}
    nobody = ListMeasures(item_profiles(np.ones(SIZE + 1)), histories([]), cutoffs=(2,), k=K)
    assert set(nobody.quality().values()) == {0.0}
    assert nobody.further(np.ones(SIZE + 1, dtype=bool), "test")[f"test/gini_at_{K}"] == 0.0


def test_counts_are_those_of_the_first_k() -> None:
    found = measured([[1, 2, 3, 4], [1, 3, 0, 0]], [[1]] * 2, np.ones(SIZE + 1))
    assert found.counts(2).tolist() == counted([1, 2, 1, 3]).tolist()
    assert found.counts(K).tolist() == counted([1, 2, 3, 4, 1, 3]).tolist()


def test_coverage_counts_distinct_allowed_items() -> None:
    allowed = np.array([False, True, True, True, True, False])
    assert coverage(counted([1, 2, 2], 5), allowed) == pytest.approx(2 / 4)
    assert coverage(counted([1, 2, 3, 2, 1, 4, 2, 0, 0], 5), allowed) == pytest.approx(4 / 4)
    assert coverage(counted([1], 5), np.zeros(6, dtype=bool)) == 0.0


def test_concentration_between_its_ends() -> None:
    everything = np.arange(SIZE + 1) > 0
    assert gini(counted(list(range(1, SIZE + 1))), everything) == pytest.approx(0.0)
    assert gini(counted([3] * 7), everything) == pytest.approx(1.0)


def test_novelty_and_lift_by_hand() -> None:
    popularity = np.array([0, 8, 4, 4, 0], dtype=np.float32)  # shares 1/2, 1/4, 1/4
    assert novelty(np.array([0, 2, 1, 1, 0]), popularity) == pytest.approx((1 + 1 + 2 + 2) / 4)
    assert novelty(np.array([0, 0, 0, 0, 5]), popularity) == pytest.approx(4)  # as if it had one of 16
    assert popularity_lift(np.array([0, 2, 1, 1, 0]), popularity, 4.0) == pytest.approx(6 / 4 - 1)
    assert popularity_lift(np.array([0, 0, 1, 0, 0]), popularity, 4.0) == 0.0


def test_a_hit_that_popularity_has_is_no_serendipity() -> None:
    popularity = np.array([0, 9, 7, 5, 3], dtype=np.float32)
    ranks, targets = np.array([1, 1, 2, 3, MISS]), np.array([1, 3, 4, 4, 0], dtype=np.int32)
    # of the first two, code 1 is popular and rank 3 is no hit
    assert serendipity(ranks, popularity, targets, 2) == pytest.approx((0 + 1 + 1 + 0 + 0) / 5 / 2)


def test_an_attribute_of_many_values_is_no_category() -> None:
    many = pl.DataFrame({"brand": [f"b{n}" for n in range(MOST_CATEGORIES + 1)], "kind": ["x"] * (MOST_CATEGORIES + 1)})
    profiles = item_profiles(np.ones(MOST_CATEGORIES + 2), many)
    assert list(profiles.categories) == ["kind"]
    assert profiles.vectors["attributes"][0].shape == (MOST_CATEGORIES + 2, MOST_CATEGORIES + 2)


def test_bands_by_popularity() -> None:
    popularity = np.array([0, 1, 50, 3, 3, 0, 0, 2, 1, 1, 1], dtype=np.float32)  # 10 items
    # most popular first: 2, then 3 and 4 (a tie, by code), 7, 1, 8, 9, 10, 5, 6
    counts = counted([2, 3, 0, 4, 6, 6], 10)
    assert popularity_bands(popularity, counts, (0.1, 0.2, 0.5, 1.0)).tolist() == pytest.approx(
        [1 / 5, 1 / 5, 1 / 5, 2 / 5]
    )


def test_bands_of_a_small_catalogue_and_of_nothing() -> None:
    popularity = np.array([0, 5, 1], dtype=np.float32)
    assert popularity_bands(popularity, counted([1, 2, 2, 2], 2), (0.01, 0.02, 1.0)).tolist() == [0.25, 0.0, 0.75]
    assert popularity_bands(popularity, counted([0, 0], 2)).sum() == 0.0
