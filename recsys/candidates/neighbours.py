"""Item-to-item evidence without training: who followed whom, who came along, what is called alike, what sells.

Every table answers "how much does this item speak for that one"; a history asks with the weights of its events. The
sums are the neighbour sources of the blend (models/blend.py). Everything comes from the training part alone: counts,
and two regressions with a closed form (models/linear.py).

Shapes: V items (tables by code have V + 1 rows, row 0 is no item), N events, U users, D width, W words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from scipy import sparse

from recsys.candidates.counts import DECAY, popularity, recency_weights, transitions
from recsys.candidates.linear import autoencoder, successors

SMOOTHING: Final = 2.0  # followers that nobody saw, added to every row: two sightings are no certainty
TOGETHER: Final = 50  # newest events of a history that belong together
KEPT: Final = 500  # entries of a row of a table that are kept, those furthest from 0
# of `linear.autoencoder`, in mean histories of an item, and of `linear.successors`, in sightings; thrice or a third of
# either changes little
LINEAR_PENALTY: Final = 1.0
LINEAR_NEXT_PENALTY: Final = 30.0

_SPARSE: Final = ("followed", "next", "together", "linear", "linear_next", "words")
_DENSE: Final = ("popular", "recent", "text")


@dataclass(frozen=True, kw_only=True, eq=False)
class Neighbours:
    """The tables.

    Attributes
    ----------
    followed
        [V + 1, V + 1] share of the followers within four steps of the row's item, weighed by 1 / distance.
    next
        The same for the very next event.
    together
        [V + 1, V + 1] cosine of two items' sets of users, in whatever order they came.
    linear
        [V + 1, V + 1] weights of `linear.autoencoder`: what else is in a history, all its items weighed.
    linear_next
        [V + 1, V + 1] weights of `linear.successors`: what comes next, all of the past weighed.
    popular
        float32 [V + 1] training interactions.
    recent
        float32 [V + 1] the same, an event weighing .7 for each event of its user that came later. It tells what is
        bought now from what was bought once, also in a log without time.
    text
        float32 [V + 1, D] text vectors; None where no item has text.
    words
        [V + 1, W] words of the text; None where no item has text.
    """

    followed: sparse.csr_array
    next: sparse.csr_array
    together: sparse.csr_array
    linear: sparse.csr_array
    linear_next: sparse.csr_array
    popular: np.ndarray
    recent: np.ndarray
    text: np.ndarray | None = None
    words: sparse.csr_array | None = None

    @classmethod
    def count(
        cls,
        items: np.ndarray,
        offsets: np.ndarray,
        size: int,
        *,
        text: np.ndarray | None = None,
        words: sparse.csr_array | None = None,
    ) -> Self:
        """Count training histories: `items` int32 [N] codes, oldest first inside a user, `offsets` int64 [U + 1]."""
        return cls(
            followed=largest(transitions(items, offsets, size, smoothing=SMOOTHING), KEPT),
            next=largest(transitions(items, offsets, size, reach=1, smoothing=SMOOTHING), KEPT),
            together=largest(company(items, offsets, size), KEPT),
            linear=autoencoder(items, offsets, size, penalty=LINEAR_PENALTY, kept=KEPT),
            linear_next=successors(items, offsets, size, penalty=LINEAR_NEXT_PENALTY, kept=KEPT),
            popular=popularity(items, size),
            recent=recent_popularity(items, offsets, size),
            text=text,
            words=words,
        )

    def to_tensors(self) -> dict[str, np.ndarray]:
        """What a safetensors file needs to hold, by name."""
        found = {name: getattr(self, name) for name in _DENSE if getattr(self, name) is not None}
        for name in _SPARSE:
            table = getattr(self, name)
            if table is not None:
                found[f"{name}.values"] = table.data
                found[f"{name}.columns"] = table.indices.astype(np.int32)
                found[f"{name}.rows"] = table.indptr.astype(np.int64)
                found[f"{name}.width"] = np.array([table.shape[1]], dtype=np.int64)
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `to_tensors`; other tensors are ignored.

        Raises
        ------
        ValueError
            A table is not there, as in what an earlier version wrote.
        """
        dense = {name: tensors[name] for name in _DENSE if name in tensors}
        tables = {
            name: sparse.csr_array(
                (tensors[f"{name}.values"], tensors[f"{name}.columns"], tensors[f"{name}.rows"]),
                shape=(len(tensors[f"{name}.rows"]) - 1, int(tensors[f"{name}.width"][0])),
            )
            for name in _SPARSE
            if f"{name}.rows" in tensors
        }
        lacking = set(_SPARSE) - set(tables) - {"words"}
        if lacking:
            raise ValueError(f"the neighbour sources lack {', '.join(sorted(lacking))}")
        return cls(**dense, **tables)


def recent_popularity(items: np.ndarray, offsets: np.ndarray, size: int, *, decay: float = DECAY) -> np.ndarray:
    """float32 [V + 1]: each event counts `decay` to the power of the events that its user had later."""
    later = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(items))
    counts = np.bincount(items, weights=decay ** later.astype(np.float64), minlength=size + 1)
    counts[0] = 0.0
    return counts.astype(np.float32)


def company(items: np.ndarray, offsets: np.ndarray, size: int, *, last: int = TOGETHER) -> sparse.csr_array:
    """Cosine of the sets of users of two items, float32 [V + 1, V + 1], 0 on the diagonal.

    Of every history only the `last` newest events count: one history of thousands would pair them all.
    """
    had = recency_weights(items, offsets, size, last=last, decay=1.0)
    had.eliminate_zeros()  # unknown items
    had.data[:] = 1.0
    both = sparse.csr_array(had.T @ had)
    users = np.maximum(both.diagonal(), 1.0)
    both.setdiag(0.0)
    both.eliminate_zeros()
    rows = np.repeat(np.arange(size + 1), np.diff(both.indptr))
    both.data /= np.sqrt(users[rows] * users[both.indices])
    return both


def largest(table: sparse.csr_array, kept: int) -> sparse.csr_array:
    """The table with the `kept` largest entries of each row; of equal ones those of the lowest columns."""
    lengths = np.diff(table.indptr)
    if lengths.max(initial=0) <= kept:
        table.sort_indices()
        return table
    rows = np.repeat(np.arange(table.shape[0]), lengths)
    order = np.lexsort((table.indices, -table.data, rows))
    order = order[np.arange(len(rows)) - np.repeat(table.indptr[:-1], lengths) < kept]
    chosen = sparse.csr_array((table.data[order], (rows[order], table.indices[order])), shape=table.shape)
    chosen.sort_indices()
    return chosen


def mean_weights(items: np.ndarray, offsets: np.ndarray, size: int, *, last: int, decay: float) -> sparse.csr_array:
    """`recency_weights` whose rows sum to 1, so that what they ask for is a mean; empty rows stay empty."""
    weights = recency_weights(items, offsets, size, last=last, decay=decay)
    totals = np.asarray(weights.sum(axis=1)).ravel()
    weights.data /= np.repeat(np.where(totals > 0, totals, 1.0), np.diff(weights.indptr)).astype(np.float32)
    return weights
