"""Linear item-to-item models as a source: all items of a history weighed against each other (regressions.py).

Shapes: b users of a block, V items (tables by code have V + 1 rows, row 0 is no item), P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from scipy import sparse

from recsys.candidates import tables
from recsys.candidates.base import Block, Feature, LogSizes, Source, TrainingData
from recsys.candidates.regressions import FADING, PAST, autoencoder, bytes_at_most, successors
from recsys.candidates.scores import Scores
from recsys.data.recency import WHOLE

# of `autoencoder`, in mean histories of an item, and of `successors`, in sightings; thrice or a third of either changes
# little
PENALTY: Final = 1.0
NEXT_PENALTY: Final = 30.0
PAIRED: Final = 50  # newest events whose pairs bound a table's size, as those of co_occurrence.py
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
    """

    name: ClassVar[str] = "linear"
    FEATURES: ClassVar[tuple[Feature, ...]] = (
        Feature(name="linear", rooted=True, unpaired=NEW),
        Feature(name="linear_next", rooted=True, unpaired=NEW),
    )

    within: sparse.csr_array
    after: sparse.csr_array

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Solve both regressions on the training histories."""
        items, offsets = data.histories.items, data.histories.offsets
        return cls(
            within=autoencoder(items, offsets, data.size, penalty=PENALTY, kept=tables.KEPT),
            after=successors(items, offsets, data.size, penalty=NEXT_PENALTY, kept=tables.KEPT),
        )

    def propose(self, block: Block, n: int) -> np.ndarray:
        """Keys of the n that are expected most to be in the history."""
        return self._within(block).best(block, n)

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        after = Scores(block.weights(last=PAST, decay=FADING), self.after)
        return {"linear": self._within(block).at(rows, codes), "linear_next": after.at(rows, codes)}

    def to_tensors(self) -> dict[str, np.ndarray]:
        """See `Source`."""
        return tables.to_tensors("linear", self.within) | tables.to_tensors("linear_next", self.after)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Source`."""
        return cls(within=tables.from_tensors("linear", tensors), after=tables.from_tensors("linear_next", tensors))

    @classmethod
    def memory(cls, sizes: LogSizes) -> tuple[int, int]:
        """Two tables, and the matrices of one regression at a time."""
        entries = tables.entries_at_most(sizes.lengths, sizes.touched, PAIRED)
        kept = 2 * tables.OF_ENTRY * min(entries, tables.KEPT * sizes.touched)
        return kept, bytes_at_most(sizes.items, sizes.touched)

    def _within(self, block: Block) -> Scores:
        whole = block.weights(last=WHOLE, decay=1.0)
        return block.once(self.name, lambda: Scores(whole, self.within))
