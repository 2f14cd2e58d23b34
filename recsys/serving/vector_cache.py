"""Cache of history vectors: a shop asks many times for a user between two events of his.

Shapes: U users, D width.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import replace
from typing import Final

import numpy as np

from recsys.data.sequences import Sequences
from recsys.models.base import Recommender
from recsys.serving.recommender import BundleRecommender
from recsys.settings import Settings

SIZE: Final = 20_000  # histories; 1 KB each where D is 256


class CachedRecommender(Recommender):
    """Model with a cache of history vectors, least recently used first out; for one thread."""

    def __init__(self, model: Recommender, held: int = SIZE) -> None:
        super().__init__(model.settings, model.parts)
        self._model, self._most = model, held
        self._held: OrderedDict[bytes, np.ndarray] = OrderedDict()

    @property
    def repeats(self) -> np.ndarray | None:
        """See `Recommender`."""
        return self._model.repeats

    def check_features(self, settings: Settings) -> None:
        """See `Recommender`."""
        self._model.check_features(settings)

    def encode(self, histories: Sequences) -> np.ndarray:
        """See `Recommender`; only histories that are not in the cache are encoded."""
        keys = _keys(histories)
        found = [self._held.get(key) for key in keys]
        new = [row for row, vector in enumerate(found) if vector is None]
        if new:
            part = histories if len(new) == len(keys) else histories.select(np.array(new))
            for row, vector in zip(new, self._model.encode(part), strict=True):
                found[row] = vector
        for row, key in enumerate(keys):
            vector = found[row]
            assert vector is not None
            self._held[key] = vector
            self._held.move_to_end(key)
        while len(self._held) > self._most:
            self._held.popitem(last=False)
        return np.stack([vector for vector in found if vector is not None])


def with_cache(recommender: BundleRecommender) -> BundleRecommender:
    """Return the recommender with a cache of history vectors."""
    return replace(recommender, model=CachedRecommender(recommender.model))


def _keys(histories: Sequences) -> list[bytes]:
    """A digest of what a model may read of each history."""
    offsets, items = histories.offsets, np.ascontiguousarray(histories.items)
    keys = [items[offsets[row] : offsets[row + 1]].tobytes() for row in range(len(histories))]
    for frame, starts, ends in (
        (histories.context, offsets[:-1], offsets[1:]),
        (histories.attributes, np.arange(len(histories)), np.arange(1, len(histories) + 1)),
    ):
        if frame is not None:
            keys = [
                key + repr(frame[int(start) : int(end)].rows()).encode()
                for key, start, end in zip(keys, starts, ends, strict=True)
            ]
    return [hashlib.blake2b(key, digest_size=16).digest() for key in keys]
