"""Training losses: distances of a model's scores from the items that stood there.

Full softmax cross-entropy over the catalogue; softmax over a sample of it (recsys/models/sequential/candidates.py); or
binary cross-entropy over a few negatives of each history, gBCE: "gSASRec" (RecSys 2023, arXiv 2308.07192). One set of
negatives for each history, shared by its positions, is from "Turning Dross Into Gold Loss: is BERT4Rec really better
than SASRec?" (RecSys 2023, arXiv 2309.07602). Scores of a whole batch against the whole catalogue are never held at
once.

Shapes: B histories, Q questions of each, P labels, V items, D width, N negatives of a history, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from recsys.columns import PADDING
from recsys.features.device import is_accelerator, sent
from recsys.features.precision import activation_dtype
from recsys.models.layers import drawn_for
from recsys.models.repeats import Earlier, earlier_events
from recsys.models.sequential.bert4rec import MASK, Bert4Rec
from recsys.models.sequential.candidates import Candidates
from recsys.models.sequential.objectives import Task
from recsys.models.sequential.side import SideBatch
from recsys.settings import TrainSettings
from recsys.training.distributed import Part

SCORES_AT_ONCE = 2_000_000  # entries of one chunk of scores: larger chunks leave the cache and are slower
ON_ACCELERATORS = 64_000_000  # the same there: fewer and larger products
OWN_NEGATIVES = 256  # of each history, for binary cross-entropy
SHARED_NEGATIVES = 2_048  # of a batch, for the sampled softmax
ROWS_AT_LEAST = 64  # of one chunk, so that products stay products of matrices for a catalogue of millions


def task_loss(
    model: Bert4Rec,
    task: Task,
    settings: TrainSettings,
    rng: np.random.Generator,
    side: SideBatch | None = None,
    shares: np.ndarray | None = None,
    part: Part | None = None,
) -> Tensor:
    """Mean loss over the task's labels, a float32 scalar.

    What is drawn, and which items' vectors are read, is the same for each part of a batch as for the whole.

    Parameters
    ----------
    model
        In training mode.
    task
        What is asked, from `make_task`.
    settings
        Loss, negatives and precision; "auto" is chosen by `recsys.models.sequential.choice`.
    rng
        Source of randomness, for losses that draw negatives.
    side
        What is known at the task's positions, or those of its part, besides the items, for a model that reads it.
    shares
        float64 [V + 1], each item's share of the training events, for the sampled softmax; None: equal ones.
    part
        Of the batch, one that asks something, whose summand of the mean is returned: the parts' sum is the mean.
    """
    device = model.output_bias.device
    asked = _Asked.of(task, activation_dtype(settings.precision, device), device, part)
    side = None if side is None else side.to(device)
    with drawn_for(part, len(task.tokens)):
        if settings.loss in ("auto", "full"):
            return _full(model, settings, asked, side)
        if settings.loss == "sampled":
            return _sampled(model, task, settings, asked, side, rng, shares, part)
        return _binary(model, task, settings, asked, side, rng, part)


@dataclass(frozen=True, eq=False)
class _Asked:
    """Questions of a task, or of a part of it, where the model is.

    Attributes
    ----------
    task
        Of the part.
    dtype, device
        Of activations.
    wanted
        As of the task.
    labels
        int64 [P], the items asked for.
    questions
        int64 [P], their places in [B, Q] laid flat; counted before they are sent, as an accelerator would have to be
        waited for.
    weights
        float32 [P]; None: all alike.
    total
        Sum of all weights of a task of which this is a part; None: this is the whole.
    """

    task: Task
    dtype: torch.dtype
    device: torch.device
    wanted: Tensor | None
    labels: np.ndarray
    questions: Tensor
    weights: Tensor | None
    total: float | None = None

    @classmethod
    def of(cls, whole: Task, dtype: torch.dtype, device: torch.device, part: Part | None = None) -> _Asked:
        """Send what does not depend on the loss."""
        task = whole.of(part)
        asked, everywhere = np.flatnonzero(task.labels), whole.labels > 0
        total = everywhere.sum() if whole.weights is None else whole.weights[everywhere].sum(dtype=np.float64)
        return cls(
            task,
            dtype,
            device,
            None if task.wanted is None else sent(torch.from_numpy(task.wanted), device),
            task.labels.ravel()[asked],
            sent(torch.from_numpy(asked), device),
            None if task.weights is None else sent(torch.from_numpy(task.weights.ravel()[asked]), device),
            None if part is None else float(total),
        )

    def moved(self, array: np.ndarray) -> Tensor:
        """The array where the model is."""
        return sent(torch.from_numpy(array), self.device)

    def earlier(self, model: Bert4Rec) -> Earlier | None:
        """The events before each question, for a model that counts repeats."""
        if model.encoder.repeats is None:
            return None
        return earlier_events(self.moved(self.task.tokens), self.moved(self.task.labels > 0))


def _full(model: Bert4Rec, settings: TrainSettings, asked: _Asked, side: SideBatch | None) -> Tensor:
    task = asked.task
    table = model.item_table().to(asked.dtype)  # [V + 1, D]
    tokens = asked.moved(task.tokens)
    states = model.encoder.queries(tokens, table, asked.wanted, causal=task.causal, side=side)  # [B, Q, D]
    queries = states.flatten(0, 1).index_select(0, asked.questions)  # [P, D]
    bias = model.item_bias()
    if not settings.cold_negatives:
        bias = bias.masked_fill(~model.tower.trained, -torch.inf)
    repeats, earlier = model.encoder.repeats, asked.earlier(model)
    had = None if repeats is None or earlier is None else (earlier, repeats())
    return full_cross_entropy(queries, table, bias, asked.moved(asked.labels), asked.weights, had, total=asked.total)


def _sampled(
    model: Bert4Rec,
    task: Task,
    settings: TrainSettings,
    asked: _Asked,
    side: SideBatch | None,
    rng: np.random.Generator,
    shares: np.ndarray | None,
    part: Part | None,
) -> Tensor:
    firsts = model.tower.firsts.cpu().numpy()
    trained = None if settings.cold_negatives else model.tower.trained.cpu().numpy()
    candidates = Candidates.draw(task, settings.negatives or SHARED_NEGATIVES, firsts, rng, shares, trained, part)
    # only the vectors of items that occur: a step costs the same for any catalogue
    codes = np.union1d(task.tokens.ravel(), np.concatenate([[MASK, PADDING], candidates.codes]))
    known = asked.moved(codes[1:])  # without MASK; PADDING is at 0
    table = model.item_table(known).to(asked.dtype)
    own = asked.task
    tokens = asked.moved(np.searchsorted(codes, own.tokens) - 1)  # MASK is -1 again, and PADDING 0
    places = asked.moved(np.searchsorted(codes, candidates.codes) - 1)
    states = model.encoder.queries(tokens, table, asked.wanted, causal=own.causal, side=side)
    queries = states.flatten(0, 1).index_select(0, asked.questions)  # [P, D]
    bias = model.bias_of(asked.moved(candidates.codes))
    repeats, earlier = model.encoder.repeats, asked.earlier(model)
    had = None if repeats is None or earlier is None else (earlier.among(asked.moved(candidates.codes)), repeats())
    return full_cross_entropy(
        queries,
        table.index_select(0, places),
        bias,
        asked.moved(np.searchsorted(candidates.codes, asked.labels)),
        asked.weights,
        had,
        (asked.moved(candidates.correction), asked.questions // own.labels.shape[1]),
        total=asked.total,
    )


def _binary(
    model: Bert4Rec,
    task: Task,
    settings: TrainSettings,
    asked: _Asked,
    side: SideBatch | None,
    rng: np.random.Generator,
    part: Part | None,
) -> Tensor:
    firsts = model.tower.firsts.cpu().numpy()
    negatives = draw_negatives(task, settings.negatives or OWN_NEGATIVES, firsts, rng)  # [B, N]
    parts = (task.tokens, task.labels, negatives)
    codes, place = np.unique(np.concatenate([[MASK, PADDING], *map(np.ravel, parts)]), return_inverse=True)
    place -= 1  # MASK is -1 again, and PADDING 0
    tokens, targets, sampled = (
        asked.moved(rows.reshape(part.shape))
        for rows, part in zip(np.split(place[2:], np.cumsum([p.size for p in parts])[:-1]), parts, strict=True)
    )
    if part is not None:
        tokens, targets, sampled = part.of(tokens), part.of(targets), part.of(sampled)
    known = asked.moved(codes[1:])
    table = model.item_table(known).to(asked.dtype)
    bias = model.bias_of(known).to(asked.dtype)
    queries = model.encoder.queries(tokens, table, asked.wanted, causal=task.causal, side=side)  # [B, Q, D]
    positive = (queries * table[targets]).sum(-1) + bias[targets]  # [B, Q]
    scores = queries @ table[sampled].transpose(1, 2) + bias[sampled][:, None]  # [B, Q, N]
    scores = scores.masked_fill(sampled[:, None] == targets[..., None], -torch.inf)
    if not settings.cold_negatives:
        cold = ~model.tower.trained[known][sampled]  # [B, N]; all of a history's may be, so not minus infinity
        scores = scores.masked_fill(cold[:, None], torch.finfo(scores.dtype).min)
    positive, scores = positive.flatten()[asked.questions], scores.flatten(0, 1)[asked.questions]  # [P], [P, N]
    losses = gbce(positive, scores, len(model.output_bias) - 1, settings.calibration)
    if asked.total is not None:
        return (losses.sum() if asked.weights is None else losses @ asked.weights) / asked.total
    return losses.mean() if asked.weights is None else losses @ asked.weights / asked.weights.sum()


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
    correction: tuple[Tensor, Tensor] | None = None,
    total: float | None = None,
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
    correction
        float32 [B, V + 1] that are added to the scores of a history's questions, and int64 [P], whose history each is.
    total
        Divides the weighted sum; None: the sum of the weights.
    """
    if weights is None:
        weights = torch.ones_like(labels, dtype=torch.float32)
    share = weights / (weights.sum() if total is None else total)
    earlier, repeats = (None, None) if had is None else had
    added, owners = (None, None) if correction is None else correction
    loss: Tensor = _FullCrossEntropy.apply(queries, table, bias, labels, share, earlier, repeats, added, owners)
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
        correction: Tensor | None,
        owners: Tensor | None,
    ) -> Tensor:
        rows = max(ROWS_AT_LEAST, scores_at_once(table.device) // len(table))
        added = (bias if correction is None else bias + correction).to(queries.dtype)
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
            scores = torch.addmm(added if owners is None else added[owners[chunk]], q, table.T)
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
        return by_query * scale.to(by_query.dtype), of_table, by_bias * scale, None, None, None, of_repeats, None, None


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
