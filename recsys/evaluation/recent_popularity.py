"""Recent popularity: counts of the newest training events, as far back as ranks best before the test.

Shapes: V items (arrays by code have V + 1 entries), Q questions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.candidates.popularity import popularity
from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut, Split, drawn_users
from recsys.evaluation.metrics import MISS, per_user

DAY: Final = 86_400_000_000  # microseconds
DAYS: Final = (365, 180, 90, 60, 30, 14, 7, 3, 1)  # windows of recent popularity, in a log with times
EVENTS: Final = (50, 20, 10, 5, 2, 1)  # and in a log without: the newest events of every user
NEWEST: Final = 0.1  # share of training events that choose the window where validation is not by time
ASKED: Final = 10_000  # questions that choose the window, at most


@dataclass(frozen=True, kw_only=True, eq=False)
class RecentPopularity:
    """Counts of the newest training events.

    Attributes
    ----------
    counts
        float32 [V + 1].
    window
        Which events count, in words.
    """

    counts: np.ndarray
    window: str


def recent_popularity(split: Split, size: int, *, exclude_seen: bool) -> RecentPopularity:
    """Count the newest training events of each item; the window is the one that ranks best before the test.

    Validation chooses it where it is later than training or the log has no times. Otherwise validation asks for events
    of all times, which would choose the longest window; then the newest tenth of the training events chooses, by the
    counts of the events before them.
    """
    train, asked = split.train, split.validation
    if split.validation_by not in (None, "time"):
        train, asked = _newest(split.train)
    asked = drawn_users(asked, ASKED, np.random.default_rng(0))
    seen = _distinct_seen(asked, size + 1) if exclude_seen else None
    best, chosen = -1.0, -1
    for place, window in enumerate((None, *_windows(train))):
        ranks = ranks_by_counts(_counts(train, size, window), asked, seen)
        ndcg = float(per_user(ranks, "ndcg", 10).mean()) if len(asked) else 0.0
        if ndcg > best:  # of equal ones the longest, whose counts are less noisy
            best, chosen = ndcg, place
    window = (None, *_windows(train))[chosen]
    unit = "days of training" if train.times is not None else "training events of every user"
    words = "all training events" if window is None else f"the newest {window} {unit}"
    return RecentPopularity(counts=_counts(split.train, size, window), window=words)


def ranks_by_counts(counts: np.ndarray, asked: HeldOut, seen: tuple[np.ndarray, np.ndarray] | None) -> np.ndarray:
    """Return the ranks of targets if all users get the same scores, int64 [Q]: `rank_targets`, without the scores.

    Parameters
    ----------
    counts
        float32 [V + 1] scores.
    seen
        Row and code of each distinct item in a history, which is not ranked; None: all items are ranked.
    """
    place = np.zeros(len(counts), dtype=np.int64)
    place[1 + np.argsort(-counts[1:], kind="stable")] = np.arange(1, len(counts))
    targets = asked.targets.astype(np.int64)
    ranks = place[targets]
    missed = targets == PADDING
    if seen is not None:
        rows, codes = seen
        ahead = place[codes] < place[targets[rows]]
        ranks = ranks - np.bincount(rows[ahead], minlength=len(asked))
        missed[rows[codes == targets[rows]]] = True
    return np.where(missed, MISS, ranks)


def _distinct_seen(asked: HeldOut, stride: int) -> tuple[np.ndarray, np.ndarray]:
    """Return row and code, int64 each, of the distinct known items of every history."""
    histories = asked.histories
    rows = np.repeat(np.arange(len(asked), dtype=np.int64), histories.lengths)
    known = histories.items != PADDING
    keys = np.unique(rows[known] * stride + histories.items[known])
    return keys // stride, keys % stride


def _windows(train: Sequences) -> tuple[int, ...]:
    return EVENTS if train.times is None else DAYS


def _counts(train: Sequences, size: int, window: int | None) -> np.ndarray:
    """Return float32 [V + 1], the events within a window: days before the newest event, or events of each user."""
    if window is None or not len(train.items):
        return popularity(train.items, size)
    if train.times is None:
        later = np.repeat(train.offsets[1:], train.lengths) - 1 - np.arange(len(train.items))
        return popularity(train.items[later < window], size)
    return popularity(train.items[train.times > train.times.max() - window * DAY], size)


def _newest(train: Sequences) -> tuple[Sequences, HeldOut]:
    """Divide training events by time: those before the newest share, and each user's first event of the newest."""
    assert train.times is not None
    cut = np.sort(train.times)[int(len(train.times) * (1 - NEWEST))]
    early = np.concatenate([[0], np.cumsum(train.times < cut)])
    ends = train.offsets[:-1] + early[train.offsets[1:]] - early[train.offsets[:-1]]
    asked = np.flatnonzero((ends > train.offsets[:-1]) & (ends < train.offsets[1:]))
    histories = train.crop(asked, train.offsets[asked], ends[asked])
    everyone = np.arange(len(train))
    return train.crop(everyone, train.offsets[:-1], ends), HeldOut(
        histories=histories, targets=train.items[ends[asked]]
    )
