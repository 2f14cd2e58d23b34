"""The model's vectors as a source: the nearest items to a history's query in the index.

Shapes: b users of a block, V items (arrays by code have V + 1 rows), D width, P pairs, n proposals.
"""

from __future__ import annotations

from typing import ClassVar, Final, Self

import numpy as np

from recsys.candidates.base import Block, Feature, Source, TrainingData, keys_of
from recsys.candidates.scores import pair_products
from recsys.retrieval.top_k import top_k

REFERENCE: Final = 10  # of the model's best unseen items, to which its scores are compared; the least `n` there is


class Vector(Source):
    """The model.

    - "model": the model's score minus the logarithm of the summed exponentials of its ten best for this user.
    """

    name: ClassVar[str] = "vector"
    FEATURES: ClassVar[tuple[Feature, ...]] = (Feature(name="model"),)

    @classmethod
    def fit(cls, data: TrainingData) -> Self:
        """The model was trained elsewhere, and comes with every block."""
        return cls()

    def propose(self, block: Block, n: int) -> np.ndarray:
        """Keys of the n nearest items; of the shelf alone where there is one."""
        found = self._nearest(block, n)[0]
        if block.shelf is not None:
            index = block.shelf.index
            k = min(n, len(index.codes))
            histories, excluded = block.hides
            found, _ = top_k(index, block.queries, histories, k=k, exclude_seen=excluded)
        return keys_of(found, block.stride)

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        best = self._nearest(block, REFERENCE)[1]
        return {"model": _scores(block, best, rows, codes) - log_sum(best[:, :REFERENCE])[rows]}

    def _nearest(self, block: Block, n: int) -> tuple[np.ndarray, np.ndarray]:
        """Codes and scores [b, n] of all items, whatever is on the shelf: as many as the first caller asks for."""
        k, (histories, excluded) = min(n, len(block.index.codes)), block.hides
        return block.once(self.name, lambda: top_k(block.index, block.queries, histories, k=k, exclude_seen=excluded))


def log_sum(scores: np.ndarray) -> np.ndarray:
    """float64 [b]: the logarithm of the summed exponentials of each row [b, m]; 0 where a row has no finite score."""
    highest = scores.max(axis=1, initial=-np.inf, keepdims=True)
    finite = np.isfinite(highest)
    highest = np.where(finite, highest, 0.0)
    totals = np.exp(scores - highest, dtype=np.float64).sum(axis=1)
    return highest[:, 0] + np.log(np.where(finite[:, 0], totals, 1.0))


def _scores(block: Block, best: np.ndarray, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P] products of the query of `rows[p]` and the vector of `codes[p]`.

    An item that the model cannot place has as much as the last one that it proposed, out of `best` [b, n].
    """
    lowest = np.where(np.isfinite(best), best, np.inf).min(axis=1, initial=np.inf)
    lowest = np.where(np.isfinite(lowest), lowest, 0.0)
    found = pair_products(block.queries, block.index.vectors, rows, codes)
    return np.where(block.index.exact_search.holds[codes], found, lowest[rows])
