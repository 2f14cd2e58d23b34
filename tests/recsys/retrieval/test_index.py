"""The index holds the allowed items under their codes, and finds among some of them alone."""

from __future__ import annotations

import faiss
import numpy as np
import pytest

from recsys.errors import RecsysError
from recsys.retrieval.factory import build_approximate
from recsys.retrieval.index import ItemIndex, build_index, search

VECTORS = np.array([[0, 0], [1, 0], [0, 1], [3, 3], [2, 0]], dtype=np.float32)
ALLOWED = np.array([False, True, True, False, True])


def approximate(
    factory: str, vectors: np.ndarray = VECTORS, allowed: np.ndarray = ALLOWED, lengthened: bool = False
) -> ItemIndex:
    codes = np.flatnonzero(allowed)
    built = build_approximate(vectors, codes, factory, lengthened=lengthened)
    return ItemIndex(vectors=vectors, codes=codes, approximate=built)


@pytest.mark.parametrize("lengthened", [False, True])
def test_search_finds_codes_of_allowed_items_by_inner_product(lengthened: bool) -> None:
    """Also by distances of vectors that one more column makes equally long."""
    _, codes = search(approximate("HNSW4", lengthened=lengthened), np.array([[1, 0.5]], dtype=np.float32), 5)
    assert codes.tolist() == [[4, 1, 2, -1, -1]]


def test_an_exact_index_needs_no_copy_of_the_vectors() -> None:
    items = build_index(VECTORS, ALLOWED)
    assert items.exact and items.vectors is VECTORS and items.codes.tolist() == [1, 2, 4]


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "HNSW8", "IVF8,PQ4x4fs"])
def test_among_some_items_no_other_is_found(factory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.retrieval.index.FEW", 1)
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((501, 8)).astype(np.float32)
    whole = approximate(factory, vectors, np.arange(501) > 0)
    some = whole.only(rng.random(501) < 0.7)
    assert not some.exact and 300 < len(some.codes) < 400
    found = search(some, rng.standard_normal((30, 8)).astype(np.float32), 10)[1]
    assert set(found[found >= 0].tolist()) <= set(some.codes.tolist()) and (found >= 0).mean() > 0.9
    assert search(whole, vectors[1:2], 3)[1].shape == (1, 3)


def test_few_items_are_compared_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((501, 8)).astype(np.float32)
    whole = approximate("IVF8,SQ8", vectors, np.arange(501) > 0)
    assert whole.only(np.ones(501, dtype=bool)).exact  # fewer than an index is worth
    monkeypatch.setattr("recsys.retrieval.index.FEW", 1)
    assert not whole.only(np.ones(501, dtype=bool)).exact
    assert whole.only(np.arange(501) < 200).exact  # less than half of what its cells hold
    flat = approximate("SQ8", vectors, np.arange(501) > 0)
    assert flat.only(np.arange(501) < 400).exact  # one that cannot be limited to some


def test_vectors_that_are_not_finite_are_refused() -> None:
    for bad in (np.nan, np.inf):
        vectors = VECTORS.copy()
        vectors[3:, 1] = bad
        with pytest.raises(RecsysError, match=r"^1 item vectors hold.*code 4"):
            build_index(vectors, ALLOWED)


def test_no_item_allowed() -> None:
    with pytest.raises(RecsysError, match="No item"):
        build_index(VECTORS, np.zeros(5, dtype=bool))


def test_the_thread_count_of_others_stays() -> None:
    before = faiss.omp_get_max_threads()
    search(approximate("HNSW4"), VECTORS, 2)
    assert faiss.omp_get_max_threads() == before
