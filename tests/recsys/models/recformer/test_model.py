"""The properties that make a Recformer one."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.data.sequences import Sequences
from recsys.features.tokens import ItemTokenizer, ItemTokens, join, tokenise, train_tokenizer
from recsys.models.base import Parts
from recsys.models.recformer.encode import PACKING, encode, encode_histories, item_table, read_groups
from recsys.models.recformer.inputs import read
from recsys.models.recformer.model import Recformer, Shape
from recsys.models.recformer.recommender import RecformerRecommender
from recsys.settings.read import parse_settings

WORDS = ("red", "blue", "green", "lamp", "shade", "drill", "brush", "valve", "cable", "spoon", "chair", "tent", "boot")


def titles(count: int, seed: int = 0) -> pl.DataFrame:
    generator = np.random.default_rng(seed)
    return pl.DataFrame({"title": [" ".join(generator.choice(WORDS, generator.integers(2, 9))) for _ in range(count)]})


TOKENIZER: ItemTokenizer = train_tokenizer([*WORDS, "title"] * 20, 400)
SETTINGS = parse_settings({"name": "tiny", "interactions": {"source": "log.csv"}, "train": {"precision": "fp32"}})
CATALOGUE: ItemTokens = tokenise(titles(30), ["title"], TOKENIZER)


def build(seed: int = 0, **changes: Any) -> Recformer:
    shape = Shape(
        words=TOKENIZER.size,
        dimensions=16,
        inner=32,
        blocks=2,
        heads=2,
        tokens=40,
        items=4,
        first=TOKENIZER.first,
        padding=TOKENIZER.padding,
    )
    torch.manual_seed(seed)
    model = Recformer(replace(shape, **changes))
    with torch.no_grad():
        for parameter in model.parameters():  # as if trained: nothing is zero or one by design
            parameter.add_(0.3 * torch.randn_like(parameter) * (parameter.std(correction=0) + 0.1))
    return model.eval()


VARIANTS = [
    {},
    {"pooling": "items", "places": "item", "apart": 2.0},
    {"window": 8},
    {"window": 8, "global_projections": True},
    {"global_projections": True, "pooling": "items", "projection": 6},
]


def flat(*histories: list[int]) -> tuple[np.ndarray, np.ndarray]:
    codes = np.array([code for history in histories for code in history], dtype=np.int32)
    return codes, np.cumsum([0, *map(len, histories)])


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_padding_and_company_change_nothing(changes: dict[str, Any]) -> None:
    model = build(**changes)
    codes, offsets = flat([1, 2, 3, 4], [5], [6, 7], [8, 9, 10], [])
    padded = encode(model, CATALOGUE, codes, offsets[:-1], offsets[1:]).detach()
    for user in range(5):
        alone = encode(model, CATALOGUE, codes, offsets[user : user + 1], offsets[user + 1 : user + 2]).detach()
        torch.testing.assert_close(alone[0], padded[user], rtol=1e-4, atol=1e-5)
    wide = read(CATALOGUE, codes, offsets[:-1], offsets[1:], model.shape.limits)  # all padded to the longest
    torch.testing.assert_close(model(wide).detach(), padded, rtol=1e-4, atol=1e-5)
    assert padded[:4].norm(dim=1).allclose(torch.ones(4))


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_the_groups_of_an_accelerator_give_the_same_vectors(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build(**changes)
    codes, offsets = flat([1, 2, 3, 4], [5], [6, 7], [8, 9, 10], [])
    here = encode_histories(model, CATALOGUE, codes, offsets, dtype=torch.float32)
    monkeypatch.setitem(PACKING, "cpu", PACKING["cuda"])
    widths = [
        given.tokens.shape[1]
        for _, given in read_groups(model, CATALOGUE, codes, offsets[:-1], offsets[1:], exact=True)
    ]
    assert all(width % PACKING["cuda"].multiple == 0 for width in widths) and len(widths) < 5
    there = encode_histories(model, CATALOGUE, codes, offsets, dtype=torch.float32)
    np.testing.assert_allclose(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_an_items_vector_is_that_of_a_history_of_one(changes: dict[str, Any]) -> None:
    model = build(**changes)
    table = item_table(model, CATALOGUE, dtype=torch.float32)
    assert table.shape == (31, model.shape.width) and table.dtype == np.float32
    assert (table[0] == 0).all()
    alone = encode_histories(model, CATALOGUE, *flat([3], [17]), dtype=torch.float32)
    np.testing.assert_allclose(alone, table[[3, 17]], rtol=1e-4, atol=1e-5)


def test_the_first_tokens_state_costs_less_and_is_the_same() -> None:
    for changes in VARIANTS:
        model = build(**changes)
        given = read(CATALOGUE, *(lambda c, o: (c, o[:-1], o[1:]))(*flat([1, 2, 3], [4])), model.shape.limits)
        with torch.no_grad():
            few, every = model.states(given, first_only=True), model.states(given)
        assert few.shape[1] == 1
        torch.testing.assert_close(few, every[:, :1], rtol=1e-4, atol=1e-5)


def test_order_matters_and_so_does_what_the_order_says() -> None:
    model = build()
    one, other = encode_histories(model, CATALOGUE, *flat([1, 2], [2, 1]), dtype=torch.float32)
    assert np.abs(one - other).max() > 0.01
    with torch.no_grad():
        model.item_positions.weight.zero_()
    changed = encode_histories(model, CATALOGUE, *flat([1, 2]), dtype=torch.float32)
    assert np.abs(one - changed[0]).max() > 0.01


def test_what_is_older_than_the_limit_is_not_read() -> None:
    model = build()
    histories = flat([9, 8, 7, 1, 2, 3, 4], [1, 2, 3, 4])
    long, short = encode_histories(model, CATALOGUE, *histories, dtype=torch.float32)
    np.testing.assert_allclose(long, short, atol=1e-5)


def test_a_new_item_gets_its_vector_from_its_text_alone() -> None:
    model = build()
    new = tokenise(pl.DataFrame({"title": [titles(30)["title"][4], "tent boot"]}), ["title"], TOKENIZER)
    before = item_table(model, CATALOGUE, dtype=torch.float32)
    after = item_table(model, join([CATALOGUE, new]), dtype=torch.float32)
    np.testing.assert_allclose(after[:31], before, atol=1e-5)
    np.testing.assert_allclose(after[31], before[5], atol=1e-5)  # the same text, the same vector
    assert np.abs(after[32]).max() > 0


def test_an_item_without_text_has_the_zero_vector() -> None:
    empty = tokenise(pl.DataFrame({"title": ["tent", None]}), ["title"], TOKENIZER)
    table = item_table(build(), empty, dtype=torch.float32)
    assert (table[2] == 0).all() and (table[1] != 0).any()


def test_bf16_says_nearly_the_same() -> None:
    model = build()
    codes, offsets = flat(*[[n, n + 1, n + 2] for n in range(1, 28)])
    exact = encode_histories(model, CATALOGUE, codes, offsets, dtype=torch.float32)
    rough = encode_histories(model, CATALOGUE, codes, offsets, dtype=torch.bfloat16)
    assert rough.dtype == np.float32
    assert (exact * rough).sum(1).min() > 0.999


def test_recomputed_activations_give_the_same_gradients() -> None:
    codes, offsets = flat([1, 2, 3], [4, 5])
    gradients = []
    for recompute in (False, True):
        model = build()
        model.recompute = recompute
        encode(model, CATALOGUE, codes, offsets[:-1], offsets[1:]).sum(1).prod().backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.testing.assert_close(*gradients)


def test_weights_declaration_and_tokens_are_all_that_serving_needs() -> None:
    model = build(pooling="items", projection=8)
    weights = {f"encoder.{name}": value for name, value in model.state_dict().items()}
    for name in ("tokens", "types", "offsets"):
        weights[f"catalogue.{name}"] = torch.from_numpy(getattr(CATALOGUE, name))
    table = np.zeros((CATALOGUE.size + 1, 8), dtype=np.float32)
    parts = Parts(
        vectors=table, allowed=CATALOGUE.lengths > 0, weights=weights, declared={"shape": asdict(model.shape)}
    )
    served = RecformerRecommender(SETTINGS, parts)

    def queries(items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        return served.encode(Sequences.nameless(items, offsets))

    histories = flat([1, 2, 3], [4], [])
    np.testing.assert_array_equal(
        queries(*histories), encode_histories(model, CATALOGUE, *histories, dtype=torch.float32)
    )
    assert queries(*flat()).shape == (0, 8)


def test_a_shape_that_does_not_fit_says_so() -> None:
    with pytest.raises(ValueError, match="dimensions \\(16\\) must be divisible by heads \\(3\\)"):
        build(heads=3)
