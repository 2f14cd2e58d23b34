from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.buckets import NULL, QuantileBuckets


def test_buckets_hold_equally_many_training_values() -> None:
    values = np.random.default_rng(0).lognormal(size=10_000)
    buckets = QuantileBuckets.fit(values, 8, feature="price")
    counts = np.bincount(buckets.apply(values))
    assert buckets.count == 8 and len(counts) == 8
    assert counts.min() > 1240 and counts.max() < 1260


def test_by_hand() -> None:
    buckets = QuantileBuckets.fit(np.array([1.0, 2.0, 3.0, 4.0]), 2, feature="price")
    assert buckets.edges.tolist() == [3.0]
    assert buckets.apply(np.array([0.0, 2.9, 3.0, 9.0, np.nan, -np.inf, np.inf])).tolist() == [0, 0, 1, 1, NULL, 0, 1]


def test_values_that_repeat_share_a_bucket() -> None:
    values = np.array([0.0] * 70 + list(range(1, 31)))
    buckets = QuantileBuckets.fit(values, 10, feature="clicks")
    assert buckets.edges.tolist() == [1.0, 11.0, 21.0]
    few = QuantileBuckets.fit(np.array([5.0] * 99 + [7.0]), 10, feature="stars")
    assert few.apply(np.array([5.0, 7.0])).tolist() == [0, 1]  # one each, however rare
    one = QuantileBuckets.fit(np.full(5, 3.0), 4, feature="constant")
    assert one.count == 1 and one.apply(np.array([2.0, 3.0, np.nan])).tolist() == [0, 0, NULL]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True, width=32), min_size=1), st.integers(2, 50))
def test_buckets_follow_the_order_of_numbers(values: list[float], wanted: int) -> None:
    numbers = np.array(values)
    if np.isnan(numbers).all():
        return
    buckets = QuantileBuckets.fit(numbers, wanted, feature="any")
    codes = buckets.apply(numbers)
    assert 1 <= buckets.count <= wanted
    assert (codes[np.isnan(numbers)] == NULL).all()
    seen = codes[~np.isnan(numbers)]
    assert seen.min() >= 0 and seen.max() < buckets.count
    assert (np.diff(seen[np.argsort(numbers[~np.isnan(numbers)])]) >= 0).all()


def test_a_column_of_nulls_names_the_feature() -> None:
    with pytest.raises(ValueError, match="numeric feature 'price' is null in every training row; leave it out or fill"):
        QuantileBuckets.fit(np.array([np.nan, np.nan]), 4, feature="price")
