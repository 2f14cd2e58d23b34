"""Regressions on the nearest items alone: with room for all items they are the closed form over all of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import sparse

from recsys.candidates import nearest, pairs, regressions
from recsys.candidates.regressions import autoencoder, successors

V = 12
Made = Callable[..., sparse.csr_array]


@pytest.fixture
def histories() -> tuple[np.ndarray, np.ndarray]:
    """40 histories of 0 to 14 events, with repeated items and unknown ones (0); item 12 never occurs."""
    rng = np.random.default_rng(0)
    lists = [rng.integers(0, V, size=rng.integers(0, 15)).tolist() for _ in range(40)]
    items = np.array([item for items in lists for item in items], dtype=np.int32)
    return items, np.cumsum([0, *map(len, lists)]).astype(np.int64)


@pytest.mark.parametrize("window", [3, 50])
@pytest.mark.parametrize("made", [autoencoder, successors])
def test_with_room_for_all_they_are_the_regressions_over_all_items(
    made: Made, window: int, histories: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (regressions, nearest):
        monkeypatch.setattr(module, "PAST", window)
    whole = made(*histories, V, penalty=2.0, kept=V).toarray()
    monkeypatch.setattr(regressions, "MOST", 4)
    # an item that never came before another one takes no part in telling it: where every pair occurs, nothing is lost
    found = made(*histories, V, penalty=2.0, kept=V).toarray()
    complete = [item for item in range(V + 1) if (whole[:, item] != 0).sum() == (found[:, item] != 0).sum() > 0]
    assert complete and ((made is successors and window == 3) or len(complete) == V - 1)
    np.testing.assert_allclose(found[:, complete], whole[:, complete], atol=2e-5)


@pytest.mark.parametrize("made", [autoencoder, successors])
def test_blocks_of_rows_and_small_batches_change_nothing(
    made: Made, histories: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressions, "MOST", 4)
    whole = made(*histories, V, penalty=2.0, kept=V)
    monkeypatch.setattr(pairs, "OF_ROWS", 20)
    monkeypatch.setattr(nearest, "LOOKED_UP", 200)
    np.testing.assert_allclose(made(*histories, V, penalty=2.0, kept=V).toarray(), whole.toarray(), atol=1e-6)


@pytest.mark.parametrize("made", [autoencoder, successors])
def test_an_item_is_told_from_so_many_and_every_item_is_told(
    made: Made, histories: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressions, "MOST", 4)
    monkeypatch.setattr(nearest, "NEAREST", 3)
    monkeypatch.setattr(nearest, "MET", 5)
    found = made(*histories, V, penalty=2.0, kept=V).toarray()
    told = (found != 0).sum(axis=0)
    assert (told[1:V] == 3).all() and told[0] == told[V] == 0 and not found[0].any()


def test_the_nearest_items_are_weighed_against_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 and 2 each came with 3 often, yet only because both came with 4, which alone goes with 3."""
    monkeypatch.setattr(regressions, "MOST", 2)
    lists = [[1, 4, 3]] * 30 + [[2, 4, 3]] * 30 + [[4, 3]] * 30 + [[1, 5], [2, 5]] * 30
    items = np.array([item for items in lists for item in items], dtype=np.int32)
    weights = autoencoder(items, np.cumsum([0, *map(len, lists)]), 5, penalty=0.01, kept=5).toarray()
    assert weights[4, 3] > 0.8
    assert abs(weights[1, 3]) < 0.1 and abs(weights[2, 3]) < 0.1


def test_a_matrix_that_is_indefinite_for_what_was_cut_is_made_steadier() -> None:
    """The product of two of three items that always come together was cut."""
    products = np.array([[[1.0, 0.9, 0.0], [0.9, 1.0, 0.9], [0.0, 0.9, 1.0]]], dtype=np.float32)
    assert np.linalg.eigvalsh(products[0])[0] < 0
    found = nearest._positive(torch.from_numpy(products), torch.ones(1, 3), 0.01)
    assert np.isfinite(found).all() and (np.abs(found) < 3).all()


@pytest.mark.parametrize("made", [autoencoder, successors])
def test_too_many_pairs_shorten_histories_and_leave_every_user(
    made: Made, histories: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressions, "MOST", 4)
    monkeypatch.setattr(pairs, "PAIRS", 300)
    items, offsets = histories
    length = (nearest.within_length if made is autoencoder else nearest.after_length)(np.diff(offsets))
    kept = np.minimum(np.diff(offsets), length)
    assert 1 < length < 14 and (kept**2).sum() <= 300 < (np.minimum(np.diff(offsets), length + 1) ** 2).sum()
    found = made(items, offsets, V, penalty=2.0, kept=V).toarray()
    short = np.concatenate([items[stop - n : stop] for stop, n in zip(offsets[1:], kept, strict=True)])
    monkeypatch.setattr(pairs, "PAIRS", 10**9)
    cut = made(short, np.concatenate([[0], np.cumsum(kept)]), V, penalty=2.0, kept=V).toarray()
    np.testing.assert_array_equal(found, cut)
