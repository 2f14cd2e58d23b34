"""A sample of the catalogue that one batch is asked against, and what makes its softmax stand for the whole one's.

Candidates are the items that any history of the batch asks for, and others drawn uniformly. Popular items are asked for
often, so their scores are lowered by the logarithm of the probability of being a candidate: "Sampling-Bias-Corrected
Neural Modeling for Large Corpus Item Recommendations" (Yi et al., RecSys 2019). What a history itself asks for is a
candidate with certainty, so for its own questions nothing is taken off there; cf. "Correcting the LogQ Correction"
(RecSys 2025, arXiv 2507.09331). The sum of exponentials over candidates then expects the sum over the catalogue.

Shapes: B histories, Q questions of each, P labels, V items, N drawn items, C candidates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from recsys.models.sequential.objectives import Task
from recsys.training.distributed import Part


@dataclass(frozen=True, eq=False)
class Candidates:
    """Candidates of a batch.

    Attributes
    ----------
    codes
        int64 [C], ascending; every label is among them.
    correction
        float32 [B, C], B of the part, to be added to scores: the logarithm of how many items a candidate stands for.
        Minus infinity where it must not compete: in another catalogue, or without training events where these are left
        out.
    """

    codes: np.ndarray
    correction: np.ndarray

    @classmethod
    def draw(
        cls,
        task: Task,
        count: int,
        firsts: np.ndarray,
        rng: np.random.Generator,
        shares: np.ndarray | None = None,
        trained: np.ndarray | None = None,
        part: Part | None = None,
    ) -> Self:
        """Draw `count` items beside those that the task asks for.

        Parameters
        ----------
        firsts
            int64 [catalogues + 1]: the first code of each catalogue, then V + 1.
        shares
            float64 [V + 1], each item's share of the training events; None: equal ones.
        trained
            bool [V + 1]: the items that may compete; None: all.
        part
            Of the batch, whose histories alone get corrections; candidates are those of the whole batch.
        """
        size = int(firsts[-1])
        labels = task.labels[task.labels > 0]
        codes = np.union1d(labels, rng.integers(1, size, count))
        share = np.full(len(codes), 1 / max(1, size - 1)) if shares is None else shares[codes]
        asked = task.of(part).labels
        others = len(labels) - np.count_nonzero(asked, axis=1)  # [B], labels of the other histories
        expected = others[:, None] * share + count / max(1, size - 1)
        # a candidate that is there with probability 1 - exp(-expected) stands for so many times as many items
        correction = -np.log(-np.expm1(-expected)).astype(np.float32)
        if trained is not None:
            correction[:, ~trained[codes]] = -np.inf
        if len(firsts) > 2:
            own = np.searchsorted(firsts, asked.max(axis=1), side="right")  # [B], from 1
            foreign = (codes < firsts[own - 1][:, None]) | (codes >= firsts[own][:, None])
            correction[foreign] = -np.inf
        history, question = np.nonzero(asked)
        correction[history, np.searchsorted(codes, asked[history, question])] = 0
        return cls(codes, correction)
