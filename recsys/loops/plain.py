"""The inner loops of the blend, by numpy and scipy: what they compute, and the way for a few users.

`compiled.py` holds the same functions compiled; `choice.py` says who takes which.

Shapes: b users of a block, V items (tables by code have V + 1 columns), P pairs of user and item, F features, C context
values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from scipy import sparse

LANES: Final = 16  # sums of a product of two vectors that grow side by side; each takes every 16th entry
PRODUCTS_AT_ONCE: Final = 262_144  # float32 products, which stay in the cache
EXACT_AT_ONCE: Final = 65_536  # the same of float64


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Product:
    """Sparse scores of b users for items; what is not stored is 0.

    Attributes
    ----------
    indptr, indices, data
        int64 [b + 1], int32 and float32: the columns of a row stand in any order, each once.
    width
        V + 1.
    """

    indptr: np.ndarray
    indices: np.ndarray
    data: np.ndarray
    width: int

    @classmethod
    def of(cls, table: sparse.csr_array) -> Product:
        """Take a table as it is."""
        return cls(
            indptr=table.indptr.astype(np.int64, copy=False),
            indices=table.indices.astype(np.int32, copy=False),
            data=table.data,
            width=table.shape[1],
        )


def multiply(weights: sparse.csr_array, table: sparse.csr_array) -> Product:
    """The product of weights float32 [b, N] and a table float32 [N, V + 1], added in the order of the weights."""
    return Product.of(weights @ table)


def largest(product: Product, hidden: np.ndarray, allowed: np.ndarray | None, n: int) -> np.ndarray:
    """Ascending int64 keys `row * width + code` of the n largest scores above 0 of each row.

    Of equal scores the lowest codes are taken.

    Parameters
    ----------
    hidden
        int64 ascending keys that are left out.
    allowed
        bool [V + 1] of codes that are not left out; None: all.
    """
    data, indices, indptr = product.data, product.indices, product.indptr
    if allowed is not None:
        data = np.where(allowed[indices], data, 0)
    starts = np.searchsorted(hidden, np.arange(len(indptr)) * product.width)
    found = [hidden[:0]]
    for row, (start, stop, out) in enumerate(zip(indptr[:-1], indptr[1:], np.diff(starts), strict=True)):
        place = _candidates(data[start:stop], n + int(out))  # hidden items can be the first ones
        best = data[start:stop][place]
        keys = row * product.width + indices[start:stop][place].astype(np.int64)
        kept = (best > 0) & ~np.isin(keys, hidden[starts[row] : starts[row + 1]])
        best, keys = best[kept], keys[kept]
        found.append(keys if len(keys) <= n else keys[np.lexsort((keys, -best))[:n]])
    return np.sort(np.concatenate(found))


def at(product: Product, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P]: the score of user `rows[p]` for item `codes[p]`; `rows` ascend."""
    found = np.zeros(len(rows), dtype=np.float32)
    data, indices, indptr = product.data, product.indices, product.indptr
    stored = np.zeros(product.width, dtype=np.float32)  # of one user
    bounds = np.searchsorted(rows, np.arange(len(indptr)))
    for row in np.flatnonzero(np.diff(bounds)):
        own = indices[indptr[row] : indptr[row + 1]]
        stored[own] = data[indptr[row] : indptr[row + 1]]
        pairs = slice(bounds[row], bounds[row + 1])
        found[pairs] = stored[codes[pairs]]
        stored[own] = 0
    return found


def product_at(weights: sparse.csr_array, table: sparse.csr_array, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`at` of `multiply`, where nothing else is asked of the product."""
    return at(multiply(weights, table), rows, codes)


def shared(weights: sparse.csr_array, table: sparse.csr_array, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P]: the product of row `rows[p]` of weights @ table and row `codes[p]` of the table [N, W] itself."""
    theirs = table[codes]  # [P, W]
    owner = np.repeat(np.arange(len(rows)), np.diff(theirs.indptr))
    product = product_at(weights, table, rows[owner], theirs.indices) * theirs.data
    return np.bincount(owner, weights=product, minlength=len(rows)).astype(np.float32)


def dots(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P] products of row `rows[p]` of queries [b, D] and row `codes[p]` of vectors [V + 1, D].

    Each of 16 sums takes every 16th product; then they are added in halves. So the order of additions depends on D
    alone.
    """
    width = queries.shape[1]
    found = np.empty(len(rows), dtype=np.float32)
    step = max(1, PRODUCTS_AT_ONCE // max(width, 1))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        products = queries[rows[part]] * vectors[codes[part]]  # [p, D]
        lanes = np.zeros((len(products), LANES), dtype=np.float32)
        for column in range(0, width, LANES):
            own = products[:, column : column + LANES]
            lanes[:, : own.shape[1]] += own
        left = LANES // 2
        while left:
            lanes[:, :left] += lanes[:, left : 2 * left]
            left //= 2
        found[part] = lanes[:, 0]
    return found


def exact_dots(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """`dots` in float64, where products of float32 are exact, added in halves and rounded once."""
    width = queries.shape[1]
    step = max(1, EXACT_AT_ONCE // max(width, 1))
    found = np.zeros(len(rows), dtype=np.float32)
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        products = queries[rows[part]].astype(np.float64)  # [p, D]
        products *= vectors[codes[part]]
        left = width
        while left > 1:
            half = (left + 1) // 2
            products[:, : left - half] += products[:, half:left]
            left = half
        found[part] = products[:, 0]
    return found


def first(rows: np.ndarray, codes: np.ndarray, values: np.ndarray, users: int, k: int) -> tuple[np.ndarray, ...]:
    """The k pairs of each row with the largest values, best first; of equal values the lower code is first.

    Parameters
    ----------
    rows, codes, values
        int64, int64 and float32 [P], ascending by (row, code).
    users
        b.

    Returns
    -------
    order, place
        int64: which pairs, row by row, and the place of each in its row's list.
    """
    order = np.lexsort((codes, -values, rows))
    counts = np.bincount(rows, minlength=users)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    return order[place < k], place[place < k]


def quadratic(
    features: np.ndarray,
    context: np.ndarray,
    standard: tuple[np.ndarray, np.ndarray, float],
    weights: Sequence[np.ndarray],
) -> np.ndarray:
    """float32 [P]: w · z + z' A z + c' B z of standardised features z and context c, added feature by feature.

    Parameters
    ----------
    features, context
        float32 [P, F] and [P, C].
    standard
        Mean and inverse of the scale, float64 [F + C], and the limit at which z is cut.
    weights
        float64 w [F], A [F, F] upper triangular, B [C, F].
    """
    mean, inverse, limit = standard
    alone, pairs, given = weights
    F, C = features.shape[1], context.shape[1]
    z = [np.clip((features[:, one] - mean[one]) * inverse[one], -limit, limit) for one in range(F)]
    c = [(context[:, one] - mean[F + one]) * inverse[F + one] for one in range(C)]
    total = np.zeros(len(features))
    for one in range(F):
        slope = np.full(len(features), alone[one])
        for other in range(C):
            slope += c[other] * given[other, one]
        for other in range(one + 1):
            slope += z[other] * pairs[other, one]
        total += slope * z[one]
    return total.astype(np.float32)


def fault(keys: np.ndarray, hidden: np.ndarray, allowed: np.ndarray | None, width: int, users: int) -> int:
    """Return what is wrong with proposed keys `row * width + code`, int64 [P]; 0: nothing.

    1: they do not ascend, or belong to no user. 2: a code is 0, which is no item. 3: one is hidden or not allowed.
    """
    if len(keys) and (keys[0] < 0 or keys[-1] >= users * width or (np.diff(keys) <= 0).any()):
        return 1
    codes = keys % width
    if (codes == 0).any():
        return 2
    place = np.searchsorted(hidden, keys)
    place[place == len(hidden)] = 0
    found = len(hidden) > 0 and (hidden[place] == keys).any()
    return 3 if found or (allowed is not None and not allowed[codes].all()) else 0


def _candidates(values: np.ndarray, n: int) -> np.ndarray:
    """Places of the n largest values, and of all that equal the least of them where it is above 0."""
    # one more than n: it shows a tie between the last value inside and the first one outside
    best, place = (part.numpy() for part in torch.from_numpy(values).topk(min(n + 1, len(values))))
    if len(best) > n and n and best[n - 1] == best[n] > 0:
        return np.flatnonzero(values >= best[n])
    return place[:n]
