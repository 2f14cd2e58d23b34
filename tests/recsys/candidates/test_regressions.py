"""The closed forms against regressions that are written out, event by event."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from scipy import sparse

from recsys.candidates import pairs, regressions
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


def of(items: np.ndarray, offsets: np.ndarray) -> list[list[int]]:
    return [items[start:end].tolist() for start, end in pairwise(offsets)]


def past(events: list[int]) -> np.ndarray:
    """[V + 1]: what the next event is told from."""
    row = np.zeros(V + 1)
    for age, item in enumerate(reversed(events[-regressions.PAST :])):
        row[item] += regressions.FADING**age
    row[0] = 0
    return row


def test_the_autoencoder_is_the_best_linear_map_of_histories_onto_themselves(
    histories: tuple[np.ndarray, np.ndarray],
) -> None:
    """Among weights with a zero diagonal: each column is a ridge regression on all other columns."""
    had = np.zeros((len(histories[1]) - 1, V + 1))
    for user, items in enumerate(of(*histories)):
        had[user, [item for item in items if item]] = 1
    found = autoencoder(*histories, V, penalty=0.5, kept=V).toarray()
    penalty = 0.5 * had[:, 1:V].sum() / (V - 1)
    for item in range(1, V):
        others = [code for code in range(1, V) if code != item]
        x = had[:, others]
        expected = np.linalg.solve(x.T @ x + penalty * np.eye(len(others)), x.T @ had[:, item])
        np.testing.assert_allclose(found[others, item], expected, atol=1e-6)
        assert found[item, item] == 0
    assert not found[V].any() and not found[:, V].any() and not found[0].any()


@pytest.mark.parametrize("window", [1, 3, 50])
def test_successors_are_the_ridge_regression_of_every_event_on_its_past(
    histories: tuple[np.ndarray, np.ndarray], window: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regressions, "PAST", window)
    pasts, nexts = [], []
    for items in of(*histories):
        for place in range(1, len(items)):
            pasts.append(past(items[:place]))
            nexts.append(np.eye(V + 1)[items[place]])
    x, y = np.array(pasts)[:, 1:V], np.array(nexts)[:, 1:V]
    expected = np.linalg.solve(x.T @ x + 2.0 * np.eye(V - 1), x.T @ y)
    found = successors(*histories, V, penalty=2.0, kept=V).toarray()
    np.testing.assert_allclose(found[1:V, 1:V], expected, atol=1e-6)
    assert not found[V].any() and not found[:, V].any() and not found[0].any()


def test_they_tell_what_pairs_cannot() -> None:
    """1 and 2 each came with 3 often, yet only because both came with 4, which alone goes with 3."""
    lists = [[1, 4, 3]] * 30 + [[2, 4, 3]] * 30 + [[4, 3]] * 30 + [[1, 5], [2, 5]] * 30
    items = np.array([item for items in lists for item in items], dtype=np.int32)
    weights = autoencoder(items, np.cumsum([0, *map(len, lists)]), 5, penalty=0.01, kept=5).toarray()
    assert weights[4, 3] > 0.8
    assert abs(weights[1, 3]) < 0.1 and abs(weights[2, 3]) < 0.1
    assert weights[4, 5] < -0.2  # who has 4 has not 5: evidence against, which no count is


@pytest.mark.parametrize("made", [autoencoder, successors])
def test_the_furthest_weights_of_a_row_stay(made: Made, histories: tuple[np.ndarray, np.ndarray]) -> None:
    whole = made(*histories, V, penalty=2.0, kept=V).toarray()
    cut = made(*histories, V, penalty=2.0, kept=3).toarray()
    for own, all_of_it in zip(cut, whole, strict=True):
        assert set(np.abs(own[own != 0])) == set(np.sort(np.abs(all_of_it[all_of_it != 0]))[::-1][:3])


@pytest.mark.parametrize("made", [autoencoder, successors])
def test_no_log_takes_longer_than_what_was_granted(
    made: Made, histories: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room for a tenth, the result is that of the users that were drawn; in parts, it is the same."""
    whole = made(*histories, V, penalty=2.0, kept=V)
    monkeypatch.setattr(pairs, "AT_ONCE", 50)
    assert abs(made(*histories, V, penalty=2.0, kept=V) - whole).max() < 1e-6
    monkeypatch.setattr(pairs, "PAIRS", 300)
    part = made(*histories, V, penalty=2.0, kept=V)
    assert part.nnz and abs(part - whole).max() > 1e-3


@pytest.mark.parametrize("made", [autoencoder, successors])
def test_nothing_is_said_without_events(made: Made) -> None:
    assert made(np.zeros(0, dtype=np.int32), np.zeros(1, dtype=np.int64), V, penalty=1.0, kept=5).nnz == 0
    lone = made(np.array([3, 3], dtype=np.int32), np.array([0, 1, 2]), V, penalty=1.0, kept=5)
    assert lone.nnz == 0 and lone.shape == (V + 1, V + 1)
