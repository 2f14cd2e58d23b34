"""Co-occurrence as a source: items of the same users, in whatever order they came.

Shapes: b users of a block, V items (tables by code have V + 1 rows, row 0 is no item), P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final, Self

import numpy as np
from scipy import sparse

from recsys.candidates import pairs, tables
from recsys.candidates.base import Block, Feature, LogSizes, Reach, Source, TrainingData
from recsys.candidates.scores import Scores

TOGETHER: Final = 50  # newest events of a history that belong together


@dataclass(frozen=True, kw_only=True, eq=False)
class CoOccurrence(Source):
    """Items that came along with those of the history.

    - "together": the mean cosine over the events of the history.

    Attributes
    ----------
    table
        [V + 1, V + 1] cosine of two items' sets of users.
    counted
        Share of the pairs of events that were counted; a bundle does not hold it.
    """

    name: ClassVar[str] = "together"
    FEATURES: ClassVar[tuple[Feature, ...]] = (Feature(name="together", rooted=True),)

    table: sparse.csr_array
    counted: float = 1.0

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """Count the training histories."""
        items, offsets = data.histories.items, data.histories.offsets
        lengths = np.diff(offsets)
        counted = pairs.share_counted(lengths, TOGETHER, pairs.affordable_length(lengths, TOGETHER))
        return cls(table=user_cosines(items, offsets, data.size, kept=tables.KEPT), counted=counted)

    def propose(self, block: Block, n: int) -> np.ndarray:
        """Keys of the n with the largest mean cosine."""
        return self._cosines(block).best(block, n)

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        return {"together": self._cosines(block).at(rows, codes)}

    def reach(self) -> Reach:
        """See `Source`."""
        speaks, proposed = tables.reach(self.table)
        return Reach(speaks=speaks, proposed=proposed, counted=self.counted)

    def to_tensors(self) -> dict[str, np.ndarray]:
        """See `Source`."""
        return tables.to_tensors("together", self.table)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Source`."""
        return cls(table=tables.from_tensors("together", tensors))

    @classmethod
    def memory(cls, sizes: LogSizes) -> tuple[int, int]:
        """A table, and its parts and the histories while they are counted."""
        lengths = np.minimum(sizes.lengths, pairs.affordable_length(sizes.lengths, TOGETHER))
        every = int(tables.DISTINCT * pairs.squares(lengths).sum())
        lying = tables.OF_STORED * tables.entries_expected(every, sizes.touched, tables.KEPT)
        return lying, lying + pairs.counting_bytes(lengths)

    def _cosines(self, block: Block) -> Scores:
        every = block.weights(last=TOGETHER, decay=1.0, mean=True)
        return block.once(self.name, lambda: Scores(every, self.table))


def user_cosines(
    items: np.ndarray, offsets: np.ndarray, size: int, *, last: int = TOGETHER, kept: int | None = None
) -> sparse.csr_array:
    """Cosine of the sets of users of two items, float32 [V + 1, V + 1], 0 on the diagonal.

    Of every history only the `last` newest events count: one history of thousands would pair them all. Fewer count
    where all users together have more pairs than `pairs.PAIRS`.

    Parameters
    ----------
    kept
        Entries of a row that are kept, the largest, or fewer (`tables.affordable`); None: all.
    """
    last = pairs.affordable_length(np.diff(offsets), last)
    together = pairs.Together(pairs.sets(*pairs.newest(items, offsets, last), size))
    users = np.maximum(together.users, 1.0)
    most = size + 1 if kept is None else tables.affordable(np.minimum(together.costs, size), kept)
    blocks = []
    for codes, block in together.blocks():
        block.data /= np.sqrt(np.repeat(users[codes], np.diff(block.indptr)) * users[block.indices])
        blocks.append(tables.largest(block, most))
    return tables.stacked(blocks, size)
