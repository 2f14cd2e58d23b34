"""Candidates of many users, batch by batch, as rows: memory does not grow with the users."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import CANDIDATE_SOURCE, ITEM_ID, PADDING, RANK, SCORE, USER_ID
from recsys.data.sequences import Sequences
from recsys.retrieval.shelf import Shelf
from recsys.rules.apply import Rules
from recsys.serving.fallback import Fallback
from recsys.serving.lists import lists
from recsys.serving.recommender import BundleRecommender
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
) -> Iterator[Batch]:
    """Make the candidates of users, a batch at a time.

    Parameters
    ----------
    shelf, fallback, rules
        See `recsys.serving.lists.lists`.
    """
    options: dict[str, Any] = {"shelf": shelf, "fallback": fallback, "rules": rules}
    for start in range(0, len(serving), settings.batch_size):
        histories = serving.select(np.arange(start, min(start + settings.batch_size, len(serving))))
        found = lists(served, histories, k=settings.k, exclude_seen=settings.exclude_seen, **options)
        user, place = np.nonzero(found.codes != PADDING)
        frame = pl.DataFrame(
            {
                USER_ID: histories.users[user],
                RANK: (place + 1).astype(np.int32),
                ITEM_ID: served.bundle.vocabulary.decode(found.codes[user, place]),
                SCORE: found.scores[user, place],
                CANDIDATE_SOURCE: pl.Series(found.names[user, place], dtype=pl.String),
            }
        )
        yield Batch(
            rows=frame,
            counts=np.bincount(user, minlength=len(histories)),
            without_signal=int(found.zero.sum()),
            by_fallback=int(found.by_fallback.sum()),
            filled=int(found.filled.sum()),
        )
