"""The hash functions that the published table-a-feature arm was measured with.

They stand in lilyungg/unified-embeddings: xxHash's 32 bits (Collet, 2012) of "column:value", modulo the rows of the
feature's table. The published seeds share this one draw, which gives both genders rows of their own.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from xxhash import xxh32_intdigest

COLUMNS = {"user": "user_id", "movie": "movie_id"}  # what it calls them


def published_rows(hashes: Tensor, feature: str, texts: Mapping[int, str], rows: int) -> Tensor:
    """int64 [n, 1] in 0..rows - 1 of values, given by our hashes int64 [n] and the text behind each."""
    column = COLUMNS.get(feature, feature)
    return torch.tensor([[xxh32_intdigest(f"{column}:{texts[code]}".encode()) % rows] for code in hashes.tolist()])
