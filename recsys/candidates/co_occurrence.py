"""Co-occurrence as a source: items of the same users, in whatever order they came.

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
from recsys.candidates.scores import Scores
from recsys.data.recency import recency_weights

TOGETHER: Final = 50  # newest events of a history that belong together
OF_PAIR: Final = 40  # bytes of two events of a history: what counting them together and sorting takes


@dataclass(frozen=True, kw_only=True, eq=False)
class CoOccurrence(Source):
    """Items that came along with those of the history.

    - "together": the mean cosine over the events of the history.

    Attributes
    ----------
    table
        [V + 1, V + 1] cosine of two items' sets of users.
    """

    name: ClassVar[str] = "together"
    FEATURES: ClassVar[tuple[Feature, ...]] = (Feature(name="together", rooted=True),)

    table: sparse.csr_array

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Count the training histories."""
        table = user_cosines(data.histories.items, data.histories.offsets, data.size)
        return cls(table=tables.largest(table, tables.KEPT))

    def propose(self, block: Block, n: int) -> np.ndarray:
        """Keys of the n with the largest mean cosine."""
        return self._cosines(block).best(block, n)

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        return {"together": self._cosines(block).at(rows, codes)}

    def to_tensors(self) -> dict[str, np.ndarray]:
        """See `Source`."""
        return tables.to_tensors("together", self.table)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Source`."""
        return cls(table=tables.from_tensors("together", tensors))

    @classmethod
    def memory(cls, sizes: LogSizes) -> tuple[int, int]:
        """A table, and all pairs while they are counted."""
        entries = tables.entries_at_most(sizes.lengths, sizes.touched, TOGETHER)
        return tables.OF_ENTRY * min(entries, tables.KEPT * sizes.touched), OF_PAIR * entries

    def _cosines(self, block: Block) -> Scores:
        every = block.weights(last=TOGETHER, decay=1.0, mean=True)
        return block.once(self.name, lambda: Scores(every, self.table))


def user_cosines(items: np.ndarray, offsets: np.ndarray, size: int, *, last: int = TOGETHER) -> sparse.csr_array:
    """Cosine of the sets of users of two items, float32 [V + 1, V + 1], 0 on the diagonal.

    Of every history only the `last` newest events count: one history of thousands would pair them all.
    """
    had = recency_weights(items, offsets, size, last=last, decay=1.0)
    had.eliminate_zeros()  # unknown items
    had.data[:] = 1.0
    both = sparse.csr_array(had.T @ had)
    users = np.maximum(both.diagonal(), 1.0)
    both.setdiag(0.0)
    both.eliminate_zeros()
    rows = np.repeat(np.arange(size + 1), np.diff(both.indptr))
    both.data /= np.sqrt(users[rows] * users[both.indices])
    return both
