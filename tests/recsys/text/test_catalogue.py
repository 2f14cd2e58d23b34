"""Item vectors of a catalogue's text."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.text.catalogue import text_items


def test_items_are_whitened_unit_vectors_in_the_order_of_codes() -> None:
    raw = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32) + 3
    raw[7] = 0
    items = text_items(raw, 4)
    assert items.vectors.shape == (31, 4)
    assert np.flatnonzero(~items.allowed).tolist() == [0, 8]
    lengths = np.linalg.norm(items.vectors, axis=1)
    assert lengths[items.allowed] == pytest.approx(np.ones(29), abs=1e-5)
    assert (items.vectors[[0, 8]] == 0).all()
    assert items.whitening is not None
    assert (items.vectors[1:] == items.whitening.apply(raw)).all()


def test_without_whitening_the_encoders_own_vectors_serve() -> None:
    raw = np.array([[0.6, 0.8], [0, 0]], dtype=np.float32)
    items = text_items(raw, None)
    assert items.whitening is None
    assert items.vectors.tolist() == [[0, 0], raw[0].tolist(), [0, 0]]
    assert items.allowed.tolist() == [False, True, False]


def test_vectors_stay_as_small_as_they_came() -> None:
    raw = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float16) + np.float16(3)
    items = text_items(raw, 4)
    assert items.vectors.dtype == np.float16
    exact = text_items(raw.astype(np.float32), 4)
    np.testing.assert_allclose(items.vectors.astype(np.float32), exact.vectors, atol=1e-3)
