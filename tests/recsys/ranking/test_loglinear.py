"""The conditional logit finds the weights that made the choices, and its products find when to trust which source."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from recsys.ranking.base import Choices, Columns
from recsys.ranking.loglinear import LogLinear

NAMES = Columns(features=("a", "b"), context=("c",))


def choices(users: int, candidates: int, utility: object, seed: int = 0) -> Choices:
    """What users chose by a utility with Gumbel noise: exactly a conditional logit."""
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((users, candidates, 2))
    context = np.repeat(rng.standard_normal((users, 1, 1)), candidates, axis=1)
    noisy = utility(features, context[..., 0]) + rng.gumbel(size=(users, candidates))  # type: ignore[operator]
    offsets = np.arange(users + 1, dtype=np.int64) * candidates
    return Choices(
        features=features.reshape(-1, 2),
        context=context.reshape(-1, 1),
        offsets=offsets,
        chosen=noisy.argmax(axis=1),
    )


def test_weights_that_made_the_choices_are_found() -> None:
    def utility(x: np.ndarray, c: np.ndarray) -> np.ndarray:
        return 1.0 * x[..., 0] - 0.5 * x[..., 1] + 0.4 * x[..., 0] * x[..., 1] + 0.3 * c * x[..., 1]

    made = choices(4000, 20, utility)
    blend = LogLinear.fit(made, NAMES, penalty=1.0)
    np.testing.assert_allclose(blend.alone, [1.0, -0.5], atol=0.06)
    np.testing.assert_allclose(blend.pairs, [[0, 0.4], [0, 0]], atol=0.06)
    np.testing.assert_allclose(blend.given, [[0, 0.3]], atol=0.06)


def test_a_product_learns_when_to_trust_which() -> None:
    """Where c is high only a decides, where it is low only b: no sum of the two alone can say that."""

    def utility(x: np.ndarray, c: np.ndarray) -> np.ndarray:
        return np.where(c > 0, 3 * x[..., 0], 3 * x[..., 1])

    made = choices(1500, 10, utility)
    blend = LogLinear.fit(made, NAMES)
    given = np.array([[2.0, 0.0], [0.0, 2.0]])  # two candidates: one good by a, the other by b
    high, low = np.ones((2, 1)), -np.ones((2, 1))
    assert np.diff(blend.scores(given, high)) < -1 and np.diff(blend.scores(given, low)) > 1


def test_a_product_that_is_left_out_gets_no_weight_and_the_others_keep_their_places() -> None:
    made = choices(4000, 20, lambda x, c: 0.5 * x[..., 1] ** 2 + 0.3 * c * x[..., 1])
    blend = LogLinear.fit(made, replace(NAMES, unpaired=(("b", "a"),)), penalty=1.0)
    assert blend.pairs[0, 1] == 0
    np.testing.assert_allclose(blend.pairs[1, 1], 0.5, atol=0.06)
    np.testing.assert_allclose(blend.given, [[0, 0.3]], atol=0.06)


def test_gradient_is_zero_at_the_answer() -> None:
    """The penalised likelihood is flat there, checked by finite differences of an independent formula."""
    rng = np.random.default_rng(1)
    features, context = rng.standard_normal((60, 2)), np.repeat(rng.standard_normal((12, 1)), 5, axis=0)
    offsets, chosen = np.arange(13) * 5, rng.integers(0, 5, 12)
    blend = LogLinear.fit(
        Choices(features=features, context=context, offsets=offsets, chosen=chosen), NAMES, penalty=2.0
    )
    z = (features - features.mean(axis=0)) / features.std(axis=0)
    c = (context - context.mean()) / context.std()
    design = np.column_stack([z, z[:, 0] ** 2, z[:, 0] * z[:, 1], z[:, 1] ** 2, c * z])
    found = np.concatenate([blend.alone, blend.pairs[np.triu_indices(2)], blend.given.ravel()])

    def loss(weights: np.ndarray) -> float:
        logits = (design @ weights).reshape(12, 5)
        own = logits[np.arange(12), chosen]
        return float((np.log(np.exp(logits).sum(axis=1)) - own).sum() + (design.var(axis=0) * weights**2).sum())

    for direction in np.eye(7):
        assert abs(loss(found + 1e-4 * direction) - loss(found - 1e-4 * direction)) < 1e-6


def test_fitting_twice_gives_the_same_bits() -> None:
    given = choices(200, 8, lambda x, c: x[..., 0])
    first, second = (LogLinear.fit(given, NAMES) for _ in range(2))
    np.testing.assert_array_equal(first.alone, second.alone)
    np.testing.assert_array_equal(first.pairs, second.pairs)


def test_a_feature_that_never_varies_has_no_say() -> None:
    made = choices(200, 8, lambda x, c: x[..., 0])
    made.features[:, 1] = 7.0
    blend = LogLinear.fit(made, NAMES)
    other = made.features.copy()
    other[::2, 1] = 1e6
    np.testing.assert_array_equal(blend.scores(made.features, made.context), blend.scores(other, made.context))


def test_outliers_are_cut() -> None:
    made = choices(200, 8, lambda x, c: x[..., 0])
    blend = LogLinear.fit(made, NAMES)
    far, farther = (blend.scores(np.array([[x, 0.0]]), np.zeros((1, 1))) for x in (50.0, 5e6))
    assert far == farther and np.isfinite(far)


def test_scores_do_not_depend_on_the_other_pairs() -> None:
    made = choices(100, 8, lambda x, c: x[..., 0])
    blend = LogLinear.fit(made, NAMES)
    whole = blend.scores(made.features, made.context)
    np.testing.assert_array_equal(blend.scores(made.features[3:50], made.context[3:50]), whole[3:50])


def test_weights_survive_the_file_and_the_report() -> None:
    blend = LogLinear.fit(choices(100, 8, lambda x, c: x[..., 0]), NAMES)
    again = LogLinear.from_tensors(blend.to_tensors(), NAMES.features, NAMES.context)
    features, context = np.random.default_rng(0).standard_normal((5, 2)), np.ones((5, 1))
    np.testing.assert_array_equal(again.scores(features, context), blend.scores(features, context))
    table = blend.table()
    assert list(table) == ["feature", "alone", "x a", "x b", "x c"] and table["feature"] == ["a", "b"]
    assert table["x b"][0] == table["x a"][1] == blend.pairs[0, 1]
    json.dumps(table)
    with pytest.raises(ValueError, match="do not fit"):
        LogLinear.from_tensors(blend.to_tensors(), ("a",), ("c",))
