"""The k best of some vectors for each query, exactly; ties: higher score first, then lower code.

A search finds, a fixed computation decides. float32 products are added in an order that depends on the machine and on
how many queries come at once, so their last bits, and with them the order of nearly equal items, are not reproducible.
Here `products.py` compares every query with every item and returns each item that its error bound cannot exclude; those
pairs are scored again by `exact_scores`. So the result equals a brute force over all items, and does not depend on
which users share a batch.

Shapes: b users, k wanted, P pairs, D width, V items (arrays by code have V + 1 rows), M of them that can be found.
"""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
import torch

from recsys.columns import PADDING
from recsys.features.precision import native_bf16
from recsys.retrieval.products import Products

FEW: Final = 16  # queries and
SMALL: Final = 65_536  # items up to which float32 takes less time: to prepare a product in bf16 costs more
LOOSE: Final = 8  # times as many pairs as wanted, from which on bf16 excludes too few to pay
PRODUCTS_AT_ONCE: Final = 131_072  # float64 products of `exact_scores`, which stay in the cache


class ExactSearch:
    """Vectors that can be searched.

    Parameters
    ----------
    vectors
        float32 [V + 1, D] by code.
    codes
        int64 [M] ascending codes of those that can be found.
    """

    def __init__(self, vectors: np.ndarray, codes: np.ndarray) -> None:
        self.vectors, self.codes = vectors, codes

    @cached_property
    def holds(self) -> np.ndarray:
        """bool [V + 1]: which vectors can be found."""
        inside = np.zeros(len(self.vectors), dtype=bool)
        inside[self.codes] = True
        return inside

    @cached_property
    def products(self) -> Products:
        """The vectors ready for products with queries, in bf16 where the processor multiplies it natively."""
        return Products.of(self.vectors, self.codes, torch.bfloat16) if native_bf16() else self.fp32_products

    @cached_property
    def fp32_products(self) -> Products:
        """The same in float32."""
        return Products.of(self.vectors, self.codes, torch.float32)

    def best(self, queries: np.ndarray, seen: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scores of the k best for each query.

        Parameters
        ----------
        queries
            float32 [b, D], finite.
        seen
            int64 ascending keys `row * (V + 1) + code` of pairs that may not be found; the codes are among the M.

        Returns
        -------
        codes, scores
            int32 [b, k] and float32 [b, k], best first; code 0 and score minus infinity where nothing is left.
        """
        stride, size = len(self.vectors), len(self.codes)
        codes = np.full((len(queries), k), PADDING, dtype=np.int32)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        owner = seen // stride
        hidden = owner * size + np.searchsorted(self.codes, seen % stride)
        small = len(queries) <= FEW and size <= SMALL
        products, start = self.fp32_products if small else self.products, 0
        while start < len(queries):
            part = slice(start, start + products.users)
            own = slice(*np.searchsorted(owner, [part.start, part.stop]))
            most = None if products.is_fp32 else LOOSE * k
            pairs = products.candidates(queries[part], k, hidden[own] - part.start * size, most)
            if pairs is None:
                products = self.fp32_products
                continue
            rows, found = pairs[0] + start, self.codes[pairs[1]]
            values = exact_scores(queries, self.vectors, rows, found)
            order = np.lexsort((-values, rows))  # stable, so that of equal scores the lower code comes first
            place = np.arange(len(rows)) - np.searchsorted(rows, rows)
            kept = place < k
            at, order = (rows[kept], place[kept]), order[kept]
            codes[at], scores[at] = found[order], values[order]
            start = part.stop
        for row in np.flatnonzero(~queries.any(axis=1)):  # every score is 0: the lowest codes
            own_seen = hidden[slice(*np.searchsorted(owner, [row, row + 1]))] - row * size
            first = np.setdiff1d(np.arange(min(size, k + len(own_seen))), own_seen, assume_unique=True)[:k]
            codes[row, : len(first)], scores[row, : len(first)] = self.codes[first], 0.0
        return codes, scores


def exact_scores(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P] dot products of `queries[rows[p]]` and `vectors[codes[p]]`, the same bits on every machine.

    Products of float32 are exact in float64. They are added in halves, element by element, an order that
    depends on D alone: not on the other pairs, not on the processor. The sum is rounded once.
    """
    width = queries.shape[1]
    step = max(1, PRODUCTS_AT_ONCE // width)
    scores = np.empty(len(rows), dtype=np.float32)

    def doubled(side: np.ndarray, places: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(side.take(places, axis=0)).double()  # torch's casts are faster than numpy's

    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        products = doubled(vectors, codes[part])  # [p, D]
        products *= doubled(queries, rows[part])
        left = width
        while left > 1:
            half = (left + 1) // 2
            products[:, : left - half] += products[:, half:left]
            left = half
        scores[part] = products[:, 0].numpy()
    return scores


def best_first(codes: np.ndarray, scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k best of each row [b, m]: score descending, then code ascending; padded with 0 and -inf.

    >>> best_first(np.array([[7, 3, 0, 5]]), np.array([[1.0, 1.0, -np.inf, 2.0]]), 2)
    (array([[5, 3]]), array([[2., 1.]]))
    """
    order = np.lexsort((codes, -scores), axis=1)[:, :k]
    codes, scores = np.take_along_axis(codes, order, axis=1), np.take_along_axis(scores, order, axis=1)
    missing = k - codes.shape[1]
    if missing > 0:
        codes = np.pad(codes, ((0, 0), (0, missing)), constant_values=PADDING)
        scores = np.pad(scores, ((0, 0), (0, missing)), constant_values=-np.inf)
    return codes, scores
