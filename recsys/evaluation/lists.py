"""Measures of recommended lists beyond accuracy: coverage, concentration, novelty, diversity, calibration, quality.

`ListMeasures` takes the lists block by block and keeps sums and counts by item, so its memory does not grow with users.

Shapes: U users, b users of one block, V items (arrays by code have V + 1 entries), k length of a list, C values of a
categorical attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from scipy import sparse

from recsys.columns import PADDING, metric_name
from recsys.data.sequences import Sequences
from recsys.evaluation.profiles import ItemProfiles

BANDS: Final = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)  # upper ends, as shares of the catalogue, most popular first
BLOCK_USERS: Final = 8192  # lists that are measured at once


class ListMeasures:
    """Sums over the lists of one ranker.

    Parameters
    ----------
    profiles
        Popularity, categories and vectors of the items.
    histories
        Histories of the U users, in the order in which their lists come.
    cutoffs
        Ascending; the measures by item are taken at each.
    k
        The cut-off of diversity and calibration.
    """

    def __init__(self, profiles: ItemProfiles, histories: Sequences, *, cutoffs: Sequence[int], k: int) -> None:
        self.profiles, self.histories = profiles, histories
        self.cutoffs, self.k = sorted({*cutoffs, k}), k
        self._popularity = profiles.popularity.astype(np.float64)
        self.users = self.full = self.covered = self.duplicated = 0
        self._counts = np.zeros((len(self.cutoffs), len(profiles.popularity)), dtype=np.int64)
        self._history_popularity, self._with_history = 0.0, 0
        self._sums: dict[str, tuple[float, int]] = {}  # by measure: sum over users, number of users
        self._waiting: list[np.ndarray] = []

    def add(self, top: np.ndarray) -> None:
        """Take the lists of the next users, int32 [b, length] codes, best first, 0 beyond the last."""
        self._waiting.append(top)
        if sum(map(len, self._waiting)) >= BLOCK_USERS:
            self.flush()

    def flush(self) -> None:
        """Measure the lists that wait for a whole block."""
        if not self._waiting:
            return
        top = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting = []
        start, self.users = self.users, self.users + len(top)
        ordered = np.sort(top, axis=1)
        self.duplicated += int(((ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] != PADDING)).any(axis=1).sum())
        self.full += int((ordered[:, 0] != PADDING).sum())
        self.covered += int((ordered[:, -1] != PADDING).sum())
        before = 0
        for counts, k in zip(self._counts, self.cutoffs, strict=True):
            np.add.at(counts, top[:, before:k].ravel(), 1)
            before = k
        self._measure(top[:, : self.k], start)

    def _measure(self, top: np.ndarray, start: int) -> None:
        """Add the measures that compare the items of a list with each other or with the history."""
        size = len(self.profiles.popularity)
        first, last = self.histories.offsets[start], self.histories.offsets[start + len(top)]
        consumed = _incidence(
            self.histories.items[first:last], self.histories.offsets[start : start + len(top) + 1] - first, size
        )
        lengths = np.diff(consumed.indptr)
        mean = (consumed @ self._popularity)[lengths > 0] / lengths[lengths > 0]
        self._history_popularity += float(mean.sum())
        self._with_history += len(mean)
        kept = top != PADDING
        listed = _incidence(top[kept], np.concatenate([[0], np.cumsum(kept.sum(axis=1))]), size)
        for name, (vectors, scale) in self.profiles.vectors.items():
            self._note(f"diversity_{name}", diversity(listed, vectors, scale))
        for name, categories in self.profiles.categories.items():
            self._note(f"miscalibration_{name}", miscalibration(consumed @ categories, listed @ categories))

    def _note(self, name: str, values: np.ndarray) -> None:
        known, users = self._sums.get(name, (0.0, 0))
        self._sums[name] = known + float(values.sum()), users + len(values)

    def counts(self, k: int) -> np.ndarray:
        """int64 [V + 1]: how often each item is among the first k, for one of the cut-offs; entry 0 is 0."""
        self.flush()
        counted: np.ndarray = self._counts[: self.cutoffs.index(k) + 1].sum(axis=0)
        counted[PADDING] = 0
        return counted

    def quality(self) -> dict[str, float]:
        """Return shares of users: with a full list, with any list, and with an item that stands twice in it."""
        self.flush()
        users = max(self.users, 1)
        return {
            "full_list_share": self.full / users,
            "covered_share": self.covered / users,
            "duplicate_share": self.duplicated / users,
        }

    def coverages(self, allowed: np.ndarray, part: str) -> dict[str, float]:
        """Return coverage at each cut-off, by name; `allowed` bool [V + 1]."""
        return {metric_name("coverage", k, part): coverage(self.counts(k), allowed) for k in self.cutoffs}

    def further(self, allowed: np.ndarray, part: str) -> dict[str, float]:
        """Return the other measures by name: by item at each cut-off, diversity and miscalibration at `k`."""
        self.flush()
        found: dict[str, float] = {}
        popularity = self.profiles.popularity
        consumed = self._history_popularity / self._with_history if self._with_history else 0.0
        for k in self.cutoffs:
            counts = self.counts(k)
            found[metric_name("gini", k, part)] = gini(counts, allowed)
            found[metric_name("novelty", k, part)] = novelty(counts, popularity)
            if consumed:
                found[metric_name("popularity_lift", k, part)] = popularity_lift(counts, popularity, consumed)
        for name, (total, users) in self._sums.items():
            if users:
                found[metric_name(name, self.k, part)] = total / users
        return found


def coverage(counts: np.ndarray, allowed: np.ndarray) -> float:
    """Return catalogue coverage: the share of recommendable items that stand in at least one list.

    Source: Ge, Delgado-Battenfeld and Jannach, "Beyond accuracy", RecSys 2010.

    Parameters
    ----------
    counts
        int64 [V + 1]: how often each item is recommended.
    allowed
        bool [V + 1]: items that may be recommended.
    """
    possible = int(allowed.sum()) - int(allowed[PADDING])
    return int((counts[1:] > 0).sum()) / possible if possible else 0.0


def gini(counts: np.ndarray, allowed: np.ndarray) -> float:
    """Return the Gini index of recommendations over the recommendable items: 0 all equally often, 1 one item alone.

    Sum over j of (2 j - n - 1) x_j / ((n - 1) sum x), where x_1 <= ... <= x_n are the items' counts. Source: Castells,
    Hurley and Vargas, "Novelty and diversity in recommender systems", Recommender Systems Handbook, 2015.
    """
    own = np.sort(counts[1:][allowed[1:] | (counts[1:] > 0)]).astype(np.float64)
    n, total = len(own), own.sum()
    if n < 2 or not total:
        return 0.0
    return float(((2 * np.arange(1, n + 1) - n - 1) * own).sum() / ((n - 1) * total))


def novelty(counts: np.ndarray, popularity: np.ndarray) -> float:
    """Return the mean self-information of recommended items in bits: -log2 p(i), averaged over the lists' places.

    p(i) is the item's share of the training interactions; an item without any counts as having one. Sources: Zhou et
    al., "Solving the apparent diversity-accuracy dilemma", PNAS 2010; Vargas and Castells, RecSys 2011.
    """
    share = np.maximum(popularity, 1.0).astype(np.float64) / max(float(popularity.sum(dtype=np.float64)), 1.0)
    return float((counts * -np.log2(share)).sum() / max(counts.sum(), 1)) + 0.0


def popularity_lift(counts: np.ndarray, popularity: np.ndarray, consumed: float) -> float:
    """Return how much more popular the lists are than the histories, relative to the histories: 0 is equal.

    (mean popularity of recommended items - `consumed`) / `consumed`, where `consumed` is the mean over users of the
    mean popularity of their histories. Source: Abdollahpouri et al., "The connection between popularity bias,
    calibration, and fairness in recommendation", RecSys 2020.
    """
    listed = float((counts * popularity.astype(np.float64)).sum() / max(counts.sum(), 1))
    return listed / consumed - 1.0


def serendipity(ranks: np.ndarray, popularity: np.ndarray, targets: np.ndarray, k: int) -> float:
    """Return precision at k that counts only unexpected hits: targets outside the k most popular items.

    Mean over users of |first k, without the k most popular items, and consumed| / k. Source: Ge, Delgado-Battenfeld
    and Jannach, "Beyond accuracy", RecSys 2010, with popularity as the primitive recommender.

    Parameters
    ----------
    ranks, targets
        int64 [U] ranks and int32 [U] codes of the targets.
    popularity
        float32 [V + 1] training interactions; ties are ordered by code.
    """
    place = np.append(len(popularity), popularity_places(popularity))  # code 0 is never popular
    unexpected = (ranks <= k) & (place[targets] >= k)
    return float(unexpected.mean()) / k if len(ranks) else 0.0


def diversity(listed: sparse.csr_matrix, vectors: Any, scale: np.ndarray) -> np.ndarray:
    """Return the intra-list diversity of each list, float64 [lists with two items that have a vector].

    Mean of 1 - cosine over the pairs of a list. With unit vectors the sum over pairs is
    (|sum of vectors|^2 - n) / 2. Sources: Smyth and McClave, ICCBR 2001; Ziegler et al., WWW 2005.

    Parameters
    ----------
    listed
        [b, V + 1]: 1 where an item is in a list.
    vectors
        [V + 1, D], dense or sparse by rows.
    scale
        [V + 1]: 1 / length of each vector, 0 for an item without one.
    """
    summed = (listed @ sparse.diags(scale)).astype(vectors.dtype) @ vectors
    if sparse.issparse(summed):
        squared = np.asarray(summed.multiply(summed).sum(axis=1)).ravel()
    else:
        squared = np.einsum("ud,ud->u", summed, summed, dtype=np.float64)
    n = listed @ (scale > 0).astype(np.float64)
    enough = n >= 2
    pairs = n[enough] * (n[enough] - 1)
    found: np.ndarray = 1.0 - (squared[enough] - n[enough]) / pairs
    return found


def miscalibration(consumed: sparse.csr_matrix, listed: sparse.csr_matrix) -> np.ndarray:
    """Return how far each list's categories are from its history's, float64 [users who have both]: 0 equal, 1 disjoint.

    Jensen-Shannon divergence in bits of the two distributions over categories; an item's weight is shared equally by
    its categories. Sources: Steck, "Calibrated recommendations", RecSys 2018, whose Kullback-Leibler divergence needs
    smoothing; Lin, IEEE Transactions on Information Theory 1991.

    Parameters
    ----------
    consumed, listed
        [b, C]: sums of the items' category weights.
    """
    mass = [np.asarray(one.sum(axis=1)).ravel() for one in (consumed, listed)]
    both = (mass[0] > 0) & (mass[1] > 0)
    p, q = (
        sparse.csr_matrix(sparse.diags(1.0 / weight[both]) @ one[both])
        for one, weight in zip((consumed, listed), mass, strict=True)
    )
    return np.maximum(_entropy((p + q) / 2.0) - (_entropy(p) + _entropy(q)) / 2.0, 0.0)


def _entropy(rows: sparse.csr_matrix) -> np.ndarray:
    """Return the entropy in bits of each row's distribution."""
    terms = rows.copy()
    terms.data = -terms.data * np.log2(np.where(terms.data > 0, terms.data, 1.0))
    return np.asarray(terms.sum(axis=1)).ravel()


def _incidence(codes: np.ndarray, offsets: np.ndarray, size: int) -> sparse.csr_matrix:
    """Return float64 [rows, size] with a 1 for each code of a row; a code that stands twice counts twice."""
    return sparse.csr_matrix((np.ones(len(codes)), codes, offsets), shape=(len(offsets) - 1, size))


def popularity_places(popularity: np.ndarray) -> np.ndarray:
    """Return the place of each item by popularity, int64 [V], from 0 for the most popular; ties by code."""
    order = np.argsort(-popularity[1:], kind="stable")  # [V]
    places = np.empty(len(order), dtype=np.int64)
    places[order] = np.arange(len(order))
    return places


def popularity_bands(popularity: np.ndarray, counts: np.ndarray, bands: Sequence[float] = BANDS) -> np.ndarray:
    """Return the shares of `counts` by popularity band, float64 [bands], most popular first. They sum to 1.

    Parameters
    ----------
    popularity
        float32 [V + 1] training interactions; ties are ordered by code.
    counts
        int64 [V + 1]: how often each item occurs; entry 0 is ignored.
    bands
        Ascending upper ends as shares of the catalogue: (0.01, 1.0) separates the most popular hundredth. A
        band may be empty in a small catalogue; the first one holds at least one item.
    """
    ends = np.maximum(np.round(np.asarray(bands) * (len(popularity) - 1)), 1)
    band = np.searchsorted(ends, popularity_places(popularity), side="right")
    summed = np.bincount(band, weights=counts[1:], minlength=len(bands))
    return summed / max(counts[1:].sum(), 1)
