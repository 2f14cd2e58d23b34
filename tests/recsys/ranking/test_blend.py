"""Both stages: what is measured is what is served, and blends of today's and of earlier layouts are read."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from recsys.candidates.base import Block
from recsys.candidates.popularity import Popularity
from recsys.candidates.stage import Proposals
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.ranking.blend import Blended, best_items, blend_scores, proposers
from recsys.ranking.loglinear import LogLinear
from recsys.retrieval.index import ItemIndex, build_index
from recsys.retrieval.shelf import Shelf, shelf_of
from recsys.retrieval.top_k import top_k
from tests.recsys.candidates import ring
from tests.recsys.candidates.ring import U, V
from tests.recsys.ranking.blends import blend_of, dense_rows, random_weights, sequences


@pytest.fixture
def histories() -> Sequences:
    return ring.histories()


@pytest.fixture
def items() -> ItemIndex:
    return ring.items()


@pytest.fixture
def queries() -> np.ndarray:
    return ring.queries()


@pytest.fixture
def blended() -> Blended:
    return random_weights(blend_of(ring.data(), candidates=10), 4)


def ask(
    blended: Blended,
    items: ItemIndex,
    queries: np.ndarray,
    histories: Sequences,
    *,
    n: int,
    exclude_seen: bool = True,
    shelf: Shelf | None = None,
) -> Proposals:
    block = Block(index=items, queries=queries, histories=histories, exclude_seen=exclude_seen, shelf=shelf)
    return blended.propose(block, n)


def test_what_is_measured_is_what_is_served(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    codes, scores, by = best_items(items, queries, blended, histories, k=9)
    dense = dense_rows(blend_scores(items, queries, blended, histories, n=10)(0, U), U, V + 1)
    for user in range(U):
        order = sorted(np.flatnonzero(np.isfinite(dense[user])), key=lambda code: (-dense[user, code], code))[:9]
        assert codes[user].tolist() == order + [0] * (9 - len(order))
        np.testing.assert_array_equal(scores[user, : len(order)], dense[user, order])
        assert not set(codes[user]) & set(histories.history(user)) - {0}
    assert ((by > 0) == (codes > 0)).all()


def test_of_equal_scores_the_lower_code_comes_first(
    items: ItemIndex, queries: np.ndarray, histories: Sequences
) -> None:
    flat = blend_of(ring.data())
    codes, scores, _ = best_items(items, queries, flat, histories, k=12)
    proposed = ask(flat, items, queries, histories, n=12)
    for user in range(U):
        assert codes[user].tolist() == proposed.codes[proposed.rows == user][:12].tolist()
    assert (scores == 0).all()


def test_users_do_not_depend_on_their_block(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = best_items(items, queries, blended, histories, k=9)
    monkeypatch.setattr("recsys.candidates.stage.USERS", 3)
    parts = best_items(items, queries, blended, histories, k=9)
    np.testing.assert_array_equal(parts[0], whole[0])
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-5, atol=1e-5)


def test_more_proposals_change_little_and_the_features_not_at_all(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    few = ask(blended, items, queries, histories, n=10)
    all_items = ask(blended, items, queries, histories, n=V)
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
    assert set(proposers(by, None)[codes > 0]) == {"vector"} and set(proposers(by, None)[codes == 0]) <= {""}


def test_a_history_of_unknown_items_gets_what_sells(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    unknown = U - 2
    found = ask(blended, items, queries, histories, n=5)
    names = set(proposers(found.by[found.rows == unknown], blended))
    assert names <= {"vector", "popularity", "vector+popularity"} and "popularity" in names | {
        name.removeprefix("vector+") for name in names
    }


def test_lists_are_as_long_as_asked_however_few_each_source_proposes(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    codes, _, _ = best_items(items, queries, replace(blended, candidates=10), histories, k=40)
    assert (codes > 0).all()


def test_a_blend_survives_the_file(blended: Blended) -> None:
    again = Blended.from_tensors(blended.to_tensors(), blended.declaration())
    assert again.declaration() == blended.declaration()
    assert list(again.declaration()) == ["sources", "ranker", "features", "context", "candidates"]
    assert again.to_tensors().keys() == blended.to_tensors().keys()


OLD_FEATURES = (
    *("model", "followed", "next", "together", "linear", "linear_next", "popular", "recent", "new", "seen"),
    *("text", "words"),
)


def old_layout() -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """A blend as bundles held it before they named their sources: three items, their tables with an entry or two."""

    def table(name: str, entries: dict[tuple[int, int], float], width: int = 4) -> dict[str, np.ndarray]:
        dense = np.zeros((4, width), dtype=np.float32)
        for place, value in entries.items():
            dense[place] = value
        rows, columns = np.nonzero(dense)
        return {
            f"{name}.values": dense[rows, columns],
            f"{name}.columns": columns.astype(np.int32),
            f"{name}.rows": np.concatenate([[0], np.cumsum((dense != 0).sum(axis=1))]).astype(np.int64),
            f"{name}.width": np.array([width]),
        }

    F = len(OLD_FEATURES)
    tensors = {
        **table("followed", {(1, 2): 0.25}),
        **table("next", {(1, 3): 0.16}),
        **table("together", {(1, 2): 0.81}),
        **table("linear", {(1, 2): 0.5, (1, 3): -0.09}),
        **table("linear_next", {(1, 2): 0.36}),
        **table("words", {(1, 0): 1.0, (2, 0): 0.5, (3, 1): 1.0}, width=2),
        "popular": np.array([0, 3, 1, 0], dtype=np.float32),
        "recent": np.array([0, 1, 1, 0], dtype=np.float32),
        "text": np.array([[0, 0], [1, 0], [0.5, 0.5], [0, 1]], dtype=np.float32),
        "blend.mean": np.zeros(F + 2),
        "blend.scale": np.ones(F + 2),
        "blend.alone": np.arange(1.0, F + 1),  # each feature has a weight of its own
        "blend.pairs": np.zeros((F, F)),
        "blend.given": np.zeros((2, F)),
    }
    return tensors, {"features": list(OLD_FEATURES), "context": ["sightings", "length"], "candidates": 10}


def test_a_blend_of_before_sources_had_names_scores_as_it_did() -> None:
    tensors, declared = old_layout()
    blended = Blended.from_tensors(tensors, declared)
    assert blended.names == ("vector", "transitions", "together", "linear", "text", "popularity", "history")
    assert (blended.ranker.features, blended.ranker.context) == (OLD_FEATURES, ("sightings", "length"))
    assert blended.to_tensors().keys() == tensors.keys()
    for name, tensor in blended.to_tensors().items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)
    index = build_index(np.array([[0, 0], [1, 0], [2, 0], [3, 0]], dtype=np.float32), np.arange(4) > 0)
    codes, scores, by = best_items(
        index, np.array([[1, 0]], dtype=np.float32), blended, sequences([[1]]), k=3, exclude_seen=True
    )
    # the model has 2 and 3 for items 2 and 3; what it says is relative to the logarithm of their summed exponentials
    total = np.log(np.exp(2) + np.exp(3))
    second = [2 - total, 0.5, 0, 0.9, np.sqrt(0.5), 0.6, np.log(2), np.log(2), 0, 0, 0.5, 0.5]
    third = [3 - total, 0, 0.4, 0, -0.3, 0, 0, 0, 1, 0, 0, 0]
    weights = np.arange(1.0, 13)
    expected = {2: float(weights @ second), 3: float(weights @ third)}
    assert codes.tolist() == [[2, 3, 0]]
    np.testing.assert_allclose(scores[0, :2], [expected[2], expected[3]], rtol=1e-5)
    named = ["vector+transitions+together+linear+text+popularity", "vector", ""]
    assert proposers(by, blended).tolist() == [named]


def test_a_blend_of_before_there_were_regressions_is_read_and_asks_the_sources_it_had() -> None:
    tensors, declared = old_layout()
    names = [name for name in OLD_FEATURES if "linear" not in name]
    kept = np.array([name in names for name in OLD_FEATURES])
    older = {name: value for name, value in tensors.items() if not name.startswith("linear")}
    for name in ("mean", "scale"):
        older[f"blend.{name}"] = older[f"blend.{name}"][np.append(kept, [True, True])]
    older["blend.alone"], older["blend.given"] = older["blend.alone"][kept], older["blend.given"][:, kept]
    older["blend.pairs"] = older["blend.pairs"][kept][:, kept]
    blended = Blended.from_tensors(older, declared | {"features": names})
    assert blended.names == ("vector", "transitions", "together", "text", "popularity", "history")


def test_the_order_of_the_weights_is_the_blends_own(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences
) -> None:
    """Features are placed by name: a bundle whose features stand in another order scores the same."""
    ranker = blended.ranker
    assert isinstance(ranker, LogLinear)
    turned = np.arange(len(ranker.features))[::-1]
    both = np.concatenate([turned, len(turned) + np.arange(len(ranker.context))])
    whole = ranker.pairs + np.triu(ranker.pairs, 1).T
    other = replace(
        ranker,
        features=tuple(ranker.features[place] for place in turned),
        mean=ranker.mean[both],
        scale=ranker.scale[both],
        alone=ranker.alone[turned],
        pairs=np.triu(whole[turned][:, turned]),
        given=ranker.given[:, turned],
    )
    first = best_items(items, queries, blended, histories, k=5)
    second = best_items(items, queries, replace(blended, ranker=other), histories, k=5)
    np.testing.assert_allclose(first[1], second[1], rtol=1e-4, atol=1e-4)


def test_what_this_program_does_not_know_is_refused_by_name(blended: Blended) -> None:
    tensors, declared = blended.to_tensors(), blended.declaration()
    for changed, message in (
        ({"sources": [*blended.names, "weather"]}, "asks the source 'weather', which this program does not know"),
        ({"ranker": "forest"}, "ranks by 'forest', which this program does not know"),
        ({"features": ["model", "colour"]}, "weighs 'colour', which none of its sources computes"),
        ({"context": ["sightings", "mood"]}, "is given 'mood', which none of its sources computes"),
    ):
        with pytest.raises(ValueError, match=message):
            Blended.from_tensors(tensors, declared | changed)
    lacking = {name: value for name, value in tensors.items() if name != "recent"}
    with pytest.raises(ValueError, match="source 'popularity' of its blend lacks its part 'recent'"):
        Blended.from_tensors(lacking, declared)


def test_two_parts_of_one_name_are_refused(blended: Blended) -> None:
    counted = blended.source(Popularity)
    assert counted is not None
    with pytest.raises(ValueError, match="'popularity' has a tensor 'popular'"):
        replace(blended, sources=(*blended.sources, counted)).to_tensors()


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_only_what_is_on_the_shelf_is_proposed_and_scores_stay(
    items: ItemIndex, queries: np.ndarray, blended: Blended, histories: Sequences, exclude_seen: bool
) -> None:
    allowed = np.arange(V + 1) % 3 == 1  # 20 items; of them 15 k + 1, ... are placed, and none is a multiple of 15
    shelf = shelf_of(items, allowed)
    found = ask(blended, items, queries, histories, n=10, exclude_seen=exclude_seen, shelf=shelf)
    assert allowed[found.codes].all()
    whole = ask(blended, items, queries, histories, n=V, exclude_seen=exclude_seen)
    features = {(row, code): line for row, code, line in zip(whole.rows, whole.codes, whole.features, strict=True)}
    for row, code, line in zip(found.rows, found.codes, found.features, strict=True):
        np.testing.assert_allclose(line, features[row, code], rtol=1e-5, atol=1e-5)
    named = proposers(found.by, blended)
    for source in blended.names:  # each source proposes its best ones of the shelf
        proposed = found.codes[[source in who.split("+") for who in named]]
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
