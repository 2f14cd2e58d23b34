from __future__ import annotations

from unittest import mock

import numpy as np
import pytest

from recsys.evaluation import significance
from recsys.evaluation.significance import Interval, intervals


def interval(values: np.ndarray, rng: np.random.Generator) -> Interval:
    """Of one metric [U]."""
    return intervals(values[:, None], rng)[0]


def test_width_matches_the_standard_error() -> None:
    hits = (np.random.default_rng(1).random(4000) < 0.3).astype(float)
    found = interval(hits, np.random.default_rng(0))
    error = hits.std() / np.sqrt(len(hits))
    assert found.mean == hits.mean()
    assert found.low == pytest.approx(hits.mean() - 1.96 * error, abs=0.15 * error)
    assert found.high == pytest.approx(hits.mean() + 1.96 * error, abs=0.15 * error)


def test_pairing_shows_a_small_steady_gain() -> None:
    rng = np.random.default_rng(2)
    base = rng.random(500)
    better = base + 0.02 + 0.01 * rng.standard_normal(500)
    found = interval(better - base, np.random.default_rng(0))
    assert found.low > 0.015
    assert found.high < 0.025
    # the two means' own intervals overlap
    rng = np.random.default_rng(0)
    assert interval(better, rng).low < interval(base, rng).high


def test_equal_models_do_not_differ() -> None:
    assert interval(np.zeros(50), np.random.default_rng(0)) == Interval(mean=0.0, low=0.0, high=0.0)


def test_seeded_and_independent_of_chunks() -> None:
    values = np.random.default_rng(4).random((37, 2))
    first = intervals(values, np.random.default_rng(5))
    assert intervals(values, np.random.default_rng(5)) == first
    assert intervals(values, np.random.default_rng(6)) != first
    with mock.patch.object(significance, "CHUNK_DRAWS", 100):
        chunked = intervals(values, np.random.default_rng(5))
    for one, other in zip(first, chunked, strict=True):
        assert (one.mean, one.low, one.high) == pytest.approx((other.mean, other.low, other.high))


def test_refuses_to_speak_of_nobody() -> None:
    with pytest.raises(ValueError, match="at least one user"):
        interval(np.zeros(0), np.random.default_rng(0))
