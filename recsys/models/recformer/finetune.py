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

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
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
from recsys.models.recformer.steps import Learner
from recsys.models.sequential.loop import OnEpoch, OnResume, Training
from recsys.settings import RecformerSettings, TrainSettings
from recsys.training.checkpoint import Checkpoints

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


@dataclass(kw_only=True)
class _Place:
    """How far a training is, besides weights and tables."""

    stage: int = 1
    epoch: int = 0  # over both stages; 0: before any training
    stage_epoch: int = 0
    step: int = 0  # batches done in this epoch; the next four count them
    loss: float = 0.0  # sum over examples
    examples: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_value: float = -math.inf
    best_epoch: int = 0
    since_best: int = 0  # validations of this stage
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(kw_only=True, eq=False)
class FineTuning:
    """What is fine-tuned on which histories, and how far it is.

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
    validate: Validate
    primary: str

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
        self.place = _Place()
        self.best: dict[str, Tensor] = {}

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
        saved = checkpoints.load() if checkpoints else None
        if saved is None:
            self._begin()
        else:
            self._resume(saved)
            if on_resume:
                on_resume(self.place.epoch, self.place.step)
        if on_epoch:
            for entry in self.place.history:
                on_epoch(entry)
        with torch.random.fork_rng(devices=[]):
            while self.place.stage <= 2:
                while self.goes_on:
                    entry = self._train_epoch(checkpoints)
                    if on_epoch:
                        on_epoch(entry)
                self._next_stage()
        self.model.load_state_dict(self.best)
        place = self.place
        training = Training(
            best_epoch=place.best_epoch,
            epochs=place.epoch,
            history=place.history,
            trained=Consumed.of(self.items, self.offsets),
        )
        return training, self.best_table

    def _begin(self) -> None:
        """Validate what the model can before any training."""
        self.table = self.best_table = item_table(self.model, self.catalogue, dtype=self.dtype)
        entry: dict[str, Any] = {"epoch": 0, "stage": 0}
        self._validate(entry)
        self.place.history.append(entry)
        if self.settings.probe_epochs:
            self._probe()
        self.learner = self._learner()

    def _probe(self) -> None:
        """Fit what reads histories out of item states; counts as one epoch."""
        began, place = time.perf_counter(), self.place
        with torch.random.fork_rng(devices=[]):
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
        place.epoch += 1
        self.table = item_table(self.model, self.catalogue, dtype=self.dtype)
        entry = {"epoch": place.epoch, "stage": 0, "loss": loss, "seconds": time.perf_counter() - began}
        self._validate(entry)
        place.history.append(entry)
        place.since_best = 0

    @property
    def epochs(self) -> int:
        """Of this stage, at most."""
        return self.train.epochs if self.place.stage == 1 else self.settings.second_stage_epochs

    @property
    def goes_on(self) -> bool:
        """Whether this stage has a further epoch, or an unfinished one."""
        patience = self.train.patience if self.place.stage == 1 else self.settings.second_stage_patience
        place = self.place
        return place.step > 0 or (place.stage_epoch < self.epochs and place.since_best < patience)

    def _next_stage(self) -> None:
        """Go back to the best weights and their table, which now stays."""
        place = self.place
        place.stage, place.stage_epoch, place.since_best = place.stage + 1, 0, 0
        self.model.load_state_dict(self.best)
        self.table = self.best_table
        self.learner = self._learner()

    def _train_epoch(self, checkpoints: Checkpoints | None) -> dict[str, Any]:
        """Train an epoch, or the rest of one; returns its entry of the history."""
        place = self.place
        if place.step == 0:
            place.epoch, place.stage_epoch = place.epoch + 1, place.stage_epoch + 1
            if place.stage == 1 and not self.settings.live_items:
                self.table = item_table(self.model, self.catalogue, dtype=self.dtype)
        began = time.perf_counter() - place.seconds
        table = torch.from_numpy(self.table).to(self.model.device)
        order = np.random.default_rng((self.seed, place.epoch, 0)).permutation(len(self.targets.users))
        size = self.train.batch_size
        self.model.train()
        for start in range(place.step * size, len(order), size):
            stepped = self._step(order[start : start + size], table)
            if checkpoints and stepped and checkpoints.due():
                place.seconds = time.perf_counter() - began
                checkpoints.save(self._state())
        self.learner.step()  # with what is left over
        if not math.isfinite(place.loss):
            raise FloatingPointError(
                f"the loss stopped being a number in epoch {place.epoch}; lower train.learning_rate = "
                f"{self.train.learning_rate} or set train.precision = 'fp32'"
            )
        if self.settings.live_items and place.stage == 1:
            self.table = item_table(self.model, self.catalogue, dtype=self.dtype)
        seconds = time.perf_counter() - began
        entry: dict[str, Any] = {
            "epoch": place.epoch,
            "stage": place.stage,
            "loss": place.loss / max(place.examples, 1),
            "seconds": seconds,
            "tokens_per_second": place.tokens / seconds,
            "learning_rate": self.learner.learning_rate,
        }
        if place.stage_epoch % self.train.evaluate_every == 0 or place.stage_epoch == self.epochs:
            self._validate(entry)
        place.history.append(entry)
        place.step, place.loss, place.examples, place.tokens, place.seconds = 0, 0.0, 0, 0, 0.0
        return entry

    def _resume(self, saved: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        self.place, self.best = _Place(**saved["place"]), saved["best"]
        self.best_table = saved["best_table"].numpy()
        self.table = self.best_table if saved["table"] is None else saved["table"].numpy()
        self.learner = self._learner()
        self.learner.load_state_dict(saved["learner"])

    def _step(self, batch: np.ndarray, table: Tensor) -> bool:
        """Learn from one batch of users; whether the optimizer took a step."""
        place, device = self.place, self.model.device
        place.step += 1
        rng = np.random.default_rng((self.seed, place.epoch, place.step))
        torch.manual_seed(int(rng.integers(2**63)))
        ends = self.targets.draw(batch, rng)
        starts = self.offsets[self.targets.users[batch]]
        labels = torch.from_numpy(self.items[ends].astype(np.int64)).to(device)
        negatives = None
        if self.train.loss == "sampled":
            negatives = torch.from_numpy(rng.integers(1, len(table), self.train.negatives)).to(device)
        queries = encode(self.model, self.catalogue, self.items, starts, ends, dtype=self.dtype)
        had = None
        if self.model.repeats is not None and negatives is None:
            had = had_before(self.model, self.items, starts, ends), self.model.repeats()
        loss = softmax_loss(queries, table, labels, self.allowed, self.settings.temperature, negatives, had)
        if self.settings.live_items and place.stage == 1:
            live = encode(self.model, self.catalogue, self.items, ends, ends + 1, dtype=self.dtype, as_items=True)
            loss = loss + contrastive_loss(queries, live, labels, self.settings.temperature)
        stepped = self.learner.add(loss)
        place.loss += float(loss.detach()) * len(batch)
        place.examples += len(batch)
        place.tokens += int(token_lengths(self.catalogue, self.items, starts, ends, self.model.shape.limits).sum())
        return stepped

    def _validate(self, entry: dict[str, Any]) -> None:
        metrics = self.validate(self.model, self.table)
        entry |= metrics
        place = self.place
        place.since_best += 1
        if metrics[self.primary] > place.best_value:
            place.best_value, place.best_epoch, place.since_best = metrics[self.primary], place.epoch, 0
            self.best, self.best_table = copy.deepcopy(self.model.state_dict()), self.table

    def _learner(self) -> Learner:
        batches = -(-len(self.targets.users) // self.train.batch_size)
        return Learner(
            self.model,
            steps=self.epochs * -(-batches // self.settings.accumulate),
            learning_rate=self.train.learning_rate,
            weight_decay=self.train.weight_decay,
            warmup_share=self.train.warmup_share,
            clip_norm=self.train.clip_norm,
            accumulate=self.settings.accumulate,
        )

    def _state(self) -> dict[str, Any]:
        return {
            "learner": self.learner.state_dict(),
            "place": asdict(self.place),
            "best": self.best,
            "best_table": torch.from_numpy(self.best_table),
            "table": None if self.table is self.best_table else torch.from_numpy(self.table),
        }
