"""Whitening: what it promises about the vectors it was fitted on, and what it does with few of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from recsys.features.whitening import Whitening


def correlated(n: int, width: int, seed: int = 0) -> np.ndarray:
    """Vectors whose directions differ in strength, away from the origin."""
    generator = np.random.default_rng(seed)
    mixing = generator.normal(size=(width, width)) * np.linspace(0.1, 3.0, width)
    return (generator.normal(size=(n, width)) @ mixing + 5.0).astype(np.float32)


def test_covariance_is_the_identity() -> None:
    vectors = correlated(5000, 12)
    whitened = Whitening.fit(vectors, 8, shrinkage=0.0).project(vectors).astype(np.float64)
    assert whitened.shape == (5000, 8)
    assert np.abs(whitened.mean(axis=0)).max() < 1e-3
    assert np.cov(whitened.T, bias=True) == pytest.approx(np.eye(8), abs=1e-3)


def test_shrinkage_keeps_the_total_variance_and_fades_with_the_number_of_vectors() -> None:
    few, many = correlated(60, 12), correlated(20_000, 12)
    of_few = Whitening.fit(few, 8).project(few).var(axis=0)
    of_many = Whitening.fit(many, 8).project(many).var(axis=0)
    assert of_few.sum() == pytest.approx(8, rel=1e-3)
    assert (np.diff(of_few) < 0).all()  # weak directions stay weaker
    assert of_few[0] > 1.1 * of_few[-1]
    assert of_many == pytest.approx(np.ones(8), abs=1e-3)


def test_the_strongest_directions_are_kept() -> None:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(4000, 3)).astype(np.float32) * [1.0, 10.0, 0.1] + 1.0
    matrix = Whitening.fit(vectors, 2, shrinkage=0.0).matrix
    assert np.abs(matrix[:, 0]).argmax() == 1 and np.abs(matrix[:, 1]).argmax() == 0
    assert matrix[1, 0] == pytest.approx(0.1, rel=0.05)  # positive: signs are fixed


def test_apply_gives_unit_rows_and_keeps_zero_rows() -> None:
    vectors = correlated(50, 6)
    vectors[[3, 20]] = 0
    whitening = Whitening.fit(vectors, 4)
    lengths = np.linalg.norm(whitening.apply(vectors), axis=1)
    assert np.flatnonzero(lengths == 0).tolist() == [3, 20]
    assert lengths[lengths > 0] == pytest.approx(np.ones(48), abs=1e-5)
    filled = np.delete(vectors, [3, 20], axis=0)  # zero rows did not count
    assert (Whitening.fit(filled, 4).matrix == whitening.matrix).all()


def test_fewer_vectors_than_dimensions() -> None:
    vectors = correlated(5, 32)
    whitening = Whitening.fit(vectors, 16)
    assert whitening.dimensions == 4  # five points span four directions
    assert np.isfinite(whitening.apply(vectors)).all()


@pytest.mark.parametrize("rows", [0, 1, 3])
def test_nothing_to_whiten(rows: int) -> None:
    vectors = np.repeat(correlated(1, 8), rows, axis=0).reshape(rows, 8)
    whitening = Whitening.fit(vectors, 4)
    assert whitening.dimensions == 4
    assert np.linalg.norm(whitening.apply(vectors), axis=1) == pytest.approx(np.ones(rows))


def test_tensors_there_and_back() -> None:
    whitening = Whitening.fit(correlated(40, 6), 4)
    tensors = {name: torch.from_numpy(value) for name, value in whitening.to_tensors().items()}
    back = Whitening.from_tensors({**tensors, "other": torch.zeros(1)})
    assert back is not None
    assert (back.mean == whitening.mean).all() and (back.matrix == whitening.matrix).all()
    assert Whitening.from_tensors({"other": torch.zeros(1)}) is None


def test_without_equal_variance_it_is_pca() -> None:
    vectors = correlated(400, 6)
    pca = Whitening.fit(vectors, 3, equal=False)
    assert pca.matrix.T @ pca.matrix == pytest.approx(np.eye(3), abs=1e-5)
    projected = pca.project(vectors).astype(np.float64)
    variances = np.linalg.eigvalsh(np.cov(vectors.astype(np.float64), rowvar=False, bias=True))[::-1]
    assert np.cov(projected, rowvar=False, bias=True) == pytest.approx(np.diag(variances[:3]), abs=1e-3 * variances[0])


def test_aligned_says_the_same_in_the_encoders_own_axes() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(400, 6)).astype(np.float32) * np.array([5, 3, 2, 1, 0.5, 0.1], dtype=np.float32)
    plain, aligned = (Whitening.fit(vectors, 4, aligned=aligned) for aligned in (False, True))
    assert aligned.project(vectors).shape == (400, 6)
    one, other = plain.apply(vectors), aligned.apply(vectors)
    np.testing.assert_allclose(one @ one.T, other @ other.T, atol=1e-5)
    # each axis stays what it was: another catalogue, whose variances stand in another order, keeps it in its place
    turned = Whitening.fit(vectors[:, ::-1].copy(), 4, aligned=True).matrix[::-1, ::-1]
    np.testing.assert_allclose(turned, aligned.matrix, atol=1e-4)
    assert (
        np.abs(np.diag(aligned.matrix))[:4]
        > 3 * np.abs(aligned.matrix[:4, :4] - np.diag(np.diag(aligned.matrix))[:4, :4]).max()
    ).all()
