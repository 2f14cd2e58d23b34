"""The history as a source: what somebody buys again and again need not be what others buy.

Shapes: b users of a block, V items (arrays by code have V + 1 rows, row 0 is no item), P pairs.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

import numpy as np

from recsys.candidates.base import Block, Feature, Source, TrainingData
from recsys.candidates.scores import Scores
from recsys.data.recency import WHOLE

LONG: Final = 50  # events from which on every history is as long


class History(Source):
    """Items of the user's own history; none where seen items are left out.

    - "seen": how often the item is in the history, 0 for never, 1 for once, then growing as the logarithm does.
    - "length", of the user: the logarithm of the number of events.
    """

    name: ClassVar[str] = "history"
    FEATURES: ClassVar[tuple[Feature, ...]] = (Feature(name="seen", orders=False),)
    CONTEXT: ClassVar[tuple[str, ...]] = ("length",)

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Nothing is to be fitted: histories come with every block."""
        return cls()

    def propose(self, block: Block, n: int) -> np.ndarray:
        """Keys of the n that were had most often."""
        return block.hidden[:0] if block.leaves_seen_out else self._times_had(block).best(block, n)

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        if block.leaves_seen_out:  # nothing that was seen is a candidate
            return {"seen": np.zeros(len(rows))}
        return {"seen": np.log2(1 + self._times_had(block).at(rows, codes))}

    def context(self, block: Block) -> dict[str, np.ndarray]:
        """See the class."""
        return {"length": np.log1p(np.minimum(block.histories.lengths, LONG))}

    def _times_had(self, block: Block) -> Scores:
        return block.once(self.name, lambda: Scores(block.weights(last=WHOLE, decay=1.0)))
