"""Quantile buckets: numbers to buckets that hold about equally many training values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

NULL: Final = -1  # bucket of null and NaN


@dataclass(frozen=True, kw_only=True, eq=False)
class QuantileBuckets:
    """Quantile buckets of one numeric feature.

    Attributes
    ----------
    edges
        float64 [K - 1], ascending; bucket `k` holds `edges[k - 1] <= value < edges[k]`.
    """

    edges: np.ndarray

    @property
    def count(self) -> int:
        """K, the number of buckets for numbers. Nulls have a bucket of their own."""
        return len(self.edges) + 1

    @classmethod
    def fit(cls, values: np.ndarray, buckets: int, *, feature: str) -> Self:
        """Fit on the values of training rows.

        Parameters
        ----------
        values
            Numbers [N] of training rows only: held-out rows must not move the edges. NaN is a null.
        buckets
            Number of buckets wanted. Values that repeat often leave fewer. If there are no more distinct
            values than this, each gets one.
        feature
            Its name, for errors.

        Raises
        ------
        ValueError
            No value is a number.
        """
        numbers = np.asarray(values, dtype=np.float64)
        numbers = numbers[~np.isnan(numbers)]
        if not len(numbers):
            raise ValueError(
                f"numeric feature {feature!r} is null in every training row; leave it out or fill its column"
            )
        distinct = np.unique(numbers)
        if len(distinct) <= buckets:
            return cls(edges=distinct[1:])
        # use values as edges: interpolation between infinities gives NaN
        edges = np.unique(np.quantile(numbers, np.arange(1, buckets) / buckets, method="higher"))
        return cls(edges=edges[edges > distinct[0]])  # nothing lies below the lowest value

    def apply(self, values: np.ndarray) -> np.ndarray:
        """int64 [N]: the bucket 0..K - 1 of each number, `NULL` of NaN."""
        numbers = np.asarray(values, dtype=np.float64)
        codes = np.searchsorted(self.edges, numbers, side="right").astype(np.int64)
        codes[np.isnan(numbers)] = NULL
        return codes
