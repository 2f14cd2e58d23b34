"""The text vectors of a catalogue, as its models read them."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from recsys.columns import SENTENCE
from recsys.data.prepare import Dataset
from recsys.features.whitening import Whitening
from recsys.models.text.model import TextItems, text_items
from recsys.settings import Settings
from recsys.text.represent import text_vectors


def raw_vectors(settings: Settings, dataset: Dataset) -> np.ndarray | None:
    """The encoder's vectors float32 [V, E]; None where the configuration has no text or no item has any."""
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
    """How they were made, for the declaration of a model that reads them."""
    assert settings.items is not None
    return {
        "model": settings.text.model,
        "attributes": list(settings.items.text),
        "dimensions": text.vectors.shape[1],
        "whitened": text.whitening is not None,
    }
