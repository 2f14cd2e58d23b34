from __future__ import annotations

import pytest
import torch

from recsys.models.transformer import Transformer, rotate, rotations


@pytest.fixture(params=[(True, True), (False, True), (False, False)], ids=["default", "post-norm", "published"])
def encoder(request: pytest.FixtureRequest) -> Transformer:
    torch.manual_seed(0)
    norm_first, rotary = request.param
    built = Transformer(
        dimensions=16, blocks=2, heads=2, max_length=12, dropout=0.5, norm_first=norm_first, rotary=rotary
    )
    torch.nn.init.normal_(built.positions)  # as after training: positions matter
    return built.eval()


def test_padding_on_the_left_changes_nothing(encoder: Transformer) -> None:
    x = torch.randn(2, 5, 16)
    present = torch.ones(2, 5, dtype=torch.bool)
    plain = encoder(x, present)
    padded = encoder(
        torch.cat([torch.randn(2, 4, 16), x], 1), torch.cat([torch.zeros(2, 4, dtype=torch.bool), present], 1)
    )
    assert torch.allclose(plain, padded[:, 4:], atol=1e-5)


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


def test_too_long_a_history_is_refused(encoder: Transformer) -> None:
    with pytest.raises(ValueError, match="13 positions exceeds max_length = 12"):
        encoder(torch.randn(1, 13, 16), torch.ones(1, 13, dtype=torch.bool))


def test_rotated_products_depend_on_distance_alone() -> None:
    q, k = torch.randn(8), torch.randn(8)
    turned_q = rotate(q.expand(1, 1, 20, 8), rotations(20, 8))[0, 0]
    turned_k = rotate(k.expand(1, 1, 20, 8), rotations(20, 8))[0, 0]
    products = turned_q @ turned_k.T
    for distance in (-7, 0, 1, 5):
        assert torch.allclose(products.diagonal(distance), products.diagonal(distance)[0], atol=1e-4)
    assert torch.allclose(turned_q.norm(dim=1), q.norm())
    assert not torch.allclose(products[0, 1], products[1, 0], atol=1e-3)  # before and after differ


def test_rotary_needs_an_even_width() -> None:
    with pytest.raises(ValueError, match="even width"):
        Transformer(dimensions=9, blocks=1, heads=3, max_length=4, dropout=0.0, norm_first=True, rotary=True)
