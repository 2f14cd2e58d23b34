"""Training of a sequence model: batches of either objective in, the weights of the best validation out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from recsys.columns import PADDING
from recsys.data.consumed import Consumed
from recsys.errors import InputError
from recsys.models.sequential.batches import batches, windows
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.models.sequential.losses import task_loss
from recsys.models.sequential.next_basket import NextBasket
from recsys.models.sequential.objectives import events_of, make_task, objective_at
from recsys.models.sequential.side import Side, SideBatch
from recsys.settings import TrainSettings
from recsys.training.checkpoint import Checkpoints
from recsys.training.learner import Learner, cosine_to_a_tenth
from recsys.training.outcome import OnEpoch, Training
from recsys.training.task import Loss, Place, Task
from recsys.training.trainer import OnResume, Stage, run

Validate = Callable[[Bert4Rec], dict[str, float]]


def train(
    model: Bert4Rec,
    items: np.ndarray,
    offsets: np.ndarray,
    settings: TrainSettings,
    *,
    seed: int,
    max_length: int,
    validate: Validate,
    primary: str,
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
        Called every `settings.evaluate_every` epochs and after the last one; returns metrics.
    primary
        The metric that decides which weights are best; higher is better.
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
    starts, ends = windows(offsets, max_length)
    if baskets is not None:
        asking = baskets.ask(starts, ends)
        starts, ends = starts[asking], ends[asking]
    if not len(starts):
        raise InputError(
            f"None of the {len(offsets) - 1} training histories has two events, and one event teaches nothing of what "
            "comes next; give longer histories, or ask for no training by train.epochs = 0."
        )
    codes = np.concatenate([[PADDING], items]).astype(np.int64)
    task = _Windows(model, codes, offsets, starts, ends, settings, seed, validate, primary, side, baskets)
    learner = partial(
        Learner.of,
        model,
        settings,
        steps=settings.epochs * -(-len(starts) // settings.batch_size),
        schedule=cosine_to_a_tenth,
        betas=(0.9, 0.98),
        average_decay=settings.average_decay,
    )
    stage = Stage(settings.epochs, learner, settings.patience, settings.evaluate_every)
    done = run(task, [stage], checkpoints=checkpoints, on_entry=on_epoch, on_resume=on_resume)
    return Training.of(done, Consumed.of(items, offsets))


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
    validate: Validate
    primary: str
    side: Side | None
    baskets: NextBasket | None

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
        known = None if self.side is None else side_of(self.side, batch, asked.tokens, self.offsets)
        loss = task_loss(self.model, asked, self.settings, rng, known)
        return Loss.of(loss, count=int(np.count_nonzero(asked.labels)), tokens=int(np.count_nonzero(asked.tokens)))

    def head(self, at: Place) -> dict[str, Any]:
        return {"epoch": at.epoch, "objective": self.objective}

    def metrics(self, at: Place) -> dict[str, float] | None:
        # weights that were only asked for next items yet cannot answer as the model will be asked
        return self.validate(self.model) if self.objective == self.model.objective else None


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
