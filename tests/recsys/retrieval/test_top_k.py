"""Top-k equals a brute force that shares no code with it, ties included, whatever the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import faiss
import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.data.sequences import Sequences
from recsys.errors import RecsysError
from recsys.features.precision import native_bf16, native_int8
from recsys.retrieval.exact import exact_scores
from recsys.retrieval.index import Approximate, ItemIndex, build_index
from recsys.retrieval.products import Pairs, Products
from recsys.retrieval.quantised import LEAST
from recsys.retrieval.top_k import top_k


def histories_of(lists: Sequence[Sequence[int]]) -> Sequences:
    flat = [code for codes in lists for code in codes]
    return Sequences(
        users=pl.Series("user_id", [f"u{i}" for i in range(len(lists))], dtype=pl.String),
        items=np.array(flat, dtype=np.int32),
        offsets=np.concatenate([[0], np.cumsum([len(codes) for codes in lists])]).astype(np.int64),
    )


def brute_force(
    vectors: np.ndarray,
    allowed: np.ndarray,
    queries: np.ndarray,
    lists: Sequence[Sequence[int]],
    k: int,
    exclude_seen: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Every score by math.fsum (correctly rounded), then a plain sort."""
    import math

    codes = np.zeros((len(queries), k), dtype=np.int32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    for row, (query, seen) in enumerate(zip(queries.astype(float), lists, strict=True)):
        ranked = sorted(
            (-float(np.float32(math.fsum(query * vectors[code].astype(float)))), code)
            for code in np.flatnonzero(allowed).tolist()
            if not (exclude_seen and code in seen)
        )[:k]
        codes[row, : len(ranked)] = [code for _, code in ranked]
        scores[row, : len(ranked)] = [-score for score, _ in ranked]
    return codes, scores


def random_case(
    seed: int, users: int = 40, items: int = 300, width: int = 9, longest: int = 30
) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[list[int]]]:
    generator = np.random.default_rng(seed)
    vectors = generator.standard_normal((items + 1, width)).astype(np.float32)
    vectors[0] = 0
    allowed = generator.random(items + 1) < 0.9
    allowed[0] = False
    queries = generator.standard_normal((users, width)).astype(np.float32)
    lists = [generator.integers(1, items + 1, size=generator.integers(0, longest)).tolist() for _ in range(users)]
    return vectors, allowed, queries, lists


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_equals_brute_force(exclude_seen: bool) -> None:
    vectors, allowed, queries, lists = random_case(0)
    found = top_k(build_index(vectors, allowed), queries, histories_of(lists), k=10, exclude_seen=exclude_seen)
    expected = brute_force(vectors, allowed, queries, lists, 10, exclude_seen)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


@given(data=st.data(), seed=st.integers(0, 2**32 - 1), k=st.integers(1, 70))
@settings(max_examples=60, deadline=None)
def test_equals_brute_force_with_duplicates_and_short_lists(data: st.DataObject, seed: int, k: int) -> None:
    """Few distinct vectors (ties everywhere), catalogues smaller than k, users who saw everything."""
    items = data.draw(st.integers(1, 60), label="items")
    distinct = data.draw(st.integers(1, 6), label="distinct vectors")
    generator = np.random.default_rng(seed)
    width = int(generator.integers(1, 5))
    # quarters: sums are exact, so equal vectors and mirrored ones tie exactly
    pool = generator.integers(-8, 9, size=(distinct, width)).astype(np.float32) / 4
    vectors = pool[generator.integers(0, distinct, size=items + 1)]
    vectors[0] = 0
    allowed = generator.random(items + 1) < 0.8
    allowed[0], allowed[1] = False, True
    queries = generator.integers(-8, 9, size=(5, width)).astype(np.float32) / 4
    lists = [
        [],
        list(range(1, items + 1)),
        *(data.draw(st.lists(st.integers(1, items), max_size=items)) for _ in range(3)),
    ]
    found = top_k(build_index(vectors, allowed), queries, histories_of(lists), k=k)
    expected = brute_force(vectors, allowed, queries, lists, k)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert not found[0][1].any()  # nothing is left for who saw everything


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-6])
def test_near_ties_at_the_cut_are_decided_exactly(noise: float) -> None:
    """400 items that differ in the last bits or not at all: FAISS's own order is not the answer."""
    generator = np.random.default_rng(1)
    base = generator.standard_normal(65).astype(np.float32)
    vectors = (base + noise * generator.standard_normal((401, 65))).astype(np.float32)
    allowed = np.arange(401) > 0
    queries = generator.standard_normal((30, 65)).astype(np.float32)
    lists = [generator.integers(1, 401, size=20).tolist() for _ in range(30)]
    found = top_k(build_index(vectors, allowed), queries, histories_of(lists), k=10)
    expected = brute_force(vectors, allowed, queries, lists, 10)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_list_does_not_depend_on_who_shares_the_batch() -> None:
    vectors, allowed, queries, lists = random_case(2, users=60, width=65)
    lists[7] = list(range(1, 250))  # one long history among short ones
    index, histories = build_index(vectors, allowed), histories_of(lists)
    codes, scores = top_k(index, queries, histories, k=20)
    order = np.random.default_rng(3).permutation(60)
    shuffled = top_k(index, queries[order], histories.select(order), k=20)
    np.testing.assert_array_equal(shuffled[0], codes[order])
    np.testing.assert_array_equal(shuffled[1], scores[order])
    for user in range(60):
        alone = top_k(index, queries[user : user + 1], histories.select(np.array([user])), k=20)
        np.testing.assert_array_equal(alone[0][0], codes[user])
        np.testing.assert_array_equal(alone[1][0], scores[user])


def test_one_long_history_does_not_widen_the_approximate_search_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors, _, queries, lists = random_case(4, items=5000, longest=5)
    lists[0] = list(range(1, 3001))
    fetched: list[tuple[int, int]] = []
    from recsys.retrieval import top_k as candidates

    def counting(items: ItemIndex, rows: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
        fetched.append((len(rows), n))
        return searched(items, rows, n)

    searched = candidates.search
    monkeypatch.setattr(candidates, "search", counting)
    top_k(approximate(vectors, probes=16), queries, histories_of(lists), k=10)
    assert sum(users for users, n in fetched if n > 100) == 1


PRECISIONS = [
    pytest.param(torch.float32),
    pytest.param(torch.bfloat16, marks=pytest.mark.skipif(not native_bf16(), reason="no bf16 here")),
    pytest.param(torch.int8, marks=pytest.mark.skipif(not native_int8(), reason="no int8 here")),
]


def only(monkeypatch: pytest.MonkeyPatch, precision: torch.dtype) -> None:
    """Products of this precision come first."""
    monkeypatch.setattr("recsys.retrieval.exact.native_bf16", lambda: precision == torch.bfloat16)
    monkeypatch.setattr("recsys.retrieval.exact.native_int8", lambda: precision == torch.int8)


@pytest.mark.numeric
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(("items", "width", "shift"), [(3, 9, 0.0), (127, 9, 0.0), (2000, 65, 0.0), (2000, 65, -30.0)])
def test_products_of_every_precision_equal_brute_force(
    monkeypatch: pytest.MonkeyPatch, precision: torch.dtype, items: int, width: int, shift: float
) -> None:
    """A bias of -30 on every item: no score is above 0."""
    only(monkeypatch, precision)
    vectors, allowed, queries, lists = random_case(10, items=items, width=width)
    vectors[1:, -1], queries[:, -1] = shift, 1.0
    queries[7] = 0.0
    index = build_index(vectors, allowed)
    found = top_k(index, queries, histories_of(lists), k=10)
    expected = brute_force(vectors, allowed, queries, lists, 10)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    made = {name for name in index.exact_search.__dict__ if name.endswith("products")}
    if precision == torch.int8:
        assert made == ({"int8_products"} if items >= LEAST * 10 else {"products", "fp32_products"})
    else:
        assert index.exact_search.products.rows.dtype == precision


@pytest.mark.skipif(not native_bf16(), reason="no bf16 here")
def test_where_bf16_excludes_too_few_items_float32_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """One vector is a thousand times as long as the others, so the error of bf16 may be larger than their scores."""
    only(monkeypatch, torch.bfloat16)
    vectors, _, queries, lists = random_case(11, items=3000, width=33)
    vectors[1] *= 1000
    index = build_index(vectors, np.arange(3001) > 0)
    found = top_k(index, queries, histories_of(lists), k=10)
    assert "fp32_products" in index.exact_search.__dict__
    np.testing.assert_array_equal(found[0], brute_force(vectors, np.arange(3001) > 0, queries, lists, 10)[0])
    monkeypatch.setattr("recsys.retrieval.products.Products.candidates", in_float32(Products.candidates))
    np.testing.assert_array_equal(top_k(index, queries, histories_of(lists), k=10)[0], found[0])


def in_float32(candidates: Callable[..., Pairs]) -> Callable[..., Pairs]:
    """Refuse products of another precision: they were of no use before."""

    def checked(products: Products, *args: Any) -> Pairs:
        assert products.is_fp32
        return candidates(products, *args)

    return checked


def approximate(vectors: np.ndarray, probes: int = 1) -> ItemIndex:
    """An index of 16 cells, of which a search looks into some."""
    index = faiss.index_factory(vectors.shape[1], "IVF16,Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[1:])
    index.nprobe = probes
    mapped = faiss.IndexIDMap2(index)
    mapped.add_with_ids(vectors[1:], np.arange(1, len(vectors)))
    approximate = Approximate(index=mapped, factory="IVF16,Flat")
    return ItemIndex(vectors=vectors, codes=np.arange(1, len(vectors)), approximate=approximate)


def test_an_approximate_index_never_leaves_a_list_short() -> None:
    """One probed cell of 16 holds too few items; the user is then compared with all of them."""
    vectors, _, queries, lists = random_case(5, items=800)
    allowed = np.arange(801) > 0
    items = approximate(vectors)
    assert not items.exact
    codes, scores = top_k(items, queries, histories_of(lists), k=300)
    assert (codes > 0).all()
    for user, seen in enumerate(lists):
        assert not set(codes[user].tolist()) & set(seen)
        assert len(set(codes[user].tolist())) == 300
    assert (np.diff(scores, axis=1) <= 0).all()
    expected = brute_force(vectors, allowed, queries, lists, 300)
    np.testing.assert_array_equal(codes, expected[0])  # every list was short, so every list is exact


def test_exact_scores_are_the_same_for_any_set_of_pairs() -> None:
    vectors, _, queries, _ = random_case(6, width=65)
    rows, codes = np.repeat(np.arange(40), 301), np.tile(np.arange(301), 40)
    scores = exact_scores(queries, vectors, rows, codes)
    some = np.random.default_rng(7).permutation(len(rows))[:1000]
    np.testing.assert_array_equal(exact_scores(queries, vectors, rows[some], codes[some]), scores[some])
    np.testing.assert_allclose(scores.reshape(40, 301), queries @ vectors.T, rtol=0, atol=1e-4)


def test_no_users() -> None:
    vectors, allowed, queries, _ = random_case(8)
    codes, scores = top_k(build_index(vectors, allowed), queries[:0], histories_of([]), k=5)
    assert codes.shape == scores.shape == (0, 5)


def test_queries_that_are_not_finite_are_counted() -> None:
    vectors, allowed, queries, lists = random_case(9)
    queries[3, 0] = np.nan
    with pytest.raises(RecsysError, match="query vectors of 1 of 40 users"):
        top_k(build_index(vectors, allowed), queries, histories_of(lists), k=5)
