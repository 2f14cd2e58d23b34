"""The learner changes a model's weights: AdamW, the schedule of its rate, clipping, the weights' moving average.

Tables of which a step reads few rows learn by these rows alone (recsys/training/rows.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from recsys.settings import TrainSettings
from recsys.settings.pretrain import PretrainTrainSettings
from recsys.training.average import Average
from recsys.training.distributed import average_gradients
from recsys.training.rows import RowLearner

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
    by_row
        Those of the model's weights whose gradients are sparse.
    row_rate
        Of the first step of their rows, in learning rates.
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
        by_row: Sequence[nn.Parameter] = (),
        row_rate: float = 1.0,
    ) -> None:
        self.model, self.clip_norm, self.accumulate = model, clip_norm, accumulate
        apart = {id(p) for p in by_row}
        self.parameters = [p for p in model.parameters() if p.requires_grad and id(p) not in apart]
        self.weight_decay = weight_decay
        self.rows = [
            RowLearner(p, rate=row_rate, decayed=p.ndim >= 2 and weight_decay > 0, averaged=average_decay > 0)
            for p in by_row
        ]
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
        self._clip()
        rate = self.learning_rate
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad(set_to_none=True)
        step = self.schedule.last_epoch
        self.average.update(step)
        for rows in self.rows:
            rows.step(rate, self.weight_decay, self.average.keep(step))
        self.pending = 0

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Give the model the averaged weights for the length of a `with` block."""
        for rows in self.rows:
            rows.settle()
            rows.exchange()
        try:
            with self.average.applied():
                yield
        finally:
            for rows in self.rows:
                rows.exchange()

    def take_average(self) -> None:
        """Give the model the averaged weights for good."""
        self.average.take()
        for rows in self.rows:
            rows.settle()
            rows.exchange()

    def _clip(self) -> None:
        if not self.rows:
            torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
            return
        of_rows = [gradient for rows in self.rows if (gradient := rows.gradient()) is not None]
        whole = [p.grad for p in self.parameters if p.grad is not None]
        norm = torch.nn.utils.get_total_norm([*whole, *of_rows])
        torch.nn.utils.clip_grads_with_norm_(self.parameters, self.clip_norm, norm)
        factor = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        for gradient in of_rows:
            gradient *= factor

    def state_dict(self) -> dict[str, Any]:
        """Weights and all that the next step depends on, between two steps; the tensors are not copies."""
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "average": self.average.shadow,
            "rows": [rows.state_dict() for rows in self.rows],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        for mine, saved in zip(self.average.shadow, state["average"], strict=True):
            mine.copy_(saved)
        for rows, known in zip(self.rows, state["rows"], strict=True):
            rows.load_state_dict(known)
