"""The text vectors of a catalogue: whitened, as models read them.

Shapes: V items (arrays by code have V + 1 rows), E width of the text encoder, D after whitening.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import SENTENCE
from recsys.data.prepare import Dataset
from recsys.features.whitening import AT_ONCE, Whitening
from recsys.settings import Settings
from recsys.text.represent import text_vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class TextItems:
    """Text of a catalogue's items.

    Attributes
    ----------
    vectors
        [V + 1, D] unit vectors, of the type of the encoder's; zeros for padding and for items without text.
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
        [V, E], row `i` belongs to code `i + 1`; zeros where an item has no text. float32, or float16 of a large
        catalogue.
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
    width = raw.shape[1] if whitening is None else whitening.dimensions
    vectors, allowed = np.zeros((len(raw) + 1, width), dtype=raw.dtype), np.zeros(len(raw) + 1, dtype=bool)
    for start in range(0, len(raw), AT_ONCE):
        block = raw[start : start + AT_ONCE]
        rows = slice(start + 1, start + 1 + len(block))
        vectors[rows] = block if whitening is None else whitening.apply(block)
        allowed[rows] = (block != 0).any(axis=1)
    return TextItems(vectors=vectors, allowed=allowed, whitening=whitening)


def raw_vectors(settings: Settings, dataset: Dataset) -> np.ndarray | None:
    """The encoder's vectors [V, E], as `text_vectors` gives them; None where no item has any text that is asked for."""
    sentences: pl.Series = dataset.catalogue[SENTENCE]
    if settings.items is None or not settings.items.text or (sentences.fill_null("") == "").all():
        return None
    return text_vectors(settings, sentences)


def whitened(settings: Settings, raw: np.ndarray, whitening: Whitening | None = None) -> TextItems:
    """Item vectors of the encoder's, as `[text]` asks; `whitening` is one that was fitted before."""
    return text_items(
        raw, settings.text.dimensions, whitening, equal=settings.text.whiten, aligned=settings.text.aligned
    )


def describe_text(settings: Settings, text: TextItems) -> dict[str, Any]:
    """Declaration of their making, for a model that reads them."""
    assert settings.items is not None
    return {
        "model": settings.text.model,
        "attributes": list(settings.items.text),
        "dimensions": text.vectors.shape[1],
        "whitened": text.whitening is not None,
    }
