"""Lists of the baselines, counted on what was known at a night: all events before it, as the served bundle's counts.

Who serves whom: a baseline that reads histories has no list for a user without one; popularity and recent popularity
have a list for everybody.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Final

import numpy as np
import polars as pl

from recsys.candidates.popularity import popularity
from recsys.candidates.text import whitened_text
from recsys.columns import ITEM_ID, PADDING, RANK, SENTENCE, USER_ID
from recsys.data.left_out import left_out
from recsys.data.prepare import prepare
from recsys.data.sequences import Sequences, joined
from recsys.data.splits import HeldOut, Split
from recsys.data.vocabulary import Vocabulary
from recsys.data.whole import whole_dataset
from recsys.evaluation.baseline_scorers import baseline_scorers
from recsys.evaluation.ranking import rank_targets
from recsys.evaluation.recent_popularity import recent_popularity
from recsys.retrieval.shelf import listed_items
from recsys.serving.histories import served_histories
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions

POPULARITY: Final = "popularity"
BASELINES: Final = (POPULARITY, "recent-popularity", "transitions", "item-neighbours")  # always beside what was served
_FOR_EVERYBODY: Final = frozenset({POPULARITY, "recent-popularity"})


def baseline_names(settings: Settings) -> list[str]:
    """The baselines of a backtest: those above, then the configuration's own."""
    return list(dict.fromkeys((*BASELINES, *settings.evaluate.baselines)))


def baseline_lists(
    settings: Settings, versions: TableVersions, users: pl.Series, k: int
) -> tuple[dict[str, pl.DataFrame], int]:
    """The first k items of each baseline for some users, and how many items could be recommended.

    Histories, what is seen and what may be recommended are those of the candidate table at these versions.
    """
    prepared = prepare(settings, versions)
    dataset = whole_dataset(settings, versions, prepared.vocabulary)
    split, vocabulary = dataset.split, dataset.vocabulary
    known, _ = served_histories(settings, versions, prepared, vocabulary)
    if settings.retrieve.fallback:  # users below [filter] have rows in the table, too
        known = joined([known, left_out(settings, versions, vocabulary, prepared.split.serving.users).histories])
    histories = histories_of(known, users)
    text = functools.cache(lambda: whitened_text(settings, dataset.catalogue[SENTENCE]))
    exclude = settings.retrieve.exclude_seen
    scorers = baseline_scorers(
        baseline_names(settings),
        split.serving,
        histories,
        popularity(split.serving.items, vocabulary.size),
        text,
        lambda: recent_popularity(_all_known(split), vocabulary.size, exclude_seen=exclude),
    )
    listed = listed_items(settings, versions, vocabulary)
    shelf = np.ones(vocabulary.size + 1, dtype=bool) if listed is None else listed
    shelf[PADDING] = False
    asked = HeldOut(histories=histories, targets=np.zeros(len(users), dtype=np.int32))
    found = {}
    for name, scorer in scorers.items():
        top = rank_targets(
            scorer.score_block, asked, scorer.allowed & shelf, exclude_seen=exclude, top_k=min(k, vocabulary.size)
        ).top
        if name not in _FOR_EVERYBODY:
            top[histories.lengths == 0] = PADDING
        found[name] = as_lists(users, top, vocabulary)
    return found, int(shelf.sum())


def histories_of(serving: Sequences, users: pl.Series) -> Sequences:
    """The histories of some users, in their order; empty where a user has none."""
    place = pl.DataFrame({USER_ID: serving.users, "row": np.arange(len(serving))})
    rows = users.alias(USER_ID).to_frame().join(place, on=USER_ID, how="left", maintain_order="left")["row"]
    there = rows.is_not_null().to_numpy()
    index = rows.fill_null(0).to_numpy().astype(np.int64)
    starts = serving.offsets[index]
    ends = np.where(there, serving.offsets[index + 1], starts)
    return replace(serving.crop(index, starts, ends), users=users.alias(USER_ID))


def as_lists(users: pl.Series, top: np.ndarray, vocabulary: Vocabulary) -> pl.DataFrame:
    """Codes int32 [U, k], 0 beyond the end of a list, as a frame of lists."""
    row, place = np.nonzero(top != PADDING)
    return pl.DataFrame(
        {
            USER_ID: users.alias(USER_ID)[row],
            RANK: (place + 1).astype(np.int32),
            ITEM_ID: vocabulary.decode(top[row, place]),
        }
    )


def _all_known(split: Split) -> Split:
    """The split with all events known then in training; the newest of them choose a window."""
    return replace(split, train=split.serving, validation_by="last-event")
