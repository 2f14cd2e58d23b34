"""Products of int8 leave no item out that may be among the best, whatever the vectors look like."""

from __future__ import annotations

import os
import subprocess
import sys

import llvmlite.binding
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.features.precision import native_int8
from recsys.loops.choice import MANY
from recsys.retrieval import quantised
from recsys.retrieval.exact import ExactSearch, exact_scores
from recsys.retrieval.products import keys_of_rows
from recsys.retrieval.quantised import EVERY, LEAST, Quantised

pytestmark = pytest.mark.skipif(not native_int8(), reason="no int8 here")

SHAPES = (
    *("even", "heavy tails", "one loud column", "one loud item", "few distinct", "all equal", "zeros", "below normal"),
    *("tiny", "huge", "ascending", "descending", "of both signs", "parallel"),
)


def vectors_of(shape: str, items: int, width: int, rng: np.random.Generator) -> np.ndarray:
    vectors = rng.standard_normal((items + 1, width), dtype=np.float32)
    if shape == "heavy tails":
        vectors = (vectors**5).astype(np.float32)
    elif shape == "one loud column":
        vectors[:, 0] *= 1000
    elif shape == "one loud item":
        vectors[1] *= 1000
    elif shape == "few distinct":
        vectors = vectors[rng.integers(0, 5, items + 1)]
    elif shape == "all equal":
        vectors[:] = vectors[1]
    elif shape == "zeros":
        vectors[rng.random(items + 1) < 0.7] = 0
    elif shape == "below normal":  # float32 holds them with a few bits
        vectors *= np.float32(1e-42)
    elif shape == "huge":
        vectors *= np.float32(1e18)
    elif shape == "of both signs":
        vectors[items // 2 :] = -vectors[: len(vectors) - items // 2]
    elif shape == "parallel":  # a row of scores that differ in their last bits
        vectors[:] = vectors[1] * np.linspace(1, 1.0001, items + 1, dtype=np.float32)[:, None]
    elif shape == "descending":
        vectors *= np.linspace(3, 0.1, items + 1, dtype=np.float32)[:, None]
    elif shape == "tiny":
        vectors *= np.float32(1e-30)
    elif shape == "ascending":
        vectors *= np.linspace(0.1, 3, items + 1, dtype=np.float32)[:, None]
    vectors[0] = 0
    return vectors


@pytest.fixture(params=["in registers", "by torch"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Make the products of many users in one of both ways."""
    found: str = request.param
    if found == "in registers" and not quantised.in_registers():
        pytest.skip("no such instructions here")
    monkeypatch.setattr(quantised, "in_registers", lambda: found == "in registers")
    monkeypatch.setattr(quantised, "amx", lambda: False)
    return found


def test_a_processor_without_the_instructions_is_asked_before_they_are_compiled() -> None:
    """LLVM ends a process that compiles what its processor lacks, so the module is not imported there."""
    code = f"""
import sys, types
import numpy as np

class Reached(Exception):
    pass

def stop(*_):
    raise Reached

# the other loops are not compiled here: what the search asks first is looked at
sys.modules["recsys.loops.int8"] = None  # an import of it is an error
loops = sys.modules["recsys.loops.collected"] = types.ModuleType("recsys.loops.collected")
loops.collect, loops.settle = stop, None
from recsys.retrieval.quantised import Quantised
Quantised._guess = lambda self, asked, k, hidden: np.zeros(len(asked.any), dtype=np.int32)
items = Quantised.of(np.random.default_rng(0).standard_normal((1001, 8), dtype=np.float32), np.arange(1, 1001))
try:
    items.candidates(np.ones(({MANY}, 8), dtype=np.float32), 5, np.empty(0, dtype=np.int64))
except Reached:
    print("by torch")
"""
    features = llvmlite.binding.get_host_cpu_features()
    features["avx512vnni"] = False
    environment = {**os.environ, "NUMBA_CPU_NAME": "haswell", "NUMBA_CPU_FEATURES": features.flatten()}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout.strip()) == (0, "by torch"), done.stderr[-2000:]


def assert_exact(vectors: np.ndarray, codes: np.ndarray, queries: np.ndarray, pairs: np.ndarray, k: int) -> None:
    """Compare a search with a sort of all exact scores; `pairs` bool [b, V + 1] are hidden."""
    users = len(queries)
    pairs[:, np.setdiff1d(np.arange(len(vectors)), codes)] = False
    every = exact_scores(queries, vectors, np.repeat(np.arange(users), len(codes)), np.tile(codes, users))
    every = np.where(pairs[:, codes], -np.inf, every.reshape(users, -1)).astype(np.float32)
    order = np.argsort(-every, axis=1, kind="stable")[:, :k]
    expected = np.take_along_axis(every, order, axis=1)
    found, scores = ExactSearch(vectors, codes).best(queries, np.flatnonzero(pairs), k)
    missing = k - expected.shape[1]  # k may be larger than the items are
    expected = np.pad(expected, ((0, 0), (0, max(missing, 0))), constant_values=-np.inf)
    wanted = np.where(np.isfinite(expected), np.pad(codes[order], ((0, 0), (0, max(missing, 0)))), 0)
    np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(scores, expected)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1), shape=st.sampled_from(SHAPES), users=st.sampled_from([1, 5, 40]))
def test_lists_equal_a_sort_of_all_exact_scores(way: str, seed: int, shape: str, users: int) -> None:
    rng = np.random.default_rng(seed)
    k, items, width = int(rng.integers(1, 12)), int(rng.integers(LEAST * 12, 1500)), int(rng.integers(1, 70))
    vectors = vectors_of(shape, items, width, rng)
    queries = rng.standard_normal((users, width), dtype=np.float32)
    queries[rng.integers(0, users)] *= np.float32(rng.choice([0.0, 1e-40, 1e-20, 1.0, 1e15]))
    codes = np.sort(rng.choice(np.arange(1, items + 1), LEAST * 12 - 1, replace=False))
    pairs = rng.random((users, items + 1)) < rng.choice([0.0, 0.1, 0.97])
    if rng.random() < 0.3:
        pairs[rng.integers(0, users)] = True  # nothing is left for somebody
    assert_exact(vectors, codes, queries, pairs, k)


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("users", [1, 33])
def test_columns_of_any_number(way: str, width: int, users: int) -> None:
    """torch's product of one column of int8 is wrong, so there are never fewer than four."""
    rng = np.random.default_rng(width)
    vectors = rng.standard_normal((1001, width), dtype=np.float32)
    queries = rng.standard_normal((users, width), dtype=np.float32)
    assert_exact(vectors, np.arange(1, 1001), queries, np.zeros((users, 1001), dtype=bool), 10)


def test_more_wanted_than_there_are_items(way: str) -> None:
    rng = np.random.default_rng(3)
    vectors, queries = (rng.standard_normal((rows, 8), dtype=np.float32) for rows in (60, 40))
    assert_exact(vectors, np.arange(1, 60), queries, rng.random((40, 60)) < 0.5, 100)


def test_a_user_whose_best_items_are_all_hidden(way: str) -> None:
    """The guess must not come from items that may not be found."""
    rng = np.random.default_rng(4)
    vectors, queries = (rng.standard_normal((rows, 16), dtype=np.float32) for rows in (3001, 40))
    pairs = queries @ vectors.T > 3
    assert pairs.sum(axis=1).min() > 100
    assert_exact(vectors, np.arange(1, 3001), queries, pairs, 20)


def test_more_items_than_there_is_room_for(way: str) -> None:
    """All are equal, so that the bound excludes none of them."""
    rng = np.random.default_rng(5)
    vectors = np.tile(rng.standard_normal((1, 16), dtype=np.float32), (3001, 1))
    queries = rng.standard_normal((40, 16), dtype=np.float32)
    assert_exact(vectors, np.arange(1, 3001), queries, np.zeros((40, 3001), dtype=bool), 10)


def test_users_are_answered_though_the_guess_is_wrong(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The best items of everybody are all in the sample, so that the guess is far too high."""
    rng = np.random.default_rng(0)
    k, items, width = 20, 4_000, 16
    vectors = rng.standard_normal((items, width), dtype=np.float32)
    vectors[:: EVERY[0]] *= 10
    queries = rng.standard_normal((33, width), dtype=np.float32)
    made = Quantised.of(vectors, np.arange(items))
    whole: list[int] = []
    real = Quantised._whole

    def counted(self: Quantised, asked: object, users: np.ndarray, *rest: object) -> object:
        whole.extend(users.tolist())
        return real(self, asked, users, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Quantised, "_whole", counted)
    monkeypatch.setattr(quantised, "SURE", -2.0)
    pairs = made.candidates(queries, k, np.empty(0, dtype=np.int64))
    assert whole and not len(pairs.left)
    best = np.argsort(-(queries @ vectors.T), axis=1)[:, :k]
    for user in range(33):
        assert set(best[user]) <= set(pairs.places[pairs.rows == user])
    assert (np.diff(pairs.rows) >= 0).all()


@pytest.mark.parametrize("users", [1, 40])
def test_products_of_the_largest_numbers_are_whole(users: int) -> None:
    """Sums of pairs that do not fit into 16 bits, as some processors add them."""
    rows = torch.full((256, 384), 127, dtype=torch.int8)
    rows[::2] = -127
    queries = torch.full((users, 384), 127, dtype=torch.int8)
    expected = queries.long() @ rows.long().T
    assert torch.equal(torch._int_mm(queries, rows.T).long(), expected)


def test_the_share_that_passes_is_small() -> None:
    rng = np.random.default_rng(1)
    vectors = rng.standard_normal((20_000, 64), dtype=np.float32)
    queries = rng.standard_normal((64, 64), dtype=np.float32)
    pairs = Quantised.of(vectors, np.arange(20_000)).candidates(queries, 100, np.empty(0, dtype=np.int64))
    assert not len(pairs.left)
    assert len(pairs.rows) < 4 * 100 * 64


def test_keys_of_some_rows() -> None:
    keys = np.array([3, 12, 15, 31, 39])
    np.testing.assert_array_equal(keys_of_rows(keys, np.array([1, 3]), 10), [2, 5, 11, 19])
    np.testing.assert_array_equal(keys_of_rows(keys, np.array([0, 1, 2, 3]), 10), keys)
    assert not len(keys_of_rows(keys, np.array([], dtype=np.int64), 10))
