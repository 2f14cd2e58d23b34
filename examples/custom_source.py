"""A candidate source of one's own: other items of the brand that the user took last.

    python examples/custom_source.py [FOLDER]

The blend learns how much the source is worth, the bundle keeps it, and the column `source` names it.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl

import recsys
from recsys.candidates.base import Block, Feature, Source, TrainingData, among
from recsys.candidates.registry import register
from recsys.datasets.synthetic import generate


@register
class SameBrand(Source):
    """Proposes items whose brand is that of the newest event."""

    name = "brand"
    FEATURES = (Feature(name="same_brand"),)
    READS_CATALOGUE = True

    def __init__(self, brands: np.ndarray) -> None:
        self.brands = brands  # int32 [V + 1]: number of each item's brand, from 1; 0: none
        self.by_brand = np.argsort(brands, kind="stable")
        self.starts = np.searchsorted(brands[self.by_brand], np.arange(brands.max() + 2))

    @classmethod
    def fit(cls, data: TrainingData) -> SameBrand | None:
        """Read the brands; None where the catalogue has none."""
        if "brand" not in data.catalogue.columns:
            return None
        # an attribute that is declared categorical holds a list of values
        brand = data.catalogue["brand"].cast(pl.List(pl.String)).list.first()
        return cls(np.append(0, brand.rank("dense").fill_null(0).to_numpy()).astype(np.int32))

    def propose(self, block: Block, n: int) -> np.ndarray:
        """At most n unseen items of the brand, for each user."""
        keys = [
            row * block.stride + np.sort(self.by_brand[self.starts[brand] : self.starts[brand + 1]][:n])
            for row, brand in enumerate(self._newest(block))
            if brand
        ]
        found = np.concatenate(keys, dtype=np.int64) if keys else np.zeros(0, dtype=np.int64)
        found = found[~among(found, block.hidden)]
        return found if block.allowed is None else found[block.allowed[found % block.stride]]

    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """1 where the candidate is of the brand."""
        return {"same_brand": (self._newest(block)[rows] == self.brands[codes]) & (self.brands[codes] > 0)}

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return what the bundle keeps."""
        return {"brand.brands": self.brands}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> SameBrand:
        """The inverse of `to_tensors`."""
        return cls(tensors["brand.brands"])

    def _newest(self, block: Block) -> np.ndarray:
        """int32 [b]: brand of each user's newest event; 0 for an empty history."""
        items, ends = np.append(block.histories.items, 0), block.histories.offsets[1:]
        return np.where(block.histories.lengths > 0, self.brands[items[ends - 1]], 0)


def main(folder: Path) -> pl.DataFrame:
    """Fit with the source, and return the candidates."""
    shop = generate(folder / "shop", users=300, items=320)
    overrides = ["train.epochs=2", "blend.kind=always", "items.categorical={ brand = {} }"]
    model = recsys.fit(recsys.configure(shop.interactions, shop.items, folder=folder, overrides=overrides))
    events = pl.read_csv(shop.interactions).sort("timestamp").select("user_id", "item_id")
    candidates = model.recommend(events, k=10)
    print(candidates.filter(pl.col("source").str.contains("brand")))
    return candidates


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(scratch))
