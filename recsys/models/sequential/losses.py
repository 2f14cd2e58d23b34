"""How far a model's scores are from the items that stood there.

Full softmax cross-entropy over the catalogue, or its sampled kin over a few negatives of each history:
"Turning Dross Into Gold Loss: is BERT4Rec really better than SASRec?" (RecSys 2023, arXiv 2309.07602) draws one set of
negatives for each history and shares it among the history's positions; gBCE is from "gSASRec" (RecSys 2023, arXiv
2308.07192). Scores of a whole batch against the whole catalogue are never held at once.

Shapes: B histories, Q questions of each, P labels, V items, D width, N negatives of a history.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsys.columns import PADDING
from recsys.features.device import is_accelerator, sent
from recsys.features.precision import activation_dtype
from recsys.models.repeats import Earlier, earlier_events
from recsys.models.sequential.bert4rec import MASK, Bert4Rec
from recsys.models.sequential.objectives import Task
from recsys.models.sequential.side import SideBatch
from recsys.settings import TrainSettings

SCORES_AT_ONCE = 2_000_000  # entries of one chunk of scores: larger chunks leave the cache and are slower
ON_ACCELERATORS = 64_000_000  # the same there: fewer and larger products
ROWS_AT_LEAST = 64  # of one chunk, so that products stay products of matrices for a catalogue of millions


def task_loss(
    model: Bert4Rec, task: Task, settings: TrainSettings, rng: np.random.Generator, side: SideBatch | None = None
) -> Tensor:
    """Mean loss over the task's labels, a float32 scalar.

    Parameters
    ----------
    model
        In training mode.
    task
        What is asked, from `make_task`.
    settings
        Loss, negatives and precision.
    rng
        Source of randomness, for losses that draw negatives.
    side
        What is known at the task's positions besides the items, for a model that reads it.
    """
    device = model.output_bias.device
    dtype = activation_dtype(settings.precision, device)

    def moved(array: np.ndarray) -> Tensor:
        return sent(torch.from_numpy(array), device)

    side = None if side is None else side.to(device)
    wanted = None if task.wanted is None else moved(task.wanted)
    # counted here and not on the device, whose answer would have to be waited for
    asked = np.flatnonzero(task.labels)
    questions = moved(asked)  # [P], places in [B, Q] laid flat
    weights = None if task.weights is None else moved(task.weights.ravel()[asked])  # [P]
    if settings.loss == "full":
        table = model.item_table().to(dtype)  # [V + 1, D]
        tokens = moved(task.tokens)
        states = model.encoder.queries(tokens, table, wanted, causal=task.causal, side=side)  # [B, Q, D]
        queries = states.flatten(0, 1).index_select(0, questions)  # [P, D]
        bias = model.item_bias()
        if not settings.cold_negatives:
            bias = bias.masked_fill(~model.tower.trained, -torch.inf)
        repeats = model.encoder.repeats
        had = None if repeats is None else (earlier_events(tokens, moved(task.labels > 0)), repeats())
        return full_cross_entropy(queries, table, bias, moved(task.labels.ravel()[asked]), weights, had)
    negatives = draw_negatives(task, settings.negatives, model.tower.firsts.cpu().numpy(), rng)  # [B, N]
    # only the vectors of items that occur: a step costs the same for any catalogue
    parts = (task.tokens, task.labels, negatives)
    codes, place = np.unique(np.concatenate([[MASK, PADDING], *map(np.ravel, parts)]), return_inverse=True)
    place -= 1  # MASK is -1 again, and PADDING 0
    tokens, targets, sampled = (
        moved(rows.reshape(part.shape))
        for rows, part in zip(np.split(place[2:], np.cumsum([p.size for p in parts])[:-1]), parts, strict=True)
    )
    known = moved(codes[1:])
    table = model.item_table(known).to(dtype)
    bias = model.output_bias[known].to(dtype)
    queries = model.encoder.queries(tokens, table, wanted, causal=task.causal, side=side)  # [B, Q, D]
    positive = (queries * table[targets]).sum(-1) + bias[targets]  # [B, Q]
    scores = queries @ table[sampled].transpose(1, 2) + bias[sampled][:, None]  # [B, Q, N]
    scores = scores.masked_fill(sampled[:, None] == targets[..., None], -torch.inf)
    if not settings.cold_negatives:
        cold = ~model.tower.trained[known][sampled]  # [B, N]; all of a history's may be, so not minus infinity
        scores = scores.masked_fill(cold[:, None], torch.finfo(scores.dtype).min)
    positive, scores = positive.flatten()[questions], scores.flatten(0, 1)[questions]  # [P], [P, N]
    if settings.loss == "sampled":
        losses = sampled_cross_entropy(positive, scores)
    else:
        losses = gbce(positive, scores, len(model.output_bias) - 1, settings.calibration)
    return losses.mean() if weights is None else losses @ weights / weights.sum()


def scores_at_once(device: torch.device) -> int:
    """Entries of one chunk of scores there."""
    return ON_ACCELERATORS if is_accelerator(device) else SCORES_AT_ONCE


def draw_negatives(task: Task, count: int, firsts: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """int64 [B, N]: for each history a set of its catalogue's items, uniform over those not in its window.

    A draw that hits the window is drawn again a few times and then kept: sets are for training, not for counting.

    Parameters
    ----------
    firsts
        int64 [C + 1]: the first code of each catalogue, then V + 1.
    """
    size = int(firsts[-1])
    own = np.concatenate([task.tokens, task.labels], axis=1)  # [B, L + Q]
    catalogue = np.searchsorted(firsts, own.max(axis=1), side="right")[:, None]  # [B, 1], from 1
    low, high = firsts[catalogue - 1], firsts[catalogue]
    rows = np.arange(len(own))[:, None]
    seen = np.sort((rows * size + np.maximum(own, 0)).ravel())
    negatives = rng.integers(low, high, (len(own), count))
    for _ in range(3):
        keys = rows * size + negatives
        hit = seen[np.minimum(np.searchsorted(seen, keys), len(seen) - 1)] == keys
        negatives[hit] = rng.integers(*(np.broadcast_to(end, hit.shape)[hit] for end in (low, high)))
    return negatives


def full_cross_entropy(
    queries: Tensor,
    table: Tensor,
    bias: Tensor,
    labels: Tensor,
    weights: Tensor | None = None,
    had: tuple[Earlier, Tensor] | None = None,
) -> Tensor:
    """Weighted mean of -log softmax(queries @ table.T + bias)[label], a float32 scalar.

    Parameters
    ----------
    queries
        [P, D], P > 0.
    table
        [V + 1, D], in the precision of the queries; products and exponentials are made in it, sums in float32.
    bias
        [V + 1].
    labels
        int64 [P].
    weights
        float32 [P]; None: all alike.
    had
        The events before each question, and float32 [L] that are added to their items' scores by steps back.
    """
    if weights is None:
        weights = torch.ones_like(labels, dtype=torch.float32)
    share = weights / weights.sum()
    earlier, repeats = (None, None) if had is None else had
    loss: Tensor = _FullCrossEntropy.apply(queries, table, bias, labels, share, earlier, repeats)
    return loss


class _FullCrossEntropy(torch.autograd.Function):
    """Chunks of queries: scores, softmax and both gradients while the chunk is in the cache, then forgotten."""

    @staticmethod
    def forward(
        ctx: Any,
        queries: Tensor,
        table: Tensor,
        bias: Tensor,
        labels: Tensor,
        share: Tensor,
        earlier: Earlier | None,
        repeats: Tensor | None,
    ) -> Tensor:
        rows = max(ROWS_AT_LEAST, scores_at_once(table.device) // len(table))
        added = bias.to(queries.dtype)
        by_query = torch.empty_like(queries)
        by_table = torch.zeros(table.shape, dtype=torch.float32, device=table.device)
        by_bias = torch.zeros(bias.shape, dtype=torch.float32, device=bias.device)
        by_repeats = None if repeats is None else torch.zeros_like(repeats)
        total = torch.zeros((), dtype=torch.float32, device=queries.device)
        for start in range(0, len(queries), rows):
            chunk = slice(start, start + rows)
            q, label = queries[chunk], labels[chunk]
            # shares are about 1 / P: scaled so that products do not lose small ones
            weight = (share[chunk, None] * len(queries)).to(q.dtype)
            scores = torch.addmm(added, q, table.T)
            if earlier is not None and repeats is not None:
                had, back = earlier.entries(start, start + len(q), scores.shape[1])
                scores.view(-1).index_add_(0, had, repeats[back].to(scores.dtype))
            p = torch.softmax(scores, dim=-1)
            flat, own = p.view(-1), label + p.shape[1] * torch.arange(len(q), device=q.device)
            total -= flat[own].float().clamp_min(torch.finfo(torch.float32).tiny).log() @ share[chunk]
            flat[own] -= 1  # p is now the gradient by the scores; scatter_ would copy the whole chunk three times
            by_query[chunk] = (p @ table) * weight
            by_table += p.T @ (q * weight)
            by_bias += (weight.T @ p)[0]
            if earlier is not None and by_repeats is not None:
                by_repeats.index_add_(0, back, (flat[had] * weight[had // p.shape[1], 0]).float())
        ctx.save_for_backward(by_query, by_table, by_bias, by_repeats)
        ctx.count = len(queries)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        by_query, by_table, by_bias, by_repeats = ctx.saved_tensors
        scale = gradient / ctx.count
        of_repeats = None if by_repeats is None else by_repeats * scale
        of_table = (by_table * scale).to(by_query.dtype)
        return by_query * scale.to(by_query.dtype), of_table, by_bias * scale, None, None, None, of_repeats


def sampled_cross_entropy(positive: Tensor, negative: Tensor) -> Tensor:
    """-log softmax over one positive [P] and its negatives [P, N], float32 [P]."""
    return torch.logaddexp(positive.float(), negative.float().logsumexp(-1)) - positive.float()


def gbce(positive: Tensor, negative: Tensor, items: int, calibration: float) -> Tensor:
    """Generalised binary cross-entropy, float32 [P]: the positive's probability is raised to a power below 1.

    Parameters
    ----------
    positive, negative
        Scores [P] and [P, N]; minus infinity: no negative there.
    items
        V.
    calibration
        t in [0, 1]: 0 is plain binary cross-entropy, 1 gives calibrated probabilities.
    """
    share = negative.shape[1] / max(items - 1, 1)
    power = share * (calibration * (1 - 1 / share) + 1 / share)
    own = -power * functional.logsigmoid(positive.float())
    others = functional.softplus(negative.float()).sum(-1)
    return (own + others) / (1 + negative.shape[1])
