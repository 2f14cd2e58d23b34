from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from recsys.errors import InputError
from recsys.features.multiplexed import hash_values
from recsys.models.history_mean import history_means
from recsys.models.sequential.bert4rec import Bert4Rec, encode_queries
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.text_adapter import TextAdapter
from recsys.settings import ModelSettings
from recsys.settings.read import parse_settings

KINDS = ("identity", "mlp", "experts")
ITEMS, WIDTH = 12, 8
HISTORIES = ([3], [5, 3, 9], [2, 2, 7, 11, 1, 4])


def catalogue(seed: int = 0) -> ItemFeatures:
    generator = torch.Generator().manual_seed(seed)
    text = functional.normalize(torch.randn(ITEMS + 1, WIDTH, generator=generator), dim=-1)
    text[[0, 6]] = 0  # padding, and an item without text
    trained = torch.ones(ITEMS + 1, dtype=torch.bool)
    trained[0] = False
    return ItemFeatures(id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))), trained=trained, text=text)


def model(of: ItemFeatures, kind: str, seed: int = 0, **changes: object) -> Bert4Rec:
    torch.manual_seed(seed)
    chosen = {"dimensions": WIDTH, "max_length": 10, "objective": "next-item", "temperature": 0.1, "ids": False}
    chosen |= {"text_adapter": kind, "recency_mean": True, "item_bias": False, "experts": 3}
    return Bert4Rec(of, ModelSettings(**(chosen | changes)), table_rows=16)  # type: ignore[arg-type]


def flat(histories: tuple[list[int], ...]) -> tuple[np.ndarray, np.ndarray]:
    items = np.array([item for history in histories for item in history], dtype=np.int32)
    return items, np.cumsum([0, *map(len, histories)])


def scores(of: Bert4Rec, histories: tuple[list[int], ...]) -> np.ndarray:
    vectors, _ = of.item_vectors()
    queries = encode_queries(of.encoder, torch.from_numpy(vectors[:, :-1]), *flat(histories), 10)
    return queries @ vectors.T


@pytest.mark.parametrize("kind", KINDS)
def test_untrained_it_is_the_text_recommender(kind: str) -> None:
    of = catalogue()
    assert of.text is not None
    text = of.text.numpy()
    expected = history_means(text, *flat(HISTORIES)) @ text.T / 0.1
    assert np.allclose(scores(model(of, kind), HISTORIES), expected, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_learns_and_none_belongs_to_an_item(kind: str) -> None:
    built = model(catalogue(), kind)
    with torch.no_grad():  # one step away from the start, where a factor of zero stops the gradients behind it
        for parameter in built.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        built.output_bias.zero_()
    loss = built(torch.tensor([[1, 2, 3, 4], [5, 9, 8, 7]]))[..., 1:].square().sum()
    loss.backward()
    frozen = {name for name, p in built.named_parameters() if p.grad is None or not p.grad.any()}
    assert frozen == {"output_bias", "encoder.mask_vector"}  # of which the second is cloze's
    assert not built.item_vectors()[0][:, -1].any()


@pytest.mark.parametrize("kind", KINDS)
def test_weights_serve_another_catalogue(kind: str) -> None:
    here = model(catalogue(), kind)
    with torch.no_grad():
        for name, parameter in here.named_parameters():
            if name != "output_bias":
                parameter.add_(0.2 * torch.randn_like(parameter))
    there = model(catalogue(seed=1), kind, seed=1)
    there.load_state_dict(here.state_dict())
    same = model(catalogue(seed=1), kind, seed=2)
    assert not np.allclose(scores(there, HISTORIES), scores(same, HISTORIES), atol=1e-2)
    there.tower.text = here.tower.text
    assert np.allclose(scores(there, HISTORIES), scores(here, HISTORIES), atol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_what_has_no_text_has_no_vector(kind: str) -> None:
    adapter = TextAdapter(WIDTH, 2 * WIDTH, kind, experts=2)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.add_(torch.randn_like(parameter))
    text = torch.randn(3, WIDTH)
    text[1] = 0
    mapped = adapter(text)
    assert mapped.shape == (3, 2 * WIDTH)
    assert not mapped[1].any() and mapped[0].any() and mapped[2].any()


def test_experts_are_a_mixture() -> None:
    adapter = TextAdapter(2, 2, "experts", experts=2)
    with torch.no_grad():
        adapter.maps.copy_(torch.tensor([[[1.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 3.0]]]))
        adapter.gate.weight.copy_(torch.tensor([[1000.0, 0.0], [0.0, 1000.0]]))
    assert torch.allclose(adapter(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), torch.tensor([[2.0, 0.0], [0.0, 4.0]]))


def test_a_history_is_read_from_its_newest_ten_and_not_from_its_future() -> None:
    built = model(catalogue(), "mlp").eval()
    with torch.no_grad():
        for parameter in built.encoder.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    tokens = torch.tensor([[4, 5, 7, 2]])
    changed = torch.tensor([[4, 5, 7, 9]])
    before, after = built(tokens).detach()[..., 1:], built(changed).detach()[..., 1:]
    assert torch.allclose(before[:, :3], after[:, :3], atol=1e-5)
    assert not torch.allclose(before[:, 3], after[:, 3], atol=1e-2)


@pytest.mark.parametrize(
    "lacking", [{"objective": "cloze", "temperature": 0.1}, {"objective": "next-item", "temperature": "none"}]
)
def test_a_mean_needs_next_items_and_cosines(lacking: dict[str, object]) -> None:
    tree = {"name": "x", "interactions": {"source": "log.csv"}, "model": {"recency_mean": True, **lacking}}
    with pytest.raises(InputError, match="recency_mean = true needs"):
        parse_settings(tree)
