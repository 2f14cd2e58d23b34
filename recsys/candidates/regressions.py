"""Linear item-to-item models with a closed form: how much each item of a history speaks for, or against, another.

A ridge regression weighs all items of a history against each other, which counting each pair by itself cannot; and its
weights have full rank, which no product of vectors of a few dozen dimensions has.

- `autoencoder`: what else is in a history, whatever the order. H. Steck, "Embarrassingly Shallow Autoencoders for
  Sparse Data", WWW 2019, arXiv 1905.03375.
- `successors`: what comes next, after a past that fades. M. Choi et al., "Session-aware Linear Item-Item Models for
  Session-based Recommendation", WWW 2021, arXiv 2103.16104, the transition model; here every event is asked, after the
  events before it.

With up to `MOST` items, the closed form over all of them; beyond, over the nearest items of each (nearest.py). As many
histories take part as a few billion sums allow: time and memory are bounded for any log.

Shapes: V items (tables by code have V + 1 rows, row 0 is no item), U users, N events, M items that take part.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import scipy.linalg
from scipy import sparse

from recsys.candidates import nearest, pairs, tables
from recsys.candidates.nearest import FADING, PAST
from recsys.candidates.popularity import popularity
from recsys.data.recency import WHOLE, recency_weights

# items that are weighed all at once: two tables of M x M in float64, .6 GB, while weights are made (`bytes_at_most`)
MOST: Final = 6_000
ROWS: Final = 500  # of a table that are looked through together


def autoencoder(items: np.ndarray, offsets: np.ndarray, size: int, *, penalty: float, kept: int) -> sparse.csr_array:
    """Weights float32 [V + 1, V + 1], 0 on the diagonal, whose rows add up to what else a history holds.

    Parameters
    ----------
    items, offsets
        Flat histories: int32 [N] codes, oldest first inside a user, 0 unknown; int64 [U + 1].
    size
        V.
    penalty
        Of squared weights, in mean histories that an item occurs in: the same number suits a sparse and a dense log.
    kept
        Weights of a row that are kept, those that are furthest from 0.
    """
    chosen, place = _taking_part(items, size)
    if len(chosen) > MOST:
        return nearest.autoencoder(items, offsets, size, penalty=penalty, kept=kept)
    lengths = np.minimum(np.diff(offsets), WHOLE).astype(np.int64)
    users = pairs.affordable(lengths**2)
    gram = np.zeros((len(chosen), len(chosen)))
    for part in pairs.parts(lengths[users] ** 2):
        own, starts = pairs.of_users(items, offsets, users[part])
        had = recency_weights(place[own], starts, len(chosen), last=WHOLE, decay=1.0)
        had.eliminate_zeros()
        had.data[:] = 1.0
        both = sparse.csr_array(had.T @ had)
        for start in range(0, len(chosen), ROWS):  # never all of it twice
            gram[start : start + ROWS] += both[start + 1 : start + ROWS + 1].toarray()[: len(chosen) - start, 1:]
        del both
    if len(chosen):
        gram[np.diag_indices_from(gram)] += penalty * np.trace(gram) / len(chosen)
    # symmetric, and in the order that LAPACK works in: not copied
    weights = scipy.linalg.inv(gram.T, overwrite_a=True, check_finite=False).T
    weights /= -np.diag(weights).copy()
    np.fill_diagonal(weights, 0.0)
    return _by_code(weights, chosen, size, kept)


def successors(items: np.ndarray, offsets: np.ndarray, size: int, *, penalty: float, kept: int) -> sparse.csr_array:
    """Weights float32 [V + 1, V + 1] whose rows, faded by age, add up to what comes next.

    Events at places p < q of a history meet in every past that holds both: the regression's matrix is their sum of
    products over these pasts, a geometric series, so it takes a step a pair and not a step a pair and past.

    Parameters as `autoencoder`, but for `penalty`: sightings, added to the diagonal.
    """
    chosen, place = _taking_part(items, size)
    if len(chosen) > MOST:
        return nearest.successors(items, offsets, size, penalty=penalty, kept=kept)
    costs = np.diff(offsets).astype(np.int64) * PAST
    users = pairs.affordable(costs)
    count, square = len(chosen), FADING**2
    # flat [M, M] with a place behind for what does not take part; of the regression's matrix one triangle
    alone, meeting, follow = np.zeros(count + 1), np.zeros(count**2 + 1), np.zeros(count**2 + 1)

    def keys(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        return np.where((rows > 0) & (columns > 0), (rows - 1) * count + columns - 1, count**2)

    for part in pairs.parts(costs[users]):
        own, starts = pairs.of_users(items, offsets, users[part])
        codes, here = place[own], np.arange(len(own))
        end = np.repeat(starts[1:], np.diff(starts))  # of each event's history
        for distance in range(PAST + 1):
            earlier = here[: len(here) - distance]
            later = earlier + distance
            both = later < end[earlier]
            earlier, later = earlier[both], later[both]
            # pasts that hold both: of the events after the later one, as long as the earlier one is in sight
            pasts = np.minimum(end[earlier] - 1, earlier + PAST) - later
            shared = FADING**distance * (1 - square**pasts) / (1 - square)
            if distance == 0:
                np.add.at(alone, codes[earlier], shared)
                continue
            one, other = codes[earlier], codes[later]
            np.add.at(meeting, keys(np.minimum(one, other), np.maximum(one, other)), shared)
            np.add.at(follow, keys(other, one), FADING ** (distance - 1))  # transposed, as LAPACK reads columns
    gram, wanted = meeting[:-1].reshape(count, count), follow[:-1].reshape(count, count)
    if not count:
        return _by_code(wanted, chosen, size, kept)
    diagonal = np.diag_indices_from(gram)
    gram[diagonal] += gram[diagonal] + alone[1:] + penalty
    # the upper triangle in rows is the lower one in columns
    factor = scipy.linalg.cho_factor(gram.T, lower=True, overwrite_a=True, check_finite=False)
    weights = scipy.linalg.cho_solve(factor, wanted.T, overwrite_b=True, check_finite=False)
    return _by_code(weights, chosen, size, kept)


def at_nearest(items: np.ndarray, size: int) -> bool:
    """Return whether so many items occur that each is told from its nearest alone."""
    return bool(np.count_nonzero(popularity(items, size)) > MOST)


def share_counted(items: np.ndarray, offsets: np.ndarray, size: int) -> float:
    """Share of the pairs of events that `autoencoder` counts."""
    lengths = np.minimum(np.diff(offsets), WHOLE)
    if at_nearest(items, size):
        return pairs.share_counted(lengths, WHOLE, nearest.within_length(lengths))
    return pairs.share_drawn(pairs.squares(lengths))


def bytes_at_most(lengths: np.ndarray, items: int) -> tuple[int, int]:
    """Memory that both tables keep, and that either regression takes at its peak beside them.

    Parameters
    ----------
    lengths, items
        Events of each history, and how many items occur.
    """
    if items > MOST:
        return nearest.bytes_at_most(lengths, items)
    paired = int(pairs.squares(np.minimum(lengths, PAST)).sum())
    kept = 2 * tables.OF_STORED * tables.entries_expected(paired, items, tables.KEPT)
    return kept, 2 * 8 * items**2 + 12 * min(pairs.AT_ONCE, items**2)


def _taking_part(items: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of the items that occur, ascending, int64 [M], and int64 [V + 1]: the place of each from 1, else 0."""
    chosen = np.flatnonzero(popularity(items, size) > 0)
    place = np.zeros(size + 1, dtype=np.int64)
    place[chosen] = np.arange(1, len(chosen) + 1)
    return chosen, place


def _by_code(weights: np.ndarray, chosen: np.ndarray, size: int, kept: int) -> sparse.csr_array:
    """[M, M] as float32 [V + 1, V + 1]: of each row the `kept` weights that are furthest from 0."""
    kept = min(kept, len(chosen))
    columns = np.zeros((len(chosen), kept), dtype=np.int64)
    for start in range(0, len(chosen) if kept else 0, ROWS):
        furthest_first = -np.abs(weights[start : start + ROWS])
        columns[start : start + ROWS] = np.sort(np.argpartition(furthest_first, kept - 1, axis=1)[:, :kept])
    values = np.take_along_axis(weights, columns, axis=1).astype(np.float32)
    lengths = np.zeros(size + 2, dtype=np.int64)
    lengths[chosen + 1] = kept
    table = sparse.csr_array((values.ravel(), chosen[columns].ravel(), np.cumsum(lengths)), shape=(size + 1, size + 1))
    table.eliminate_zeros()
    return table
