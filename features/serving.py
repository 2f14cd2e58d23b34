"""Compressed tables for serving: a trained table in half or a quarter of the bytes.

Shapes: M rows, d width of a row.
"""

from __future__ import annotations

from typing import Final, Literal, Self

import torch
from torch import Tensor

from recsys.features.tables import MultiplexedTable, Table

Storage = Literal["bf16", "int8"]
_LEVELS: Final = 127  # of int8 on either side of zero


class ServingTable(Table):
    """Table in bf16, or in int8 with one scale a row. Look-ups give float32 [..., d].

    For a weight `w` in a row whose largest weight is `m`, the error is at most |w| / 256 in bf16 and |m| / 254 (half a
    step) in int8, up to rounding of the last float32 bit.

    Attributes
    ----------
    codes
        bf16 or int8 [M, d].
    scales
        float32 [M] for int8; empty for bf16.
    """

    codes: Tensor
    scales: Tensor

    def __init__(self, codes: Tensor, scales: Tensor) -> None:
        super().__init__(*codes.shape)
        self.register_buffer("codes", codes)
        self.register_buffer("scales", scales)

    @classmethod
    @torch.no_grad()
    def of(cls, table: MultiplexedTable, storage: Storage) -> Self:
        """Compress a trained table.

        Raises
        ------
        ValueError
            `storage` is neither "bf16" nor "int8", or a weight is not finite.
        """
        weight = table.weight.float()
        if not bool(weight.isfinite().all()):
            raise ValueError("the table holds weights that are no numbers; train it anew with a lower learning rate")
        if storage == "bf16":
            return cls(weight.to(torch.bfloat16), weight.new_zeros(0))
        if storage != "int8":
            raise ValueError(f"a table cannot be stored as {storage!r}; choose bf16 or int8")
        scales = weight.abs().amax(1) / _LEVELS
        safe = torch.where(scales > 0, scales, 1.0)
        return cls((weight / safe[:, None]).round_().to(torch.int8), scales)

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.codes.nbytes + self.scales.nbytes

    def _gather(self, rows: Tensor) -> Tensor:
        vectors = self.codes.index_select(0, rows).float()
        return vectors.mul_(self.scales.index_select(0, rows)[:, None]) if len(self.scales) else vectors
