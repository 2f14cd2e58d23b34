"""The learner changes a model's weights: AdamW, the schedule of its rate, clipping, the weights' moving average."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from recsys.settings import TrainSettings
from recsys.settings.pretrain import PretrainTrainSettings
from recsys.training.average import Average
from recsys.training.distributed import average_gradients

Schedule = Callable[[int, float], Callable[[int], float]]  # of steps and the share that warms up: a factor by step


def cosine_to_a_tenth(steps: int, warmup_share: float) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then cosine decay to a tenth."""
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        progress = min(1.0, (step - warmup) / max(1, steps - warmup))
        return 0.1 + 0.45 * (1 + math.cos(math.pi * progress))

    return factor


def linear_to_zero(steps: int, warmup_share: float) -> Callable[[int], float]:
    """Factor of the learning rate: linear warm-up, then linear decay to zero."""
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        return min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))

    return factor


class Learner:
    """A model's weights with their optimizer, schedule and average.

    Parameters
    ----------
    model
        All that learns; parameters that require no gradient are left alone. Matrices alone decay.
    steps
        Of the optimizer, over which the schedule goes.
    clip_norm
        The global gradient is no longer than that.
    schedule
        Made of `steps` and `warmup_share`.
    accumulate
        Batches whose gradients are averaged for one step.
    average_decay
        Of the weights' moving average; 0: none.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup_share: float,
        clip_norm: float,
        schedule: Schedule = linear_to_zero,
        betas: tuple[float, float] = (0.9, 0.999),
        accumulate: int = 1,
        average_decay: float = 0.0,
    ) -> None:
        self.model, self.clip_norm, self.accumulate = model, clip_norm, accumulate
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        decayed = [p for p in self.parameters if p.ndim >= 2]  # not biases, norms or vectors
        plain = [p for p in self.parameters if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=betas, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, schedule(steps, warmup_share))
        self.average = Average(self.parameters, average_decay)
        self.pending = 0  # batches since the last step

    @classmethod
    def of(cls, model: nn.Module, settings: TrainSettings | PretrainTrainSettings, **options: Any) -> Learner:
        """With the rates of a configuration's section, and options as of the class."""
        names = ("learning_rate", "weight_decay", "warmup_share", "clip_norm")
        return cls(model, **{name: getattr(settings, name) for name in names}, **options)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def add(self, losses: Sequence[Tensor]) -> bool:
        """Add the gradients of one batch's losses, one graph after the other; take a step when enough came together.

        Returns
        -------
        bool
            Whether a step was taken.
        """
        for loss in losses:
            (loss / self.accumulate).backward()
        self.pending += 1
        if self.pending < self.accumulate:
            return False
        self.step()
        return True

    def step(self) -> None:
        """Take a step with the gradients that have come together, if any."""
        if not self.pending:
            return
        average_gradients(self.parameters)
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.average.update(self.schedule.last_epoch)
        self.pending = 0

    def state_dict(self) -> dict[str, Any]:
        """Weights and all that the next step depends on, between two steps; the tensors are not copies."""
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
