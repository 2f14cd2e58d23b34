"""The training loop: a task's batches in, its model with the best weights out.

Batches and dropout of a step are drawn from generators that (seed, epoch, step) fixes. So a training that was killed
and goes on from a checkpoint ends with the weights of one that was not, to the last bit where the operations repeat
theirs. An accelerator is waited for at the end of an epoch and for a checkpoint, not at every step.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any, Generic

import torch
from torch import Tensor

from recsys.errors import RecsysError
from recsys.features.device import is_accelerator
from recsys.training.checkpoint import Checkpoints
from recsys.training.distributed import check_alike, from_first, processes
from recsys.training.learner import Learner
from recsys.training.task import Batch, Loss, Place, Task

OnEntry = Callable[[dict[str, Any]], None]
OnResume = Callable[[int, int], None]  # (epoch, batches done in it)


@dataclass(frozen=True)
class Stage:
    """Epochs that share a learner; it ends with the best weights so far.

    Attributes
    ----------
    epochs
        At most.
    learner
        Makes the learner when the stage begins.
    patience
        Validations without a gain that end it.
    evaluate_every
        Epochs between validations; the last one is always validated.
    """

    epochs: int
    learner: Callable[[], Learner]
    patience: float = math.inf
    evaluate_every: int = 1


def run(
    task: Task[Batch],
    stages: Sequence[Stage],
    *,
    checkpoints: Checkpoints | None = None,
    on_entry: OnEntry | None = None,
    on_resume: OnResume | None = None,
    leave_end: bool = False,
) -> Place:
    """Train until the stages' epochs are over or their validations stop gaining.

    Parameters
    ----------
    task
        Its model ends with the best weights, and it with the state that belongs to them.
    checkpoints
        Where to go on from, if there is one, and where to write more; they are left there. None: neither.
    on_entry
        Called with each entry of the history; after a resume first with those from before.
    on_resume
        Called with the epoch and the batches done in it when the training goes on from a checkpoint.
    leave_end
        Write a checkpoint at the end, too: a process that takes it up has the result and no step to take.

    Raises
    ------
    FloatingPointError
        The loss is no longer finite; the task says what to do.
    RecsysError
        The end cannot be written. Or processes that train together do not begin alike.
    """
    training = _Run(task=task, checkpoints=checkpoints, on_entry=on_entry or (lambda _: None), leave_end=leave_end)
    with torch.random.fork_rng(devices=[]):
        training.whole(stages, on_resume)
    return training.at


@dataclass(kw_only=True, eq=False)
class _Run(Generic[Batch]):
    task: Task[Batch]
    checkpoints: Checkpoints | None
    on_entry: OnEntry
    leave_end: bool
    at: Place = field(default_factory=Place)
    best: dict[str, Any] = field(default_factory=dict)  # weights, and what of the task belongs to them
    learner: Learner | None = None  # of the stage
    sums: dict[str, Tensor | float] = field(default_factory=dict)  # as `Place.sums`, but perhaps on an accelerator

    def whole(self, stages: Sequence[Stage], on_resume: OnResume | None) -> None:
        saved = self.checkpoints.load() if self.checkpoints else None
        if saved is None:
            for epoch, entry in enumerate(self.task.beginning()):
                self.at.epoch = epoch
                self._validate(entry)
                self._tell(entry)
        else:
            self.at, self.best = Place(**saved["place"]), saved["best"]
            self.task.restore(saved["task"])
            if on_resume:
                on_resume(self.at.epoch, self.at.step)
            for entry in self.at.history:
                self.on_entry(entry)
        for number, stage in enumerate(stages, start=1):
            if number < self.at.stage:
                continue
            if number > self.at.stage:
                self.at.stage, self.at.stage_epoch, self.at.since_best = number, 0, 0
            self.learner = stage.learner()
            if saved is not None:
                self.learner.load_state_dict(saved["learner"])
                saved = None  # its tensors were copied
            check_alike(self.task.model.state_dict(), (self.at.stage, self.at.epoch, self.at.step))
            while self.at.step or (self.at.stage_epoch < stage.epochs and self.at.since_best < stage.patience):
                self._epoch(stage, self.learner)
            if self.leave_end and number == len(stages):
                self._leave(self.learner)
            if self.best:
                self.task.model.load_state_dict(self.best["model"])
                self.task.restore(self.best["task"])
            else:  # nobody says which weights are best: the last ones, averaged as validation would have measured them
                self.learner.take_average()
                self._keep_path()
        if not self.best:  # nothing was measured
            self.at.best_epoch = self.at.epoch

    def _epoch(self, stage: Stage, learner: Learner) -> None:
        """Train an epoch, or the rest of one."""
        at, task = self.at, self.task
        if not at.step:
            at.epoch, at.stage_epoch = at.epoch + 1, at.stage_epoch + 1
        batches = task.batches(at)
        began = time.perf_counter() - at.seconds
        self.sums = dict(at.sums)
        task.model.train()
        for batch in islice(batches, at.step, None):
            at.step += 1
            loss = task.loss(batch, task.generator(at))
            stepped = learner.add(loss.learnt)
            self._count(loss, learner)
            if stepped and self.checkpoints and processes()[0] == 0 and self.checkpoints.due():
                self._read_sums(learner)
                at.seconds = time.perf_counter() - began
                self.checkpoints.save(self._state(learner))
        learner.step()  # with what is left over
        self._read_sums(learner)
        seconds = time.perf_counter() - began
        entry = task.head(at) | {name: value / max(at.count, 1) for name, value in at.sums.items()}
        entry |= {"seconds": seconds, "tokens_per_second": at.tokens / seconds}
        entry["learning_rate"] = learner.learning_rate
        if at.stage_epoch % stage.evaluate_every == 0 or at.stage_epoch == stage.epochs:
            self._validate(entry)
        at.step, at.sums, at.count, at.tokens, at.seconds = 0, {}, 0, 0, 0.0
        self._tell(entry)

    def _state(self, learner: Learner) -> dict[str, Any]:
        """All that a process needs to go on, or to have the result."""
        return {
            "learner": learner.state_dict(),
            "place": asdict(self.at),
            "best": self.best,
            "task": self.task.state(),
        }

    def _leave(self, learner: Learner) -> None:
        """Write the end, before the best weights take the place of the last ones."""
        if self.checkpoints and processes()[0] == 0 and not self.checkpoints.save(self._state(learner)):
            raise RecsysError(
                f"The trained weights could not be written to {self.checkpoints.folder}; free space there, and run it "
                "again."
            )

    def _count(self, loss: Loss, learner: Learner) -> None:
        for name, value in loss.told.items():
            self.sums[name] = self.sums.get(name, 0.0) + value.detach().double() * loss.count
            if not is_accelerator(value.device):  # where reading costs nothing
                self._read_sums(learner)
        self.at.count += loss.count
        self.at.tokens += loss.tokens

    def _read_sums(self, learner: Learner) -> None:
        self.at.sums = {name: float(value) for name, value in self.sums.items()}
        if not all(map(math.isfinite, self.at.sums.values())):
            raise FloatingPointError(self.task.diverged(self.at, learner.optimizer.defaults["lr"]))

    def _validate(self, entry: dict[str, Any]) -> None:
        """Measure the averaged weights, for which a best so far is kept."""
        at, task = self.at, self.task
        with self.learner.averaged() if self.learner else nullcontext():
            metrics = task.metrics(at)
            if metrics is None:
                return
            value = from_first(metrics[task.primary], next(task.model.parameters()).device)
            entry |= metrics | {task.primary: value}
            at.since_best += 1
            if value > at.best_value:
                at.best_value, at.best_epoch, at.since_best = value, at.epoch, 0
                self._keep_path()
                self.best = {"model": copy.deepcopy(task.model.state_dict()), "task": task.state()}

    def _keep_path(self) -> None:
        """Note the epochs of each stage that the weights went through."""
        at = self.at
        if at.stage:
            begun = [*at.best_stages, *[0] * at.stage][: at.stage - 1]
            at.best_stages = [*begun, at.stage_epoch]

    def _tell(self, entry: dict[str, Any]) -> None:
        self.at.history.append(entry)
        self.on_entry(entry)
