"""Training of a sequence model: batches of either objective in, the weights of the best validation out."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from recsys.columns import PADDING
from recsys.data.consumed import Consumed
from recsys.errors import InputError
from recsys.features.device import is_accelerator
from recsys.models.sequential.batches import batches, windows
from recsys.models.sequential.bert4rec import Bert4Rec, pad_left
from recsys.models.sequential.choice import decided, learns_by_row, precision_by_width
from recsys.models.sequential.losses import task_loss
from recsys.models.sequential.next_basket import NextBasket
from recsys.models.sequential.objectives import events_of, make_task, objective_at
from recsys.models.sequential.side import Side, SideBatch
from recsys.settings import TrainSettings
from recsys.training.checkpoint import Checkpoints
from recsys.training.distributed import Part, processes, summed
from recsys.training.learner import Learner, cosine_to_a_tenth
from recsys.training.outcome import OnEpoch, Training
from recsys.training.task import Loss, Place, Task
from recsys.training.trainer import OnResume, Stage, run

PRECISIONS = ("bf16", "fp32")
TURNS = 2  # that are timed, after one to warm up
TOKENS_TIMED = 4_096  # of a batch at most: beyond, the ratio of two precisions stays what it is
ROW_RATE = 30.0  # of the first step of a table's row, in learning rates
Validate = Callable[[Bert4Rec], dict[str, float]]


def train(
    model: Bert4Rec,
    items: np.ndarray,
    offsets: np.ndarray,
    settings: TrainSettings,
    *,
    seed: int,
    max_length: int,
    validate: Validate | None,
    primary: str,
    epochs: int | None = None,
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: OnResume | None = None,
    side: Side | None = None,
    baskets: NextBasket | None = None,
) -> Training:
    """Train until the epochs are over or validation stops gaining; see `recsys.training.trainer`.

    Parameters
    ----------
    model
        Changed in place, where it is; ends with the best weights.
    items, offsets
        int32 [N] and int64 [U + 1], the training histories.
    seed
        Fixes order, masks, id dropout and dropout: on a CPU the same seed and thread count repeat the same weights.
    max_length
        Longest window.
    validate
        Called every `settings.evaluate_every` epochs and after the last one; returns metrics. None: the last weights
        are the best.
    primary
        The metric that decides which weights are best; higher is better.
    epochs
        After so many of those that `settings` plan it ends; the rate's schedule is that of the whole plan.
    on_epoch
        Called after every epoch with its entry of the history; after a resume first with those of the epochs before.
    checkpoints
        Where to go on from, if there is one, and where to write more; they are left there. None: neither.
    on_resume
        Called with the epoch and the steps done in it when the training goes on from a checkpoint.
    side
        What is known of these histories besides their items, for a model that reads it.
    baskets
        Of these histories, where the next item is one of the next basket's.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite.
    InputError
        There is nothing to learn from: no history has two events.
    """
    task = _task(model, items, offsets, settings, seed, max_length, validate, primary, side, baskets)
    settings, starts = task.settings, task.starts
    learner = partial(
        Learner.of,
        model,
        settings,
        steps=settings.epochs * -(-len(starts) // settings.batch_size),
        schedule=cosine_to_a_tenth,
        betas=(0.9, 0.98),
        average_decay=settings.average_decay,
        by_row=row_weights(model) if model.tower.by_row else (),
        row_rate=ROW_RATE,
    )
    stage = Stage(settings.epochs if epochs is None else epochs, learner, settings.patience, settings.evaluate_every)
    done = run(
        task,
        [stage],
        checkpoints=checkpoints,
        on_entry=on_epoch,
        on_resume=on_resume,
        leave_end=processes()[1] > 1,  # for the process that waits for them
    )
    chosen = {"loss": task.settings.loss, "precision": task.settings.precision}
    return Training.of(done, Consumed.of(items, offsets), chosen)


def step_seconds(
    model: Bert4Rec,
    items: np.ndarray,
    offsets: np.ndarray,
    settings: TrainSettings,
    *,
    seed: int,
    max_length: int,
    side: Side | None = None,
    baskets: NextBasket | None = None,
) -> dict[str, float]:
    """Seconds of a step, forward and backward, in "bf16" and "fp32"; arguments as of `train`.

    The shortest of some, in turns, on windows in the middle by tokens. No weight changes, and no generator.
    """
    task = _task(model, items, offsets, settings, seed, max_length, None, "", side, baskets)
    batch = _typical(task)
    objective = objective_at(settings.epochs, settings, model.objective)
    labels = None if baskets is None else baskets.labels(np.random.default_rng((seed, 0)))[batch]
    found = dict.fromkeys(PRECISIONS, math.inf)
    training = model.training
    model.train()
    with torch.random.fork_rng(devices=[]):
        for turn in range(1 + TURNS):
            for precision in PRECISIONS:
                rng = np.random.default_rng((seed, 0))
                asked = make_task(task.codes[batch], rng, settings, objective, labels)
                known = None if side is None else side_of(side, batch, asked.tokens, offsets)
                as_asked = task.settings.model_copy(update={"precision": precision})
                began = time.perf_counter()
                task_loss(model, asked, as_asked, rng, known, task.shares).backward()
                if turn:
                    found[precision] = min(found[precision], time.perf_counter() - began)
                model.zero_grad(set_to_none=True)
    model.train(training)
    return found


def typical_length(offsets: np.ndarray, max_length: int) -> int:
    """Events of the window in the middle by tokens; 0 without windows."""
    starts, ends = windows(offsets, max_length)
    lengths = np.sort(ends - starts)
    return int(lengths[np.searchsorted(lengths.cumsum(), lengths.sum() / 2)]) if len(lengths) else 0


def _typical(task: _Windows) -> np.ndarray:
    """A batch of windows in the middle by tokens, int64 [B, L], of no more than `TOKENS_TIMED`."""
    lengths = task.ends - task.starts
    order = np.argsort(lengths, kind="stable")
    middle = int(np.searchsorted(lengths[order].cumsum(), lengths.sum() / 2))
    size = max(1, min(task.settings.batch_size, TOKENS_TIMED // int(lengths[order[middle]])))
    first = max(0, min(middle - size // 2, len(order) - size))
    chosen = order[first : first + size]
    return pad_left(np.arange(1, len(task.codes)), task.starts[chosen], task.ends[chosen])


def row_weights(model: Bert4Rec) -> list[nn.Parameter]:
    """The parameters of items and values alone: the multiplexed table and the output biases."""
    weights = [model.output_bias, *([] if model.tower.table is None else [model.tower.table.weight])]
    return [weight for weight in weights if weight.requires_grad]


def _task(
    model: Bert4Rec,
    items: np.ndarray,
    offsets: np.ndarray,
    settings: TrainSettings,
    seed: int,
    max_length: int,
    validate: Validate | None,
    primary: str,
    side: Side | None,
    baskets: NextBasket | None,
) -> _Windows:
    """The windows of the histories, and the model made ready to learn from them."""
    starts, ends = windows(offsets, max_length)
    if baskets is not None:
        asking = baskets.ask(starts, ends)
        starts, ends = starts[asking], ends[asking]
    if not len(starts):
        raise InputError(
            f"None of the {len(offsets) - 1} training histories has two events, and one event teaches nothing of what "
            "comes next; give longer histories, or ask for no training by train.epochs = 0."
        )
    count = len(model.output_bias) - 1
    settings = decided(settings, count)
    if settings.precision == "auto" and not is_accelerator(model.output_bias.device):
        precision = precision_by_width(model.encoder.mask_vector.shape[0])
        settings = settings.model_copy(update={"precision": precision})
    if learns_by_row(settings, count):
        model.tower.learn_by_row()
    codes = np.concatenate([[PADDING], items]).astype(np.int64)
    return _Windows(model, codes, offsets, starts, ends, settings, seed, validate, primary, side, baskets)


@dataclass(eq=False)
class _Windows(Task[np.ndarray]):
    """Questions of the windows `starts:ends` of flat histories; a batch is the numbers, from 1, of its events."""

    model: Bert4Rec
    codes: np.ndarray  # of items by the number of an event
    offsets: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    settings: TrainSettings
    seed: int
    validate: Validate | None
    primary: str
    side: Side | None
    baskets: NextBasket | None

    def __post_init__(self) -> None:
        events = np.bincount(self.codes[1:], minlength=len(self.model.output_bias))
        self.shares = events / max(1, events.sum()) if self.settings.loss == "sampled" else None

    def batches(self, at: Place) -> Iterator[np.ndarray]:
        self.objective = objective_at(at.epoch, self.settings, self.model.objective)
        # an epoch's answers, not a step's: a training that is resumed in its midst draws them again
        answers = np.random.default_rng((self.seed, at.epoch, 0, 1))
        self.labels = None if self.baskets is None else self.baskets.labels(answers)
        order = np.random.default_rng((self.seed, at.epoch, 0))
        return batches(np.arange(1, len(self.codes)), self.starts, self.ends, self.settings.batch_size, order)

    def loss(self, batch: np.ndarray, rng: np.random.Generator) -> Loss:
        answers = None if self.labels is None else self.labels[batch]
        asked = make_task(self.codes[batch], rng, self.settings, self.objective, answers)
        weights = {"count": int(np.count_nonzero(asked.labels)), "tokens": int(np.count_nonzero(asked.tokens))}
        part = Part.own()
        own, rows = asked.of(part), batch if part is None else part.of(batch)
        if part is not None and not own.labels.any():  # of a small batch, the others' parts are all
            nothing = summed(torch.zeros((), device=self.model.output_bias.device))
            return Loss(learnt=(), told={"loss": nothing}, **weights)
        known = None if self.side is None else side_of(self.side, rows, own.tokens, self.offsets)
        loss = task_loss(self.model, asked, self.settings, rng, known, self.shares, part)
        if part is None:
            return Loss.of(loss, **weights)
        # gradients are averaged, and the whole batch's loss is the sum of its parts
        return Loss(learnt=(loss * part.count,), told={"loss": summed(loss)}, **weights)

    def head(self, at: Place) -> dict[str, Any]:
        return {"epoch": at.epoch, "objective": self.objective}

    def state(self) -> dict[str, Tensor]:
        # a training that goes on elsewhere keeps its precision
        return {"bf16": torch.tensor(self.settings.precision == "bf16")}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        if self.settings.precision != "auto":
            precision = "bf16" if state["bf16"] else "fp32"
            self.settings = self.settings.model_copy(update={"precision": precision})

    def metrics(self, at: Place) -> dict[str, float] | None:
        # weights that were only asked for next items yet cannot answer as the model will be asked
        if self.validate is None or self.objective != self.model.objective:
            return None
        # the trainer takes the first process's figures
        return self.validate(self.model) if processes()[0] == 0 else {self.primary: math.nan}


def side_of(side: Side, batch: np.ndarray, tokens: np.ndarray, offsets: np.ndarray) -> SideBatch:
    """Features at the positions of a task besides its items.

    Parameters
    ----------
    side
        Of the flat histories.
    batch
        int64 [B, L]: the numbers, from 1, of the events that the task was made of; 0 at padding.
    tokens
        int64 [B, L'] of the task.
    offsets
        int64 [U + 1] of the histories.
    """
    users = np.searchsorted(offsets, batch[:, -1] - 1, side="right") - 1  # histories end at the last column
    return side.batch(tokens, events_of(batch, tokens), users)
