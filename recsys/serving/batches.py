"""Candidates of many users, batch by batch, as rows: memory does not grow with the users."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import polars as pl

from recsys.columns import CANDIDATE_SOURCE, ITEM_ID, PADDING, RANK, SCORE, USER_ID
from recsys.data.sequences import Sequences
from recsys.ranking.blend import proposers
from recsys.retrieval.shelf import Shelf
from recsys.serving.recommender import BundleRecommender
from recsys.settings import RetrieveSettings


def candidate_batches(
    served: BundleRecommender, serving: Sequences, settings: RetrieveSettings, shelf: Shelf | None = None
) -> Iterator[tuple[pl.DataFrame, np.ndarray, int]]:
    """For each batch of users: rows, candidates a user int64 [b], users whose query vector is zero.

    The rows hold `user_id`, `rank` (from 1), `item_id` (raw), `score`, `source` (who proposed the item, such as
    "vector+transitions"), users in the order of `serving`.
    """
    for start in range(0, len(serving), settings.batch_size):
        histories = serving.select(np.arange(start, min(start + settings.batch_size, len(serving))))
        queries = served.encode(histories)  # [b, D]
        codes, scores, by = served.best(
            histories, k=settings.k, exclude_seen=settings.exclude_seen, shelf=shelf, queries=queries
        )
        user, place = np.nonzero(codes != PADDING)
        frame = pl.DataFrame(
            {
                USER_ID: histories.users[user],
                RANK: (place + 1).astype(np.int32),
                ITEM_ID: served.bundle.vocabulary.decode(codes[user, place]),
                SCORE: scores[user, place],
                CANDIDATE_SOURCE: proposers(by[user, place], served.blended),
            }
        )
        yield frame, np.bincount(user, minlength=len(histories)), int((~queries.any(axis=1)).sum())
