"""Contract for predicting a night's memory before anything is computed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from recsys.settings import Settings

TEXT_WIDTH: Final = 384  # of a text encoder's vectors, which is not loaded for a prediction


@dataclass(frozen=True, kw_only=True)
class NightSizes:
    """Sizes that decide a night's memory besides the settings.

    Attributes
    ----------
    lengths
        int64 [U], events of each history.
    learnt
        int64 [T], the same of those that model and blend learn from (`train.users`).
    items
        V, the catalogue's items that nobody touched included.
    touched
        Items with events of these.
    rare
        Further items, which only the served bundle of a refit on all events has (`filter.rare_items`).
    values
        Distinct values of all categorical attributes of items together; 0 without.
    attributes
        Of items, how many there are.
    text
        Width of the text encoder's vectors; 0 without text.
    """

    lengths: np.ndarray
    learnt: np.ndarray
    items: int
    touched: int
    rare: int = 0
    values: int = 0
    attributes: int = 0
    text: int = 0

    def text_width(self, settings: Settings) -> int:
        """Width of the text vectors that a model reads: the encoder's, cut or whitened as the settings ask."""
        wanted = settings.text.truncate or self.text
        return wanted if settings.text.dimensions is None or settings.text.aligned else settings.text.dimensions


@dataclass(frozen=True, kw_only=True)
class Demand:
    """Bytes that a training adds to what the process holds, and what would make them fewer.

    Attributes
    ----------
    peak
        At its worst moment.
    program
        Of these, code that stays loaded.
    advice
        Changes of settings that help, the most useful first, such as "lower train.batch_size = 64".
    """

    peak: int
    program: int = 0
    advice: tuple[str, ...] = ()
