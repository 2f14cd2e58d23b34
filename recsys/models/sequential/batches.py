"""Training windows and length-bucketed batches: no Python work per row, little padding."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from recsys.models.sequential.bert4rec import pad_left


def windows(offsets: np.ndarray, max_length: int, min_length: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Cut every history into windows of at most `max_length` events, counted from its end.

    Parameters
    ----------
    offsets
        int64 [U + 1] of the flat histories.
    max_length
        Longest window.
    min_length
        Shorter windows carry nothing to learn from and are left out.

    Returns
    -------
    starts, ends
        int64 [W] slices of the flat array.
    """
    lengths = np.diff(offsets)
    count = -(-lengths // max_length)  # windows of each user
    user = np.repeat(np.arange(len(lengths)), count)
    number = np.arange(len(user)) - np.repeat(np.cumsum(count) - count, count)  # 0: the newest window
    ends = offsets[1:][user] - number * max_length
    starts = np.maximum(offsets[:-1][user], ends - max_length)
    kept = ends - starts >= min_length
    return starts[kept], ends[kept]


def batches(
    items: np.ndarray, starts: np.ndarray, ends: np.ndarray, batch_size: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """One epoch of batches, int64 [B, L] padded on the left, windows of similar length together.

    Every window appears once. Windows are shuffled, sorted by length within pools of many batches, and the batches
    are shuffled again, so that neither the order nor a batch's company repeats from epoch to epoch.
    """
    order = rng.permutation(len(starts))
    pool = batch_size * 64
    groups: list[np.ndarray] = []
    for first in range(0, len(order), pool):
        chosen = order[first : first + pool]
        chosen = chosen[np.argsort(ends[chosen] - starts[chosen], kind="stable")]
        groups += [chosen[i : i + batch_size] for i in range(0, len(chosen), batch_size)]
    for group in rng.permutation(len(groups)):
        yield pad_left(items, starts[groups[group]], ends[groups[group]])
