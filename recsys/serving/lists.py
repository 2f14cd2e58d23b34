"""The lists that users get: the model's and its blend's, filled by the fallback where they say nothing.

The candidate table, the command, MLflow's model and the service all take their lists from here.

Shapes: b users, k items wanted, D width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from recsys.data.sequences import Sequences
from recsys.ranking.blend import proposers
from recsys.retrieval.shelf import Shelf
from recsys.serving.fallback import Fallback, named

if TYPE_CHECKING:
    from recsys.serving.recommender import BundleRecommender


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Lists:
    """Lists of b users.

    Attributes
    ----------
    codes, scores, names
        int32, float32 and str [b, k], or fewer columns where there are fewer items, best first: the item, its score,
        and who proposed it, such as "vector+transitions"; code 0 where nothing is left.
    rungs
        int8 [b, k]: who chose the item, see `recsys.serving.fallback`.
    zero
        bool [b]: the query vector is zero.
    """

    codes: np.ndarray
    scores: np.ndarray
    names: np.ndarray
    rungs: np.ndarray
    zero: np.ndarray

    @property
    def by_fallback(self) -> np.ndarray:
        """bool [b]: the list is the fallback's from its first row."""
        return np.asarray(self.rungs[:, :1].any(axis=1))

    @property
    def filled(self) -> np.ndarray:
        """bool [b]: the list is the fallback's from a later row."""
        return np.asarray(self.rungs.any(axis=1) & ~self.by_fallback)


def lists(
    served: BundleRecommender,
    histories: Sequences,
    *,
    k: int,
    exclude_seen: bool = True,
    shelf: Shelf | None = None,
    fallback: Fallback | None = None,
) -> Lists:
    """Make the lists of b users.

    Parameters
    ----------
    histories
        In the bundle's codes.
    shelf
        The items that may be recommended; None: all that the model can place.
    fallback
        Fills the lists of users of whom the model says nothing, and what it leaves empty; None: they stay short.
    """
    queries = served.encode(histories)  # [b, D]
    codes, scores, by = served.best(histories, k=k, exclude_seen=exclude_seen, shelf=shelf, queries=queries)
    zero = ~queries.any(axis=1)
    names, rungs = proposers(by, served.blended), np.zeros(codes.shape, dtype=np.int8)
    if fallback is not None:
        silent = served.is_silent(histories, queries)
        codes, scores, rungs = fallback.fill(histories, codes, scores, silent, k=k, exclude_seen=exclude_seen)
        names = named(names, rungs)
    return Lists(codes=codes, scores=scores, names=names, rungs=rungs, zero=np.asarray(zero))
