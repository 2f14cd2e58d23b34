"""The sequence encoder beside an independent one: torch's own `nn.TransformerEncoder` with the same weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from recsys.models.sequential.transformer import Block, Transformer, pick
from recsys.settings import ModelSettings

B, L, D = 5, 9, 32
PUBLISHED = {"norm_first": False, "rotary": False}  # BERT4Rec's: post-norm, learned positions, GELU


def ours(**changes: Any) -> Transformer:
    torch.manual_seed(1)
    settings = {"dimensions": D, "blocks": 2, "heads": 2, "max_length": L + 3, "dropout": 0.3}
    built = Transformer(ModelSettings(**(settings | PUBLISHED | changes)))
    with torch.no_grad():  # of the size that training reaches, biases and norms too
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return built.eval()


def theirs(encoder: Transformer, heads: int, norm_first: bool) -> nn.TransformerEncoder:
    """Torch's encoder with these weights."""
    layer = nn.TransformerEncoderLayer(
        D, heads, 4 * D, dropout=0.3, activation="gelu", batch_first=True, norm_first=norm_first
    )
    built = nn.TransformerEncoder(
        layer, len(encoder.blocks), norm=nn.LayerNorm(D) if norm_first else None, enable_nested_tensor=False
    )
    # torch gives a head neighbouring columns; here it owns the same ones of both halves
    own = torch.arange(D).view(2, heads, -1).transpose(0, 1).reshape(-1)
    with torch.no_grad():
        for block, copy in zip(encoder.blocks, built.layers, strict=True):
            assert isinstance(block, Block) and isinstance(copy, nn.TransformerEncoderLayer)
            key_value = block.project_key_value
            three = [
                (block.project_query.weight, block.project_query.bias),
                *zip(key_value.weight.chunk(2), key_value.bias.chunk(2), strict=True),
            ]
            copy.self_attn.in_proj_weight.copy_(torch.cat([weight[own] for weight, _ in three]))
            copy.self_attn.in_proj_bias.copy_(torch.cat([bias[own] for _, bias in three]))
            for mine, other in (
                (block.project_out, copy.self_attn.out_proj),
                (block.feed_forward.widen, copy.linear1),
                (block.feed_forward.narrow, copy.linear2),
                (block.attention_norm, copy.norm1),
                (block.feed_forward_norm, copy.norm2),
            ):
                other.load_state_dict(mine.state_dict())
        if norm_first:
            assert built.norm is not None
            built.norm.load_state_dict(encoder.output_norm.state_dict())
    return built.eval()


def expected(encoder: Transformer, copy: nn.TransformerEncoder, x: Tensor, present: Tensor, causal: bool) -> Tensor:
    """Positions are counted from the end, and what goes in is normalised, as BERT does it."""
    x = x + encoder.positions[: x.shape[1]].flip(0)
    x = nn.functional.layer_norm(x, (D,), encoder.input_norm.weight, encoder.input_norm.bias)
    later = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1) if causal else None
    found: Tensor = copy(x, mask=later, src_key_padding_mask=~present)
    return found


def histories() -> tuple[Tensor, Tensor]:
    """Vectors of histories of several lengths, padded on the left."""
    torch.manual_seed(2)
    lengths = torch.tensor([L, 1, 4, L - 1, 2])
    return torch.randn(B, L, D), torch.arange(L) >= L - lengths[:, None]


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("norm_first", [False, True])
def test_states_and_gradients_are_those_of_torch(norm_first: bool, heads: int, causal: bool) -> None:
    encoder = ours(heads=heads, norm_first=norm_first)
    copy = theirs(encoder, heads, norm_first)
    x, present = histories()
    mine, other = (x.clone().requires_grad_() for _ in range(2))
    states = encoder(mine, present, causal=causal)
    reference = expected(encoder, copy, other, present, causal)
    torch.testing.assert_close(states[present], reference[present], atol=1e-5, rtol=1e-5)
    weights = torch.randn_like(states) * present[..., None]
    (states * weights).sum().backward()
    (reference.nan_to_num() * weights).sum().backward()
    assert mine.grad is not None and other.grad is not None
    torch.testing.assert_close(mine.grad[present], other.grad[present], atol=5e-5, rtol=1e-4)


def test_a_position_that_is_asked_for_alone_is_that_of_torch() -> None:
    encoder = ours()
    copy = theirs(encoder, 2, False)
    x, present = histories()
    newest = torch.full((B, 1), L - 1)
    states = encoder(x, present, newest)
    torch.testing.assert_close(states, pick(expected(encoder, copy, x, present, False), newest), atol=1e-5, rtol=1e-5)
