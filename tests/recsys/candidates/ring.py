"""A small shop for tests of sources and blends: walks over a ring of items, random vectors, text and words."""

from __future__ import annotations

import numpy as np

from recsys.candidates.base import TrainingData
from recsys.data.sequences import Sequences
from recsys.retrieval.index import ItemIndex, build_index
from tests.recsys.ranking.blends import sequences, training

V, D, U = 60, 8, 40
COLOURS = ("red", "blue", "green", "black")
KINDS = ("nail lacquer", "lip balm", "hair brush", "soap dish", "bath towel")


def histories() -> Sequences:
    """Walks over a ring of 50 items; ten items have no interaction. One user is unknown, one has an unknown event."""
    rng = np.random.default_rng(0)
    lists = [((rng.integers(50) + np.arange(rng.integers(2, 9))) % 50 + 1).tolist() for _ in range(U - 2)]
    return sequences([*lists, [0], [3, 0, 4]])


def data() -> TrainingData:
    """The same histories to count, with text."""
    rng = np.random.default_rng(1)
    text = rng.standard_normal((V + 1, 4)).astype(np.float32)
    text[0] = 0
    titles = [f"{rng.choice(COLOURS)} {rng.choice(KINDS)} {code % 7}" for code in range(1, V + 1)]
    return training(histories(), V, text, titles)


def items() -> ItemIndex:
    """Codes 15, 30, 45 and 60 cannot be placed."""
    vectors = np.random.default_rng(2).standard_normal((V + 1, D)).astype(np.float32)
    vectors[0] = 0
    return build_index(vectors, np.arange(V + 1) % 15 != 0)


def queries() -> np.ndarray:
    """float32 [U, D]."""
    return np.random.default_rng(3).standard_normal((U, D)).astype(np.float32)
