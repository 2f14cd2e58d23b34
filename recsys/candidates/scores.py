"""Scores of a block's users for the items that a source knows something of: sparse rows, never users times catalogue.

Shapes: b users of a block, V items (arrays by code have V + 1 entries), P pairs of user and item.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import sparse

from recsys.candidates.base import Block
from recsys.loops.choice import loops
from recsys.loops.plain import Product


class Scores:
    """Scores of b users: the product of their weights and a table; an item that is not stored has the score 0.

    Parameters
    ----------
    weights
        float32 [b, N].
    table
        float32 [N, V + 1]; None: the weights, [b, V + 1], are the scores.
    """

    def __init__(self, weights: sparse.csr_array, table: sparse.csr_array | None = None) -> None:
        self.weights, self.table = weights, table
        self._loops = loops(weights.shape[0])

    def best(self, block: Block, n: int) -> np.ndarray:
        """Ascending keys of the n largest scores above 0 of each user, of allowed items that are not hidden.

        Of equal scores the lowest codes are taken.
        """
        keys: np.ndarray = self._loops.largest(self._product, block.hidden, block.allowed, n)
        return keys

    def at(self, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """float32 [P]: the score of user `rows[p]` for item `codes[p]`; `rows` ascend."""
        if self.table is None or "_product" in self.__dict__:  # it is there, as `best` was asked before
            found: np.ndarray = self._loops.at(self._product, rows, codes)
        else:
            found = self._loops.product_at(self.weights, self.table, rows, codes)
        return found

    def shared(self, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """float32 [P]: the product of the scores of user `rows[p]` and row `codes[p]` of the table; `rows` ascend."""
        found: np.ndarray = self._loops.shared(self.weights, self.table, rows, codes)
        return found

    @cached_property
    def _product(self) -> Product:
        if self.table is None:
            return Product.of(self.weights)
        product: Product = self._loops.multiply(self.weights, self.table)
        return product


def pair_products(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P] products of row `rows[p]` of queries [b, D] and row `codes[p]` of vectors [V + 1, D]."""
    found: np.ndarray = loops(len(queries)).dots(queries, vectors, rows, codes)
    return found
