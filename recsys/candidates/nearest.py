"""The regressions of regressions.py for large catalogues: each item is told from its nearest items alone.

Of each item, the few dozen items that explain most of it one by one take part in its own small ridge regression, which
weighs them against each other. X. Ning, G. Karypis, "SLIM: Sparse Linear Methods for Top-N Recommender Systems", ICDM
2011, call it feature selection (fsSLIM); here it has a closed form. Time and memory grow with items and pairs of
events, not with the square of the catalogue.

Shapes: V items (tables by code have V + 1 rows, row 0 is no item), U users, N events, K nearest items, n items of a
block, P pairs of events.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import torch
from scipy import sparse

from recsys.candidates import pairs, tables
from recsys.data.recency import WHOLE

PAST: Final = 50  # newest events that `successors` asks
FADING: Final = 0.95  # weight of an event of the past against the next newer one
NEAREST: Final = 50  # items that an item is told from
MET: Final = 100  # items of which it is known how often they meet an item; of the others it is taken that they never do
LOOKED_UP: Final = 4_000_000  # numbers of small matrices that are made together
OF_MEETING: Final = 120  # bytes of a pair of events in a block of rows of `successors`
OF_MET: Final = 40  # bytes of an entry of the matrix while it is made symmetric
OF_LOOKED_UP: Final = 40  # bytes of a number of the small matrices
STEADIER: Final = 4.0  # times the penalty, where what is not known makes a matrix indefinite


def autoencoder(items: np.ndarray, offsets: np.ndarray, size: int, *, penalty: float, kept: int) -> sparse.csr_array:
    """Weights as those of `regressions.autoencoder`: of each column, the regression on its nearest items."""
    had = pairs.sets(*pairs.newest(items, offsets, within_length(np.diff(offsets))), size)
    together = pairs.Together(had)
    users = together.users.copy()
    users[0] = 0
    ridge = penalty * float(users.sum(dtype=np.float64)) / max(1, int(np.count_nonzero(users)))
    met = tables.affordable(np.minimum(together.costs, size), MET)
    gram = tables.stacked(
        [tables.largest(block, met, by=_gain(block, users + ridge)) for _, block in together.blocks()], size
    )
    del had, together
    near = tables.affordable(np.diff(gram.indptr), NEAREST)
    wanted = tables.largest(gram, near, by=_gain(gram, users + ridge))
    return _solved(gram, wanted, users, ridge, kept)


def successors(items: np.ndarray, offsets: np.ndarray, size: int, *, penalty: float, kept: int) -> sparse.csr_array:
    """Weights as those of `regressions.successors`: of each column, the regression on what came before it most."""
    items, offsets = pairs.newest(items, offsets, after_length(np.diff(offsets)))
    squared = _squared(items, offsets, size)
    costs = np.bincount(items, np.repeat(_neighbours(np.diff(offsets)), np.diff(offsets)), size + 1)
    costs[0] = 0
    met = tables.affordable(np.minimum(costs, size).astype(np.int64), MET)
    near = tables.affordable(np.minimum(costs, size).astype(np.int64), NEAREST)
    grams, befores = [], []
    for gram, before in _meetings(items, offsets, size, costs):
        grams.append(tables.largest(gram, met, by=_gain(gram, squared + penalty)))
        befores.append(tables.largest(before, near, by=_gain(before, squared + penalty)))
    gram, before = tables.stacked(grams, size), tables.stacked(befores, size)
    del grams, befores
    return _solved(gram, before, squared, penalty, kept)


def within_length(lengths: np.ndarray) -> int:
    """Newest events of a history that `autoencoder` counts."""
    return pairs.affordable_length(lengths, WHOLE)


def after_length(lengths: np.ndarray) -> int:
    """Newest events of a history that `successors` counts."""
    return pairs.affordable_length(lengths, WHOLE, lambda cut: cut * _neighbours(cut))


def bytes_at_most(lengths: np.ndarray, items: int) -> tuple[int, int]:
    """See `regressions.bytes_at_most`."""
    within, after = (np.minimum(lengths, length(lengths)) for length in (within_length, after_length))
    meeting = int((after * _neighbours(after)).sum())
    met, near = (tables.entries_expected(int(tables.DISTINCT * meeting), items, kept) for kept in (MET, NEAREST))
    counting = max(pairs.counting_bytes(within), OF_MEETING * min(meeting, pairs.OF_ROWS))
    solving = OF_MET * met + tables.OF_STORED * near + OF_LOOKED_UP * min(NEAREST**2 * items, LOOKED_UP) // 2
    return 2 * tables.OF_STORED * near, max(counting + tables.OF_STORED * (met + near), solving)


def _neighbours(lengths: np.ndarray) -> np.ndarray:
    """Events of a history that are at most `PAST` steps from one of it, at most."""
    return np.minimum(lengths, 2 * PAST + 1)


def _squared(items: np.ndarray, offsets: np.ndarray, size: int) -> np.ndarray:
    """float64 [V + 1]: the sum over all pasts of an item's squared weight in them, the diagonal of their products."""
    found = np.zeros(size + 1)
    for users in pairs.parts(np.diff(offsets), pairs.OF_ROWS):
        own = items[offsets[users[0]] : offsets[users[-1] + 1]]
        lengths = np.diff(offsets)[users]
        after = np.repeat(np.cumsum(lengths), lengths) - 1 - np.arange(len(own))
        found += np.bincount(own, _pasts(np.minimum(after, PAST)), size + 1)
        keys = np.repeat(users, lengths) * (size + 1) + own
        order = np.argsort(keys, kind="stable")
        for times in range(1, PAST + 1):  # an item that comes again meets itself
            earlier, later = order[:-times], order[times:]
            again = (keys[earlier] == keys[later]) & (later - earlier <= PAST)
            if not again.any():
                break
            earlier, later = earlier[again], later[again]
            shared = _meeting(later - earlier, after[later])
            found += np.bincount(own[later], 2 * shared, size + 1)
    found[0] = 0
    return found


def _pasts(count: np.ndarray) -> np.ndarray:
    """Sum of the squared weights of an event in so many pasts, at most `PAST`: the geometric series."""
    square = FADING**2
    return ((1 - square ** np.arange(PAST + 1)) / (1 - square))[count]


def _meeting(apart: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Sum of the products of the weights of two events over the pasts that hold both.

    Parameters
    ----------
    apart, after
        Steps from the earlier one to the later one, at most `PAST`, and events after the later one.
    """
    return (FADING ** np.arange(PAST + 1))[apart] * _pasts(np.minimum(after, PAST - apart))


def _meetings(
    items: np.ndarray, offsets: np.ndarray, size: int, costs: np.ndarray
) -> Iterator[tuple[sparse.csr_array, sparse.csr_array]]:
    """Rows of the regression's matrix and of what came before: two tables float32 [n, V + 1] of consecutive codes.

    Entry (a, b) of the first sums the products of the weights of a and b over the pasts that hold both; of the second,
    the weights of b in the pasts after which a came.
    """
    fading = FADING ** np.arange(PAST + 1)
    for codes in pairs.parts(costs, pairs.OF_ROWS):
        shape = (len(codes), size + 1)
        gram, before = (sparse.csr_array(shape, dtype=np.float64) for _ in range(2))
        events = np.flatnonzero((items >= max(1, codes[0])) & (items <= codes[-1]))
        own = np.searchsorted(offsets, events, side="right") - 1
        starts, ends = np.maximum(offsets[own], events - PAST), np.minimum(offsets[own + 1], events + PAST + 1)
        for part in pairs.parts(ends - starts, pairs.OF_ROWS):  # one item may take more than all others of a block
            counts = (ends - starts)[part]
            here = np.repeat(events[part], counts)
            there = np.arange(counts.sum()) + np.repeat(starts[part] - (np.cumsum(counts) - counts), counts)
            other = items[there]
            row, last = items[here] - codes[0], np.repeat(offsets[own[part] + 1] - 1, counts)
            met = (other > 0) & (other != items[here])
            apart = np.abs(here - there)[met]
            shared = _meeting(apart, last[met] - np.maximum(here, there)[met])
            gram += sparse.coo_array((shared, (row[met], other[met])), shape=shape).tocsr()
            past = (other > 0) & (there < here)
            faded = fading[here[past] - there[past] - 1]
            before += sparse.coo_array((faded, (row[past], other[past])), shape=shape).tocsr()
        gram.eliminate_zeros()
        yield gram.astype(np.float32), before.astype(np.float32)


def _gain(table: sparse.csr_array, diagonal: np.ndarray) -> np.ndarray:
    """Return how much of a row each stored item of a column would explain alone, up to the row's own scale."""
    return table.data**2 / diagonal[table.indices]


def _solved(
    gram: sparse.csr_array, wanted: sparse.csr_array, diagonal: np.ndarray, ridge: float, kept: int
) -> sparse.csr_array:
    """Weights float32 [V + 1, V + 1]: column j holds those of the items that row j of `wanted` stores.

    Parameters
    ----------
    gram
        float32 [V + 1, V + 1] products of two items, of each row the nearest; the diagonal apart.
    wanted
        float32 [V + 1, V + 1] products of an item that is told and those it is told from.
    diagonal, ridge
        Products of an item with itself [V + 1], and what is added to them.
    """
    gram = gram.maximum(gram.T.tocsr())  # a rare item keeps what a popular one lost in the crowd
    weights = np.zeros_like(wanted.data)
    lengths = np.diff(wanted.indptr)
    order = np.argsort(lengths, kind="stable")
    order = order[lengths[order] > 0]
    for part in pairs.parts(lengths[order].astype(np.int64) ** 2, LOOKED_UP):
        rows = order[part]
        width = int(lengths[rows[-1]])
        stored = np.arange(width) < lengths[rows, None]  # [n, K]
        place = np.where(stored, wanted.indptr[rows, None] + np.arange(width), 0)
        near = np.where(stored, wanted.indices[place], 0)
        small = np.zeros((len(rows), width, width), dtype=np.float32)
        one, other = np.triu_indices(width, 1)
        small[:, other, one] = np.asarray(gram[near[:, one].ravel(), near[:, other].ravel()]).reshape(len(rows), -1)
        small[:, np.arange(width), np.arange(width)] = diagonal[near] + ridge
        asked = np.where(stored, wanted.data[place], 0).astype(np.float32)
        weights[place[stored]] = _positive(torch.from_numpy(small), torch.from_numpy(asked), ridge)[stored]
    told = sparse.csr_array((weights, wanted.indices, wanted.indptr), shape=wanted.shape).T.tocsr()
    told.eliminate_zeros()
    return tables.largest(told, kept, by=np.abs(told.data))


def _positive(small: torch.Tensor, asked: torch.Tensor, ridge: float) -> np.ndarray:
    """Solutions [n, K] of small systems [n, K, K] whose lower triangles are given."""
    factors, failed = torch.linalg.cholesky_ex(small)
    more = ridge
    while (again := failed.nonzero()[:, 0]).numel():
        more *= STEADIER
        small[again] += more * torch.eye(small.shape[1])
        factors[again], failed[again] = torch.linalg.cholesky_ex(small[again])
    return torch.cholesky_solve(asked[:, :, None], factors)[:, :, 0].numpy()
