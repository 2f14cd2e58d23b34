"""Scores of a block's users for the items that a source knows something of: sparse rows, never users times catalogue.

Shapes: b users of a block, V items (arrays by code have V + 1 entries), P pairs of user and item.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
import torch
from scipy import sparse

from recsys.candidates.base import Block, among, best_keys

DENSE: Final = 8_192  # items up to which a dense array takes less time, as most of it is filled
PRODUCTS_AT_ONCE: Final = 262_144  # float32 products, which stay in the cache


class Scores:
    """Scores of b users.

    Parameters
    ----------
    table
        float32 [b, V + 1]; an item that is not stored has the score 0.
    """

    def __init__(self, table: sparse.csr_array) -> None:
        self.table = table

    def best(self, block: Block, n: int) -> np.ndarray:
        """Ascending keys of the n largest scores above 0 of each user, of allowed items that are not hidden.

        Of equal scores the lowest codes are taken.
        """
        if self._dense is not None:
            return best_keys(block, self._dense, n)
        data, indices, indptr = self.table.data, self.table.indices, self.table.indptr
        if block.allowed is not None:
            data = np.where(block.allowed[indices], data, 0)
        rows = np.arange(len(block) + 1)
        starts = np.searchsorted(block.hidden, rows * block.stride)
        found = []
        for row, (start, stop, hidden) in enumerate(zip(indptr[:-1], indptr[1:], np.diff(starts), strict=True)):
            place = _largest(data[start:stop], n + int(hidden))  # hidden items can be the first ones
            best = data[start:stop][place]
            keys = row * block.stride + indices[start:stop][place].astype(np.int64)
            kept = (best > 0) & ~among(keys, block.hidden[starts[row] : starts[row + 1]])
            best, keys = best[kept], keys[kept]
            found.append(keys if len(keys) <= n else keys[np.lexsort((keys, -best))[:n]])
        return np.sort(np.concatenate(found))

    def at(self, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """float32 [P]: the score of user `rows[p]` for item `codes[p]`; `rows` ascend."""
        if self._dense is not None:
            return self._dense[rows, codes]
        found = np.zeros(len(rows), dtype=np.float32)
        data, indices, indptr = self.table.data, self.table.indices, self.table.indptr
        stored = np.zeros(self.table.shape[1], dtype=np.float32)  # of one user
        bounds = np.searchsorted(rows, np.arange(self.table.shape[0] + 1))
        for row in np.flatnonzero(np.diff(bounds)):
            own = indices[indptr[row] : indptr[row + 1]]
            stored[own] = data[indptr[row] : indptr[row + 1]]
            pairs = slice(bounds[row], bounds[row + 1])
            found[pairs] = stored[codes[pairs]]
            stored[own] = 0
        return found

    @cached_property
    def _dense(self) -> np.ndarray | None:
        # by the catalogue and not by what is stored, so that nobody's list depends on who shares the block
        return self.table.toarray() if self.table.shape[1] <= DENSE else None


def _largest(values: np.ndarray, n: int) -> np.ndarray:
    """Places of the n largest values, and of all that equal the least of them where it is above 0."""
    # one more than n: it shows a tie between the last value inside and the first one outside
    best, place = (part.numpy() for part in torch.from_numpy(values).topk(min(n + 1, len(values))))
    if len(best) > n and best[n - 1] == best[n] > 0:
        return np.flatnonzero(values >= best[n])
    return place[:n]


def pair_products(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P] products of row `rows[p]` of queries [b, D] and row `codes[p]` of vectors [V + 1, D]."""
    found = np.empty(len(rows), dtype=np.float32)
    step = max(1, PRODUCTS_AT_ONCE // queries.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = np.einsum("pd,pd->p", queries[rows[part]], vectors[codes[part]])
    return found
