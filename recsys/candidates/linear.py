"""Linear item-to-item models as a source: all items of a history weighed against each other (regressions.py).

Shapes: b users of a block, V items (tables by code have V + 1 rows, row 0 is no item), P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final, Self

import numpy as np
from scipy import sparse

from recsys.candidates import regressions, tables
from recsys.candidates.base import Block, Feature, LogSizes, Reach, Source, TrainingData
from recsys.candidates.regressions import (
    FADING,
    PAST,
    at_nearest,
    autoencoder,
    share_counted,
    successors,
)
from recsys.candidates.scores import Scores
from recsys.data.recency import WHOLE

# of `autoencoder`, in mean histories of an item, and of `successors`, in sightings; thrice or a third of either changes
# little
PENALTY: Final = 1.0
NEXT_PENALTY: Final = 30.0
# of the same on the nearest items of a large catalogue, whose items are seldom seen; chosen on two shops' validation
NEAREST_PENALTY: Final = 3.0
NEAREST_NEXT_PENALTY: Final = 200.0
NEW: Final = ("new",)  # the regressions say 0 of every new item: the product would move all new items together


@dataclass(frozen=True, kw_only=True, eq=False)
class Linear(Source):
    """Expectations of two regressions from the history; the first one proposes.

    - "linear": what else is in a history that holds these items.
    - "linear_next": what comes next after a past that fades.

    Attributes
    ----------
    within, after
        [V + 1, V + 1] weights of `autoencoder` and of `successors`.
    counted
        Share of the pairs of events that `autoencoder` counted; a bundle does not hold it.
    """

    name: ClassVar[str] = "linear"
    FEATURES: ClassVar[tuple[Feature, ...]] = (
        Feature(name="linear", rooted=True, unpaired=NEW),
        Feature(name="linear_next", rooted=True, unpaired=NEW),
    )

    within: sparse.csr_array
    after: sparse.csr_array
    counted: float = 1.0

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Solve both regressions on the training histories."""
        items, offsets = data.histories.items, data.histories.offsets
        return cls(
            within=fit_within(items, offsets, data.size),
            after=fit_after(items, offsets, data.size),
            counted=share_counted(items, offsets, data.size),
        )

    def propose(self, block: Block, n: int) -> np.ndarray:
        """Keys of the n that are expected most to be in the history."""
        return self._within(block).best(block, n)

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        after = Scores(block.weights(last=PAST, decay=FADING), self.after)
        return {"linear": self._within(block).at(rows, codes), "linear_next": after.at(rows, codes)}

    def recoded(self, codes: np.ndarray, size: int) -> Self:
        """The same weights by other codes, as `recsys.candidates.tables.recoded` takes them."""
        return replace(
            self,
            within=tables.recoded(self.within, codes, size),
            after=tables.recoded(self.after, codes, size),
        )

    def reach(self) -> Reach:
        """See `Source`; of the regression that proposes."""
        speaks, proposed = tables.reach(self.within)
        return Reach(speaks=speaks, proposed=proposed, counted=self.counted)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """See `Source`."""
        return tables.to_tensors("linear", self.within) | tables.to_tensors("linear_next", self.after)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Source`."""
        return cls(within=tables.from_tensors("linear", tensors), after=tables.from_tensors("linear_next", tensors))

    @classmethod
    def memory(cls, sizes: LogSizes) -> tuple[int, int]:
        """Two tables, and what one regression at a time takes."""
        return regressions.bytes_at_most(sizes.lengths, min(sizes.items, sizes.touched))

    def _within(self, block: Block) -> Scores:
        whole = block.weights(last=WHOLE, decay=1.0)
        return block.once(self.name, lambda: Scores(whole, self.within))


def fit_within(items: np.ndarray, offsets: np.ndarray, size: int) -> sparse.csr_array:
    """Weights of `autoencoder` as the source has them."""
    penalty = NEAREST_PENALTY if at_nearest(items, size) else PENALTY
    return autoencoder(items, offsets, size, penalty=penalty, kept=tables.KEPT)


def fit_after(items: np.ndarray, offsets: np.ndarray, size: int) -> sparse.csr_array:
    """Weights of `successors` as the source has them."""
    penalty = NEAREST_NEXT_PENALTY if at_nearest(items, size) else NEXT_PENALTY
    return successors(items, offsets, size, penalty=penalty, kept=tables.KEPT)
