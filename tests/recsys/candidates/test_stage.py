"""Proposals and features of every source against brute force, and sources that do not keep the contract."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from scipy import sparse

from recsys.candidates.base import Block, Source, TrainingData, among, best_keys, distinct
from recsys.candidates.co_occurrence import CoOccurrence
from recsys.candidates.linear import Linear
from recsys.candidates.popularity import Popularity
from recsys.candidates.registry import SOURCES, context_of, features_of
from recsys.candidates.scores import Scores
from recsys.candidates.stage import Proposals, blocks, fit_sources, propose, source_names
from recsys.candidates.text import Text
from recsys.candidates.transitions import Transitions
from recsys.data.recency import recency_weights
from recsys.data.sequences import Sequences
from recsys.errors import RecsysError
from recsys.loops import compiled, plain
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.shelf import shelf_of
from tests.recsys.candidates import ring
from tests.recsys.candidates.ring import U, V


@pytest.fixture
def items() -> ItemIndex:
    return ring.items()


@pytest.fixture
def queries() -> np.ndarray:
    return ring.queries()


@pytest.fixture
def histories() -> Sequences:
    return ring.histories()


@pytest.fixture
def sources() -> tuple[Source, ...]:
    return fit_sources(ring.data())


def names_of(sources: Sequence[Source]) -> list[str]:
    return [feature.name for feature in features_of(sources)]


def ask(sources: Sequence[Source], block: Block, n: int) -> Proposals:
    return propose(sources, block, n=n, features=names_of(sources), context=context_of(sources))


def table_of(sources: Sequence[Source], kind: Any, part: str) -> np.ndarray:
    found = getattr(next(source for source in sources if isinstance(source, kind)), part)
    return found if isinstance(found, np.ndarray) else found.toarray()


def mean(histories: Sequences, last: int, decay: float) -> np.ndarray:
    weights = recency_weights(histories.items, histories.offsets, V, last=last, decay=decay).toarray()
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def whole(histories: Sequences, decay: float = 1.0) -> np.ndarray:
    return recency_weights(histories.items, histories.offsets, V, last=50, decay=decay).toarray()


def signed_root(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0, -np.sqrt(np.abs(values)), np.sqrt(np.abs(values)))


def test_the_order_of_names_and_of_features_is_that_of_the_bundles_there_are() -> None:
    assert tuple(SOURCES) == ("vector", "transitions", "together", "linear", "text", "popularity", "history")
    first = ["model", "followed", "next", "together", "linear", "linear_next", "popular", "recent", "new", "seen"]
    assert names_of(fit_sources(ring.data())) == [*first, "text", "words"]
    assert names_of(fit_sources(replace(ring.data(), text=None))) == first
    assert context_of(SOURCES.values()) == ("sightings", "length")


@pytest.mark.parametrize("exclude_seen", [True, False])
@pytest.mark.parametrize("shelved", [False, True])
def test_each_source_proposes_its_best_unseen_items(
    items: ItemIndex,
    queries: np.ndarray,
    sources: tuple[Source, ...],
    histories: Sequences,
    exclude_seen: bool,
    shelved: bool,
) -> None:
    n = 7
    shelf = shelf_of(items, np.arange(V + 1) % 3 == 1) if shelved else None
    block = Block(index=items, queries=queries, histories=histories, exclude_seen=exclude_seen, shelf=shelf)
    found = ask(sources, block, n)
    newest, every = mean(histories, 10, 0.7), mean(histories, 50, 1.0)
    text, recent = table_of(sources, Text, "vectors"), table_of(sources, Popularity, "recent")
    allowed = np.arange(V + 1) > 0 if shelf is None else shelf.allowed
    scores = {
        "vector": np.where(np.isin(np.arange(V + 1), items.codes), queries @ items.vectors.T, -np.inf),
        "transitions": newest @ table_of(sources, Transitions, "followed"),
        "together": every @ table_of(sources, CoOccurrence, "table"),
        "linear": whole(histories) @ table_of(sources, Linear, "within"),
        "text": newest @ text @ text.T,
        "popularity": np.tile(recent, (U, 1)),
        "history": whole(histories),  # nothing where what was had is left out
    }
    assert list(scores) == [source.name for source in sources]
    best_sellers = np.argsort(-np.where(allowed, recent, 0), kind="stable")[:n]
    for bit, name in enumerate(scores):
        mine = (found.by >> np.uint64(bit)) & np.uint64(1) > 0
        proposed = set(zip(found.rows[mine], found.codes[mine], strict=True))
        for user in range(U):
            seen = histories.history(user) if exclude_seen else []
            own = scores[name][user].astype(float)
            own[[0, *seen]] = -np.inf
            own[~allowed] = -np.inf
            if name == "popularity":  # the same list for all, whatever each has seen of it
                own = np.where(np.isin(np.arange(V + 1), best_sellers), own, -1)
            usable = own > (-np.inf if name == "vector" else 0)
            best = sorted(np.flatnonzero(usable), key=lambda code: (-np.float32(own[code]), code))[:n]
            codes = {int(code) for row, code in proposed if row == user}
            values = sorted(own[list(codes)], reverse=True)
            assert len(codes) == len(best)
            np.testing.assert_allclose(values, own[best], rtol=1e-4, atol=1e-6)  # ties may fall either way


def test_features_are_what_the_sources_say(
    items: ItemIndex, queries: np.ndarray, sources: tuple[Source, ...], histories: Sequences
) -> None:
    found = ask(sources, Block(index=items, queries=queries, histories=histories, exclude_seen=False), 12)
    features = dict(zip(names_of(sources), found.features.T, strict=True))
    rows, codes = found.rows, found.codes
    assert (np.diff(rows * (V + 1) + codes) > 0).all()
    newest, last, every = mean(histories, 10, 0.7), mean(histories, 1, 1.0), mean(histories, 50, 1.0)
    text, words = table_of(sources, Text, "vectors"), table_of(sources, Text, "words")
    popular, recent = table_of(sources, Popularity, "popular"), table_of(sources, Popularity, "recent")
    expected = {
        "followed": np.sqrt((newest @ table_of(sources, Transitions, "followed"))[rows, codes]),
        "next": np.sqrt((last @ table_of(sources, Transitions, "next"))[rows, codes]),
        "together": np.sqrt((every @ table_of(sources, CoOccurrence, "table"))[rows, codes]),
        "linear": signed_root((whole(histories) @ table_of(sources, Linear, "within"))[rows, codes]),
        "linear_next": signed_root((whole(histories, 0.95) @ table_of(sources, Linear, "after"))[rows, codes]),
        "popular": np.log1p(popular)[codes],
        "recent": np.log1p(recent)[codes],
        "new": (popular == 0)[codes],
        "seen": [np.log2(1 + (histories.history(row) == code).sum()) for row, code in zip(rows, codes, strict=True)],
        "text": (newest @ text @ text.T)[rows, codes],
        "words": (newest @ words @ words.T)[rows, codes],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(features[name], np.asarray(values, dtype=float), rtol=1e-4, atol=1e-6, err_msg=name)
    assert features["seen"].any() and features["new"].any() and features["words"].any()
    logits = queries @ items.vectors.T
    placed = np.isin(np.arange(V + 1), items.codes)
    for user in range(U):
        best = np.sort(logits[user][placed])[::-1]
        own = rows == user
        expected_logits = np.where(placed[codes[own]], logits[user, codes[own]], best[11])  # cannot be placed: the last
        shift = np.log(np.exp(best[:10]).sum())
        np.testing.assert_allclose(features["model"][own], expected_logits - shift, rtol=1e-4, atol=1e-4)
    lengths = np.log1p([len(histories.history(user)) for user in range(U)])
    np.testing.assert_allclose(found.context[:, 1], lengths[rows], rtol=1e-6)
    newest_item = histories.items[histories.offsets[1:] - 1]
    np.testing.assert_allclose(found.context[:, 0], np.log1p(popular[newest_item])[rows], rtol=1e-6)


def test_a_source_of_each_kind_survives_the_file(sources: tuple[Source, ...]) -> None:
    for source in sources:
        stored = source.to_tensors()
        again = type(source).from_tensors(stored | {"another.part": np.zeros(1)})
        assert stored.keys() == again.to_tensors().keys()
        for name, tensor in stored.items():
            np.testing.assert_array_equal(again.to_tensors()[name], tensor, err_msg=name)


def test_a_source_says_the_same_of_a_pair_whoever_proposed_it(
    items: ItemIndex, queries: np.ndarray, sources: tuple[Source, ...], histories: Sequences
) -> None:
    """Features of all pairs at once, and of those that a source proposed alone."""
    block = Block(index=items, queries=queries, histories=histories)
    every = ask(sources, block, 10)
    keys = every.rows * (V + 1) + every.codes
    for source in sources:
        own = source.propose(block, 10)
        said = source.features(block, own // (V + 1), own % (V + 1))
        assert not among(own, block.seen).any()
        for feature in source.FEATURES:
            column = names_of(sources).index(feature.name)
            values = signed_root(said[feature.name]) if feature.rooted else said[feature.name]
            theirs = every.features[np.searchsorted(keys, own), column]
            np.testing.assert_allclose(theirs, np.asarray(values, dtype=float), rtol=1e-5, atol=1e-6)


def test_blocks_hold_every_user_once(
    items: ItemIndex, queries: np.ndarray, histories: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("recsys.candidates.stage.USERS", 7)
    monkeypatch.setattr("recsys.candidates.stage.EVENTS", 20)
    parts = list(blocks(items, queries, histories))
    sizes = [part.stop - part.start for part, _ in parts]
    assert sum(sizes) == U and max(sizes) <= 7
    assert all(block.histories.lengths.sum() <= 20 for _, block in parts)
    for part, block in parts:
        np.testing.assert_array_equal(block.queries, queries[part])
        for row, user in enumerate(range(part.start, part.stop)):
            assert block.histories.history(row).tolist() == histories.history(user).tolist()


def test_a_block_makes_a_thing_once(items: ItemIndex, queries: np.ndarray, histories: Sequences) -> None:
    block = Block(index=items, queries=queries, histories=histories)
    made: list[int] = []
    for _ in range(2):
        assert block.once("mine", lambda: made.append(1) or len(made)) == 1
    assert block.weights(last=3, decay=0.5) is block.weights(last=3, decay=0.5)
    assert block.weights(last=3, decay=0.5) is not block.weights(last=3, decay=0.5, mean=True)


@given(st.lists(st.lists(st.integers(0, V), max_size=6), min_size=1, max_size=5))
def test_seen_keys_are_the_pairs_of_the_histories(lists: list[list[int]]) -> None:
    block = Block(index=ring.items(), queries=np.zeros((len(lists), 8)), histories=ring.sequences(lists))
    expected = sorted({row * (V + 1) + code for row, own in enumerate(lists) for code in own if code})
    assert block.seen.tolist() == expected == block.hidden.tolist()
    assert not len(replace(block, exclude_seen=False).hidden)


@given(st.lists(st.integers(0, 30)), st.lists(st.integers(0, 30)))
def test_keys_as_sets(some: list[int], others: list[int]) -> None:
    ascending = distinct(np.array(others, dtype=np.int64))
    assert ascending.tolist() == sorted(set(others))
    assert among(np.array(some, dtype=np.int64), ascending).tolist() == [key in others for key in some]


@given(st.lists(st.sets(st.integers(0, 63)), max_size=20))
def test_any_number_of_sources_can_be_named(sets: list[set[int]]) -> None:
    names = [f"s{bit}" for bit in range(64)]
    by = np.array([sum(1 << bit for bit in chosen) for chosen in sets], dtype=np.uint64)
    assert source_names(by, names).tolist() == ["+".join(names[bit] for bit in sorted(chosen)) for chosen in sets]


class Broken(Source):
    """Proposes what it is told to, and says what it is told to."""

    name = "broken"
    FEATURES = (features_of(SOURCES.values())[-1],)
    CONTEXT = ("mood",)

    def __init__(self, keys: Any = (1,), said: Any = None, mood: Any = 0.0) -> None:
        self.keys, self.said, self.mood = np.asarray(keys), said, mood

    @classmethod
    def fit(cls, data: TrainingData) -> Broken:
        return cls()

    def propose(self, block: Block, n: int) -> np.ndarray:
        return self.keys

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        return {"words": np.zeros(len(rows))} if self.said is None else self.said

    def context(self, block: Block) -> dict[str, np.ndarray]:
        return {"mood": np.full(len(block), self.mood)}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Broken([1.0]), "'broken' proposed float64"),
        (Broken([[1]]), "'broken' proposed int64"),
        (Broken([3, 2]), "'broken' proposed keys that do not ascend"),
        (Broken([2, 2]), "'broken' proposed keys that do not ascend"),
        (Broken([-1, 2]), "belong to no user"),
        (Broken([U * (V + 1) + 1]), "belong to no user"),
        (Broken([1, V + 1]), "'broken' proposed code 0, which is no item"),
        (Broken(said={}), "'broken' declares 'words' and does not give 1 values"),
        (Broken(said={"words": np.zeros(7)}), "'broken' declares 'words' and does not give 1 values"),
        (Broken(said={"words": np.array([np.nan])}), "the feature 'words' is not finite"),
    ],
)
def test_a_source_that_breaks_the_contract_is_named(
    items: ItemIndex, queries: np.ndarray, histories: Sequences, source: Broken, message: str
) -> None:
    block = Block(index=items, queries=queries, histories=histories)
    with pytest.raises(ValueError, match=message):
        propose([source], block, n=5, features=["words"], context=["mood"])


def test_a_source_that_proposes_what_may_not_be_is_named(
    items: ItemIndex, queries: np.ndarray, histories: Sequences
) -> None:
    block = Block(index=items, queries=queries, histories=histories)
    with pytest.raises(ValueError, match="'broken' proposed an item that was seen or may not be recommended"):
        propose([Broken(block.hidden[:1])], block, n=5, features=["words"], context=["mood"])


def test_an_error_inside_a_source_names_it(items: ItemIndex, queries: np.ndarray, histories: Sequences) -> None:
    class Raising(Broken):
        def propose(self, block: Block, n: int) -> np.ndarray:
            raise KeyError("colour")

    block = Block(index=items, queries=queries, histories=histories)
    with pytest.raises(RecsysError, match="The candidate source 'broken' failed in `propose`: KeyError: 'colour'"):
        propose([Raising()], block, n=5, features=["words"], context=["mood"])


def test_what_nobody_computes_is_named(items: ItemIndex, queries: np.ndarray, histories: Sequences) -> None:
    block = Block(index=items, queries=queries, histories=histories)
    with pytest.raises(ValueError, match="no source that was asked computes 'colour'"):
        propose([Broken()], block, n=5, features=["words", "colour"], context=[])
    with pytest.raises(ValueError, match="no source that was asked knows 'length' of a user"):
        propose([Broken()], block, n=5, features=["words"], context=["length"])


@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.sampled_from([1, 3, 10**6]), st.booleans(), st.booleans())
def test_sparse_scores_are_those_of_a_dense_array(
    seed: int, n: int, different: int, exclude_seen: bool, shelved: bool
) -> None:
    rng = np.random.default_rng(seed)
    items = ring.items()
    allowed = np.arange(V + 1) % 3 > 0 if shelved else np.arange(V + 1) > 0
    block = Block(
        index=items,
        queries=ring.queries(),
        histories=ring.histories(),
        exclude_seen=exclude_seen,
        shelf=shelf_of(items, allowed) if shelved else None,
    )
    dense = (rng.permutation(U * (V + 1)).reshape(U, V + 1) - 300).astype(np.float32)
    dense = np.clip(dense, -different, different)  # the fewer values there are, the more items are equal
    dense[rng.random(dense.shape) < rng.choice([0.2, 0.7])] = 0
    dense[:, 0] = 0
    expected = []
    for row in range(U):
        usable = np.flatnonzero((dense[row] > 0) & allowed)
        usable = usable[~among(row * (V + 1) + usable, block.hidden)]
        best = sorted(usable, key=lambda code: (-dense[row, code], code))[:n]
        expected += sorted(row * (V + 1) + code for code in best)
    rows = np.sort(rng.integers(0, U, 50))
    codes = rng.integers(0, V + 1, 50)
    for module in (plain, compiled):
        with mock.patch("recsys.candidates.scores.loops", lambda users, module=module: module):
            scores = Scores(sparse.csr_array(dense))
        assert scores.best(block, n).tolist() == expected == best_keys(block, dense, n).tolist()
        np.testing.assert_array_equal(scores.at(rows, codes), dense[rows, codes])
