"""Learning of a large table by the rows that a step reads: no step touches the others.

Update: "row-wise AdaGrad" of DLRM (Naumov et al., 2019, arXiv 1906.00091); the running sum adds the mean square of a
row's gradient, so the state is 1 / d of the weights. Decay of the weights and their moving average are those of a step
that touches every row, made up for when a row is read next: both are products of factors that the steps' numbers fix.

Shapes: M rows of width d, U distinct rows that a step read.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from recsys.features.rows import read_rows, sum_by_row, write_rows
from recsys.training.distributed import average_rows, processes

ROWS_AT_ONCE: Final = 65_536  # when all rows are brought up to date


class Factors:
    """Products of a factor a step, from any step to any other, as differences of sums of logarithms."""

    def __init__(self) -> None:
        self._sums = np.zeros(1024)
        self.steps = 0

    def append(self, factor: float) -> None:
        """Take in the next step's factor, above 0."""
        self.steps += 1
        if self.steps == len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros(len(self._sums))])
        self._sums[self.steps] = self._sums[self.steps - 1] + np.log(factor)

    def between(self, after: Tensor, to: int) -> Tensor:
        """float32 [U, 1]: products of the factors of the steps `after` + 1 to `to`, of int32 [U] steps."""
        sums = self._sums[after.cpu().numpy()]
        return torch.from_numpy(np.exp(self._sums[to] - sums).astype(np.float32))[:, None].to(after.device)

    def state(self) -> Tensor:
        """Return what `restore` takes."""
        return torch.from_numpy(self._sums[: self.steps + 1].copy())

    def restore(self, state: Tensor) -> None:
        """Take over what `state` gave."""
        self.steps = len(state) - 1
        self._sums = np.concatenate([state.numpy(), np.zeros(1024)])


class RowLearner:
    """Weights [M, d] or [M] whose gradients are sparse, with the state of their learning.

    Parameters
    ----------
    weight
        Changed in place by `step` and `settle`.
    rate
        Of a row's first step, in learning rates of the model's other weights.
    decayed
        Whether the weights decay.
    averaged
        Whether a moving average is kept, which takes as much memory as the weights.
    """

    def __init__(self, weight: nn.Parameter, *, rate: float, decayed: bool, averaged: bool) -> None:
        self.weight, self.rate, self.decayed = weight, rate, decayed
        self.sums = torch.zeros(len(weight), device=weight.device)
        self.settled = torch.zeros(len(weight), dtype=torch.int32, device=weight.device)  # the step a row is as of
        self.shadow: Tensor | None = self._matrix.clone() if averaged else None
        self.decay, self.kept = Factors(), Factors()
        self._rows: Tensor | None = None
        self._gradient: Tensor | None = None

    @property
    def _matrix(self) -> Tensor:
        """The weights as [M, d]."""
        return self.weight.detach().view(len(self.weight), -1)

    def gradient(self) -> Tensor | None:
        """The sum of each read row's gradients, [U, d], averaged over processes; None: nothing was read."""
        given = self.weight.grad
        if given is not None:
            values = given._values().reshape(given._values().shape[0], -1)
            self._rows, self._gradient = sum_by_row(given._indices()[0], values, len(self.weight))
        if processes()[1] > 1:
            if self._rows is None or self._gradient is None:  # the others may have read some
                self._rows = torch.zeros(0, dtype=torch.int64, device=self.weight.device)
                self._gradient = self._matrix[:0].clone()
            self._rows, self._gradient = average_rows(self._rows, self._gradient)
        return self._gradient

    def step(self, learning_rate: float, weight_decay: float, keep: float) -> None:
        """Learn from the gradient, which `gradient` gave and somebody may have scaled; forget it.

        `keep` is the share of the moving average that stays.
        """
        self.decay.append(1 - learning_rate * weight_decay * self.decayed)
        self.kept.append(max(keep, 1e-30))
        rows, gradient, self._rows, self._gradient = self._rows, self._gradient, None, None
        self.weight.grad = None
        if rows is None or gradient is None or not len(rows):
            return
        now = self.decay.steps
        settled = self.settled.index_select(0, rows)
        values = read_rows(self._matrix, rows)
        shadow = None if self.shadow is None else read_rows(self.shadow, rows)
        if shadow is not None:
            shadow = torch.lerp(values, shadow, self.kept.between(settled, now - 1))
        if self.decayed:
            values *= self.decay.between(settled, now)
        sums = self.sums.index_select(0, rows) + gradient.square().mean(1)
        self.sums.index_copy_(0, rows, sums)
        scale = sums.sqrt().add_(1e-12).reciprocal_().mul_(learning_rate * self.rate)
        values -= gradient * scale[:, None]
        write_rows(self._matrix, rows, values)
        if shadow is not None and self.shadow is not None:
            write_rows(self.shadow, rows, torch.lerp(values, shadow, keep))
        self.settled.index_fill_(0, rows, now)

    def settle(self) -> None:
        """Bring every row and its average up to date, some at a time."""
        now = self.decay.steps
        for start in range(0, len(self.weight), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            settled, values = self.settled[part], self._matrix[part]
            if self.shadow is not None:
                shadow = self.shadow[part]
                shadow.copy_(torch.lerp(values, shadow, self.kept.between(settled, now)))
            if self.decayed:
                values *= self.decay.between(settled, now)
            settled.fill_(now)

    def exchange(self) -> None:
        """Swap the weights and their average, some rows at a time; both must be settled."""
        if self.shadow is None:
            return
        for start in range(0, len(self.weight), ROWS_AT_ONCE):
            part = slice(start, start + ROWS_AT_ONCE)
            values, shadow = self._matrix[part], self.shadow[part]
            kept = values.clone()
            values.copy_(shadow)
            shadow.copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on besides the weights; the tensors are not copies."""
        return {
            "sums": self.sums,
            "settled": self.settled,
            "shadow": self.shadow,
            "decay": self.decay.state(),
            "kept": self.kept.state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.sums.copy_(state["sums"])
        self.settled.copy_(state["settled"])
        if self.shadow is not None:
            self.shadow.copy_(state["shadow"])
        self.decay.restore(state["decay"])
        self.kept.restore(state["kept"])
