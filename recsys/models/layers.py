"""Layers that follow the precision of what flows through them, and dropout that costs little on a CPU.

Weights stay float32; activations are float32 or bfloat16, and each layer casts its weights to them. That is what
autocast does too, except that autocast returns to float32 in every softmax, norm and sum, and these casts cost more
than the layers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.features.device import is_accelerator
from recsys.training.distributed import Part

_DRAWN: list[tuple[Part, int]] = []  # the part of a batch that this process works on, and the rows of the whole


class Linear(nn.Linear):
    """x W^T + b in the precision of x; weights of variance 1 / inputs, biases zero.

    BERT's fixed deviation of 0.02 suits its width of 768; at 64 it leaves attention uniform for the first epochs.
    """

    def reset_parameters(self) -> None:
        """Weights of variance 1 / inputs, biases zero."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """[..., inputs] to [..., outputs]."""
        return functional.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class LayerNorm(nn.LayerNorm):
    """Layer normalisation in the precision of x (its sums are float32 in any case)."""

    def forward(self, x: Tensor) -> Tensor:
        """[..., D] to [..., D]."""
        return functional.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


class Dropout(nn.Module):
    """Dropout whose random numbers are bytes: on a CPU, torch's own spends more on them than on everything else.

    The probability is rounded to a multiple of 1/256, and the kept values are scaled by the rounded one.
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.threshold = round(probability * 256)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape; the input itself outside training."""
        if not self.training or self.threshold == 0:
            return x
        if is_accelerator(x.device):
            return functional.dropout(x, self.threshold / 256)
        return x * dropout_mask(x, self.threshold)


@contextmanager
def drawn_for(part: Part | None, rows: int) -> Iterator[None]:
    """Let dropout on a part of a batch drop what it would drop of it in the whole batch, of so many rows."""
    if part is None:
        yield
        return
    _DRAWN.append((part, rows))
    try:
        yield
    finally:
        _DRAWN.pop()


def dropout_mask(x: Tensor, threshold: int) -> Tensor:
    """0 with probability threshold / 256, else 256 / (256 - threshold); shape and precision of x, default generator."""
    part, rows = _DRAWN[-1] if _DRAWN else (None, len(x))
    size = rows * (x.numel() // max(1, len(x)))
    words = torch.empty(-(-size // 8), dtype=torch.int64).random_(-(2**63), None)
    drawn = words.view(torch.uint8)[:size].view(rows, *x.shape[1:])
    kept = (drawn if part is None else part.of(drawn)) >= threshold
    # torch converts bytes twenty times as fast as booleans
    return kept.view(torch.uint8).to(x.dtype).mul_(256 / (256 - threshold))
