"""Objectives, what a model predicts: hidden items (cloze) or, at every event, the next one.

Cloze: BERT4Rec (arXiv 1904.06690) section 3.6 and its public training configuration: hidden positions always become
[MASK], at least one a history; some histories hide only their last item, which is the question asked at inference.
Here these are cut after a random event first, so that every event is once the last one, and their labels may weigh
more: one of them stands beside dozens that were read with their future in sight.
Masking afresh at every step replaces the original's ten fixed copies of each history.

Next item: SASRec (arXiv 1808.09781): a causal encoder tells, at every event, which item comes next. Where baskets are
steps it tells what the next basket holds (next_basket.py).

Shapes: B histories, L positions, Q questions of each history.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from recsys.columns import PADDING
from recsys.models.sequential.bert4rec import MASK
from recsys.settings import TrainSettings
from recsys.training.distributed import Part


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Task:
    """Questions of a batch.

    Attributes
    ----------
    tokens
        int64 [B, L]: item codes, 0 at padding, MASK where hidden.
    wanted
        int64 [B, Q], the positions that are asked; None: all of them, Q = L.
    labels
        int64 [B, Q], the item codes to predict; 0: no question there.
    weights
        float32 [B, Q], how much each label counts; None: all alike.
    causal
        Each position is to be read without the events after it.
    """

    tokens: np.ndarray
    wanted: np.ndarray | None
    labels: np.ndarray
    weights: np.ndarray | None = None
    causal: bool = False

    def of(self, part: Part | None) -> Task:
        """The questions of a part of the batch; None: of the whole."""
        if part is None:
            return self
        return replace(
            self,
            tokens=part.of(self.tokens),
            wanted=None if self.wanted is None else part.of(self.wanted),
            labels=part.of(self.labels),
            weights=None if self.weights is None else part.of(self.weights),
        )


def cloze(
    tokens: np.ndarray,
    rng: np.random.Generator,
    *,
    mask_probability: float,
    mask_last_share: float,
    last_weight: float = 1.0,
) -> Task:
    """Hide items of a batch of histories.

    Parameters
    ----------
    tokens
        int64 [B, L] item codes, padded on the left; every row holds at least one item.
    rng
        Source of randomness.
    mask_probability
        Share of a history's items hidden, rounded, at least one.
    mask_last_share
        Probability that a history is cut after a random event and hides that event and nothing else.
    last_weight
        How much such a label counts beside the others, of which there are many more.
    """
    last_only = rng.random(len(tokens)) < mask_last_share
    tokens = np.where(last_only[:, None], cut_at_random(tokens, rng), tokens)
    present = tokens != PADDING
    count = np.maximum(1, np.rint(present.sum(1) * mask_probability)).astype(np.int64)  # [B]
    draw = np.where(present, rng.random(tokens.shape, dtype=np.float32), np.float32(2))
    draw[last_only, -1] = -1
    count[last_only] = 1
    most = int(count.max())
    # the places of the `most` smallest draws, then of each row only as many as it hides
    order = np.argsort(draw, axis=1)[:, :most]
    asked = np.arange(most) < count[:, None]
    rows = np.arange(len(tokens))[:, None]
    labels = np.where(asked, tokens[rows, order], PADDING)
    hidden = np.zeros_like(present)
    hidden[np.broadcast_to(rows, order.shape)[asked], order[asked]] = True
    weights = None
    if last_weight != 1:
        weights = np.where(last_only[:, None], last_weight, 1).astype(np.float32).repeat(most, axis=1)
    return Task(tokens=np.where(hidden, MASK, tokens), wanted=order, labels=labels, weights=weights)


def cut_at_random(tokens: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each row up to one of its events, drawn uniformly from all but the first; int64 [B, L], padded on the left."""
    lengths = (tokens != PADDING).sum(1)  # [B]
    kept = np.minimum(lengths, 2 + (rng.random(len(tokens)) * (lengths - 1)).astype(np.int64))
    columns = np.arange(tokens.shape[1]) - (lengths - kept)[:, None]
    moved = np.take_along_axis(tokens, np.maximum(columns, 0), axis=1)
    return np.where(columns >= tokens.shape[1] - lengths[:, None], moved, PADDING)


def next_items(tokens: np.ndarray) -> Task:
    """At every event but the last: which item comes next?

    Parameters
    ----------
    tokens
        int64 [B, L] item codes, padded on the left; every row holds at least two items.
    """
    labels = np.where(tokens[:, :-1] != PADDING, tokens[:, 1:], PADDING)
    return Task(tokens=tokens[:, :-1], wanted=None, labels=labels, causal=True)


def next_baskets(tokens: np.ndarray, labels: np.ndarray) -> Task:
    """At every event: what does the next basket hold? `labels` int64 [B, L], 0 where there is none."""
    return Task(tokens=tokens, wanted=None, labels=labels, causal=True)


def objective_at(epoch: int, settings: TrainSettings, objective: str) -> str:
    """Return the objective of an epoch, from 1: the model's, which the last one always has, or first the next item."""
    first = min(round(settings.next_item_share * settings.epochs), settings.epochs - 1)
    if objective == "cloze" and epoch <= first:
        return "next-item"
    return objective


def events_of(batch: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Events at each position of a task that was made of a batch.

    Parameters
    ----------
    batch
        int64 [B, L']: the numbers, from 1, of the events that the task was made of; 0 at padding.
    tokens
        int64 [B, L] of the task: the same histories, perhaps without their last column (next item), or cut at their
        end and moved to the right (cloze).

    Returns
    -------
    ndarray
        int64 [B, L], 0 at padding.
    """
    events = batch[:, : tokens.shape[1]]
    cut = np.count_nonzero(events, axis=1) - np.count_nonzero(tokens != PADDING, axis=1)  # [B]
    columns = np.arange(tokens.shape[1]) - cut[:, None]
    return np.where(columns >= 0, np.take_along_axis(events, np.maximum(columns, 0), axis=1), 0)


def make_task(
    batch: np.ndarray,
    rng: np.random.Generator,
    settings: TrainSettings,
    objective: str,
    labels: np.ndarray | None = None,
) -> Task:
    """The questions that an objective makes of a batch of histories, int64 [B, L].

    `labels` are the next items, int64 [B, L], where they are not those that follow: where baskets are steps.
    """
    if objective == "next-item":
        return next_items(batch) if labels is None else next_baskets(batch, labels)
    return cloze(
        batch,
        rng,
        mask_probability=settings.mask_probability,
        mask_last_share=settings.mask_last_share,
        last_weight=settings.last_weight,
    )
