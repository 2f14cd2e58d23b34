"""Text as a source: items that are called like those of the history.

Shapes: b users of a block, V items (arrays by code have V + 1 rows, row 0 is no item), D width, W words, P pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

import numpy as np
import polars as pl
from scipy import sparse

from recsys.candidates import tables
from recsys.candidates.base import Block, Feature, Source, TrainingData, keys_of
from recsys.candidates.scores import Scores, pair_products
from recsys.columns import PADDING, SENTENCE
from recsys.data.recency import DECAY, LAST
from recsys.features.whitening import AT_ONCE, Whitening
from recsys.features.words import word_table
from recsys.retrieval.exact import ExactSearch
from recsys.retrieval.shelf import Shelf
from recsys.settings import Settings
from recsys.text.represent import text_vectors


@dataclass(frozen=True, kw_only=True, eq=False)
class Text(Source):
    """Items whose text is near that of the newest events.

    - "text": similarity of text vectors, summed over the newest events and weighed by recency.
    - "words": similarity of rare words.

    Attributes
    ----------
    vectors
        float32 [V + 1, D].
    words
        [V + 1, W] of `word_table`.
    """

    name: ClassVar[str] = "text"
    FEATURES: ClassVar[tuple[Feature, ...]] = (Feature(name="text"), Feature(name="words"))
    READS_CATALOGUE: ClassVar[bool] = True

    vectors: np.ndarray
    words: sparse.csr_array
    _kept: dict[str, tuple[Shelf | None, ExactSearch]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def fit(cls, data: TrainingData) -> Self | None:
        """Take the text vectors as they are, and weigh the catalogue's words."""
        if data.text is None:
            return None
        sentences = data.catalogue[SENTENCE].extend_constant(None, 1).shift(1)  # row 0 is no item
        return cls(vectors=data.text, words=word_table(sentences))

    def propose(self, block: Block, n: int) -> np.ndarray:
        """Keys of the n most similar by text vectors."""
        queries = self._queries(block)
        found, scores = self._search(block).best(queries, self._hidden(block), n)
        return keys_of(np.where(scores > 0, found, PADDING), block.stride)

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """See the class."""
        words = Scores(_newest(block), self.words).shared(rows, codes)
        return {"text": pair_products(self._queries(block), self.vectors, rows, codes), "words": words}

    def to_tensors(self) -> dict[str, np.ndarray]:
        """See `Source`."""
        return {"text": self.vectors} | tables.to_tensors("words", self.words)

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """See `Source`."""
        return cls(vectors=tensors["text"], words=tables.from_tensors("words", tensors))

    def _queries(self, block: Block) -> np.ndarray:
        """float32 [b, D]."""
        return block.once(self.name, lambda: np.asarray(_newest(block) @ self.vectors))

    def _search(self, block: Block) -> ExactSearch:
        """The search among the items that have a text and may be proposed; kept for the blocks that follow."""
        shelf, search = self._kept.get(self.name, (None, None))
        if search is None or shelf is not block.shelf:
            has_text = self.vectors.any(axis=1)
            codes = np.flatnonzero(has_text if block.allowed is None else has_text & block.allowed)
            search = ExactSearch(self.vectors, codes)
            self._kept[self.name] = (block.shelf, search)
        return search

    def _hidden(self, block: Block) -> np.ndarray:
        """Those of the block's hidden keys whose item can be found."""
        return block.hidden[self._search(block).holds[block.hidden % block.stride]]


def whitened_text(settings: Settings, sentences: pl.Series) -> np.ndarray | None:
    """Whitened text vectors of a catalogue, float32 [V + 1, D], even if the model itself reads no text.

    They have a mean squared length of 1, not length 1 each. Row 0 and items without text are zero. None if fewer than
    two items have text.

    Parameters
    ----------
    sentences
        [V] the catalogue's texts by code, null or empty where there is none.
    """
    has_text = (sentences.fill_null("") != "").to_numpy()  # [V]
    if has_text.sum() < 2:
        return None
    raw = text_vectors(settings, sentences)  # zeros, which do not count, where there is no text
    whitening = Whitening.fit(raw, settings.text.dimensions or raw.shape[1])
    vectors = np.zeros((len(sentences) + 1, whitening.dimensions), dtype=np.float32)
    for start in range(0, len(raw), AT_ONCE):
        rows = start + np.flatnonzero(has_text[start : start + AT_ONCE])
        vectors[1 + rows] = whitening.project(raw[rows]) / np.sqrt(whitening.dimensions)
    return vectors


def _newest(block: Block) -> sparse.csr_array:
    return block.weights(last=LAST, decay=DECAY, mean=True)
