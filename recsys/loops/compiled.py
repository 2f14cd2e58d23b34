"""The inner loops of the blend, compiled: the functions of `plain.py`, with the same results to the last bit.

They add in the same order as `plain.py` does, and never fuse a product with a sum. Hot loops count without a sign:
numba asks of each signed place whether it counts from the end, and that takes as long as the sum. To import this module
takes as long as numba's import, and once on a machine the time to compile; see `choice.py`.

Shapes: b users of a block, V items (tables by code have V + 1 columns), P pairs of user and item, F features, C context
values.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import numpy as np
from numba import boolean, float32, float64, int32, int64, njit, types, uint64, void
from scipy import sparse

from recsys.loops.plain import LANES, Product
from recsys.loops.prefetch import AHEAD, LINE, prefetch

_PLACES: Final = threading.local()  # of each thread: arrays that are used again and again

_F4, _F8 = (types.Array(kind, 1, "C", readonly=True) for kind in (float32, float64))
_I4, _I8, _B1 = (types.Array(kind, 1, "C", readonly=True) for kind in (int32, int64, boolean))
_F42, _F82 = (types.Array(kind, 2, "C", readonly=True) for kind in (float32, float64))
_TABLES: Final = ((_I4, _I4), (_I8, _I8))  # row bounds and columns, as scipy makes them


def _compiled(*signatures: Any) -> Callable[[Callable[..., Any]], Any]:
    """Compile for these arguments, and keep the code on disk where a folder beside this file or of the user is open."""

    def of(function: Callable[..., Any]) -> Any:
        try:
            return njit(list(signatures), cache=True, nogil=True)(function)
        except RuntimeError:  # no such folder
            return njit(list(signatures), nogil=True)(function)

    return of


def multiply(weights: sparse.csr_array, table: sparse.csr_array) -> Product:
    """See `plain.multiply`."""
    bounds, rows = weights.indptr.astype(np.int64, copy=False), weights.indices.astype(np.int64, copy=False)
    sizes = np.empty(len(bounds) - 1, dtype=np.int64)
    _sizes(bounds, rows, table.indptr, sizes)
    sums = _zeros(table.shape[1])
    touched = _empty(int(sizes.max(initial=0)) + 1)
    room = int(np.minimum(sizes, table.shape[1]).sum()) + 1
    found = np.empty(len(bounds), dtype=np.int64), np.empty(room, dtype=np.int32), np.empty(room, dtype=np.float32)
    _multiply(bounds, rows, weights.data, table.indptr, table.indices, table.data, sums, touched, *found)
    return Product(indptr=found[0], indices=found[1], data=found[2], width=table.shape[1])


def largest(product: Product, hidden: np.ndarray, allowed: np.ndarray | None, n: int) -> np.ndarray:
    """See `plain.largest`."""
    users = len(product.indptr) - 1
    keys = np.empty(users * n, dtype=np.int64)
    starts = np.searchsorted(hidden, np.arange(users + 1) * product.width)
    every = np.empty(0, dtype=bool) if allowed is None else allowed
    count = _largest(product.indptr, product.indices, product.data, product.width, hidden, starts, every, n, keys)
    return keys[:count]


def at(product: Product, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """See `plain.at`."""
    found = np.empty(len(rows), dtype=np.float32)
    bounds = np.searchsorted(rows, np.arange(len(product.indptr)))
    _at(product.indptr, product.indices, product.data, bounds, codes, _zeros(product.width), found)
    return found


def product_at(weights: sparse.csr_array, table: sparse.csr_array, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """See `plain.product_at`."""
    found = np.empty(len(rows), dtype=np.float32)
    bounds = np.searchsorted(rows, np.arange(weights.shape[0] + 1))
    own = weights.indptr.astype(np.int64, copy=False), weights.indices.astype(np.int64, copy=False), weights.data
    sums = _zeros(table.shape[1])
    _product_at(*own, table.indptr, table.indices, table.data, bounds, codes, sums, found)
    return found


def shared(weights: sparse.csr_array, table: sparse.csr_array, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """See `plain.shared`."""
    found = np.empty(len(rows), dtype=np.float32)
    bounds = np.searchsorted(rows, np.arange(weights.shape[0] + 1))
    own = weights.indptr.astype(np.int64, copy=False), weights.indices.astype(np.int64, copy=False), weights.data
    sums = _zeros(table.shape[1])
    _shared(*own, table.indptr, table.indices, table.data, bounds, codes, sums, found)
    return found


def dots(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """See `plain.dots`."""
    found = np.empty(len(rows), dtype=np.float32)
    _dots(np.require(queries, np.float32, "C"), np.require(vectors, np.float32, "C"), rows, codes, found)
    return found


def exact_dots(queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """See `plain.exact_dots`."""
    found = np.empty(len(rows), dtype=np.float32)
    own = np.require(queries, np.float32, "C"), np.require(vectors, np.float32, "C")
    _exact_dots(*own, np.require(rows, np.int64), np.require(codes, np.int64), found)
    return found


def first(rows: np.ndarray, codes: np.ndarray, values: np.ndarray, users: int, k: int) -> tuple[np.ndarray, ...]:
    """See `plain.first`."""
    bounds = np.searchsorted(rows, np.arange(users + 1))
    room = int(np.minimum(np.diff(bounds), k).sum())
    order, place = np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64)
    _first(bounds, codes, values, k, order, place)
    return order, place


def quadratic(
    features: np.ndarray,
    context: np.ndarray,
    standard: tuple[np.ndarray, np.ndarray, float],
    weights: Sequence[np.ndarray],
) -> np.ndarray:
    """See `plain.quadratic`."""
    found = np.empty(len(features), dtype=np.float32)
    mean, inverse, limit = standard
    arrays = (np.require(part, np.float64, "C") for part in (mean, inverse, *weights))
    by_feature, by_context = (np.ascontiguousarray(part.T, dtype=np.float32) for part in (features, context))
    _quadratic(by_feature, by_context, limit, *arrays, found)
    return found


def fault(keys: np.ndarray, hidden: np.ndarray, allowed: np.ndarray | None, width: int, users: int) -> int:
    """See `plain.fault`."""
    every = np.empty(0, dtype=bool) if allowed is None else allowed
    return int(_fault(np.require(keys, np.int64, "C"), hidden, every, width, users))


def _zeros(size: int) -> np.ndarray:
    """Zeros of this thread, which whoever takes them leaves as zeros: to make them anew takes longer than a query."""
    kept = getattr(_PLACES, "zeros", None)
    if kept is None or len(kept) < size:
        kept = _PLACES.zeros = np.zeros(size, dtype=np.float32)
    return np.asarray(kept[:size])


def _empty(size: int) -> np.ndarray:
    kept = getattr(_PLACES, "empty", None)
    if kept is None or len(kept) < size:
        kept = _PLACES.empty = np.empty(size, dtype=np.int32)
    return np.asarray(kept)


@_compiled(*(void(_I8, _I8, bounds, int64[::1]) for bounds, _ in _TABLES))
def _sizes(bounds, rows, table_bounds, sizes):  # type: ignore[no-untyped-def]
    """Entries of the table that a user's weights meet."""
    for user in range(len(bounds) - 1):
        total = 0
        for place in range(bounds[user], bounds[user + 1]):
            row = rows[place]
            total += table_bounds[row + 1] - table_bounds[row]
        sizes[user] = total


@_compiled(
    *(
        void(_I8, _I8, _F4, *ints, _F4, float32[::1], int32[::1], int64[::1], int32[::1], float32[::1])
        for ints in _TABLES
    )
)
def _multiply(  # type: ignore[no-untyped-def]
    bounds, rows, weights, table_bounds, columns, values, sums, touched, out_bounds, out_columns, out_values
):
    stored = uint64(0)
    out_bounds[0] = 0
    for user in range(len(bounds) - 1):
        count = uint64(0)
        for place in range(bounds[user], bounds[user + 1]):
            weight, row = weights[place], rows[place]
            for entry in range(uint64(table_bounds[row]), uint64(table_bounds[row + 1])):
                column = uint64(columns[entry])
                before = sums[column]
                touched[count] = column  # no branch: whether it was touched before nobody can predict
                count += uint64(before == 0)  # again where a sum came back to 0; the second one then finds 0 below
                sums[column] = before + weight * values[entry]
        for place in range(count):
            column = uint64(touched[place])
            value = sums[column]
            out_columns[stored] = column
            out_values[stored] = value
            stored += uint64(value != 0)
            sums[column] = 0
        out_bounds[user + 1] = stored


@_compiled(boolean(float32, int32, float32, int32))
def _before(value, code, other, another):  # type: ignore[no-untyped-def]
    """Return whether an item comes before another one."""
    return value > other or (value == other and code < another)


@_compiled(void(float32[::1], int32[::1], int64))
def _sift(values, codes, size):  # type: ignore[no-untyped-def]
    """Let the root of a heap sink whose root is the item that comes last."""
    value, code, root = values[0], codes[0], 0
    while 2 * root + 1 < size:
        child = 2 * root + 1
        if child + 1 < size and _before(values[child], codes[child], values[child + 1], codes[child + 1]):
            child += 1
        if not _before(value, code, values[child], codes[child]):
            break
        values[root], codes[root] = values[child], codes[child]
        root = child
    values[root], codes[root] = value, code


@_compiled(void(float32[::1], int32[::1], int64, float32, int32))
def _push(values, codes, size, value, code):  # type: ignore[no-untyped-def]
    """Add an item to a heap of `size` others."""
    place = size
    while place > 0:
        parent = (place - 1) // 2
        if not _before(values[parent], codes[parent], value, code):
            break
        values[place], codes[place] = values[parent], codes[parent]
        place = parent
    values[place], codes[place] = value, code


@_compiled(int64(_I8, _I4, _F4, int64, _I8, _I8, _B1, int64, int64[::1]))
def _largest(bounds, columns, data, width, hidden, starts, allowed, n, keys):  # type: ignore[no-untyped-def]
    values, codes = np.empty(n, dtype=np.float32), np.empty(n, dtype=np.int32)
    stored = 0
    if n == 0:
        return stored
    for user in range(len(bounds) - 1):
        size, floor = 0, np.float32(0)
        for entry in range(uint64(bounds[user]), uint64(bounds[user + 1])):
            value = data[entry]
            if value < floor or value <= 0:
                continue
            code = columns[entry]
            if size == n and not _before(value, code, values[0], codes[0]):
                continue
            if len(allowed) > 0 and not allowed[code]:
                continue
            low, high, key = starts[user], starts[user + 1], user * width + code
            while low < high:
                middle = (low + high) // 2
                if hidden[middle] < key:
                    low = middle + 1
                else:
                    high = middle
            if low < starts[user + 1] and hidden[low] == key:
                continue
            if size < n:
                _push(values, codes, size, value, code)
                size += 1
            else:
                values[0], codes[0] = value, code
                _sift(values, codes, n)
            if size == n:
                floor = values[0]
        own = np.sort(codes[:size])
        for place in range(size):
            keys[stored + place] = user * width + own[place]
        stored += size
    return stored


@_compiled(void(_I8, _I4, _F4, _I8, _I8, float32[::1], float32[::1]))
def _at(bounds, columns, data, pairs, codes, sums, found):  # type: ignore[no-untyped-def]
    for user in range(len(bounds) - 1):
        if pairs[user] == pairs[user + 1]:
            continue
        for entry in range(uint64(bounds[user]), uint64(bounds[user + 1])):
            sums[uint64(columns[entry])] = data[entry]
        for pair in range(uint64(pairs[user]), uint64(pairs[user + 1])):
            found[pair] = sums[uint64(codes[pair])]
        for entry in range(uint64(bounds[user]), uint64(bounds[user + 1])):
            sums[uint64(columns[entry])] = 0


@_compiled(*(void(_I8, _I8, _F4, *ints, _F4, _I8, _I8, float32[::1], float32[::1]) for ints in _TABLES))
def _product_at(  # type: ignore[no-untyped-def]
    bounds, rows, weights, table_bounds, columns, values, pairs, codes, sums, found
):
    for user in range(len(bounds) - 1):
        if pairs[user] == pairs[user + 1]:
            continue
        for place in range(bounds[user], bounds[user + 1]):
            weight, row = weights[place], rows[place]
            for entry in range(uint64(table_bounds[row]), uint64(table_bounds[row + 1])):
                sums[uint64(columns[entry])] += weight * values[entry]
        for pair in range(uint64(pairs[user]), uint64(pairs[user + 1])):
            found[pair] = sums[uint64(codes[pair])]
        for place in range(bounds[user], bounds[user + 1]):
            row = rows[place]
            for entry in range(uint64(table_bounds[row]), uint64(table_bounds[row + 1])):
                sums[uint64(columns[entry])] = 0


@_compiled(*(void(_I8, _I8, _F4, *ints, _F4, _I8, _I8, float32[::1], float32[::1]) for ints in _TABLES))
def _shared(  # type: ignore[no-untyped-def]
    bounds, rows, weights, table_bounds, columns, values, pairs, codes, sums, found
):
    for user in range(len(bounds) - 1):
        if pairs[user] == pairs[user + 1]:
            continue
        for place in range(bounds[user], bounds[user + 1]):
            weight, row = weights[place], rows[place]
            for entry in range(uint64(table_bounds[row]), uint64(table_bounds[row + 1])):
                sums[uint64(columns[entry])] += weight * values[entry]
        for pair in range(pairs[user], pairs[user + 1]):
            total = 0.0
            for entry in range(uint64(table_bounds[codes[pair]]), uint64(table_bounds[codes[pair] + 1])):
                total += np.float64(sums[uint64(columns[entry])] * values[entry])
            found[pair] = total
        for place in range(bounds[user], bounds[user + 1]):
            row = rows[place]
            for entry in range(uint64(table_bounds[row]), uint64(table_bounds[row + 1])):
                sums[uint64(columns[entry])] = 0


@_compiled(int64(_I8, _I8, _B1, int64, int64))
def _fault(keys, hidden, allowed, width, users):  # type: ignore[no-untyped-def]
    before, padding, taken, place, row = int64(-1), False, False, 0, int64(0)
    if len(keys) > 0 and (keys[0] < 0 or keys[-1] >= users * width):
        return 1
    for key in keys:
        if key <= before:
            return 1
        before = key
        while key >= row + width:
            row += width
        code = key - row
        padding |= code == 0
        while place < len(hidden) and hidden[place] < key:
            place += 1
        taken |= place < len(hidden) and hidden[place] == key
        taken |= len(allowed) > 0 and not allowed[code]
    if padding:
        return 2
    return 3 if taken else 0


@_compiled(void(_F42, _F42, _I8, _I8, float32[::1]))
def _dots(queries, vectors, rows, codes, found):  # type: ignore[no-untyped-def]
    width, sixteen = uint64(queries.shape[1]), uint64(LANES)
    whole = width - width % sixteen
    lanes = np.empty(LANES, dtype=np.float32)
    for pair in range(len(rows)):
        ahead = uint64(codes[min(pair + AHEAD, len(rows) - 1)])
        for start in range(uint64(0), width, uint64(LINE)):
            prefetch(vectors, ahead, start)
        row, code = uint64(rows[pair]), uint64(codes[pair])
        lanes[:] = 0
        for start in range(uint64(0), whole, sixteen):
            for lane in range(sixteen):
                lanes[lane] += queries[row, start + lane] * vectors[code, start + lane]
        for lane in range(width - whole):
            lanes[lane] += queries[row, whole + lane] * vectors[code, whole + lane]
        left = LANES // 2
        while left > 0:
            for lane in range(left):
                lanes[lane] += lanes[lane + left]
            left //= 2
        found[pair] = lanes[0]


@_compiled(void(_F42, _F42, _I8, _I8, float32[::1]))
def _exact_dots(queries, vectors, rows, codes, found):  # type: ignore[no-untyped-def]
    width, one, two = uint64(queries.shape[1]), uint64(1), uint64(2)
    products = np.zeros(queries.shape[1] + 1)
    for pair in range(len(rows)):
        ahead = uint64(codes[min(pair + AHEAD, len(rows) - 1)])
        for start in range(uint64(0), width, uint64(LINE)):
            prefetch(vectors, ahead, start)
        row, code = uint64(rows[pair]), uint64(codes[pair])
        for place in range(width):
            products[place] = np.float64(queries[row, place]) * np.float64(vectors[code, place])
        left = width
        while left > one:
            half = (left + one) // two
            for place in range(left - half):
                products[place] += products[half + place]
            left = half
        found[pair] = products[0]


@_compiled(void(_I8, _I8, _F4, int64, int64[::1], int64[::1]))
def _first(bounds, codes, scores, k, order, place):  # type: ignore[no-untyped-def]
    values, own = np.empty(k, dtype=np.float32), np.empty(k, dtype=np.int32)
    stored = 0
    if k == 0:
        return
    for user in range(len(bounds) - 1):
        start, size = bounds[user], 0
        # codes ascend, so that the pair's place stands for its code
        for pair in range(start, bounds[user + 1]):
            value, mine = scores[pair], np.int32(pair - start)
            if size < k:
                _push(values, own, size, value, mine)
                size += 1
            elif _before(value, mine, values[0], own[0]):
                values[0], own[0] = value, mine
                _sift(values, own, k)
        for left in range(size, 0, -1):  # the last one first
            order[stored + left - 1], place[stored + left - 1] = start + own[0], left - 1
            values[0], own[0] = values[left - 1], own[left - 1]
            _sift(values, own, left - 1)
        stored += size


@_compiled(void(_F42, _F42, float64, _F8, _F8, _F8, _F82, _F82, float32[::1]))
def _quadratic(features, context, limit, mean, inverse, alone, pairs, given, found):  # type: ignore[no-untyped-def]
    F, C, P = features.shape[0], context.shape[0], features.shape[1]
    z, c = np.zeros((F, LANES)), np.zeros((C, LANES))
    total, slope = np.empty(LANES), np.empty(LANES)
    for start in range(0, P, LANES):
        count = min(LANES, P - start)
        for one in range(F):
            for lane in range(count):
                value = (features[one, start + lane] - mean[one]) * inverse[one]
                z[one, lane] = min(max(value, -limit), limit)
        for one in range(C):
            for lane in range(count):
                c[one, lane] = (context[one, start + lane] - mean[F + one]) * inverse[F + one]
        total[:] = 0
        for one in range(F):
            slope[:] = alone[one]
            for other in range(C):
                weight = given[other, one]
                for lane in range(LANES):
                    slope[lane] += c[other, lane] * weight
            for other in range(one + 1):
                weight = pairs[other, one]
                for lane in range(LANES):
                    slope[lane] += z[other, lane] * weight
            for lane in range(LANES):
                total[lane] += slope[lane] * z[one, lane]
        for lane in range(count):
            found[start + lane] = total[lane]
