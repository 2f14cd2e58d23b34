"""Popularity as a source: the same items for everybody, but for what each has seen.

Shapes: b users of a block, V items (arrays by code have V + 1 rows, row 0 is no item), N events, U users, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar, Self

import numpy as np

from recsys.candidates.base import Block, Feature, Source, TrainingData, among
from recsys.data.recency import DECAY


@dataclass(frozen=True, kw_only=True, eq=False)
class Popularity(Source):
    """Items that sell now.

    - "popular", "recent": logarithms of counts.
    - "new": the item has no count at all. Counts then say nothing, and the products with "new" leave it to the others.
    - "sightings", of the user: the logarithm of the count of the newest item.

    Attributes
    ----------
    popular
        float32 [V + 1] training interactions.
    recent
        float32 [V + 1] the same, an event weighing .7 for each event of its user that came later. It tells what is
        bought now from what was bought once, also in a log without time.
    """

    name: ClassVar[str] = "popularity"
    FEATURES: ClassVar[tuple[Feature, ...]] = (
        Feature(name="popular"),
        Feature(name="recent"),
        Feature(name="new", orders=False),
    )
    CONTEXT: ClassVar[tuple[str, ...]] = ("sightings",)

    popular: np.ndarray
    recent: np.ndarray

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Count the training histories."""
        items, offsets = data.histories.items, data.histories.offsets
        return cls(popular=popularity(items, data.size), recent=recent_popularity(items, offsets, data.size))

    def propose(self, block: Block, n: int) -> np.ndarray:
        """For each user those of the n most recent, allowed items that are not hidden: they may be fewer than n."""
        order = self._order
        codes = (order if block.allowed is None else order[block.allowed[order]])[:n]
        keys = (np.arange(len(block), dtype=np.int64)[:, None] * block.stride + np.sort(codes)).ravel()
        return keys[~among(keys, block.hidden)]

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        popular = self.popular[codes]
        return {"popular": np.log1p(popular), "recent": np.log1p(self.recent[codes]), "new": popular == 0}

    @cached_property
    def _order(self) -> np.ndarray:
        """int64 codes that sell now, the most recent first."""
        codes = np.argsort(-self.recent, kind="stable")
        return codes[self.recent[codes] > 0].astype(np.int64)

    def context(self, block: Block) -> dict[str, np.ndarray]:
        """See the class."""
        return {"sightings": np.log1p(block.weights(last=1, decay=1.0, mean=True) @ self.popular)}

    def to_tensors(self) -> dict[str, np.ndarray]:
        """See `Source`."""
        return {"popular": self.popular, "recent": self.recent}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Source`."""
        return cls(popular=tensors["popular"], recent=tensors["recent"])


def popularity(items: np.ndarray, size: int) -> np.ndarray:
    """Training interactions of each item, float32 [V + 1], of int32 [N] codes; entry 0 (no item) is 0."""
    counts = np.bincount(items, minlength=size + 1).astype(np.float32)
    counts[0] = 0.0
    return counts


def recent_popularity(items: np.ndarray, offsets: np.ndarray, size: int, *, decay: float = DECAY) -> np.ndarray:
    """float32 [V + 1]: each event counts `decay` to the power of the events that its user had later."""
    later = np.repeat(offsets[1:], np.diff(offsets)) - 1 - np.arange(len(items))
    counts = np.bincount(items, weights=decay ** later.astype(np.float64), minlength=size + 1)
    counts[0] = 0.0
    return counts.astype(np.float32)
