"""The k best of some vectors for each query, exactly; ties: higher score first, then lower code.

A search finds, a fixed computation decides. float32 products are added in an order that depends on the machine and on
how many queries come at once, so their last bits, and with them the order of nearly equal items, are not reproducible.
Here `quantised.py`, or `products.py`, compares every query with every item and returns each item that its error bound
cannot exclude; those pairs are scored again by `exact_scores`. So the result equals a brute force over all items, and
does not depend on which users share a batch.

Shapes: b users, k wanted, P pairs, D width, V items (arrays by code have V + 1 rows), M of them that can be found.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Final

import numpy as np
import torch

from recsys.columns import PADDING
from recsys.features.precision import native_bf16, native_int8
from recsys.loops.choice import MANY, loops
from recsys.retrieval.products import Products, keys_of_rows
from recsys.retrieval.quantised import LEAST, Quantised

FEW: Final = 16  # queries and
SMALL: Final = 65_536  # items up to which float32 takes less time: to prepare a product in bf16 costs more
LOOSE: Final = 8  # times as many pairs as wanted, from which on rounded products exclude too few to pay


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
        self._left_out: set[torch.dtype] = set()  # whose bounds exclude too little of these vectors to pay

    @cached_property
    def holds(self) -> np.ndarray:
        """bool [V + 1]: which vectors can be found."""
        inside = np.zeros(len(self.vectors), dtype=bool)
        inside[self.codes] = True
        return inside

    @cached_property
    def places(self) -> np.ndarray:
        """int32 [V + 1]: where among the M a code stands, for those that can be found."""
        found = np.zeros(len(self.vectors), dtype=np.int32)
        found[self.codes] = np.arange(len(self.codes))
        return found

    @cached_property
    def int8_products(self) -> Quantised:
        """The vectors ready for products with queries, in int8."""
        return Quantised.of(self.vectors, self.codes)

    @cached_property
    def products(self) -> Products:
        """The same in bf16 where the processor multiplies it natively."""
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
        hidden = owner * size + self.places[seen - owner * stride]
        wanted = np.arange(len(queries))
        for products in self._ways(len(queries), k):
            left = []
            for start in range(0, len(wanted), products.users):
                users = wanted[start : start + products.users]
                pairs = products.candidates(queries[users], k, keys_of_rows(hidden, users, size), LOOSE * k)
                rows, found = pairs.rows, self.codes[pairs.places]
                values = exact_scores(queries, self.vectors, users[rows], found)
                order, place = loops(len(queries)).first(rows, found, values, len(users), k)
                at = users[rows[order]], place
                codes[at], scores[at] = found[order], values[order]
                left.append(users[pairs.left])
                if 2 * len(pairs.left) > len(users):  # the others will hardly do better
                    left.append(wanted[start + products.users :])
                    if len(users) >= MANY:
                        self._left_out.add(products.rows.dtype)
                    break
            wanted = np.concatenate(left) if left else wanted
            if not len(wanted):
                break
        for row in np.flatnonzero(~queries.any(axis=1)):  # every score is 0: the lowest codes
            own_seen = hidden[slice(*np.searchsorted(owner, [row, row + 1]))] - row * size
            first = np.setdiff1d(np.arange(min(size, k + len(own_seen))), own_seen, assume_unique=True)[:k]
            codes[row, : len(first)], scores[row, : len(first)] = self.codes[first], 0.0
        return codes, scores

    def _ways(self, users: int, k: int) -> Iterator[Products | Quantised]:
        """Products, those that take least time first; the last ones exclude what can be excluded."""
        size = len(self.codes)
        if users > FEW or size > SMALL:
            if native_int8() and size >= LEAST * k and torch.int8 not in self._left_out:
                yield self.int8_products
            if torch.bfloat16 not in self._left_out and not self.products.is_fp32:
                yield self.products
        yield self.fp32_products


def exact_scores(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P] dot products of `queries[rows[p]]` and `vectors[codes[p]]`, the same bits on every machine.

    Products of float32 are exact in float64. They are added in halves, element by element, an order that
    depends on D alone: not on the other pairs, not on the processor. The sum is rounded once.
    """
    found: np.ndarray = loops(len(queries)).exact_dots(queries, vectors, rows, codes)
    return found


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
