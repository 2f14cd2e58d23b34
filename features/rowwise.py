"""Row-wise Adagrad, for tables too large to update whole in every step.

Source: "row-wise AdaGrad" of DLRM (Naumov et al., 2019, arXiv 1906.00091) and FBGEMM. The running sum adds the mean
square of a row's gradient, so the state is 1 / d of a table's weights.

Shapes: M rows of width d, U distinct rows of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from recsys.features.rows import read_rows, sum_by_row, write_rows


class RowWiseAdagrad(Optimizer):
    """Row-wise Adagrad for matrices with sparse or dense gradients; both give the same weights.

    A row that the batch does not read costs nothing and does not change.

    Parameters
    ----------
    params
        Matrices [M, d].
    lr
        Learning rate.
    eps
        Added to the root of the running sum.
    weight_decay
        L2 penalty on rows that have a gradient, added to the gradient before the sum.
    """

    def __init__(
        self, params: Iterable[Tensor], lr: float = 0.05, *, eps: float = 1e-8, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update the weights once. The gradients are unchanged."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["sum"] = weight.new_zeros(len(weight), dtype=torch.float32)
                if weight.grad.is_sparse:
                    rows, gradient = sum_by_row(weight.grad._indices()[0], weight.grad._values(), len(weight))
                else:
                    rows = weight.grad.any(1).nonzero().squeeze(1)
                    gradient = weight.grad.index_select(0, rows)
                _update(weight, state["sum"], rows, gradient, group)
        return loss


def _update(weight: Tensor, sums: Tensor, rows: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
    """Update the rows [U] of a weight by their gradient [U, d], which may be overwritten."""
    values = read_rows(weight, rows)
    if group["weight_decay"]:
        gradient = gradient.add_(values, alpha=group["weight_decay"])
    square = torch.linalg.vector_norm(gradient, dim=1).square_().div_(weight.shape[1])
    sum_of_row = square.add_(sums.index_select(0, rows))
    sums.scatter_(0, rows, sum_of_row)
    scale = sum_of_row.sqrt_().add_(group["eps"]).reciprocal_()
    write_rows(weight, rows, values.addcmul_(gradient, scale[:, None], value=-group["lr"]))
