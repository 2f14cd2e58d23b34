"""Losses of a Recformer: a softmax over an item table, or over the items of a batch.

Shapes: B histories, G of all processes, V items, E width of the vectors, K items that are read of a history.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsys.models.recformer.model import Recformer
from recsys.models.repeats import Earlier
from recsys.retrieval.repeats import newest_events
from recsys.training.distributed import gather, processes


def softmax_loss(
    queries: Tensor,
    table: Tensor,
    labels: Tensor,
    allowed: Tensor,
    temperature: float,
    negatives: Tensor | None = None,
    had: tuple[Earlier, Tensor] | None = None,
) -> Tensor:
    """Mean cross-entropy of cosines over the temperature, a float32 scalar.

    Parameters
    ----------
    queries
        [B, E] unit vectors.
    table
        [V + 1, E] unit vectors; constant in fine-tuning, learnt in the probe.
    labels
        int64 [B] codes.
    allowed
        bool [V + 1], items that compete; a label always does.
    negatives
        int64 [n] codes that compete with each label; None: all items.
    had
        Against all items: what each history holds, and float32 [L] that are added to its cosines by steps back.
    """
    if negatives is None:
        scores = queries @ table.T  # [B, V + 1]
        if had is not None:
            earlier, repeats = had
            places, back = earlier.entries(0, *scores.shape)
            scores = scores.flatten().index_add(0, places, repeats[back]).view_as(scores)
        scores = scores / temperature
        return functional.cross_entropy(scores.masked_fill(~allowed, -torch.inf), labels)
    positive = (queries * table[labels]).sum(1, keepdim=True)
    scores = torch.cat([positive, queries @ table[negatives].T], dim=1) / temperature  # [B, 1 + n]
    out = ~allowed[negatives] | (negatives == labels[:, None])  # [B, n]
    scores = scores.masked_fill(functional.pad(out, (1, 0)), -torch.inf)
    return functional.cross_entropy(scores, torch.zeros_like(labels))


def contrastive_loss(histories: Tensor, items: Tensor, codes: Tensor, temperature: float) -> Tensor:
    """Cross-entropy of cosines of each history with the items of all pairs, a float32 scalar.

    Parameters
    ----------
    histories, items
        [B, E] unit vectors of this process; row i of one belongs to row i of the other.
    codes
        int64 [B], which items they are: another pair's same item is no negative.
    """
    rank, _ = processes()
    every_item, every_code = gather(items), gather(codes)  # [G, E], [G]
    own = torch.arange(len(codes), device=codes.device) + rank * len(codes)
    same = codes[:, None] == every_code[None, :]
    same[torch.arange(len(codes), device=codes.device), own] = False
    scores = histories @ every_item.T / temperature
    return functional.cross_entropy(scores.masked_fill(same, -torch.inf), own)


def had_before(model: Recformer, items: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> Earlier:
    """Return what histories, the slices int64 [B] of int [N] codes, hold of the K newest items that the model reads."""
    rows, codes, back = (
        torch.from_numpy(part).to(model.device) for part in newest_events(items, starts, ends, model.shape.items)
    )
    return Earlier(questions=rows, codes=codes, back=back)
