"""Device helpers: choose the accelerator if there is one, and avoid needless synchronisation with it."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention


def best_device() -> torch.device:
    """Return the accelerator that torch finds, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def is_accelerator(device: torch.device) -> bool:
    """Return True for any device but the CPU."""
    return device.type != "cpu"


def sent(values: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device, asynchronously for an accelerator."""
    return values.contiguous().pin_memory().to(device, non_blocking=True) if is_accelerator(device) else values


def fused_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None = None) -> Tensor:
    """Compute torch's attention without the cuDNN kernel, which would plan again for each batch shape.

    Parameters
    ----------
    q, k, v
        [B, H, Q, E], [B, H, L, E] and [B, H, L, E].
    mask
        Broadcastable to [B, H, Q, L]. Bool: True where attention is allowed. Float: added to the scores. None: no mask.
    scale
        Factor of the scores. None: E ** -0.5.

    Returns
    -------
    Tensor
        [B, H, Q, E].
    """
    others = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
    with sdpa_kernel(others) if q.is_cuda else nullcontext():
        return scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale)
