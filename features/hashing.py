"""Hashing of values to rows of a table: 64 bits once, at ingest, then salted mixing on the device.

Every value becomes the first eight bytes of BLAKE2b over its text, on every machine and in every version. A look-up
mixes those bits with a salt of (feature, look-up) and takes the row modulo the table's size. There is no vocabulary, so
an unseen value has rows too.

Source: "Unified Embedding: Battle-Tested Feature Representations for Web-Scale ML Systems", 2023, arXiv 2305.12102,
section 4. The mixing is the finaliser of splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number
generators", 2014).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import torch
from torch import Tensor

from recsys.features.declaration import MAX_LOOKUPS

MISSING: Final = "\x00missing"  # absent values share a hash of their own
HASHING: Final = "BLAKE2b-64 of the value's text, splitmix64 of it and the salt, modulo rows"  # as a bundle declares it
PADDING: Final = 0  # the hash of padding: its vector is zero and never learns
_POSITIVE: Final = 0x7FFF_FFFF_FFFF_FFFF


def hash_values(values: Iterable[str | int | None]) -> np.ndarray:
    """Return int64 [N]: the first eight bytes of BLAKE2b over each value's UTF-8 text, little endian.

    The function loops over Python objects, so hash distinct values and gather. None hashes as the missing value.
    No value hashes to `PADDING`.
    """
    digests = b"".join(
        hashlib.blake2b((MISSING if value is None else str(value)).encode(), digest_size=8).digest() for value in values
    )
    hashes = np.frombuffer(digests, dtype="<i8").astype(np.int64)
    hashes[hashes == PADDING] = 1
    return hashes


def cross_hashes(parts: Sequence[Tensor]) -> Tensor:
    """Hash combinations of several features' values. The order of the parts counts.

    Parameters
    ----------
    parts
        int64 tensors of one shape. A combination with a padding part is padding.
    """
    crossed = torch.zeros_like(parts[0])
    for part in parts:
        crossed = mix(crossed * 3 + part)  # the factor makes (a, b) differ from (b, a)
    crossed.masked_fill_(crossed == PADDING, 1)
    padding = torch.stack([part == PADDING for part in parts]).any(0)
    return crossed.masked_fill_(padding, PADDING)


def salts(feature: str, lookups: int) -> Tensor:
    """Return int64 [C]: a different salt for each look-up of each feature.

    Raises
    ------
    ValueError
        `lookups` is not 1 to 8; the message names the feature.
    """
    if not 1 <= lookups <= MAX_LOOKUPS:
        raise ValueError(f"feature {feature!r} asks for {lookups} look-ups; allowed are 1 to {MAX_LOOKUPS}")
    return torch.from_numpy(hash_values(f"{feature}\x00{lookup}" for lookup in range(lookups)))


def salted_rows(hashes: Tensor, salts: Tensor, rows: int) -> Tensor:
    """Return the rows of hashes under broadcastable salts: 0..rows - 1, and `rows` for padding."""
    mixed = mix(hashes ^ salts).bitwise_and_(_POSITIVE).fmod_(rows)
    padding = hashes == PADDING
    return torch.where(padding, rows, mixed) if padding.any() else mixed


def lookup_rows(hashes: Tensor, feature: str, lookups: int, rows: int) -> Tensor:
    """Return the rows that values of a feature read in a table.

    Parameters
    ----------
    hashes
        int64 [...], from `hash_values`.
    feature
        The feature's name. It salts the hash, together with the look-up's number.
    lookups
        C, 1 to 8.
    rows
        Size of the table, M.

    Returns
    -------
    Tensor
        int64 [..., C] in 0..M-1; M, the table's zero row, where the hash is `PADDING`.

    Raises
    ------
    ValueError
        `lookups` or `rows` is out of range; the message names the feature.
    """
    salt = salts(feature, lookups)
    if rows < 1:
        raise ValueError(f"feature {feature!r} looks up a table of {rows} rows; it needs at least one")
    return salted_rows(hashes[..., None], salt.to(hashes.device), rows)


def mix(bits: Tensor) -> Tensor:
    """Apply the finaliser of splitmix64 to int64 [...]: every output bit depends on every input bit."""
    bits = (bits ^ _shift_right(bits, 30)).mul_(-0x40A7_B892_E31B_1A47)
    bits = bits.bitwise_xor_(_shift_right(bits, 27)).mul_(-0x6B2F_B644_ECCE_EE15)
    return bits.bitwise_xor_(_shift_right(bits, 31))


def _shift_right(bits: Tensor, places: int) -> Tensor:
    """Shift int64 logically; torch's own shift keeps the sign."""
    return (bits >> places).bitwise_and_((1 << (64 - places)) - 1)
