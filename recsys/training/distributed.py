"""Several processes that train one model together, each on batches of its own, started by `torchrun`.

Gradients are averaged here and not by torch's DistributedDataParallel: that wants one call of the module a step, in
which every weight takes part, and a Recformer's step calls parts of it as often as a batch has groups of lengths.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn


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


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes."""
    _, count = processes()
    if count == 1:
        return
    for parameter in parameters:
        if parameter.grad is None:  # unused by this process's batch
            parameter.grad = torch.zeros_like(parameter)
        dist.all_reduce(parameter.grad)
        parameter.grad /= count
