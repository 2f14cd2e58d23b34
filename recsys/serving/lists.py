"""The lists that users get: the model's and its blend's, filled by the fallback where they say nothing, by the rules.

The candidate table, the command, MLflow's model and the service all take their lists from here.

Shapes: b users, k items wanted, D width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.ranking.blend import proposers
from recsys.retrieval.shelf import Shelf, shelf_of
from recsys.rules.apply import Rules
from recsys.serving.fallback import OWN, Fallback, named
from recsys.serving.ruled import ruled

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
        """bool [b]: the list is the fallback's, but for pinned items."""
        return self._has_lower & ~self._has_own

    @property
    def filled(self) -> np.ndarray:
        """bool [b]: some rows are the model's, and others the fallback's."""
        return self._has_lower & self._has_own

    @property
    def _has_lower(self) -> np.ndarray:
        return np.asarray((self.rungs > OWN).any(axis=1))

    @property
    def _has_own(self) -> np.ndarray:
        return np.asarray(((self.rungs == OWN) & (self.codes != PADDING)).any(axis=1))


def lists(
    served: BundleRecommender,
    histories: Sequences,
    *,
    k: int,
    exclude_seen: bool = True,
    shelf: Shelf | None = None,
    fallback: Fallback | None = None,
    rules: Rules | None = None,
    now: np.ndarray | None = None,
) -> Lists:
    """Make the lists of b users.

    Parameters
    ----------
    histories
        In the bundle's codes.
    shelf
        The items that may be recommended; None: all that the model can place. With rules, that of `floor`.
    fallback
        Fills the lists of users of whom the model says nothing, and what it leaves empty; None: they stay short. With
        rules, that of `floor`.
    rules
        That shape the lists before they are cut at k; None: none.
    now
        int64 [b]: the moment of each list, in microseconds since 1970, for rules on what was had; None: the rules'.
    """
    if rules is not None and rules.by_user:
        return Lists(**ruled(served, histories, rules, k, exclude_seen, shelf, fallback, now))
    queries = served.encode(histories)  # [b, D]
    codes, scores, by = served.best(histories, k=k, exclude_seen=exclude_seen, shelf=shelf, queries=queries)
    zero = ~queries.any(axis=1)
    names, rungs = proposers(by, served.blended), np.zeros(codes.shape, dtype=np.int8)
    if fallback is not None:
        silent = served.is_silent(histories, queries)
        codes, scores, rungs = fallback.fill(histories, codes, scores, silent, k=k, exclude_seen=exclude_seen)
        names = named(names, rungs)
    return Lists(codes=codes, scores=scores, names=names, rungs=rungs, zero=np.asarray(zero))


def floor(
    served: BundleRecommender,
    rules: Rules | None,
    *,
    allowed: np.ndarray | None = None,
    fallback: Fallback | None = None,
) -> tuple[Shelf | None, Fallback | None]:
    """Return the shelf and the fallback that obey the rules; made once for many calls of `lists`.

    Parameters
    ----------
    allowed
        bool [V + 1]: items that may be recommended besides; None: every item.

    Raises
    ------
    InputError
        None of the items that are left has a vector.
    """
    index = served.bundle.index()
    if rules is None:
        return shelf_of(index, allowed), fallback
    left = rules.joined(allowed)
    if left is not None and not left[index.codes].any():
        raise InputError(
            f"The rules {', '.join(rules.names)} leave none of the {len(index.codes):,} items that the bundle can "
            "recommend; loosen one of them."
        )
    if fallback is not None and left is not None:
        fallback = replace(fallback, allowed=fallback.allowed & left)
    return shelf_of(index, left), fallback
