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


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Values of the processor on a device; an accelerator's own queue does not stand still for it."""
    return values if device.type == "cpu" else values.contiguous().pin_memory().to(device, non_blocking=True)


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """torch's attention, [B, H, Q, E], without the kernel that is built anew for each shape.

    Batches have hundreds of shapes, and cuDNN plans each for 50 ms where the attention takes one.
    """
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(others) if q.is_cuda else nullcontext():
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
