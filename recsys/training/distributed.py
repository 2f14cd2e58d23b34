"""Several processes that train one model together and take the same steps.

Either each has batches of its own (`torchrun`), or each works on its `Part` of the rows of every batch.

Gradients are averaged here and not by torch's DistributedDataParallel: that wants one call of the module a step, in
which every weight takes part. A Recformer's step calls parts of it as often as a batch has groups of lengths, and no
call of a sequence model's reads the whole table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from recsys.compute.base import Lost
from recsys.errors import RecsysError
from recsys.features.device import is_accelerator

_Rows = TypeVar("_Rows", np.ndarray, Tensor)

AT_ONCE: Final = 8_000_000  # numbers of one exchange: small gradients go together, and no copy grows beyond it


def processes() -> tuple[int, int]:
    """(rank, how many) of the processes that train together."""
    return (dist.get_rank(), dist.get_world_size()) if dist.is_available() and dist.is_initialized() else (0, 1)


@dataclass(frozen=True)
class Part:
    """Those rows of a batch that one process works on: each `count`-th one, so that long and short histories mix."""

    rank: int
    count: int

    @classmethod
    def own(cls) -> Part | None:
        """Return the part of this process; None: there is no other one."""
        rank, count = processes()
        return None if count == 1 else cls(rank, count)

    def of(self, rows: _Rows) -> _Rows:
        """The part of an array whose first axis is that of the batch; a view."""
        return rows[self.rank :: self.count]


def gather(values: Tensor) -> Tensor:
    """The values of all processes one below the other, in the order of ranks; gradients flow through the own ones."""
    rank, count = processes()
    if count == 1:
        return values
    parts = [torch.empty_like(values) for _ in range(count)]
    with _connected():
        dist.all_gather(parts, values.detach().contiguous())
    parts[rank] = values
    return torch.cat(parts)


def from_first(value: float, device: torch.device) -> float:
    """The first process's value, so that all decide alike."""
    if processes()[1] == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64, device=device)
    with _connected():
        dist.broadcast(shared, src=0)
    return float(shared)


def summed(value: Tensor) -> Tensor:
    """The sum of a value over processes, without a graph."""
    value = value.detach()
    if processes()[1] > 1:
        value = value.clone()
        with _connected():
            dist.all_reduce(value)
    return value


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace each gradient by its mean over processes; one that no process has stays None (on a processor)."""
    _, count = processes()
    if count == 1:
        return
    for some in _groups(parameters):
        used = torch.tensor([parameter.grad is not None for parameter in some], dtype=torch.float32)
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in some]
        # an accelerator would have to be waited for to know which are used
        known = not is_accelerator(some[0].device)
        flat = torch.cat([*[part.flatten() for part in parts], *([used] if known else [])])
        with _connected():
            dist.all_reduce(flat)
        flat /= count
        anywhere = flat[-len(some) :] > 0 if known else torch.ones(len(some), dtype=torch.bool)
        start = 0
        for parameter, part, there in zip(some, parts, anywhere.tolist(), strict=True):
            parameter.grad = part.copy_(flat[start : start + part.numel()].view_as(part)) if there else None
            start += part.numel()


def average_rows(rows: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over processes of the gradients of a table's rows: those that any of them has read.

    Parameters
    ----------
    rows
        int64 [U], distinct and ascending.
    values
        float32 [U, d].
    """
    _, count = processes()
    if count == 1:
        return rows, values
    with _connected():
        sizes = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(count)]
        dist.all_gather(sizes, torch.tensor([len(rows)], device=rows.device))
        most = max(int(size) for size in sizes)
        parts = [rows.new_empty(most) for _ in range(count)]
        dist.all_gather(parts, torch.cat([rows, rows.new_zeros(most - len(rows))]))
    own = [part[: int(size)] for part, size in zip(parts, sizes, strict=True)]
    if any(not torch.equal(part, rows) for part in own):
        every = torch.cat(own).unique()
        values = values.new_zeros(len(every), values.shape[1]).index_copy_(0, torch.searchsorted(every, rows), values)
        rows = every
    values = values.contiguous()
    with _connected():
        for some in values.view(-1).split(AT_ONCE):
            dist.all_reduce(some)
    return rows, values.div_(count)


def check_alike(state: dict[str, Tensor], place: Sequence[int]) -> None:
    """Refuse to go on where the processes do not begin with the same weights, features and place.

    Raises
    ------
    RecsysError
        Says what to do.
    """
    _, count = processes()
    if count == 1:
        return
    digest = hashlib.sha256(repr(list(place)).encode())
    for name, tensor in state.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    device = next(iter(state.values())).device
    mine = torch.tensor(list(digest.digest()), dtype=torch.int64, device=device)
    others = gather(mine[None])
    differ = [str(number) for number, other in enumerate(others) if not torch.equal(other, others[0])]
    if differ:
        raise RecsysError(
            f"Of the {count} processes that train together, number {', '.join(differ)} (from 0) does not begin with "
            "the weights and features of the first; use machines of one kind of processor, which see the same files."
        )


def _groups(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Parameters whose gradients are exchanged together."""
    some: list[nn.Parameter] = []
    for parameter in parameters:
        if some and sum(p.numel() for p in some) + parameter.numel() > AT_ONCE:
            yield some
            some = []
        some.append(parameter)
    if some:
        yield some


@contextmanager
def _connected() -> Iterator[Any]:
    try:
        yield
    except RuntimeError as error:
        raise Lost(f"The processes that train together lost each other: {error}") from error
