"""A query that begins as what the text recommender asks with and learns what to add.

It begins as the history's mean, each step back weighing less, by learned weights from .7 to the power of the steps
(models/text.py). Two linear maps, zero at first, tell what follows such a mean and such a newest item; what the
sequence encoder adds counts, by dimension, zero at first, too.

Shapes: B users, L positions, Q wanted positions of each, D width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.data.recency import DECAY
from recsys.models.layers import Dropout, Linear
from recsys.models.sequential.transformer import pick
from recsys.settings import ModelSettings

# the weights' logarithms are stored so many times smaller, so that a step of the optimizer moves them so many times
# further; at the rate that suits the maps they would hardly move
STEP = 30.0


class RecencyQuery(nn.Module):
    """Reads each position's own item and the older ones; what follows it is not looked at."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        D = settings.dimensions
        self.by_steps = nn.Parameter(torch.arange(settings.max_length) * math.log(DECAY) / STEP)
        self.after_mean, self.after_newest = Linear(D, D, bias=False), Linear(D, D, bias=False)
        nn.init.zeros_(self.after_mean.weight)
        nn.init.zeros_(self.after_newest.weight)
        self.added = nn.Parameter(torch.zeros(D))
        self.dropout = Dropout(settings.dropout)

    def forward(self, items: Tensor, wanted: Tensor | None, states: Tensor | None) -> Tensor:
        """[B, Q, D] from item vectors [B, L, D], zero at padding, and the encoder's [B, Q, D] where there is one.

        `wanted` are int64 [B, Q] positions; None: all.
        """
        place = torch.arange(items.shape[1], device=items.device)
        back = place[:, None] - place[None, :]
        weights = (STEP * self.by_steps[back.clamp_min(0)]).exp().masked_fill(back < 0, 0.0).to(items.dtype)  # [L, L]
        newest = items if wanted is None else pick(items, wanted)
        mean = functional.normalize((weights if wanted is None else weights[wanted]) @ items, dim=-1)
        follows = self.after_mean(self.dropout(mean)) + self.after_newest(self.dropout(newest))
        query: Tensor = mean + follows
        return query if states is None else query + self.added.to(states.dtype) * states
