"""The history as a weighted mean of its items' vectors, each step back weighing less, by learned weights.

They begin at .7 to the power of the steps, as in the text recommender (models/text.py).

Shapes: B users, L positions, Q wanted positions of each, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from recsys.models.baselines import DECAY


class RecencySum(nn.Module):
    """Sums over each position's own item and the older ones; what follows it is not looked at."""

    def __init__(self, max_length: int) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.arange(max_length) * math.log(DECAY))  # by steps back

    def forward(self, embedded: Tensor, wanted: Tensor | None) -> Tensor:
        """[B, L, D], zero at padding, to [B, Q, D] at int64 positions `wanted` [B, Q]; None: all."""
        place = torch.arange(embedded.shape[1], device=embedded.device)
        back = place[:, None] - place[None, :]
        weights = self.logits[back.clamp_min(0)].exp().masked_fill(back < 0, 0.0).to(embedded.dtype)  # [L, L]
        return (weights if wanted is None else weights[wanted]) @ embedded
