"""Candidates of many users, batch by batch, as rows: memory does not grow with the users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.bundles.mirror import shared_path
from recsys.columns import CANDIDATE_SOURCE, ITEM_ID, PADDING, RANK, SCORE, USER_ID
from recsys.compute.base import Engine
from recsys.compute.local import LOCAL
from recsys.data.sequences import Sequences
from recsys.retrieval.shelf import Shelf, shelf_of
from recsys.rules.apply import Rules
from recsys.serving.fallback import Fallback
from recsys.serving.lists import lists
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.settings import RetrieveSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Candidates of b users.

    Attributes
    ----------
    rows
        `user_id`, `rank` (from 1), `item_id` (raw), `score`, `source` (who proposed the item, such as
        "vector+transitions"), users in their order.
    counts
        int64 [b] rows of each user.
    without_signal
        Users whose query vector is zero.
    by_fallback, filled
        Users whose list is the fallback's from its first row, and from a later one.
    """

    rows: pl.DataFrame
    counts: np.ndarray
    without_signal: int
    by_fallback: int
    filled: int


def candidate_batches(
    served: BundleRecommender,
    serving: Sequences,
    settings: RetrieveSettings,
    shelf: Shelf | None = None,
    fallback: Fallback | None = None,
    rules: Rules | None = None,
    engine: Engine = LOCAL,
) -> Iterator[Batch]:
    """Make the candidates of users, a batch at a time.

    Parameters
    ----------
    shelf, fallback, rules
        See `recsys.serving.lists.lists`.
    engine
        That makes them; a single batch is always made here.
    """
    work = Searching(served=served, settings=settings, shelf=shelf, fallback=fallback, rules=rules)
    starts = range(0, len(serving), settings.batch_size)
    batches = (serving.select(np.arange(start, min(start + settings.batch_size, len(serving)))) for start in starts)
    return (engine if len(starts) > 1 else LOCAL).map(work, batches)


@dataclass(frozen=True, kw_only=True, eq=False)
class Searching:
    """Work on histories of b users, in the bundle's codes: their `Batch`.

    Another process opens the bundle itself, from its folder or URL, and makes the shelf anew.
    """

    served: BundleRecommender
    settings: RetrieveSettings
    shelf: Shelf | None = None
    fallback: Fallback | None = None
    rules: Rules | None = None

    def __call__(self, histories: Sequences) -> Batch:
        """Make the candidates of some users."""
        options: dict[str, Any] = {"shelf": self.shelf, "fallback": self.fallback, "rules": self.rules}
        found = lists(self.served, histories, k=self.settings.k, exclude_seen=self.settings.exclude_seen, **options)
        user, place = np.nonzero(found.codes != PADDING)
        frame = pl.DataFrame(
            {
                USER_ID: histories.users[user],
                RANK: (place + 1).astype(np.int32),
                ITEM_ID: self.served.bundle.vocabulary.decode(found.codes[user, place]),
                SCORE: found.scores[user, place],
                CANDIDATE_SOURCE: pl.Series(found.names[user, place], dtype=pl.String),
            }
        )
        return Batch(
            rows=frame,
            counts=np.bincount(user, minlength=len(histories)),
            without_signal=int(found.zero.sum()),
            by_fallback=int(found.by_fallback.sum()),
            filled=int(found.filled.sum()),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Send to another process where the bundle lies, and what was made of the tables."""
        allowed = None if self.shelf is None else self.shelf.allowed
        return _elsewhere, (
            shared_path(self.served.bundle.path),
            self.settings,
            allowed,
            self.fallback,
            self.rules,
        )


def _elsewhere(
    bundle: str, settings: RetrieveSettings, allowed: np.ndarray | None, fallback: Fallback | None, rules: Rules | None
) -> Searching:
    served = open_bundle(bundle)
    shelf = shelf_of(served.bundle.index(), allowed)
    return Searching(served=served, settings=settings, shelf=shelf, fallback=fallback, rules=rules)
