"""The task of a training: the one thing to write for a model that `recsys.training.trainer.run` is to train."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

Batch = TypeVar("Batch")


@dataclass(kw_only=True)
class Place:
    """Progress of a training, besides its weights; JSON-friendly.

    Attributes
    ----------
    stage
        From 1; 0: before the first.
    epoch, stage_epoch
        Of the whole training and of its stage, from 1.
    step
        Batches done in this epoch; the next three are of them.
    sums
        Of losses, each weighed by its batch's count.
    best_stages
        Epochs of each stage that the best weights went through: a stage begins with the best ones of those before it.
    since_best
        Validations of this stage without a gain.
    history
        An entry an epoch, after those of the beginning.
    """

    stage: int = 0
    epoch: int = 0
    stage_epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    count: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_value: float = -math.inf
    best_epoch: int = 0
    best_stages: list[int] = field(default_factory=list)
    since_best: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, eq=False)
class Loss:
    """A batch's loss.

    Attributes
    ----------
    learnt
        Scalars whose sum, in the mean over processes, is to fall, each with a graph of its own.
    told
        Scalars by their name in the history, where their mean over an epoch stands.
    count
        What the batch weighs in that mean, for example its labels.
    tokens
        What the batch held, for the history's throughput.
    """

    learnt: Sequence[Tensor]
    told: Mapping[str, Tensor]
    count: int = 1
    tokens: int = 0

    @classmethod
    def of(cls, loss: Tensor, *, count: int = 1, tokens: int = 0) -> Loss:
        """One scalar, the mean over a batch's `count`, told as `loss`."""
        return cls(learnt=(loss,), told={"loss": loss}, count=count, tokens=tokens)


class Task(ABC, Generic[Batch]):
    """A model, the batches of an epoch, a batch's loss and what validation measures; the trainer does the rest.

    The rest is: steps, checkpoints and going on from one, the history, the best weights, patience, several processes.
    Two methods are a must, `batches` and `loss`; `metrics` makes the best weights win and not the last ones. A task
    that draws from nothing but `at.epoch`, its seed and the generator that `loss` is given goes on after a kill as if
    there had been none: then dropout, too, is the one of that step.

    Attributes
    ----------
    model
        All that learns, on its device; ends with the best weights.
    seed
        Fixes, with epoch and step, the draws of every step.
    primary
        The one of `metrics` that decides which weights are best; higher is better.

    Examples
    --------
    A line through points, learnt in batches of four; `run` also takes `checkpoints=Checkpoints(folder, seconds=60)`.

    >>> from functools import partial
    >>> import numpy as np, torch
    >>> from recsys.training.learner import Learner
    >>> from recsys.training.task import Loss, Task
    >>> from recsys.training.trainer import Stage, run
    >>> class Line(Task[np.ndarray]):
    ...     seed, primary = 1, "closeness"
    ...     def __init__(self, x, y):
    ...         self.x, self.y, self.model = x, y, torch.nn.Linear(1, 1)
    ...     def batches(self, at):
    ...         order = np.random.default_rng((self.seed, at.epoch, 0)).permutation(len(self.x))
    ...         return [order[start : start + 4] for start in range(0, len(order), 4)]
    ...     def loss(self, batch, rng):
    ...         return Loss.of((self.model(self.x[batch]) - self.y[batch]).square().mean(), count=len(batch))
    ...     def metrics(self, at):
    ...         return {"closeness": -(self.model(self.x) - self.y).square().mean().item()}
    >>> x = torch.arange(10.0)[:, None] / 10
    >>> task = Line(x, 2 * x + 1)
    >>> learner = partial(Learner, task.model, steps=90, learning_rate=0.2, weight_decay=0, warmup_share=0, clip_norm=1)
    >>> done = run(task, [Stage(epochs=30, learner=learner, patience=9)])
    >>> task.metrics(done) == {"closeness": done.history[done.best_epoch - 1]["closeness"]}
    True
    >>> sorted(done.history[0])
    ['closeness', 'epoch', 'learning_rate', 'loss', 'seconds', 'tokens_per_second']
    """

    model: nn.Module
    seed: int
    primary: str

    @abstractmethod
    def batches(self, at: Place) -> Iterable[Batch]:
        """An epoch's batches from its first one on; a training that goes on in its midst passes over those done."""

    @abstractmethod
    def loss(self, batch: Batch, rng: np.random.Generator) -> Loss:
        """A batch's loss; whatever is random in it comes from `rng` or torch's generator, which the step has seeded."""

    def metrics(self, at: Place) -> dict[str, float] | None:
        """Measure the model as it is; None: nothing measures it, and the last weights, averaged, are kept."""
        return None

    def beginning(self) -> Iterator[dict[str, Any]]:
        """Entries of the history for what is done before the first step; each is validated when it comes."""
        return iter(())

    def head(self, at: Place) -> dict[str, Any]:
        """Begin an epoch's entry of the history."""
        return {"epoch": at.epoch}

    def draws(self, at: Place) -> tuple[int, ...]:
        """Numbers that fix the draws of a step, the `at.step`-th of its epoch."""
        return self.seed, at.epoch, at.step

    def generator(self, at: Place) -> np.random.Generator:
        """Make the generator of a step and seed torch's, which draws dropout, with it."""
        rng = np.random.default_rng(self.draws(at))
        torch.manual_seed(int(rng.integers(2**63)))
        return rng

    def named(self, at: Place) -> str:
        """Say where a training is."""
        return f"epoch {at.epoch}"

    def diverged(self, at: Place, rate: float) -> str:
        """Say that the loss is no longer a number, and what to do; `rate` is the learning rate asked for."""
        advice = f"lower train.learning_rate = {rate} or set train.precision = 'fp32'"
        return f"the loss stopped being a number in {self.named(at)}; {advice}"

    def state(self) -> dict[str, Tensor]:
        """Return what belongs to the weights, for checkpoints and the best so far; not changed in place afterwards."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` gave, on the CPU."""
