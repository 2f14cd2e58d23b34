"""Two-stage fine-tuning: items and histories move together, then histories adapt to items that stand still.

Source: Li et al., "Text Is All You Need" (KDD 2023, arXiv 2305.13731), section 3.3.3, algorithm 1, and its public
code. The loss is a softmax over cosines with a constant item table, which never receives gradients. In stage one the
table is encoded anew at the start of every epoch; stage two starts from the best weights of stage one and keeps their
table for good. Departures: stage two has a learning-rate schedule of its own (the public code's one schedule leaves it
next to none); an example has at least one item of history, for an empty one teaches nothing about text; negatives that
are drawn never repeat the label. `recformer.live_items`, which is not the paper's, also encodes the items that a batch
of stage one asks for in its step and adds pre-training's contrast among them, so that items learn, too: of two that
follow each other, histories alone would learn to be where the other one was, and find it gone in the next epoch's
table. Live vectors do not compete with the table's, from which their freshness would tell them apart. An epoch is then
validated with a table of its end.

Shapes: B histories of a batch, V items, E width of the vectors, N events of all users.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from recsys.data.consumed import Consumed
from recsys.errors import InputError
from recsys.features.tokens import ItemTokens
from recsys.models.recformer.encode import best_dtype, encode, item_table
from recsys.models.recformer.inputs import token_lengths
from recsys.models.recformer.loss import contrastive_loss, had_before, softmax_loss
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.probe import probe
from recsys.settings import RecformerSettings, TrainSettings
from recsys.training.checkpoint import Checkpoints
from recsys.training.learner import Learner
from recsys.training.outcome import OnEpoch, Training
from recsys.training.task import Loss, Place, Task
from recsys.training.trainer import OnResume, Stage, run

NEGATIVES = 256  # drawn for a batch where the configuration does not say how many
Validate = Callable[[Recformer, np.ndarray], dict[str, float]]  # of a model and the item table it goes with


@dataclass(frozen=True, kw_only=True, eq=False)
class Targets:
    """Events that can be asked for: not the first of their user, and of an item with text.

    Attributes
    ----------
    users
        int64 [n] users with at least one.
    events
        int64, places in the flat histories, user after user.
    bounds
        int64 [n + 1]; user `users[i]` owns `events[bounds[i]:bounds[i + 1]]`.
    """

    users: np.ndarray
    events: np.ndarray
    bounds: np.ndarray

    @classmethod
    def of(cls, catalogue: ItemTokens, items: np.ndarray, offsets: np.ndarray) -> Targets:
        """Those of flat histories."""
        fit = catalogue.lengths[items] > 0
        fit[offsets[:-1][np.diff(offsets) > 0]] = False
        events = np.flatnonzero(fit)
        owner = np.searchsorted(offsets, events, side="right") - 1
        users, counts = np.unique(owner, return_counts=True)
        return cls(users=users, events=events, bounds=np.concatenate([[0], np.cumsum(counts)]))

    def starts(self, offsets: np.ndarray) -> np.ndarray:
        """int64 [n], for each event the place where its user's histories begin."""
        return np.repeat(offsets[self.users], np.diff(self.bounds))

    def draw(self, chosen: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """int64 [B] one event of each chosen user (indices into `users`), uniformly."""
        start, end = self.bounds[chosen], self.bounds[chosen + 1]
        return self.events[start + np.floor(rng.random(len(chosen)) * (end - start)).astype(np.int64)]


@dataclass(kw_only=True, eq=False)
class FineTuning(Task[np.ndarray]):
    """Fine-tuning of a Recformer on histories, as a task of the trainer.

    `train.epochs` and `train.patience` are those of stage one. What the model can before any training is validated as
    epoch 0 and is the first best. Batches and dropout of a step are drawn from generators that (seed, epoch, step)
    fixes, so a training that goes on from a checkpoint ends as one that was not killed.

    Attributes
    ----------
    model
        Changed in place; ends with the best weights.
    items, offsets
        int32 [N] codes and int64 [U + 1], the training histories.
    validate
        Metrics of a model with an item table; called every `train.evaluate_every` epochs and after a stage's last.
        None: the last weights are the best.
    fixed
        Epochs after which it ends, a probe's and both stages' together; schedules are those of the whole plan. None:
        when the plan is done.
    stages
        Epochs of each stage where they are fixed; empty: stage one has as many of `fixed` as it plans. Patience may
        have ended it earlier, and stage two began with its best weights, so `fixed` alone does not tell the two apart.
    primary
        The metric that decides which weights are best; higher is better.

    Raises
    ------
    InputError
        There is nothing to learn from.
    """

    model: Recformer
    catalogue: ItemTokens
    items: np.ndarray
    offsets: np.ndarray
    train: TrainSettings
    settings: RecformerSettings
    seed: int
    validate: Validate | None
    primary: str
    fixed: int | None = None
    stages: Sequence[int] = ()

    def __post_init__(self) -> None:
        self.dtype = best_dtype(self.train.precision)
        self.allowed = torch.from_numpy(self.catalogue.lengths > 0).to(self.model.device)
        self.targets = Targets.of(self.catalogue, self.items, self.offsets)
        if not len(self.targets.events):
            raise InputError(
                f"None of the {len(self.offsets) - 1} training histories has an event after its first one whose item "
                "has text, so there is nothing to learn from; give longer histories, or set recformer.fine_tune = "
                "false."
            )
        self.fresh = False  # the table is of the weights as they are

    def run(
        self,
        on_epoch: OnEpoch | None = None,
        checkpoints: Checkpoints | None = None,
        on_resume: OnResume | None = None,
    ) -> tuple[Training, np.ndarray]:
        """Fine-tune to the end, once; the arguments are as of `recsys.models.sequential.loop.train`.

        Returns
        -------
        training, table
            What happened, and the item table float32 [V + 1, E] that the best weights go with.

        Raises
        ------
        FloatingPointError
            The loss is no longer finite.
        """
        left = math.inf if self.fixed is None else self.fixed - (1 if self.settings.probe_epochs else 0)
        first = min(self.train.epochs, left)
        second = min(self.settings.second_stage_epochs, left - first)
        if self.stages:
            first, second = (*self.stages, 0)[:2]
        stages = [
            self._stage(self.train.epochs, self.train.patience, first),
            self._stage(self.settings.second_stage_epochs, self.settings.second_stage_patience, second),
        ]
        done = run(self, stages, checkpoints=checkpoints, on_entry=on_epoch, on_resume=on_resume)
        return Training.of(done, Consumed.of(self.items, self.offsets)), self.table

    def _stage(self, epochs: int, patience: int, done: float) -> Stage:
        """Plan a stage of so many epochs, of which `done` are trained."""
        accumulate, batches = self.settings.accumulate, -(-len(self.targets.users) // self.train.batch_size)
        steps = epochs * -(-batches // accumulate)
        learner = partial(Learner.of, self.model, self.train, steps=steps, accumulate=accumulate)
        return Stage(int(done), learner, patience, self.train.evaluate_every)

    def beginning(self) -> Iterator[dict[str, Any]]:
        """Validate what the model can before any training, and after a probe, which counts as one epoch."""
        self._encode_items()
        yield {"epoch": 0, "stage": 0}
        if self.settings.probe_epochs:
            began = time.perf_counter()
            loss = probe(
                self.model,
                self.catalogue,
                self.items,
                self.targets.starts(self.offsets),
                self.targets.events,
                epochs=self.settings.probe_epochs,
                temperature=self.settings.temperature,
                weight_decay=self.train.weight_decay,
                seed=self.seed,
                dtype=self.dtype,
            )
            self._encode_items()
            yield {"epoch": 1, "stage": 0, "loss": loss, "seconds": time.perf_counter() - began}

    def batches(self, at: Place) -> Iterator[np.ndarray]:
        """Users of an epoch; in stage one they are asked with a table of its start."""
        if at.stage == 1 and at.step == 0 and not self.fresh:
            self._encode_items()
        self.live = self.settings.live_items and at.stage == 1
        self.on_device = torch.from_numpy(self.table).to(self.model.device)
        order = np.random.default_rng((self.seed, at.epoch, 0)).permutation(len(self.targets.users))
        size = self.train.batch_size
        return (order[start : start + size] for start in range(0, len(order), size))

    def loss(self, batch: np.ndarray, rng: np.random.Generator) -> Loss:
        """Place of one target of each user, drawn anew."""
        model, catalogue, items, settings, self.fresh = self.model, self.catalogue, self.items, self.settings, False
        ends = self.targets.draw(batch, rng)
        starts = self.offsets[self.targets.users[batch]]
        labels = torch.from_numpy(items[ends].astype(np.int64)).to(model.device)
        negatives = None
        if self.train.loss == "sampled":
            negatives = torch.from_numpy(rng.integers(1, len(self.on_device), self.train.negatives or NEGATIVES)).to(
                model.device
            )
        queries = encode(model, catalogue, items, starts, ends, dtype=self.dtype)
        had = None
        if model.repeats is not None and negatives is None:
            had = had_before(model, items, starts, ends), model.repeats()
        loss = softmax_loss(queries, self.on_device, labels, self.allowed, settings.temperature, negatives, had)
        if self.live:
            live = encode(model, catalogue, items, ends, ends + 1, dtype=self.dtype, as_items=True)
            loss = loss + contrastive_loss(queries, live, labels, settings.temperature)
        tokens = int(token_lengths(catalogue, items, starts, ends, model.shape.limits).sum())
        return Loss.of(loss, count=len(batch), tokens=tokens)

    def metrics(self, at: Place) -> dict[str, float] | None:
        """Metrics with the epoch's table; where items learn, too, with one of its end."""
        if self.settings.live_items and at.stage == 1 and not self.fresh:
            self._encode_items()
        return None if self.validate is None else self.validate(self.model, self.table)

    def head(self, at: Place) -> dict[str, Any]:
        """Epoch and stage."""
        return {"epoch": at.epoch, "stage": at.stage}

    def state(self) -> dict[str, Tensor]:
        """The item table."""
        return {"table": torch.from_numpy(self.table)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take an item table, which may be of earlier weights."""
        self.table, self.fresh = state["table"].numpy(), False

    def _encode_items(self) -> None:
        self.table, self.fresh = item_table(self.model, self.catalogue, dtype=self.dtype), True
