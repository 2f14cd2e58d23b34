"""Row operations for large embedding tables: read, write and sum rows of a matrix.

On a CPU, torch's indexing walks over the rows once a column, or adds them one by one. NumPy copies each row in one
piece when it treats a row as one value. Sums take one sort and one embedding bag. Both are several times faster, and
rows that are not requested cost nothing. Other devices use torch's operations.

Shapes: M rows of width d, n requested rows, U distinct ones among them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def read_rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Return `matrix[rows]` [n, d] without a gradient, for int [n] in 0..M-1. The range is not checked."""
    if not _plain(matrix):
        return matrix.detach().index_select(0, rows)
    taken = matrix.new_empty(len(rows), matrix.shape[1])
    # mode wrap: with range checks NumPy copies through a buffer
    _as_values(matrix).take(rows.numpy(), out=_as_values(taken), mode="wrap")
    return taken


def write_rows(matrix: Tensor, rows: Tensor, values: Tensor) -> None:
    """Assign `matrix[rows] = values` for distinct rows int64 [U] and values [U, d]."""
    if _plain(matrix) and _plain(values):
        _as_values(matrix).put(rows.numpy(), _as_values(values))
    else:
        matrix.detach().index_copy_(0, rows, values)


def sum_by_row(rows: Tensor, values: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Return the distinct rows, ascending, and the sum of each row's values.

    Parameters
    ----------
    rows
        int64 [n] below `count`.
    values
        [n, d].

    Returns
    -------
    Tensor
        int64 [U]
    Tensor
        [U, d]
    """
    if not len(rows):
        return rows, values
    narrow = rows.int() if count < 2**31 else rows  # half the bytes sort faster
    ordered, order = narrow.sort()
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    summed = functional.embedding_bag(order, values.contiguous(), counts.cumsum(0) - counts, mode="sum")
    return distinct.long(), summed


class SparseRead(torch.autograd.Function):
    """`read_rows` with a sparse gradient over the rows that were read; duplicates are not summed.

    Of a vector [M] it reads numbers.
    """

    @staticmethod
    def forward(ctx: Any, matrix: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(rows)
        ctx.shape = matrix.shape
        return matrix.detach().index_select(0, rows) if matrix.ndim == 1 else read_rows(matrix, rows)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rows,) = ctx.saved_tensors
        return torch.sparse_coo_tensor(rows.long()[None], gradients[0], ctx.shape, check_invariants=False), None


def _plain(matrix: Tensor) -> bool:
    return matrix.device.type == "cpu" and matrix.is_contiguous() and bool(matrix.numel())


def _as_values(matrix: Tensor) -> np.ndarray:
    """View a matrix as one NumPy value a row, [M], on the same memory."""
    row = np.dtype((np.void, matrix.element_size() * matrix.shape[1]))
    return matrix.detach().view(torch.uint8).numpy().view(row).reshape(-1)
