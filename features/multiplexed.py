"""Feature multiplexing: one embedding table under all categorical features.

Every value is reduced once to 64 bits by a published hash (BLAKE2b of its text), the same on every machine. A look-up
mixes those bits with a salt of (feature, look-up) and takes the row modulo the table's size. A feature's vector is the
concatenation of its look-ups, so its width is their number times the table's; nothing else is configured per feature.
Two values of one feature that meet in a row cannot be told apart there, so a feature that is also an output (item ids)
needs two look-ups or more. There is no vocabulary: a value never seen has rows, too.

Source: "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML Systems", 2023, arXiv 2305.12102.

Shapes: N values or bags, C look-ups, M rows, d width of a row.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_LOOKUPS = 8
MISSING = "\x00missing"  # an absent value is a value of its own


def hash_values(values: Iterable[str | int | None]) -> np.ndarray:
    """int64 [N]: each value's 64 bits, the first eight bytes of BLAKE2b over its UTF-8 text, little endian.

    Hash distinct values and gather; the function is a loop over Python objects. None hashes as the missing value.
    """
    digests = b"".join(
        hashlib.blake2b((MISSING if value is None else str(value)).encode(), digest_size=8).digest() for value in values
    )
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def lookup_rows(hashes: Tensor, feature: str, lookups: int, rows: int) -> Tensor:
    """Rows that values of a feature occupy in a table.

    Parameters
    ----------
    hashes
        int64 [N], from `hash_values`.
    feature
        The feature's name; with the look-up's number it salts the hash.
    lookups
        1 to 8.
    rows
        Size of the table, M.

    Returns
    -------
    Tensor
        int64 [N, C] in 0..M-1.

    Raises
    ------
    ValueError
        `lookups` or `rows` out of range; names the feature.
    """
    if not 1 <= lookups <= MAX_LOOKUPS:
        raise ValueError(f"feature {feature!r} asks for {lookups} look-ups; allowed are 1 to {MAX_LOOKUPS}")
    if rows < 1:
        raise ValueError(f"feature {feature!r} looks up a table of {rows} rows; it needs at least one")
    salts = torch.from_numpy(hash_values(f"{feature}\x00{lookup}" for lookup in range(lookups)))  # [C]
    mixed = _mix(hashes[:, None] ^ salts[None, :].to(hashes.device))  # [N, C]
    return torch.bitwise_and(mixed, 0x7FFF_FFFF_FFFF_FFFF) % rows


def _mix(bits: Tensor) -> Tensor:
    """The finaliser of splitmix64 (Steele, Lea, Flood 2014): every output bit depends on every input bit."""
    bits = (bits ^ _shift_right(bits, 30)) * -0x40A7_B892_E31B_1A47
    bits = (bits ^ _shift_right(bits, 27)) * -0x6B2F_B644_ECCE_EE15
    return bits ^ _shift_right(bits, 31)


def _shift_right(bits: Tensor, places: int) -> Tensor:
    """Logical shift of int64: torch's own keeps the sign."""
    return torch.bitwise_and(bits >> places, (1 << (64 - places)) - 1)


class MultiplexedTable(nn.Module):
    """One table of `rows` x `width` for every feature.

    Parameters
    ----------
    rows
        M. Independent of any feature's number of values.
    width
        d, the width of one look-up.

    Notes
    -----
    Rows start as N(0, 0.02); replications of the paper report that wide starts cost accuracy.
    """

    def __init__(self, rows: int, width: int) -> None:
        super().__init__()
        self.rows, self.width = rows, width
        self.weight = nn.Parameter(torch.empty(rows, width))
        nn.init.normal_(self.weight, std=0.02)

    def single(self, rows: Tensor) -> Tensor:
        """Vectors of single values: int64 [N, C] rows to [N, C * d]."""
        return functional.embedding(rows, self.weight).flatten(1)

    def pooled(self, rows: Tensor, offsets: Tensor) -> Tensor:
        """Mean over each bag of values: int64 [T, C] rows, bag `n` owns `rows[offsets[n]:offsets[n + 1]]`.

        Parameters
        ----------
        offsets
            int64 [N + 1]. An empty bag is the zero vector.

        Returns
        -------
        Tensor
            [N, C * d]
        """
        looked_up = [
            functional.embedding_bag(column.contiguous(), self.weight, offsets[:-1], mode="mean")
            for column in rows.unbind(1)
        ]
        return torch.cat(looked_up, dim=1)
