"""The recommender that needs no training: an item is its whitened text vector, a history the mean of its newest.

It places items that nobody has touched yet, and suits shops whose titles say much.

Shapes: U users, V items (arrays by code have V + 1 rows), N events of all users, E width of the text encoder,
D after whitening.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from torch import Tensor

from recsys.data.recency import recency_weights
from recsys.features.whitening import Whitening
from recsys.models.queries import Queries
from recsys.settings import ModelSettings


@dataclass(frozen=True, kw_only=True, eq=False)
class TextItems:
    """What the catalogue's text makes of its items.

    Attributes
    ----------
    vectors
        float32 [V + 1, D] unit vectors; zeros for padding and for items without text.
    allowed
        bool [V + 1], items with text: the others cannot be placed.
    whitening
        What was fitted; None where the encoder's own vectors serve.
    """

    vectors: np.ndarray
    allowed: np.ndarray
    whitening: Whitening | None


def text_items(
    raw: np.ndarray,
    dimensions: int | None,
    whitening: Whitening | None = None,
    *,
    equal: bool = True,
    aligned: bool = False,
) -> TextItems:
    """Item vectors from the encoder's.

    Parameters
    ----------
    raw
        float32 [V, E], row `i` belongs to code `i + 1`; zeros where an item has no text.
    dimensions
        D, of the whitening that is fitted here; None: not whitened.
    whitening
        One that was fitted before, for weights that were trained with it; None: fitted here.
    equal
        What is fitted gives all directions equal variance (whitening) or leaves them theirs (PCA).
    aligned
        What is fitted keeps the encoder's own axes: E dimensions that say what D would.
    """
    if whitening is None and dimensions is not None:
        whitening = Whitening.fit(raw, dimensions, equal=equal, aligned=aligned)
    vectors = raw if whitening is None else whitening.apply(raw)
    vectors = np.concatenate([np.zeros_like(vectors[:1], shape=(1, vectors.shape[1])), vectors])
    allowed = np.concatenate([[False], np.abs(raw).max(axis=1, initial=0) > 0])
    return TextItems(vectors=vectors, allowed=allowed, whitening=whitening)


def text_queries(vectors: np.ndarray, items: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Vectors of histories: the mean of their newest items' vectors, each a step back weighing .7 as much.

    Parameters
    ----------
    vectors
        float32 [V + 1, D], from `text_items`.
    items
        int32 [N] codes of all users, oldest first inside a user.
    offsets
        int64 [U + 1]; user u owns `items[offsets[u]:offsets[u + 1]]`.

    Returns
    -------
    ndarray
        float32 [U, D] unit vectors; zeros where a history is empty or its newest items have no text.
    """
    summed = recency_weights(items, offsets, len(vectors) - 1) @ vectors
    lengths = np.linalg.norm(summed, axis=1, keepdims=True)
    return np.divide(summed, lengths, out=np.zeros_like(summed), where=lengths > 0)


def load_encoder(settings: ModelSettings, weights: Mapping[str, Tensor], vectors: np.ndarray) -> Queries:
    """Query encoder of a bundle; there is nothing to load besides its item vectors."""
    return partial(text_queries, vectors)
