"""Item ids as the user gave them, and the dense codes that exist only inside a bundle. Codes are append-only."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID, PADDING
from recsys.errors import InputError

CODE = "code"


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Item codes: `items[i]` has code `i + 1`; 0 is padding and stands for no item.

    Parameters
    ----------
    items
        [V] distinct raw ids (integers or strings).
    """

    items: pl.Series

    def __post_init__(self) -> None:
        if self.items.n_unique() != len(self.items) or self.items.null_count():
            raise ValueError("a vocabulary needs distinct ids without nulls")

    @property
    def size(self) -> int:
        """Number of items, V; arrays indexed by code have V + 1 rows."""
        return len(self.items)

    @cached_property
    def digest(self) -> str:
        """sha256 (hex) of ids and their order: bundles, indexes and id maps that belong together share it."""
        text = "\n".join([str(self.items.dtype), *self.items.cast(pl.String).to_list()])
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _codes(self) -> pl.DataFrame:
        return pl.DataFrame({ITEM_ID: self.items, CODE: np.arange(1, self.size + 1, dtype=np.int32)})

    def encode(self, ids: pl.Series) -> np.ndarray:
        """int32 codes of raw ids; 0 where an id is unknown."""
        if ids.dtype != self.items.dtype:
            ids = ids.cast(self.items.dtype, strict=False)
        joined = ids.alias(ITEM_ID).to_frame().join(self._codes, on=ITEM_ID, how="left", maintain_order="left")
        return joined[CODE].fill_null(PADDING).to_numpy()

    def encode_text(self, ids: Iterable[str]) -> np.ndarray:
        """int32 codes of ids written as text (a command line's); unknown ids raise.

        Raises
        ------
        InputError
            An id is not in the vocabulary.
        """
        given = pl.Series(ITEM_ID, list(ids), dtype=pl.String)
        codes = self.encode(given)
        if (codes == PADDING).any():
            missing = given[int(np.argmax(codes == PADDING))]
            raise InputError(
                f"Item {missing!r} is not among the {self.size} items of this bundle; ids look like {self.items[0]!r}."
            )
        return codes

    def decode(self, codes: np.ndarray) -> pl.Series:
        """Raw ids of codes (any shape, flattened); null for 0."""
        codes = np.asarray(codes).ravel().astype(np.int64)
        if codes.size and (codes.min() < 0 or codes.max() > self.size):
            raise IndexError(f"codes must lie in 0..{self.size}, got {codes.min()}..{codes.max()}")
        index = pl.Series(codes - 1, dtype=pl.Int64)
        return self.items.gather(index.set(index < 0, None))

    def grow(self, ids: pl.Series) -> Vocabulary:
        """A vocabulary with the unknown ones of `ids` appended in their order; old codes stay."""
        new = ids.drop_nulls().unique(maintain_order=True)
        new = new.filter(self.encode(new) == PADDING) if self.size else new
        return Vocabulary(pl.concat([self.items, new.cast(self.items.dtype)]).alias(ITEM_ID))

    def write(self, path: Path) -> None:
        """Write as Parquet: `item_id`, `code`."""
        self._codes.write_parquet(path)

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """Read what `write` wrote."""
        return cls(pl.read_parquet(path).sort(CODE)[ITEM_ID])


def fit_vocabulary(training_items: pl.Series, catalogue_items: pl.Series | None) -> Vocabulary:
    """Items of the training rows in order of first appearance, then the catalogue's others in its order.

    Held-out rows are not looked at: an item that appears only there, and in no catalogue, has no code.
    """
    empty = Vocabulary(pl.Series(ITEM_ID, [], dtype=training_items.dtype))
    vocabulary = empty.grow(training_items)
    return vocabulary if catalogue_items is None else vocabulary.grow(catalogue_items)
