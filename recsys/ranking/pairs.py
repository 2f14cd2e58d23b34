"""Scores of the pairs that a ranker ranks at all, where it never looks at the whole catalogue."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np

USERS: Final = 256  # whose pairs are asked for at once


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ScoredPairs:
    """Scores of pairs of a block's users and items; whatever pair is not among them is not ranked.

    Attributes
    ----------
    rows, codes
        int64 [P], ascending by (row, code), each pair once; rows count from the first user of the block.
    scores
        float32 [P].
    """

    rows: np.ndarray
    codes: np.ndarray
    scores: np.ndarray


@dataclass(frozen=True, eq=False, slots=True)
class PairScores:
    """(start, stop) -> the scored pairs of those users; asked for `USERS` of them, whatever the catalogue."""

    of: Callable[[int, int], ScoredPairs]

    def __call__(self, start: int, stop: int) -> ScoredPairs:
        """Score the pairs of users `start` to `stop`."""
        return self.of(start, stop)
