"""The compiled loops and those of numpy are the same to the last bit, whoever shares the block."""

from __future__ import annotations

import sys
from types import ModuleType

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import sparse

from recsys.loops import compiled, plain
from recsys.loops.choice import MANY, loops

WIDTH = 40  # columns of a table, V + 1
seeds = st.integers(0, 2**32 - 1)


def table(rng: np.random.Generator, rows: int, columns: int, *, few: bool, index: type = np.int32) -> sparse.csr_array:
    """Random entries; of `few` values, so that sums are equal, and come back to 0."""
    dense = rng.integers(-2, 3, (rows, columns)) if few else rng.standard_normal((rows, columns))
    found = sparse.csr_array(np.where(rng.random((rows, columns)) < 0.4, dense, 0).astype(np.float32))
    found.indices, found.indptr = found.indices.astype(index), found.indptr.astype(index)
    return found


@settings(deadline=None)
@given(seeds, st.integers(1, 6), st.integers(0, 9), st.booleans(), st.booleans(), st.sampled_from([np.int32, np.int64]))
def test_compiled_products_and_their_best_are_those_of_numpy(
    seed: int, users: int, n: int, few: bool, shelved: bool, index: type
) -> None:
    rng = np.random.default_rng(seed)
    weights, items = table(rng, users, WIDTH, few=few), table(rng, WIDTH, WIDTH, few=few, index=index)
    dense = (weights @ items).toarray()
    hidden = np.flatnonzero(rng.random(users * WIDTH) < 0.2)
    allowed = rng.random(WIDTH) < 0.7 if shelved else None
    rows, codes = np.sort(rng.integers(0, users, 30)), rng.integers(0, WIDTH, 30)
    best = []
    for row in range(users):
        usable = [code for code in np.flatnonzero(dense[row] > 0) if row * WIDTH + code not in hidden]
        usable = [code for code in usable if allowed is None or allowed[code]]
        best += sorted(row * WIDTH + code for code in sorted(usable, key=lambda code: (-dense[row, code], code))[:n])
    for module in (plain, compiled):
        product = module.multiply(weights, items)
        stored = sparse.csr_array((product.data, product.indices, product.indptr), shape=dense.shape)
        np.testing.assert_array_equal(stored.toarray(), dense)
        assert module.largest(product, hidden, allowed, n).tolist() == best
        np.testing.assert_array_equal(module.at(product, rows, codes), dense[rows, codes])
        np.testing.assert_array_equal(module.product_at(weights, items, rows, codes), dense[rows, codes])
    words = table(rng, WIDTH, 7, few=few, index=index)
    shared = [module.shared(weights, words, rows, codes) for module in (plain, compiled)]
    np.testing.assert_array_equal(*shared)
    np.testing.assert_allclose(shared[0], (weights @ words @ words.T).toarray()[rows, codes], rtol=1e-4, atol=1e-5)


@settings(deadline=None)
@given(seeds, st.integers(1, 70), st.integers(0, 40))
def test_compiled_products_of_pairs_are_those_of_numpy_whatever_the_other_pairs(seed: int, D: int, P: int) -> None:
    rng = np.random.default_rng(seed)
    queries, vectors = (rng.standard_normal((rows, D)).astype(np.float32) for rows in (5, 30))
    rows, codes = np.sort(rng.integers(0, 5, P)), rng.integers(0, 30, P)
    found = compiled.dots(queries, vectors, rows, codes)
    np.testing.assert_array_equal(found, plain.dots(queries, vectors, rows, codes))
    np.testing.assert_array_equal(found[P // 2 :], compiled.dots(queries, vectors, rows[P // 2 :], codes[P // 2 :]))
    np.testing.assert_allclose(found, (queries @ vectors.T)[rows, codes], rtol=1e-4, atol=1e-4)
    exact = compiled.exact_dots(queries, vectors, rows, codes)
    np.testing.assert_array_equal(exact, plain.exact_dots(queries, vectors, rows, codes))
    np.testing.assert_allclose(exact, (queries.astype(float) @ vectors.T)[rows, codes], rtol=1e-6, atol=1e-6)


@settings(deadline=None)
@given(seeds, st.integers(1, 6), st.integers(0, 12), st.integers(0, 60))
def test_the_first_pairs_are_those_of_a_sort(seed: int, users: int, k: int, P: int) -> None:
    rng = np.random.default_rng(seed)
    keys = np.sort(rng.permutation(users * WIDTH)[:P])
    rows, codes = keys // WIDTH, keys % WIDTH
    values = rng.integers(0, 6, len(keys)).astype(np.float32)
    wanted = [
        (pair, place)
        for user in range(users)
        for place, pair in enumerate(
            sorted(np.flatnonzero(rows == user).tolist(), key=lambda pair: (-values[pair], codes[pair]))[:k]
        )
    ]
    for module in (plain, compiled):
        order, place = module.first(rows, codes, values, users, k)
        assert list(zip(order.tolist(), place.tolist(), strict=True)) == wanted


@settings(deadline=None)
@given(seeds, st.integers(1, 5), st.integers(0, 3), st.integers(0, 50))
def test_compiled_scores_of_features_are_those_of_numpy(seed: int, F: int, C: int, P: int) -> None:
    rng = np.random.default_rng(seed)
    features, context = (rng.standard_normal((P, columns)).astype(np.float32) * 4 for columns in (F, C))
    mean, scale, limit = rng.standard_normal(F + C), rng.random(F + C) + 0.5, 6.0
    alone, pairs, given = rng.standard_normal(F), np.triu(rng.standard_normal((F, F))), rng.standard_normal((C, F))
    both = [module.quadratic(features, context, (mean, 1 / scale, limit), (alone, pairs, given)) for module in MODULES]
    np.testing.assert_array_equal(*both)
    z = np.clip((features - mean[:F]) / scale[:F], -limit, limit)
    c = (context - mean[F:]) / scale[F:]
    expected = np.einsum("pf,pf->p", z @ pairs + c @ given + alone, z)
    np.testing.assert_allclose(both[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("module", [plain, compiled])
@pytest.mark.parametrize(
    ("keys", "fault"),
    [
        ([], 0),
        ([1, 2, 11, 29], 0),
        ([1, 1], 1),
        ([2, 1], 1),
        ([-1, 2], 1),
        ([1, 30], 1),
        ([1, 10], 2),
        ([1, 15], 3),
        ([29, 30, 20], 1),
        ([1, 7], 3),
        ([7, 20], 2),
    ],
)
def test_faults_of_proposals(module: ModuleType, keys: list[int], fault: int) -> None:
    """Three users and codes to 9; user 1 has had item 5, and item 7 is not on the shelf."""
    hidden, allowed = np.array([15]), np.arange(10) != 7
    given = np.array(keys, dtype=np.int64)
    assert module.fault(given, hidden, allowed, 10, 3) == fault
    assert module.fault(given, hidden[:0], None, 10, 3) == (0 if fault == 3 else fault)


MODULES: tuple[ModuleType, ...] = (plain, compiled)


def test_few_users_do_not_pay_for_compiled_loops(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first answer of a command loads nothing; once a block of many users did, the few take it, too."""
    assert loops(1) is compiled and loops(MANY) is compiled  # this process has loaded it
    monkeypatch.delitem(sys.modules, compiled.__name__)
    assert loops(MANY - 1) is plain


def test_code_that_cannot_be_kept_on_disk_is_compiled_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def njit(signatures: list[str], *, cache: bool = False, **options: bool) -> object:
        def of(function: object) -> object:
            if cache:
                raise RuntimeError("cannot cache function: no locator available")
            made.append(options)
            return function

        return of

    monkeypatch.setattr(compiled, "njit", njit)
    assert compiled._compiled("void()")(len) is len and made == [{"nogil": True}]
