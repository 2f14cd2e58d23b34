"""Embedding tables that all features share: in one piece, in shards, or compressed for serving.

Shapes: N values or bags, T values of all bags, C look-ups, M rows, d width of a row.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from recsys.features.rows import SparseRead

Reduction = Literal["mean", "sum"]


class Table(nn.Module):
    """Table of M rows of width d. Row M stands for padding and gives zeros.

    Attributes
    ----------
    rows
        M.
    width
        d.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        if rows < 1 or width < 1:
            raise ValueError(f"a table of {rows} rows of width {width} holds nothing; both must be at least 1")
        self.rows, self.width = rows, width

    @abstractmethod
    def _gather(self, rows: Tensor) -> Tensor:
        """Return [n, d] for [n] rows below M."""

    def _reduce(self, rows: Tensor, offsets: Tensor, reduction: Reduction, weights: Tensor | None) -> Tensor:
        """Pool [T] rows below M in bags to [bags, d]."""
        return reduce_bags(self._gather(rows), offsets, reduction, weights)

    def _has_padding(self, rows: Tensor) -> bool:
        """Return True if row M occurs; raise IndexError for rows beyond it."""
        if not rows.numel():
            return False
        lowest, highest = (int(bound) for bound in rows.aminmax())
        if lowest < 0 or highest > self.rows:
            raise IndexError(f"rows {lowest} to {highest} are looked up in a table of {self.rows}; hash them for it")
        return highest == self.rows

    def gather(self, rows: Tensor) -> Tensor:
        """Return [..., d] for rows int [...] in 0..M. Padding (M) gives zeros and gets no gradient."""
        flat = rows.flatten()
        if not self._has_padding(flat):
            return self._gather(flat).view(*rows.shape, self.width)
        places = (flat != self.rows).nonzero().squeeze(1)
        looked_up = self._gather(flat[places])
        return looked_up.new_zeros(len(flat), self.width).index_copy(0, places, looked_up).view(*rows.shape, self.width)

    def reduce(
        self, rows: Tensor, offsets: Tensor, reduction: Reduction = "mean", weights: Tensor | None = None
    ) -> Tensor:
        """Return the mean or the sum over bags of rows.

        Parameters
        ----------
        rows
            int [T] in 0..M; padding does not count.
        offsets
            int64 [bags + 1]: bag `n` owns `rows[offsets[n]:offsets[n + 1]]`. An empty bag is the zero vector.
        reduction
            "mean" or "sum".
        weights
            float32 [T], only with "sum": factor of each row.

        Returns
        -------
        Tensor
            [bags, d]
        """
        if self._has_padding(rows):
            real = rows != self.rows
            before = functional.pad(real.cumsum(0), (1, 0))
            offsets, rows = before[offsets], rows[real]
            weights = None if weights is None else weights[real]
        return self._reduce(rows, offsets, reduction, weights)

    def single(self, rows: Tensor) -> Tensor:
        """Concatenate the look-ups of single values: int [..., C] rows to [..., C * d]."""
        return self.gather(rows).flatten(-2)

    def pooled(self, rows: Tensor, offsets: Tensor, reduction: Reduction = "mean") -> Tensor:
        """Pool each bag of values: int [T, C] rows and offsets int64 [N + 1] to [N, C * d]."""
        lookups = rows.shape[1]
        starts = len(rows) * torch.arange(lookups, device=offsets.device)[:, None] + offsets[None, :-1]  # [C, N]
        ends = offsets.new_full((1,), rows.numel())
        bags = self.reduce(rows.t().flatten(), torch.cat([starts.flatten(), ends]), reduction)  # [C * N, d]
        return bags.view(lookups, -1, self.width).transpose(0, 1).flatten(1)


class MultiplexedTable(Table):
    """Table in one trained matrix.

    Parameters
    ----------
    rows
        M. It does not depend on any feature's number of values.
    width
        d, the width of one look-up.
    spread
        None: rows start as N(0, 0.02), as transformers do. A number: rows start uniform between minus and plus it; 0.05
        suits click prediction. Replications of the paper report that wide starts cost accuracy.
    sparse
        True: gradients hold only the rows of the batch, for `RowWiseAdagrad` or torch's sparse optimizers, so the
        cost of a step does not depend on M. False suits small tables under an optimizer of the whole model.

    Attributes
    ----------
    weight
        float32 [M, d].
    """

    def __init__(self, rows: int, width: int, *, spread: float | None = None, sparse: bool = False) -> None:
        super().__init__(rows, width)
        self.sparse = sparse
        self.weight = nn.Parameter(torch.empty(rows, width))
        if spread is None:
            nn.init.normal_(self.weight, std=0.02)
        else:
            nn.init.uniform_(self.weight, -spread, spread)

    def _gather(self, rows: Tensor) -> Tensor:
        if not self.sparse:
            return functional.embedding(rows, self.weight)
        vectors: Tensor = SparseRead.apply(self.weight, rows)
        return vectors

    def _reduce(self, rows: Tensor, offsets: Tensor, reduction: Reduction, weights: Tensor | None) -> Tensor:
        if weights is not None and weights.requires_grad:
            return super()._reduce(rows, offsets, reduction, weights)  # torch lacks this gradient for a sparse table
        return functional.embedding_bag(
            rows,
            self.weight,
            offsets,
            mode=reduction,
            sparse=self.sparse,
            per_sample_weights=weights,
            include_last_offset=True,
        )


class ShardedTable(Table):
    """Several tables behind one interface. Shard `s` starts at row `s * ceil(M / S)`.

    Parameters
    ----------
    shards
        S tables of any kind and one width, ceil(M / S) rows each; the last may have fewer.

    Raises
    ------
    ValueError
        The shards do not fit together.
    """

    def __init__(self, shards: list[Table]) -> None:
        super().__init__(sum(shard.rows for shard in shards), shards[0].width)
        self.step = shards[0].rows
        if any(shard.width != self.width for shard in shards):
            raise ValueError(f"shards are of widths {[shard.width for shard in shards]}; they must be equal")
        if any(shard.rows != self.step for shard in shards[:-1]) or shards[-1].rows > self.step:
            raise ValueError(
                f"shards are of {[shard.rows for shard in shards]} rows; all must be equal, the last may be smaller"
            )
        self.shards = nn.ModuleList(shards)

    @classmethod
    def of(
        cls, rows: int, width: int, shards: int, *, spread: float | None = None, sparse: bool = False
    ) -> ShardedTable:
        """Create M fresh rows in S tables."""
        step = -(-rows // shards)
        sizes = [min(step, rows - start) for start in range(0, rows, step)]
        return cls([MultiplexedTable(size, width, spread=spread, sparse=sparse) for size in sizes])

    def _gather(self, rows: Tensor) -> Tensor:
        owner = rows // self.step
        order = owner.argsort()
        parts = rows[order].split(torch.bincount(owner, minlength=len(self.shards)).tolist())
        vectors = []
        for place, (shard, part) in enumerate(zip(self.shards, parts, strict=True)):
            assert isinstance(shard, Table)
            vectors.append(shard.gather(part - place * self.step))
        return torch.cat(vectors)[order.argsort()]


def reduce_bags(vectors: Tensor, offsets: Tensor, reduction: Reduction, weights: Tensor | None = None) -> Tensor:
    """Return the mean or the weighted sum over bags of vectors: [T, d] and offsets [bags + 1] to [bags, d]."""
    every = torch.arange(len(vectors), device=vectors.device)
    return functional.embedding_bag(
        every, vectors, offsets, mode=reduction, per_sample_weights=weights, include_last_offset=True
    )
