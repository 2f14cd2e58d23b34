"""The training loop: batches of either objective in, the weights of the best validation out."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

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

OnEpoch = Callable[[dict[str, float]], None]
OnResume = Callable[[int, int], None]  # (epoch, steps done in it)


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Outcome of a training: how the best weights, which the model ends with, were reached, and by which events."""

    best_epoch: int
    epochs: int
    history: list[dict[str, float]]  # one entry an epoch: epoch, loss, seconds, tokens_per_second, the validation's
    trained: Consumed  # the histories that it was given
    validated: Consumed | None = None  # the questions that decided which epoch is best; None: nobody said


@dataclass(kw_only=True)
class _Place:
    """How far a training is, besides its weights."""

    epoch: int = 1
    step: int = 0  # steps done in this epoch; the next four count them
    loss: float = 0.0  # sum over labels
    labels: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_value: float = -math.inf
    best_epoch: int = 0
    since_best: int = 0  # validations
    history: list[dict[str, Any]] = field(default_factory=list)


def train(
    model: Bert4Rec,
    items: np.ndarray,
    offsets: np.ndarray,
    settings: TrainSettings,
    *,
    seed: int,
    max_length: int,
    validate: Callable[[Bert4Rec], dict[str, float]],
    primary: str,
    on_epoch: OnEpoch | None = None,
    checkpoints: Checkpoints | None = None,
    on_resume: OnResume | None = None,
    side: Side | None = None,
    baskets: NextBasket | None = None,
) -> Training:
    """Train until the epochs are over or validation stops gaining.

    Batches, masks and dropout of a step are drawn from generators that (seed, epoch, step) fixes, so a training that
    was killed and goes on from a checkpoint ends with the weights of one that was not, to the last bit where the
    operations repeat theirs.

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
    learner = _Learner(model, settings, steps=settings.epochs * -(-len(starts) // settings.batch_size))
    codes = np.concatenate([[PADDING], items]).astype(np.int64)  # by the number of an event
    numbers = np.arange(1, len(items) + 1)
    place = _Place()
    best: dict[str, Tensor] = {}
    saved = checkpoints.load() if checkpoints else None
    if saved is not None:
        learner.load_state_dict(saved["learner"])
        place, best = _Place(**saved["place"]), saved["best"]
        if on_resume:
            on_resume(place.epoch, place.step)
        for entry in place.history:
            if on_epoch:
                on_epoch(entry)
        del saved  # its tensors were copied
    with torch.random.fork_rng(devices=[]):
        while place.epoch <= settings.epochs and place.since_best < settings.patience:
            began = time.perf_counter() - place.seconds
            model.train()
            objective = objective_at(place.epoch, settings, model.objective)
            order = batches(numbers, starts, ends, settings.batch_size, np.random.default_rng((seed, place.epoch, 0)))
            # an epoch's answers, not a step's: a training that is resumed in its midst draws them again
            labels = None if baskets is None else baskets.labels(np.random.default_rng((seed, place.epoch, 0, 1)))
            total = torch.tensor(place.loss, dtype=torch.float64, device=model.output_bias.device)
            for batch in islice(order, place.step, None):
                place.step += 1
                rng = np.random.default_rng((seed, place.epoch, place.step))
                torch.manual_seed(int(rng.integers(2**63)))
                answers = None if labels is None else labels[batch]
                task = make_task(codes[batch], rng, settings, objective, answers)
                known = None if side is None else side_of(side, batch, task.tokens, offsets)
                loss = task_loss(model, task, settings, rng, known)
                learner.step(loss)
                asked = int(np.count_nonzero(task.labels))
                total += loss.detach().double() * asked
                place.labels += asked
                place.tokens += int(np.count_nonzero(task.tokens))
                if checkpoints and checkpoints.due():
                    place.loss, place.seconds = float(total), time.perf_counter() - began
                    checkpoints.save({"learner": learner.state_dict(), "place": asdict(place), "best": best})
            place.loss = float(total)  # not before: an accelerator would have to be waited for at every step
            if not math.isfinite(place.loss):
                raise FloatingPointError(
                    f"the loss stopped being a number in epoch {place.epoch}; lower train.learning_rate = "
                    f"{settings.learning_rate} or set train.precision = 'fp32'"
                )
            seconds = time.perf_counter() - began
            entry = {
                "epoch": place.epoch,
                "loss": place.loss / place.labels,
                "seconds": seconds,
                "tokens_per_second": place.tokens / seconds,
                "learning_rate": learner.learning_rate,
            }
            # weights that were only asked for next items yet cannot answer as the model will be asked
            ready = objective == model.objective
            if ready and (place.epoch % settings.evaluate_every == 0 or place.epoch == settings.epochs):
                with learner.average.applied():
                    metrics = validate(model)
                    entry |= metrics
                    if metrics[primary] > place.best_value:
                        place.best_value, place.best_epoch, place.since_best = metrics[primary], place.epoch, 0
                        best = copy.deepcopy(model.state_dict())
                    else:
                        place.since_best += 1
            place.history.append(entry)
            if on_epoch:
                on_epoch(entry)
            place = replace(place, epoch=place.epoch + 1, step=0, loss=0.0, labels=0, tokens=0, seconds=0.0)
    model.load_state_dict(best)
    return Training(
        best_epoch=place.best_epoch,
        epochs=len(place.history),
        history=place.history,
        trained=Consumed.of(items, offsets),
    )


def side_of(side: Side, batch: np.ndarray, tokens: np.ndarray, offsets: np.ndarray) -> SideBatch:
    """What is known at the positions of a task besides its items.

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


class _Learner:
    """A model and what changes its weights: AdamW, the rate's schedule, the moving average."""

    def __init__(self, model: torch.nn.Module, settings: TrainSettings, steps: int) -> None:
        self.model, self.clip_norm = model, settings.clip_norm
        self.optimizer = torch.optim.AdamW(
            _parameter_groups(model, settings.weight_decay),
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            fused=True,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _rate(steps, settings.warmup_share))
        self.average = _Average(model, settings.average_decay)

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def step(self, loss: Tensor) -> None:
        """Change the weights to lower a loss."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.average.update(self.schedule.last_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Weights and all that the next step depends on; the tensors are not copies."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.shadow,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        for mine, saved in zip(self.average.shadow, state["average"], strict=True):
            mine.copy_(saved)


def _parameter_groups(model: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weight decay on matrices only: not on biases, norms or vectors."""
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]


def _rate(steps: int, warmup_share: float) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then cosine decay to a tenth."""
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))

    return factor


class _Average:
    """Moving average of the weights; with decay 0 the weights themselves.

    At first it reaches back about a tenth of the steps, so that a short training does not end near the weights that it
    began with.
    """

    def __init__(self, model: torch.nn.Module, decay: float) -> None:
        self.model, self.decay = model, decay
        self.shadow = [p.detach().clone() for p in model.parameters()] if decay else []

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        if self.shadow:
            decay = min(self.decay, step / (step + 9))
            for mine, parameter in zip(self.shadow, self.model.parameters(), strict=True):
                mine.lerp_(parameter.detach(), 1 - decay)

    def applied(self) -> _Swap:
        return _Swap(list(self.model.parameters()), self.shadow)


class _Swap:
    """Puts other values into parameters for the length of a `with` block."""

    def __init__(self, parameters: list[Any], values: list[Tensor]) -> None:
        self.parameters, self.values = parameters, values

    def __enter__(self) -> None:
        self._exchange()

    def __exit__(self, *_: object) -> None:
        self._exchange()

    def _exchange(self) -> None:
        for parameter, value in zip(self.parameters, self.values, strict=False):
            kept = parameter.data.clone()
            parameter.data.copy_(value)
            value.copy_(kept)
