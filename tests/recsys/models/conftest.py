"""Generated shops for the tests of Recformer: what a user buys next shares a word with what he bought before.

A title is a noun, which tells the kind of thing, among words that mean nothing; a user stays with one kind. Shops
share words and neither items nor titles, so a model can learn in one which words count and use it in another.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import polars as pl
import pytest

from recsys.features.tokens import ItemTokenizer, ItemTokens, tokenise
from recsys.models.recformer.encode import encode_histories, item_table
from recsys.models.recformer.model import Recformer
from recsys.models.recformer.pretrain import Corpus

NOUNS = [
    stem + end for stem in ("lamp", "drill", "brush", "valve", "spoon", "tent") for end in ("ar", "em", "ix", "ol")
]
NOISE = ("red", "blue", "large", "small", "new", "pack", "set", "pro", "mini", "classic")


@pytest.fixture(scope="session")
def shops() -> ModuleType:
    """This module: the tests are no package that could import it."""
    return sys.modules[__name__]


@dataclass(frozen=True, kw_only=True, eq=False)
class Shop:
    """Titles of items (code 1 is the first row), and flat histories."""

    frame: pl.DataFrame
    items: np.ndarray
    offsets: np.ndarray

    def corpus(self, tokenizer: ItemTokenizer) -> Corpus:
        return Corpus.of(tokenise(self.frame, ["title"], tokenizer), self.items, self.offsets)


def shop(seed: int, kinds: int = 12, items: int = 72, users: int = 200) -> Shop:
    generator = np.random.default_rng(seed)
    nouns = generator.permutation(NOUNS)[:kinds]
    kind = np.arange(items) % kinds
    titles = [
        " ".join(generator.permutation([nouns[k], *generator.choice(NOISE, 3, replace=False)]).tolist()) for k in kind
    ]
    histories = [generator.permutation(np.flatnonzero(kind == generator.integers(kinds)))[:5] + 1 for _ in range(users)]
    return Shop(
        frame=pl.DataFrame({"title": titles}),
        items=np.concatenate(histories).astype(np.int32),
        offsets=np.arange(users + 1) * 5,
    )


def ndcg(scores: np.ndarray, targets: np.ndarray) -> float:
    """Mean NDCG@10 of scores [U, V + 1], ties in the middle."""
    scores = scores.astype(np.float64)
    scores[:, 0] = -np.inf
    own = scores[np.arange(len(scores)), targets][:, None]
    rank = (scores > own).sum(1) + ((scores == own).sum(1) - 1) / 2
    return float(np.where(rank < 10, 1 / np.log2(rank + 2), 0).mean())


def split(shop: Shop) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Histories without their last event, flat, and that event."""
    width = int(shop.offsets[1])
    rows = shop.items.reshape(-1, width)
    return rows[:, :-1].ravel(), np.arange(len(rows) + 1) * (width - 1), rows[:, -1]


def last_item_ndcg(model: Recformer, tokens: ItemTokens, shop: Shop, table: np.ndarray | None = None) -> float:
    """NDCG@10 of each user's last item after the others."""
    items, offsets, targets = split(shop)
    table = item_table(model, tokens) if table is None else table
    return ndcg(encode_histories(model, tokens, items, offsets) @ table.T, targets)


def popularity_ndcg(shop: Shop) -> float:
    items, offsets, targets = split(shop)
    counts = np.bincount(items, minlength=len(shop.frame) + 1)
    return ndcg(np.tile(counts, (len(offsets) - 1, 1)), targets)
