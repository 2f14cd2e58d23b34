"""Where networks compute: on the accelerator if there is one, which is never waited for without need."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def best_device() -> torch.device:
    """The accelerator that torch sees, or the processor."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_accelerator(device: torch.device) -> bool:
    """Whether it is another than the processor."""
    return device.type != "cpu"


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the processor on a device, of the same shape; nobody waits for the copy to an accelerator."""
    return values.contiguous().pin_memory().to(device, non_blocking=True) if is_accelerator(device) else values


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """torch's attention without cuDNN's kernel, which is planned anew for each of the hundreds of shapes of batches.

    Parameters
    ----------
    q, k, v
        [B, H, Q, E], [B, H, L, E] and [B, H, L, E].
    mask
        Broadcastable to [B, H, Q, L]: bool, True where seen, or added to the scores; None: everything is seen.
    scale
        Of the scores; None: E ** -0.5.

    Returns
    -------
    Tensor
        [B, H, Q, E].
    """
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(others) if q.is_cuda else nullcontext():
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
