"""What changes a Recformer's weights: AdamW with a linear schedule, over one process or several.

Several processes (started by `torchrun`) each compute the gradients of batches of their own and average them; every
process then takes the same step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn


class Learner:
    """Weights, optimizer and schedule.

    Parameters
    ----------
    modules
        All that learns; parameters that require no gradient are left alone.
    steps
        Of the optimizer, over which the rate rises linearly for `warmup_share` and then falls linearly to zero.
    accumulate
        Losses whose gradients are averaged for one step.
    """

    def __init__(
        self,
        modules: nn.Module,
        *,
        steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup_share: float,
        clip_norm: float,
        accumulate: int = 1,
    ) -> None:
        self.modules, self.clip_norm, self.accumulate = modules, clip_norm, accumulate
        self.parameters = [p for p in modules.parameters() if p.requires_grad]
        decayed = [p for p in self.parameters if p.ndim >= 2]  # matrices only: not biases, norms or vectors
        plain = [p for p in self.parameters if p.ndim < 2]
        groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimizer, _linear(steps, warmup_share))
        self.pending = 0  # losses since the last step

    @property
    def learning_rate(self) -> float:
        """Of the next step."""
        return float(self.schedule.get_last_lr()[0])

    def add(self, *losses: Tensor) -> bool:
        """Add the gradients of one batch's losses; take a step when enough have come together.

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
        self.pending = 0

    def state_dict(self) -> dict[str, Any]:
        """Weights and all that the next step depends on, between two steps; the tensors are not copies."""
        return {
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.modules.load_state_dict(state["modules"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])


def processes() -> tuple[int, int]:
    """(rank, how many) of the processes that train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


def gather(values: Tensor) -> Tensor:
    """The values of all processes one below the other, in the order of ranks; gradients flow through the own ones."""
    rank, count = processes()
    if count == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(count)]
    dist.all_gather(parts, values.detach().contiguous())
    parts[rank] = values
    return torch.cat(parts)


def from_first(value: float, device: torch.device) -> float:
    """The first process's value, so that all decide alike."""
    if processes()[1] == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    dist.broadcast(shared, src=0)
    return float(shared)


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes."""
    _, count = processes()
    if count == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # unused by this process's batch
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= count


def _linear(steps: int, warmup_share: float) -> Callable[[int], float]:
    warmup = max(1, round(steps * warmup_share))

    def factor(step: int) -> float:
        return min((step + 1) / warmup, max(0.0, (steps - step) / max(1, steps - warmup)))

    return factor
