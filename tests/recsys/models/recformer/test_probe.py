"""What reads a history out of item states learns while the language model stands still."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch

from recsys.models.recformer.encode import encode, item_table
from recsys.models.recformer.finetune import Targets
from recsys.models.recformer.model import Recformer, Shape
from recsys.models.recformer.probe import PROBED, item_states, probe
from recsys.models.recformer.start import start
from recsys.models.recformer.weights import extended
from recsys.settings import RecformerSettings

SETTINGS = RecformerSettings(
    dimensions=32,
    heads=2,
    layers=1,
    vocabulary=500,
    max_items=5,
    max_tokens=48,
    dropout=0.0,
    pooling="items",
    positions="item",
    cross_item_bias=30.0,
)


class Case:
    def __init__(self, shops: ModuleType, repeats: bool = True) -> None:
        self.shop = shops.shop(0)
        begun = start(SETTINGS, [self.shop.frame], seed=0)
        self.model = extended(begun.model, repeats=repeats, follows=True)
        with torch.no_grad():  # so that an item's state is the same at any place of a history, as a checkpoint's is
            self.model.item_positions.weight.zero_()
        self.tokens = self.shop.corpus(begun.tokenizer).tokens
        self.items, self.offsets, _ = shops.split(self.shop)
        self.targets = Targets.of(self.tokens, self.items, self.offsets)

    def probe(self, epochs: int) -> float:
        return probe(
            self.model,
            self.tokens,
            self.items,
            self.targets.starts(self.offsets),
            self.targets.events,
            epochs=epochs,
            temperature=0.05,
            weight_decay=0.01,
            seed=0,
            dtype=torch.float32,
        )


def test_the_language_model_stands_still_and_what_learns_is_as_it_was_left(shops: ModuleType) -> None:
    case = Case(shops)
    case.model.words.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in case.model.state_dict().items()}
    case.probe(1)
    for name, value in case.model.state_dict().items():
        assert (value == before[name]).all() != name.startswith(PROBED), name
    assert [name for name, p in case.model.named_parameters() if not p.requires_grad] == ["words.weight"]


def test_it_learns_what_the_whole_model_then_knows(shops: ModuleType) -> None:
    case = Case(shops, repeats=False)  # quality is measured on cosines alone

    def quality() -> float:
        return float(shops.last_item_ndcg(case.model, case.tokens, case.shop))

    before, first = quality(), case.probe(1)
    last = case.probe(60)
    assert last < first - 0.2
    assert quality() > before + 0.2


def test_states_are_those_of_items_read_alone(shops: ModuleType) -> None:
    case = Case(shops)
    states = item_states(case.model, case.tokens, torch.float32)
    vectors = case.model.projected(states).detach().numpy()
    np.testing.assert_allclose(
        vectors[1:], item_table(case.model, case.tokens, dtype=torch.float32)[1:], rtol=0, atol=1e-5
    )


def test_what_follows_is_in_a_history_and_not_in_an_item(shops: ModuleType) -> None:
    case = Case(shops)
    codes, places = np.array([3], dtype=np.int32), np.array([0])
    item = encode(case.model, case.tokens, codes, places, places + 1, as_items=True)
    torch.testing.assert_close(
        encode(case.model, case.tokens, codes, places, places + 1), item
    )  # maps are zero at first
    with torch.no_grad():
        case.model.after_newest.weight.copy_(torch.eye(len(item[0])).roll(1, 0))
    shifted = torch.nn.functional.normalize(item + item.roll(1, 1), dim=1)
    torch.testing.assert_close(encode(case.model, case.tokens, codes, places, places + 1), shifted)
    torch.testing.assert_close(encode(case.model, case.tokens, codes, places, places + 1, as_items=True), item)


def test_what_follows_needs_items() -> None:
    known = {"words": 9, "dimensions": 8, "inner": 8, "blocks": 1, "heads": 1, "tokens": 9, "items": 2}
    with pytest.raises(ValueError, match="newest item"):
        Recformer(Shape(**known, first=0, padding=1, pooling="first", follows=True))
    for change in ({"transition_maps": True}, {"probe_epochs": 2}):
        with pytest.raises(ValueError, match='needs pooling = "items"'):
            RecformerSettings.model_validate({"pooling": "first", **change})
