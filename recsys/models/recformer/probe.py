"""Linear probe: fit what reads a history out of its items' states first, while the language model stands still.

Recency weights, the projection, the maps of what follows and the numbers for what was had
(recsys/models/recformer/model.py) begin untaught. Taught together with a language model, at its rate, they take hours,
and it bends to them meanwhile; a linear probe before fine-tuning keeps what it knows: Kumar et al., "Fine-Tuning can
Distort Pretrained Features" (ICLR 2022, arXiv 2202.10054). Each item is read alone, once, so that an epoch over every
event takes seconds; histories are the sums of these states, which is what they are where attention stays within items
and all places are alike, as a checkpoint that never read histories has it.

Shapes: V items, D width of the states, E of the vectors, B questions of a batch, K items that are read of a history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recsys.features.tokens import ItemTokens
from recsys.models.recformer.encode import read_groups
from recsys.models.recformer.loss import had_before, softmax_loss
from recsys.models.recformer.model import Recformer
from recsys.training.learner import Learner
from recsys.training.task import Loss, Place, Task
from recsys.training.trainer import Stage, run

PROBED: Final = ("recency", "projection.", "after_mean.", "after_newest.", "repeats.")  # names of weights begin so
RATE: Final = 1e-3
BATCH: Final = 128
WARMUP: Final = 0.05  # share of the steps


def probe(
    model: Recformer,
    catalogue: ItemTokens,
    items: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    *,
    epochs: int,
    temperature: float,
    weight_decay: float,
    seed: int,
    dtype: torch.dtype,
) -> float:
    """Fit them by a full softmax over the items, whose vectors learn, too.

    Parameters
    ----------
    model
        Of `pooling = "items"`; changed in place.
    items
        int32 [N] codes of all users.
    starts, ends
        int64 [n]: question `i` asks what follows the history `items[starts[i]:ends[i]]`, which is `items[ends[i]]`.
    dtype
        What the language model computes in.

    Returns
    -------
    float
        The mean loss of the last epoch.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite.
    """
    states, allowed = item_states(model, catalogue, dtype), torch.from_numpy(catalogue.lengths > 0).to(model.device)
    task = _Questions(model, states, allowed, items, starts, ends, temperature, seed)
    learnt = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(PROBED))
    learner = partial(
        Learner,
        model,
        steps=epochs * -(-len(ends) // BATCH),
        learning_rate=RATE,
        weight_decay=weight_decay,
        warmup_share=WARMUP,
        clip_norm=1.0,
    )
    done = run(task, [Stage(epochs, learner)])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(learnt[name])
    return float(done.history[-1]["loss"])


@dataclass(eq=False)
class _Questions(Task[np.ndarray]):
    """Every event once an epoch; a batch is indices of questions."""

    model: Recformer
    states: Tensor  # of items, as `item_states`
    allowed: Tensor  # bool [V + 1]
    items: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    temperature: float
    seed: int

    def batches(self, at: Place) -> Iterator[np.ndarray]:
        if at.epoch == 1:
            self.rng = np.random.default_rng((self.seed, 2))
            torch.manual_seed(int(self.rng.integers(2**63)))
        order = self.rng.permutation(len(self.ends))
        return (order[first : first + BATCH] for first in range(0, len(order), BATCH))

    def generator(self, at: Place) -> np.random.Generator:
        return self.rng  # one stream, also of dropout: a probe takes seconds and is never taken up in its midst

    def loss(self, batch: np.ndarray, rng: np.random.Generator) -> Loss:
        model, items, starts, ends = self.model, self.items, self.starts[batch], self.ends[batch]
        table = model.projected(self.states) * self.allowed[:, None]
        codes, there = _newest(items, starts, ends, model.shape.items)
        queries = model.pooled(table[codes.to(model.device)], there.to(model.device))
        labels = torch.from_numpy(items[ends].astype(np.int64)).to(model.device)
        had = None if model.repeats is None else (had_before(model, items, starts, ends), model.repeats())
        loss = softmax_loss(queries, table, labels, self.allowed, self.temperature, had=had)
        return Loss.of(loss, count=len(batch))

    def diverged(self, at: Place, rate: float) -> str:
        return "the probe's loss stopped being a number; set train.precision = 'fp32' or recformer.probe_epochs = 0"


@torch.no_grad()
def item_states(model: Recformer, catalogue: ItemTokens, dtype: torch.dtype) -> Tensor:
    """The mean state of each item read alone, float32 [V + 1, D]; zeros for padding and items without text."""
    training = model.training
    model.eval()
    codes = np.arange(catalogue.size + 1)
    states = torch.zeros(len(codes), model.shape.dimensions, device=model.device)
    for group, given in read_groups(model, catalogue, codes, codes, codes + 1, exact=True):
        means, _ = model.item_means(given, dtype)
        states[torch.from_numpy(group).to(model.device)] = means[:, 0]
    model.train(training)
    return states


def _newest(items: np.ndarray, starts: np.ndarray, ends: np.ndarray, most: int) -> tuple[Tensor, Tensor]:
    """Codes int64 [B, K] of the newest items, newest first, 0 where there is none, and bool [B, K], where there is."""
    places = ends[:, None] - 1 - np.arange(most)
    there = places >= starts[:, None]
    codes = np.where(there, items[np.maximum(places, 0)], 0).astype(np.int64)
    return torch.from_numpy(codes), torch.from_numpy(there)
