"""Proposals and features against brute force; what is measured is what is served."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from recsys.candidates.counts import recency_weights
from recsys.candidates.neighbours import Neighbours
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.ranking import blend as module
from recsys.ranking.blend import (
    CONTEXT,
    SOURCES,
    Blended,
    best_items,
    blend_scores,
    feature_names,
    propose,
    source_names,
)
from recsys.ranking.loglinear import Blend
from recsys.retrieval.index import ItemIndex, build_index
from recsys.retrieval.shelf import shelf_of
from recsys.retrieval.top_k import top_k

V, D, U = 60, 8, 40


def sequences(lists: list[list[int]]) -> Sequences:
    return Sequences(
        users=pl.Series("user_id", np.arange(len(lists))),
        items=np.array([item for items in lists for item in items], dtype=np.int32),
        offsets=np.cumsum([0, *map(len, lists)]).astype(np.int64),
    )


@pytest.fixture
def histories() -> Sequences:
    """Walks over a ring of 50 items; ten items have no interaction. One user is unknown, one has an unknown event."""
    rng = np.random.default_rng(0)
    lists = [((rng.integers(50) + np.arange(rng.integers(2, 9))) % 50 + 1).tolist() for _ in range(U - 2)]
    return sequences([*lists, [0], [3, 0, 4]])


@pytest.fixture
def neighbours(histories: Sequences) -> Neighbours:
    rng = np.random.default_rng(1)
    text = rng.standard_normal((V + 1, 4)).astype(np.float32)
    text[0] = 0
    words = sparse.random_array((V + 1, 9), density=0.3, format="csr", dtype=np.float32, rng=rng)
    return Neighbours.count(histories.items, histories.offsets, V, text=text, words=sparse.csr_array(words))


@pytest.fixture
def items() -> ItemIndex:
    vectors = np.random.default_rng(2).standard_normal((V + 1, D)).astype(np.float32)
    vectors[0] = 0
    return build_index(vectors, np.arange(V + 1) % 15 != 0)  # code 15, 30, 45 and 60 cannot be placed


@pytest.fixture
def queries() -> np.ndarray:
    return np.random.default_rng(3).standard_normal((U, D)).astype(np.float32)


@pytest.fixture
def blended(neighbours: Neighbours) -> Blended:
    """Weights on everything, so that any feature that differed would show."""
    names, rng = feature_names(neighbours), np.random.default_rng(4)
    F, C = len(names), len(CONTEXT)
    weights = Blend(
        features=names,
        context=CONTEXT,
        mean=rng.standard_normal(F + C) / 5,
        scale=np.full(F + C, 0.7),
        alone=rng.standard_normal(F),
        pairs=np.triu(rng.standard_normal((F, F))) / 5,
        given=rng.standard_normal((C, F)) / 5,
    )
    return Blended(neighbours=neighbours, weights=weights, candidates=10)


def mean(histories: Sequences, last: int, decay: float) -> np.ndarray:
    weights = recency_weights(histories.items, histories.offsets, V, last=last, decay=decay).toarray()
    return weights / np.maximum(weights.sum(axis=1, keepdims=True), 1e-9)


def whole(histories: Sequences, decay: float = 1.0) -> np.ndarray:
    return recency_weights(histories.items, histories.offsets, V, last=50, decay=decay).toarray()


def signed_root(values: np.ndarray) -> np.ndarray:
    return np.where(values < 0, -np.sqrt(np.abs(values)), np.sqrt(np.abs(values)))


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_each_source_proposes_its_best_unseen_items(
    items: ItemIndex, queries: np.ndarray, neighbours: Neighbours, histories: Sequences, exclude_seen: bool
) -> None:
    n = 7
    found = propose(items, queries, neighbours, histories, n=n, exclude_seen=exclude_seen)
    newest, every = mean(histories, 10, 0.7), mean(histories, 50, 1.0)
    assert neighbours.text is not None
    scores = {
        "vector": np.where(np.isin(np.arange(V + 1), items.codes), queries @ items.vectors.T, -np.inf),
        "transitions": newest @ neighbours.followed.toarray(),
        "together": every @ neighbours.together.toarray(),
        "linear": whole(histories) @ neighbours.linear.toarray(),
        "text": newest @ neighbours.text @ neighbours.text.T,
        "popularity": np.tile(neighbours.recent, (U, 1)),
        "history": whole(histories),  # nothing where what was had is left out
    }
    for bit, name in enumerate(SOURCES):
        proposed = set(zip(found.rows[found.by >> bit & 1 > 0], found.codes[found.by >> bit & 1 > 0], strict=True))
        for user in range(U):
            seen = histories.history(user) if exclude_seen else []
            own = scores[name][user].astype(float)
            own[[0, *seen]] = -np.inf
            if name == "popularity":  # the same list for all, whatever each has seen of it
                own = np.where(np.isin(np.arange(V + 1), np.argsort(-neighbours.recent, kind="stable")[:n]), own, -1)
            usable = own > (-np.inf if name == "vector" else 0)
            best = sorted(np.flatnonzero(usable), key=lambda code: (-np.float32(own[code]), code))[:n]
            mine = {int(code) for row, code in proposed if row == user}
            values = sorted(own[list(mine)], reverse=True)
            assert len(mine) == len(best)
            np.testing.assert_allclose(values, own[best], rtol=1e-4, atol=1e-6)  # ties may fall either way


def test_features_are_what_the_sources_say(
    items: ItemIndex, queries: np.ndarray, neighbours: Neighbours, histories: Sequences
) -> None:
    found = propose(items, queries, neighbours, histories, n=12, exclude_seen=False)
    features = dict(zip(feature_names(neighbours), found.features.T, strict=True))
    rows, codes = found.rows, found.codes
    assert (np.diff(rows * (V + 1) + codes) > 0).all()
    newest, last, every = mean(histories, 10, 0.7), mean(histories, 1, 1.0), mean(histories, 50, 1.0)
    assert neighbours.text is not None and neighbours.words is not None
    expected = {
        "followed": np.sqrt((newest @ neighbours.followed.toarray())[rows, codes]),
        "next": np.sqrt((last @ neighbours.next.toarray())[rows, codes]),
        "together": np.sqrt((every @ neighbours.together.toarray())[rows, codes]),
        "linear": signed_root((whole(histories) @ neighbours.linear.toarray())[rows, codes]),
        "linear_next": signed_root((whole(histories, 0.95) @ neighbours.linear_next.toarray())[rows, codes]),
        "popular": np.log1p(neighbours.popular)[codes],
        "recent": np.log1p(neighbours.recent)[codes],
        "new": (neighbours.popular == 0)[codes],
        "seen": [np.log2(1 + (histories.history(row) == code).sum()) for row, code in zip(rows, codes, strict=True)],
        "text": (newest @ neighbours.text @ neighbours.text.T)[rows, codes],
        "words": (newest @ neighbours.words.toarray() @ neighbours.words.toarray().T)[rows, codes],
    }
    for name, values in expected.items():
        np.testing.assert_allclose(features[name], np.asarray(values, dtype=float), rtol=1e-4, atol=1e-6, err_msg=name)
    assert features["seen"].any() and features["new"].any()
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
    np.testing.assert_allclose(found.context[:, 0], np.log1p(neighbours.popular[newest_item])[rows], rtol=1e-6)


def test_what_is_measured_is_what_is_served(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    codes, scores, by = best_items(items, queries, blended, histories, k=9)
    dense = blend_scores(items, queries, blended, histories, n=10)(0, U)
    for user in range(U):
        order = sorted(np.flatnonzero(np.isfinite(dense[user])), key=lambda code: (-dense[user, code], code))[:9]
        assert codes[user].tolist() == order + [0] * (9 - len(order))
        np.testing.assert_array_equal(scores[user, : len(order)], dense[user, order])
        assert not set(codes[user]) & set(histories.history(user)) - {0}
    assert ((by > 0) == (codes > 0)).all()


def test_of_equal_scores_the_lower_code_comes_first(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    nothing = {name: np.zeros_like(getattr(blended.weights, name)) for name in ("alone", "pairs", "given")}
    codes, scores, _ = best_items(
        items, queries, replace(blended, weights=replace(blended.weights, **nothing)), histories, k=12
    )
    proposed = propose(items, queries, blended.neighbours, histories, n=12)
    for user in range(U):
        assert codes[user].tolist() == proposed.codes[proposed.rows == user][:12].tolist()
    assert (scores == 0).all()


def test_users_do_not_depend_on_their_block(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = best_items(items, queries, blended, histories, k=9)
    monkeypatch.setattr(module, "BLOCK_FLOATS", 3 * (V + 1))
    parts = best_items(items, queries, blended, histories, k=9)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-5, atol=1e-5)


def test_more_proposals_change_little_and_the_features_not_at_all(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    few = propose(items, queries, blended.neighbours, histories, n=10)
    all_items = propose(items, queries, blended.neighbours, histories, n=V)
    keys, every = few.rows * (V + 1) + few.codes, all_items.rows * (V + 1) + all_items.codes
    placed = np.isin(few.codes, items.codes)  # what the model cannot place depends on its last proposal
    np.testing.assert_allclose(
        few.features[placed], all_items.features[np.searchsorted(every, keys)][placed], rtol=1e-5, atol=1e-5
    )
    # the first is hardly ever an item that no source had among its twenty best
    first = best_items(items, queries, replace(blended, candidates=20), histories, k=1)[0]
    assert (first == best_items(items, queries, replace(blended, candidates=V), histories, k=1)[0]).mean() > 0.9


def test_without_a_blend_the_vectors_serve_alone(items: ItemIndex, queries: np.ndarray, histories: Sequences) -> None:
    codes, scores, by = best_items(items, queries, None, histories, k=10**9)
    expected = top_k(items, queries, histories, k=len(items.codes))
    np.testing.assert_array_equal(codes, expected[0])
    np.testing.assert_array_equal(scores, expected[1])
    assert set(source_names()[by[codes > 0]]) == {"vector"} and not by[codes == 0].any()


def test_a_history_of_unknown_items_gets_what_sells(
    items: ItemIndex, queries: np.ndarray, neighbours: Neighbours, histories: Sequences
) -> None:
    unknown = U - 2
    found = propose(items, queries, neighbours, histories, n=5)
    names = set(source_names()[found.by[found.rows == unknown]])
    assert names <= {"vector", "popularity", "vector+popularity"} and "popularity" in names | {
        name.removeprefix("vector+") for name in names
    }


def test_lists_are_as_long_as_asked_however_few_each_source_proposes(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    codes, _, _ = best_items(items, queries, replace(blended, candidates=10), histories, k=40)
    assert (codes > 0).all()


def test_source_names() -> None:
    names = source_names()
    assert names[1] == "vector" and names[3] == "vector+transitions" and names[-1] == "+".join(SOURCES)


def test_weights_of_other_features_are_refused(blended: Blended) -> None:
    again = Blended.from_tensors(blended.to_tensors(), blended.declaration())
    assert again.weights.features == blended.weights.features and again.candidates == 10
    declared = blended.declaration() | {"features": ["model", *reversed(blended.weights.features[1:])]}
    with pytest.raises(ValueError, match="the blend weighs"):
        Blended.from_tensors(blended.to_tensors(), declared)


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_only_what_is_on_the_shelf_is_proposed_and_scores_stay(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences, exclude_seen: bool
) -> None:
    allowed = np.arange(V + 1) % 3 == 1  # 20 items; of them 15 k + 1, ... are placed, and none is a multiple of 15
    shelf = shelf_of(items, allowed)
    options = {"n": 10, "exclude_seen": exclude_seen}
    found = propose(items, queries, blended.neighbours, histories, **options, shelf=shelf)
    assert allowed[found.codes].all()
    whole = propose(items, queries, blended.neighbours, histories, n=V, exclude_seen=exclude_seen)
    features = {(row, code): line for row, code, line in zip(whole.rows, whole.codes, whole.features, strict=True)}
    for row, code, line in zip(found.rows, found.codes, found.features, strict=True):
        np.testing.assert_allclose(line, features[row, code], rtol=1e-5, atol=1e-5)
    for bit, source in enumerate(SOURCES):  # each source proposes its best ones of the shelf
        proposed = found.codes[(found.by >> bit & 1).astype(bool)]
        assert len(proposed) or (source == "history" and exclude_seen), source
    codes, scores, _ = best_items(items, queries, blended, histories, k=8, exclude_seen=exclude_seen, shelf=shelf)
    assert (codes > 0).all() and allowed[codes].all()  # the mask comes before the cut: no list is short
    assert (np.diff(scores, axis=1) <= 0).all()


def test_the_vectors_alone_search_the_shelf(items: ItemIndex, queries: np.ndarray, histories: Sequences) -> None:
    allowed = np.arange(V + 1) > 40
    codes, scores, _ = best_items(items, queries, None, histories, k=5, shelf=shelf_of(items, allowed))
    for user in range(U):
        seen = set(histories.history(user).tolist())
        ours = [code for code in items.codes.tolist() if allowed[code] and code not in seen]
        best = sorted(ours, key=lambda code: -float(items.vectors[code] @ queries[user]))[:5]
        assert codes[user].tolist() == best
        np.testing.assert_allclose(scores[user], items.vectors[best] @ queries[user], rtol=1e-5)


def test_a_shelf_without_anything_that_the_model_can_place(items: ItemIndex) -> None:
    assert shelf_of(items, None) is None
    with pytest.raises(InputError, match=r"None of the 56 items .* newest catalogue; train again"):
        shelf_of(items, np.arange(V + 1) == 15)
