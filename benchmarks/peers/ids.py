"""Ids that both sides of `multiplexing_speed.py` look up; NumPy alone, so that any environment can make it."""

from __future__ import annotations

import numpy as np


def power_law(*, rows: int, features: int, values: int, batches: int) -> list[np.ndarray]:
    """int64 [features, values] of each batch: ids below rows // features, a few of them most of the time."""
    rng = np.random.default_rng(0)
    vocabulary = rows // features
    ranks = (vocabulary * rng.random((batches, features, values)) ** 3).astype(np.int64)
    places = np.stack([rng.permutation(vocabulary) for _ in range(features)])
    return [np.take_along_axis(places, batch, axis=1) for batch in ranks]
