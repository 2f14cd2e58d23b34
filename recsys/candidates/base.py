"""Source: the contract of what proposes candidates and says something of each; Block: what all sources share.

The first stage (stage.py) asks every source twice for a block of users: first for its proposals, then for what it knows
of each pair of user and candidate that any source proposed. A source need not look at the whole catalogue for either.

To add one, write a subclass in a file of its own and register it (registry.py).

Shapes: b users of a block, V items (arrays by code have V + 1 rows, row 0 is no item), D width, P pairs of user and
candidate, N events, U users.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, ClassVar, Self, TypeVar

import numpy as np
import polars as pl
import torch
from scipy import sparse

from recsys.columns import PADDING
from recsys.data.recency import mean_weights, recency_weights
from recsys.data.sequences import Sequences
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.shelf import Shelf

Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """Data that a source may be fitted on.

    Attributes
    ----------
    histories
        The training part of the log; no history at all where the configuration wants no counts.
    size
        V.
    catalogue
        Row i belongs to code i + 1: `item_id`, `title`, `sentence`, and what else is declared.
    text
        float32 [V + 1, D] whitened text vectors, zeros where an item has no text; None where nothing has, or the
        configuration wants none.
    """

    histories: Sequences
    size: int
    catalogue: pl.DataFrame
    text: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A block of b users: their histories, the model's queries, and what several sources make of them, made once.

    Attributes
    ----------
    index, queries
        The model: its items, and float32 [b, D] vectors of the histories.
    histories
        Of the b users.
    exclude_seen
        Whether the items of the user's own history are left out.
    hiding
        Of the same users, the events whose items are left out in place of all or none; None: as `exclude_seen` says.
    shelf
        The items that may be proposed; None: all. Features are the same with it and without it.
    """

    index: ItemIndex
    queries: np.ndarray
    histories: Sequences
    exclude_seen: bool = True
    shelf: Shelf | None = None
    hiding: Sequences | None = None
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __len__(self) -> int:
        return len(self.histories)

    @property
    def stride(self) -> int:
        """V + 1: the key of a pair is `row * stride + code`."""
        return len(self.index.vectors)

    @property
    def allowed(self) -> np.ndarray | None:
        """bool [V + 1] of the shelf; None: every item may be proposed."""
        return None if self.shelf is None else self.shelf.allowed

    @cached_property
    def seen(self) -> np.ndarray:
        """Ascending distinct int64 keys of the histories' events, unknown items left out."""
        return self._keys(self.histories)

    @cached_property
    def hidden(self) -> np.ndarray:
        """Ascending keys that may not be proposed because they were seen."""
        if self.hiding is not None:
            return self._keys(self.hiding)
        return self.seen if self.exclude_seen else self.seen[:0]

    @property
    def leaves_seen_out(self) -> bool:
        """Return whether nothing that was seen is proposed."""
        return self.exclude_seen and self.hiding is None

    @property
    def hides(self) -> tuple[Sequences, bool]:
        """Histories and whether their items are left out, as `top_k` takes them."""
        return (self.histories, self.exclude_seen) if self.hiding is None else (self.hiding, True)

    def _keys(self, histories: Sequences) -> np.ndarray:
        rows = np.repeat(np.arange(len(self), dtype=np.int64), histories.lengths)
        known = histories.items != PADDING
        return distinct(rows[known] * self.stride + histories.items[known])

    def weights(self, *, last: int, decay: float, mean: bool = False) -> sparse.csr_array:
        """The histories as weights over items, float32 [b, V + 1]: `recency_weights`, or `mean_weights`."""
        weigh = mean_weights if mean else recency_weights
        items, offsets = self.histories.items, self.histories.offsets
        key = ("weights", last, decay, mean)
        return self.once(key, lambda: weigh(items, offsets, self.stride - 1, last=last, decay=decay))

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """The result of `make()` for this block: made at the first call with this key, then kept.

        A source keeps here what both its proposals and its features need; its keys begin with its name.
        """
        if key not in self._made:
            self._made[key] = make()
        found: Made = self._made[key]
        return found


@dataclass(frozen=True, kw_only=True, slots=True)
class Feature:
    """One number that a source gives for a pair of user and candidate.

    Attributes
    ----------
    name
        Unique among all sources; the report's tables and a bundle's declaration know it by this name.
    rooted
        The ranker sees the square root of its distance from 0, with its sign. For shares and cosines this lies between
        the shares, which trust one sighting too much, and logarithms, which trust the lack of any too much.
    orders
        Items can be ranked by it alone, so the report says how well that does.
    unpaired
        Features with whose values its own are not multiplied by a ranker that takes products.
    """

    name: str
    rooted: bool = False
    orders: bool = True
    unpaired: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class LogSizes:
    """Sizes of a log that decide how much memory a source takes: int64 [U] events a history, V, items with events."""

    lengths: np.ndarray
    items: int
    touched: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Reach:
    """The part of a log that a source speaks of.

    Attributes
    ----------
    speaks, proposed
        bool [V + 1]: items of a history that say something of others, and items that can be proposed.
    counted
        Share of the log's pairs of events that its budget of pairs allowed.
    """

    speaks: np.ndarray
    proposed: np.ndarray
    counted: float = 1.0


class Source(ABC):
    """A candidate source, fitted once and never changed.

    Class attributes
    ----------------
    name
        What the column `source` of the candidate table says, and the bundle's declaration.
    FEATURES
        What `features` returns; at least one.
    CONTEXT
        What `context` returns.
    READS_CATALOGUE
        The source knows items by the catalogue, not by the log; its features stand after those of the others.
    """

    name: ClassVar[str]
    FEATURES: ClassVar[tuple[Feature, ...]]
    CONTEXT: ClassVar[tuple[str, ...]] = ()
    READS_CATALOGUE: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def fit(cls, data: TrainingData) -> Self | None:
        """The source of a data set; None where the data hold nothing for it."""

    @abstractmethod
    def propose(self, block: Block, n: int) -> np.ndarray:
        """Ascending distinct int64 keys `row * block.stride + code`: at most about n for each user.

        No key is in `block.hidden`, and every code is in `block.allowed`. Of items that the source knows nothing of it
        proposes none: then it proposes fewer.
        """

    @abstractmethod
    def features(self, block: Block, rows: np.ndarray, codes: np.ndarray) -> dict[str, np.ndarray]:
        """Values [P] of each of `FEATURES`, by name, for the pairs of user `rows[p]` and item `codes[p]`.

        Asked after `propose`, for what all sources proposed. They are finite, also for an item that the source does not
        know, and for a history without any known item.
        """

    def context(self, block: Block) -> dict[str, np.ndarray]:
        """Values [b] of each of `CONTEXT`, by name: what is known of a user, whatever the candidate."""
        return {}

    def reach(self) -> Reach | None:
        """Return what of the log it speaks of; None where nothing bounds that."""
        return None

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Return the arrays for a safetensors file, by name; names are unique among all sources."""
        return {}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray]) -> Self:
        """The inverse of `to_tensors`; other tensors are ignored. A KeyError tells of one that is lacking."""
        return cls()

    @classmethod
    def memory(cls, sizes: LogSizes) -> tuple[int, int]:
        """Bytes that the source keeps, and that its `fit` takes beside them, for a log of these sizes."""
        return 0, 0


def best_keys(block: Block, scores: np.ndarray, n: int) -> np.ndarray:
    """Ascending keys of the n largest positive, allowed entries of each row [b, V + 1] that are not hidden.

    Of equal entries the lowest codes are taken. For sources that score the whole catalogue.
    """
    width = scores.shape[1]
    allowed = block.allowed
    masked = scores.copy() if allowed is None else np.where(allowed, scores, -np.inf).astype(scores.dtype)
    masked.reshape(-1)[block.hidden] = -np.inf
    # one more than n: it shows a tie between the last entry inside and the first one outside
    best, codes = (part.numpy() for part in torch.from_numpy(masked).topk(min(n + 1, width), dim=1))
    if width > n:
        for row in np.flatnonzero((best[:, n - 1] == best[:, n]) & (best[:, n] > 0)):
            codes[row, :n] = _in_order(masked[row], np.flatnonzero(masked[row] >= best[row, n]))[:n]
        best, codes = best[:, :n], codes[:, :n]
    rows, place = np.nonzero(best > 0)
    return np.sort(rows * width + codes[rows, place])


def keys_of(codes: np.ndarray, stride: int) -> np.ndarray:
    """Ascending int64 keys of the codes of each row [b, n], each once; code 0 is no item."""
    row, place = np.nonzero(ordered := np.sort(codes, axis=1))
    return row * stride + ordered[row, place].astype(np.int64)


def _in_order(scores: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """Ascending codes in the order of scores [V + 1], the largest first; of equal scores the lowest code is first."""
    return codes[np.argsort(-scores[codes], kind="stable")]


def distinct(keys: np.ndarray) -> np.ndarray:
    """Ascending distinct keys; np.unique hashes, and takes longer."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


def among(keys: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """bool: which keys are in the ascending ones."""
    if not len(ascending):
        return np.zeros(len(keys), dtype=bool)
    return ascending[np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)] == keys
