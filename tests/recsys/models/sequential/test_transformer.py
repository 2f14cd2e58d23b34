from __future__ import annotations

from typing import Any

import pytest
import torch

import recsys.models.sequential.transformer
from recsys.models.layers import Dropout
from recsys.models.sequential.transformer import Transformer, pick, rotate, rotations
from recsys.settings import ModelSettings

SHAPES = {
    "default": {},
    "post-norm": {"norm_first": False},
    "published": {"norm_first": False, "rotary": False},
    "distances": {"rotary": False, "distance_bias": True},
    "gated": {"gated": True, "feed_forward": "swiglu"},
}


def build(**changes: Any) -> Transformer:
    torch.manual_seed(0)
    settings = {"dimensions": 16, "blocks": 2, "heads": 2, "max_length": 12, "dropout": 0.5}
    built = Transformer(ModelSettings(**(settings | changes)))
    torch.nn.init.normal_(built.positions)  # as after training: positions matter
    if built.distances is not None:
        torch.nn.init.normal_(built.distances)
    return built.eval()


@pytest.fixture(params=list(SHAPES))
def encoder(request: pytest.FixtureRequest) -> Transformer:
    return build(**SHAPES[request.param])


def test_padding_on_the_left_changes_nothing(encoder: Transformer) -> None:
    x = torch.randn(2, 5, 16)
    present = torch.ones(2, 5, dtype=torch.bool)
    plain = encoder(x, present)
    padded = encoder(
        torch.cat([torch.randn(2, 4, 16), x], 1), torch.cat([torch.zeros(2, 4, dtype=torch.bool), present], 1)
    )
    assert torch.allclose(plain, padded[:, 4:], atol=1e-5)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [0, 3])
def test_what_an_accelerator_computes_is_the_same(
    encoder: Transformer, causal: bool, padding: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, wanted = torch.randn(2, 7, 16), torch.tensor([[6, 3], [5, 6]])
    present = torch.ones(2, 7, dtype=torch.bool)
    present[0, :padding] = False
    expected = encoder(x, present, wanted, causal)
    monkeypatch.setattr(recsys.models.sequential.transformer, "is_accelerator", lambda device: True)
    torch.testing.assert_close(encoder(x, present, wanted, causal), expected, atol=1e-5, rtol=1e-5)


def test_every_position_reads_every_other_in_both_directions(encoder: Transformer) -> None:
    x = torch.randn(1, 5, 16, requires_grad=True)
    states = encoder(x, torch.ones(1, 5, dtype=torch.bool))
    for reader in range(5):
        (gradient,) = torch.autograd.grad(states[0, reader].pow(3).sum(), x, retain_graph=True)
        assert (gradient[0].abs().sum(1) > 0).all()


def test_order_matters(encoder: Transformer) -> None:
    x = torch.randn(1, 5, 16)
    present = torch.ones(1, 5, dtype=torch.bool)
    swapped = x[:, [1, 0, 2, 3, 4]]
    assert not torch.allclose(encoder(x, present)[0, -1], encoder(swapped, present)[0, -1], atol=1e-3)


def test_dropout_only_in_training(encoder: Transformer) -> None:
    x, present = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    assert torch.equal(encoder(x, present), encoder(x, present))
    encoder.train()
    assert not torch.equal(encoder(x, present), encoder(x, present))


@pytest.mark.parametrize("place", range(3))
def test_dropout_sits_on_what_goes_in_and_on_every_branch(encoder: Transformer, place: int) -> None:
    """Each of them alone, the others switched off, makes two passes differ."""
    every = [module for module in encoder.modules() if isinstance(module, Dropout)]
    assert len(every) == 3  # what goes in, and both blocks
    for number, dropout in enumerate(every):
        dropout.threshold = 128 if number == place else 0
    x, present = torch.randn(1, 5, 16), torch.ones(1, 5, dtype=torch.bool)
    encoder.train()
    assert not torch.equal(encoder(x, present), encoder(x, present))


def test_too_long_a_history_is_refused(encoder: Transformer) -> None:
    with pytest.raises(ValueError, match="13 positions exceeds max_length = 12"):
        encoder(torch.randn(1, 13, 16), torch.ones(1, 13, dtype=torch.bool))


def test_rotated_products_depend_on_distance_alone() -> None:
    q, k = torch.randn(8), torch.randn(8)
    turned_q = rotate(q.expand(1, 20, 8), rotations(20, 8, 1))[0]
    turned_k = rotate(k.expand(1, 20, 8), rotations(20, 8, 1))[0]
    products = turned_q @ turned_k.T
    for distance in (-7, 0, 1, 5):
        assert torch.allclose(products.diagonal(distance), products.diagonal(distance)[0], atol=1e-4)
    assert torch.allclose(turned_q.norm(dim=1), q.norm())
    assert not torch.allclose(products[0, 1], products[1, 0], atol=1e-3)  # before and after differ


@pytest.mark.parametrize("shape", [{"rotary": True}, {"rotary": False, "distance_bias": True}], ids=str)
def test_attention_knows_how_far_apart_events_are_and_nothing_else(shape: dict[str, bool]) -> None:
    """Without absolute positions, what comes after an event moves it in the window and changes nothing of its state.

    Queries that turn while keys stand still, for instance, would know where they are.
    """
    encoder = build(objective="next-item", **shape)
    torch.nn.init.zeros_(encoder.positions)
    x, present = torch.randn(2, 9, 16), torch.ones(2, 9, dtype=torch.bool)
    newest = encoder(x[:, :5], present[:, :5])[:, -1]
    torch.testing.assert_close(encoder(x, present)[:, 4], newest, atol=1e-5, rtol=1e-5)
    nearer = encoder(x[:, [1, 2, 0, 3, 4]], present[:, :5])[:, -1]
    assert not torch.allclose(nearer, newest, atol=1e-3)  # the same events, at other distances


@pytest.mark.parametrize("objective", ["cloze", "next-item"])
@pytest.mark.parametrize("shape", list(SHAPES))
def test_wanted_positions_get_the_states_that_all_positions_get(shape: str, objective: str) -> None:
    encoder = build(objective=objective, **SHAPES[shape])
    x = torch.randn(3, 6, 16)
    present = torch.tensor([[True] * 6, [False] * 2 + [True] * 4, [False] * 5 + [True]])
    wanted = torch.tensor([[0, 5, 3], [2, 4, 5], [5, 5, 5]])
    every = encoder(x, present)
    assert torch.allclose(encoder(x, present, wanted), pick(every, wanted), atol=1e-5)


@pytest.mark.parametrize("shape", list(SHAPES))
def test_a_causal_encoder_reads_no_later_event(shape: str) -> None:
    encoder = build(objective="next-item", **SHAPES[shape])
    x = torch.randn(1, 5, 16, requires_grad=True)
    states = encoder(x, torch.ones(1, 5, dtype=torch.bool))
    for reader in range(5):
        (gradient,) = torch.autograd.grad(states[0, reader].pow(3).sum(), x, retain_graph=True)
        read = gradient[0].abs().sum(1) > 0
        assert read[: reader + 1].all() and not read[reader + 1 :].any()


def test_causal_states_do_not_change_with_padding() -> None:
    encoder = build(objective="next-item")
    x = torch.randn(2, 5, 16)
    present = torch.ones(2, 5, dtype=torch.bool)
    padding = torch.zeros(2, 4, dtype=torch.bool)
    plain = encoder(x, present)
    padded = encoder(torch.cat([torch.randn(2, 4, 16), x], 1), torch.cat([padding, present], 1))
    assert torch.allclose(plain, padded[:, 4:], atol=1e-5)


def test_dropout_keeps_the_mean_and_drops_its_share() -> None:
    torch.manual_seed(0)
    dropout = Dropout(0.25)
    dropped = dropout(torch.ones(400_000))
    assert abs(float((dropped == 0).float().mean()) - 0.25) < 0.005
    assert abs(float(dropped.mean()) - 1) < 0.005
    assert set(dropped.unique().tolist()) == {0.0, float(torch.tensor(256 / 192))}
    assert dropout.eval()(torch.ones(5)).tolist() == [1.0] * 5
