"""Attention of a sliding window with one global token, by scaled-dot-product attention on blocks.

Source: Beltagy et al., "Longformer: The Long-Document Transformer" (2020, arXiv 2004.05150), section 3.1. A token sees
those at most `reach` places away and the first one; the first one sees all. Nothing is approximated: the blocks only
spare the products that the mask would hide. Laying them out is what takes an accelerator's time, so there the mask
serves for histories of this project's length.

Shapes: B sequences, H heads, L tokens, d width of a head, n blocks of `reach` tokens.
"""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from recsys.features.device import fused_attention, is_accelerator

MASKED_ON_ACCELERATORS: Final = 2048  # tokens up to which a mask of all pairs is small there


def window_attention(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, reach: int | None, bias: Tensor | None = None
) -> Tensor:
    """Attention output [B, H, L, d].

    Parameters
    ----------
    q, k, v
        [B, H, L, d].
    keep
        bool [B, L], False at padding; None: there is none. The first token is never padding.
    reach
        Places to either side that a token sees; None: all of them.
    bias
        [B, H, L, L], added to the scores; only without a reach.
    """
    L = k.shape[2]
    columns = None if keep is None else keep[:, None, None, :]  # [B, 1, 1, L]
    if bias is not None:
        return attend(q, k, v, bias if columns is None else bias.masked_fill(~columns, -torch.inf))
    if reach is None or reach + 1 >= L:
        return attend(q, k, v, columns)
    if 3 * reach + 1 >= L or (is_accelerator(q.device) and L <= MASKED_ON_ACCELERATORS):  # blocks would be no faster
        mask = window_mask(L, reach, device=q.device)
        return attend(q, k, v, mask if columns is None else mask & columns)
    first = attend(q[:, :, :1], k, v, columns)
    return torch.cat([first, _blocks(q, k, v, keep, reach)[:, :, 1:]], dim=2)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled-dot-product attention [B, H, L, d]; `mask` is broadcastable to [B, H, L, L]: True where seen, or added.

    Written out where a CPU is to differentiate it: torch's fused one takes longer there, most of all in bfloat16.
    """
    if is_accelerator(q.device) or not torch.is_grad_enabled():
        return fused_attention(q, k, v, mask)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
    return scores.softmax(-1) @ v


def window_mask(length: int, reach: int, device: torch.device | None = None) -> Tensor:
    """bool [L, L], True where row's token sees column's."""
    place = torch.arange(length, device=device)
    near = (place[:, None] - place[None, :]).abs() <= reach
    near[0] = True
    near[:, 0] = True
    return near


def _blocks(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, reach: int) -> Tensor:
    """[B, H, L, d]: each block of `reach` queries against its own, the previous and the next block, and token 0."""
    B, H, L, d = q.shape
    n = -(-L // reach)
    fill = n * reach - L
    queries = functional.pad(q, (0, 0, 0, fill)).view(B, H, n, reach, d).transpose(1, 2)  # [B, n, H, reach, d]
    mask = _block_mask(L, n, reach, q.device)  # [n, reach, 1 + 3 reach]
    if keep is not None:
        seen = functional.pad(keep, (reach, reach + fill)).unfold(1, 3 * reach, reach)  # [B, n, 3 reach]
        mask = mask & functional.pad(seen, (1, 0), value=True)[:, :, None, :]
        mask = mask.flatten(0, 1)  # [B n, reach, 1 + 3 reach]
    else:
        mask = mask.expand(B, n, -1, -1).flatten(0, 1)
    out = attend(queries.flatten(0, 1), _near(k, fill, reach), _near(v, fill, reach), mask[:, None])
    return out.view(B, n, H, reach, d).transpose(1, 2).reshape(B, H, n * reach, d)[:, :, :L]


def _near(x: Tensor, fill: int, reach: int) -> Tensor:
    """[B n, H, 1 + 3 reach, d] keys or values that each block sees, the first token's before them."""
    around = functional.pad(x, (0, 0, reach, reach + fill)).unfold(2, 3 * reach, reach)  # [B, H, n, d, 3 reach]
    around = around.permute(0, 2, 1, 4, 3)
    first = x[:, None, :, :1].expand(-1, around.shape[1], -1, -1, -1)
    return torch.cat([first, around], dim=3).flatten(0, 1)


def _block_mask(length: int, n: int, reach: int, device: torch.device) -> Tensor:
    """bool [n, reach, 1 + 3 reach]; column 0 is the first token, which the others must not count again."""
    block = torch.arange(n, device=device)[:, None, None] * reach
    row = block + torch.arange(reach, device=device)[None, :, None]
    column = block - reach + torch.arange(3 * reach, device=device)[None, None, :]
    near = ((row - column).abs() <= reach) & (column > 0) & (column < length)
    return functional.pad(near, (1, 0), value=True)
