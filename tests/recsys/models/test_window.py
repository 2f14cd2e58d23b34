"""Sliding-window attention equals full attention with the mask written out."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from recsys.models.window import attend, window_attention, window_mask


def draw(length: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, 3, 2, length, 4, generator=generator)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_()


def test_the_mask_is_a_band_and_the_first_token() -> None:
    expected = [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 1, 1, 1, 0], [1, 0, 1, 1, 1], [1, 0, 0, 1, 1]]
    assert window_mask(5, 1).int().tolist() == expected


@pytest.mark.parametrize("reach", [1, 4, 8])
@pytest.mark.parametrize("length", [1, 5, 9, 13, 14, 25, 26, 40, 67])
@pytest.mark.parametrize("padded", [False, True])
def test_blocks_change_nothing(length: int, reach: int, padded: bool) -> None:
    q, k, v = draw(length)
    lengths = torch.tensor([length, max(1, length // 2), 1])
    keep = torch.arange(length) < lengths[:, None] if padded else None
    mask = window_mask(length, reach)
    mask = mask if keep is None else mask & keep[:, None, None, :]
    expected = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    real = (torch.ones(3, 1, length) if keep is None else keep[:, None, :])[..., None]
    found = window_attention(q, k, v, keep, reach)
    assert found.isfinite().all()
    torch.testing.assert_close(found * real, expected * real, rtol=1e-4, atol=1e-5)
    with torch.no_grad():  # torch's own kernel instead of the written-out form
        torch.testing.assert_close(window_attention(q, k, v, keep, reach) * real, expected * real, rtol=1e-4, atol=1e-5)
    wanted = torch.autograd.grad((expected * real).square().sum(), (q, k, v))
    gotten = torch.autograd.grad((found * real).square().sum(), (q, k, v))
    torch.testing.assert_close(gotten, wanted, rtol=1e-3, atol=1e-4)


def test_without_a_reach_every_token_sees_all() -> None:
    q, k, v = draw(30)
    torch.testing.assert_close(window_attention(q, k, v, None, None), attend(q, k, v, None))
    assert (window_attention(q, k, v, None, 2) - attend(q, k, v, None)).abs().max() > 0.01
