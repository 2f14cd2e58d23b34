from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from recsys.features.multiplexed import hash_values
from recsys.models.sequential.bert4rec import MASK, Bert4Rec, encode_queries
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.settings import ModelSettings
from tests.recsys.opened import sequence_queries

ITEMS = 20


def model(**changes: object) -> Bert4Rec:
    torch.manual_seed(0)
    trained = torch.ones(ITEMS + 1, dtype=torch.bool)
    trained[[0, ITEMS]] = False
    of = ItemFeatures(id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))), trained=trained)
    built = Bert4Rec(of, ModelSettings(**({"dimensions": 16, "max_length": 8} | changes)), table_rows=64)  # type: ignore[arg-type]
    with torch.no_grad():  # weights of the size that training reaches, so that differences show
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.2)
    return built.eval()


def queries(of: Bert4Rec, histories: list[list[int]]) -> np.ndarray:
    vectors, _ = of.item_vectors()
    items = np.array([i for h in histories for i in h], dtype=np.int32)
    offsets = np.cumsum([0, *map(len, histories)])
    return encode_queries(
        of.encoder, torch.from_numpy(vectors[:, :-1]), items, offsets, of.encoder.transformer.max_length
    )


def test_logits_are_the_product_of_the_two_vectors() -> None:
    built = model()
    tokens = torch.tensor([[3, 5, MASK]])
    logits = built(tokens, torch.tensor([[2]]))[0]
    vectors, _ = built.item_vectors()
    assert np.allclose(queries(built, [[3, 5]]) @ vectors[1:].T, logits.detach()[:, 1:], atol=1e-4)
    assert logits[0, 0] == -torch.inf


@pytest.mark.parametrize(
    "changes", [{"objective": "next-item"}, {"temperature": None}, {"head": True}, {"heads": 2}], ids=str
)
def test_variants_serve_what_they_train(changes: dict[str, object]) -> None:
    built = model(**changes)
    tokens = torch.tensor([[3, 5, 7]] if changes.get("objective") else [[3, 5, 7, MASK]])
    logits = built(tokens)[0, -1:]
    vectors, _ = built.item_vectors()
    assert np.allclose(queries(built, [[3, 5, 7]]) @ vectors[1:].T, logits.detach()[:, 1:], atol=1e-4)


def test_with_a_temperature_items_are_unit_vectors() -> None:
    vectors, _ = model(temperature=0.1).item_vectors()
    assert np.allclose(np.linalg.norm(vectors[1:, :-1], axis=1), 1, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.integers(1, ITEMS), max_size=14), min_size=1, max_size=6))
def test_a_query_does_not_depend_on_its_company_or_on_padding(histories: list[list[int]]) -> None:
    built = model()
    together = queries(built, histories)
    alone = np.concatenate([queries(built, [history]) for history in histories])
    assert np.allclose(together, alone, atol=1e-5)


def test_only_the_newest_events_count() -> None:
    built = model()
    assert np.allclose(queries(built, [[9, 9, 9, 1, 2, 3, 4, 5, 6, 7]]), queries(built, [[1, 2, 3, 4, 5, 6, 7]]))


@pytest.mark.parametrize("loaded", [False, True])
@pytest.mark.parametrize("length", [7, 8, 9, 30])
@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_all_events_that_fit_are_read_and_none_beyond(objective: str, length: int, loaded: bool) -> None:
    """[MASK] takes one of the eight positions; changing the oldest event in reach moves the query, an older one not."""
    built = model(objective=objective)
    reach = 8 if objective == "next-item" else 7
    history = [1 + n % 15 for n in range(length)]

    def query(changed: int | None) -> np.ndarray:
        items = [17 if place == changed else item for place, item in enumerate(history)]
        if not loaded:
            return queries(built, [items])
        settings = ModelSettings(dimensions=16, max_length=8, objective=objective)  # type: ignore[arg-type]
        serve = sequence_queries(settings, built.state_dict(), built.item_vectors()[0])
        return serve(np.array(items, dtype=np.int32), np.array([0, length]))

    plain = query(None)
    for place in range(length):
        moved = bool(np.abs(query(place) - plain).max() > 1e-4)
        assert moved == (place >= length - reach), place


def test_a_user_without_history_gets_a_vector() -> None:
    assert np.isfinite(queries(model(), [[]])).all()


def test_serving_knows_no_dropout_in_whatever_state_training_left_the_model() -> None:
    torch.manual_seed(0)
    of = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))),
        trained=torch.ones(ITEMS + 1, dtype=torch.bool),
        text=torch.randn(ITEMS + 1, 6),
    )
    built = Bert4Rec(of, ModelSettings(dimensions=16, max_length=8, dropout=0.5, id_dropout=0.5), table_rows=64).eval()
    vectors, table = built.item_vectors()[0], built.item_table().detach()
    items, offsets = np.array([4, 2, 9], dtype=np.int32), np.array([0, 3])
    expected = encode_queries(built.encoder, table, items, offsets, 8)
    built.train()
    assert np.array_equal(built.item_vectors()[0], vectors)
    built.train()
    assert np.array_equal(encode_queries(built.encoder, table, items, offsets, 8), expected)


@pytest.mark.parametrize("objective", ["cloze", "next-item"])
def test_with_a_temperature_scores_are_cosines_over_it(objective: str) -> None:
    built = model(temperature=0.1, objective=objective)
    found = queries(built, [[1, 2, 3], [7]])[:, :-1]
    assert np.allclose(np.linalg.norm(found, axis=1), 1 / 0.1, rtol=1e-4)


def test_mask_and_padding_are_not_items() -> None:
    vectors, allowed = model().item_vectors()
    assert vectors.shape == (ITEMS + 1, 17)
    assert not vectors[0].any() and not allowed[0]


def test_items_without_training_are_recommended_only_if_content_places_them() -> None:
    _, allowed = model().item_vectors()
    assert not allowed[ITEMS] and allowed[1:ITEMS].all()


def test_the_bias_is_the_last_dimension() -> None:
    built = model()
    vectors, _ = built.item_vectors()
    assert np.allclose(vectors[1:, -1], built.output_bias.detach()[1:])
    assert (queries(built, [[1]])[:, -1] == 1).all()


def test_the_encoder_loads_from_weights_alone() -> None:
    built = model()
    vectors, _ = built.item_vectors()
    load = sequence_queries(ModelSettings(dimensions=16, max_length=8), built.state_dict(), vectors)
    assert np.array_equal(load(np.array([4, 2], dtype=np.int32), np.array([0, 2])), queries(built, [[4, 2]]))


def test_bf16_and_fp32_rank_alike() -> None:
    built = model()
    tokens = torch.randint(1, ITEMS, (32, 8))
    tokens[:, -1] = MASK
    last = torch.full((32, 1), 7)
    table = built.item_table()
    exact = (built.encoder.queries(tokens, table, last) @ table.T)[:, 0, 1:]
    rounded = (built.encoder.queries(tokens, table.bfloat16(), last).float() @ table.T)[:, 0, 1:]
    correlation = functional.cosine_similarity(
        exact - exact.mean(1, keepdim=True), rounded - rounded.mean(1, keepdim=True)
    )
    assert correlation.min() > 0.999


@pytest.mark.parametrize(
    "changes", [{}, {"norm_first": False}, {"gated": True, "feed_forward": "swiglu"}, {"distance_bias": True}], ids=str
)
def test_every_parameter_learns(changes: dict[str, object]) -> None:
    built = model(**changes).train()
    tokens = torch.tensor([[0, 4, MASK, 6, 2, 9, 1, MASK]])
    scores = built(tokens, torch.tensor([[2, 7]]))[0]
    functional.cross_entropy(scores, torch.tensor([5, 3])).backward()
    for name, parameter in built.named_parameters():
        assert parameter.grad is not None and parameter.grad.any(), name
