"""Rule: the contract of what shapes lists before they are cut at k.

A rule acts at one of five stages, and its base class says at which:

1. `Eligible`: which items may be recommended to anybody. They leave the search itself, so they cost nothing there.
2. `Seen`: which of a user's events hide their item. The search leaves these items out, too.
3. `Pair`: which items this user may get, and `Floor`: which score is the least.
4. `Boost`: what is added to the scores of the model, or of its blend.
5. The list is made in one pass, place by place: `Pin` gives items places of their own, `Cap` limits how many share a
   value, `Spread` weighs relevance against likeness. Pinned items count for the caps, and are never capped themselves.

The stages follow each other in this order; inside of a stage the rules act in the configuration's order. The fallback's
rows pass the same stages, without `Floor` and `Boost`: their scores are places, not the model's.

A rule is made once, and then only reads arrays: it knows no bundle, no model and no warehouse. To add a kind, write a
class in a file of its own and register it (registry.py).

Shapes: V items (arrays by code have V + 1 rows, row 0 is no item), b users, P pairs of user and item, N events of all
users, g values of an item, q pinned items.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np
import polars as pl

from recsys.columns import ITEM_ID
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary

NO_TEXTS: Callable[[], np.ndarray | None] = lambda: None  # noqa: E731


@dataclass(frozen=True, kw_only=True, eq=False)
class Shop:
    """Material of rules: the catalogue and the moment.

    Attributes
    ----------
    catalogue
        V rows in the vocabulary's order: `item_id` and every column that is known of items.
    now
        The moment that lists speak for, with a zone.
    data_root
        Folder, or URL, that lists of ids are relative to.
    texts
        Makes float32 [V + 1, E] text vectors, zeros without a text; None where there are no texts. Called at most once.
    user_attributes
        Names of the users' attributes that histories bring.
    timed
        Whether histories tell the times of their events.
    called
        The catalogue's name in messages.
    timezone
        Of times that are written without one; None: UTC.
    decimal
        What stands before the fraction of a number that the catalogue has as text.
    """

    catalogue: pl.DataFrame
    now: datetime
    data_root: str = "."
    texts: Callable[[], np.ndarray | None] = NO_TEXTS
    user_attributes: tuple[str, ...] = ()
    timed: bool = True
    called: str = "the newest catalogue"
    timezone: str | None = None
    decimal: str = "."

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The items' codes."""
        return Vocabulary(self.catalogue[ITEM_ID])

    @property
    def size(self) -> int:
        """Number of items, V."""
        return len(self.catalogue)

    @cached_property
    def text_vectors(self) -> np.ndarray | None:
        """`texts()`, once, as unit vectors."""
        vectors = self.texts()
        if vectors is None:
            return None
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        units: np.ndarray = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
        return units


@dataclass(frozen=True, kw_only=True, eq=False)
class Rule(ABC):
    """A rule, made once and never changed.

    Attributes
    ----------
    name
        As the configuration calls it.
    remarks
        Sentences on what is probably not meant, such as a condition that no item meets.
    """

    kind: ClassVar[str]

    name: str
    remarks: tuple[str, ...] = field(default=(), kw_only=True)

    @classmethod
    @abstractmethod
    def of(cls, name: str, settings: Any, shop: Shop) -> Self:
        """Make the rule of a configuration for a shop.

        Parameters
        ----------
        settings
            The section of the kind, out of `recsys.settings.rules`.

        Raises
        ------
        InputError
            A column, a list or an attribute is not there; one sentence with the nearest name.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class Eligible(Rule):
    """Stage 1: bool [V + 1], items that may be recommended; row 0 is False."""

    allowed: np.ndarray


class Seen(Rule):
    """Stage 2: the events of a history that hide their item.

    Attributes
    ----------
    has_the_last_word
        Whether it acts after those that let items come again, wherever the configuration has it.
    """

    has_the_last_word: ClassVar[bool] = False

    @abstractmethod
    def hides(self, histories: Sequences, hidden: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Return which events hide their item, bool [N], given those that do so far.

        Parameters
        ----------
        histories
            Of b users. An event of a history without times counts as of this moment.
        now
            int64 [b]: the moment of each user's list, in microseconds since 1970.
        """


class Pair(Rule):
    """Stage 3: the items that a user may get."""

    @abstractmethod
    def prepared(self, histories: Sequences) -> Any:
        """Return what `fits` needs of these b users, worked out once."""

    @abstractmethod
    def fits(self, prepared: Any, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """Return whether user `rows[p]` may get item `codes[p]`, bool of the arrays' shape."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Floor(Rule):
    """Stage 3: the least score of the model, or of its blend, before boosts."""

    least: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Boost(Rule):
    """Stage 4: float32 [V + 1], added to the scores of the model's, or its blend's, rows."""

    added: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class Cap(Rule):
    """Stage 5: at most so many items of a value in a list.

    Attributes
    ----------
    values
        int32 [V + 1, g]: distinct numbers of an item's values, from 0; `count` where there is none.
    count
        Number of distinct values.
    most
        Items of a value in a list.
    """

    values: np.ndarray
    count: int
    most: int


class Spread(Rule):
    """Stage 5: relevance against likeness, in a pool of the best items."""

    weight: float  # of the likeness, from 0 to 1
    pool: int  # items

    @abstractmethod
    def likeness(self, codes: np.ndarray) -> np.ndarray:
        """Return how alike items are, float32 [b, m, m] of codes [b, m]; 1 for an item and itself, 0 for nothing."""


class Pin(Rule):
    """Stage 5: items at places of their own."""

    codes: np.ndarray  # int32 [q]
    place: int  # of the first, from 0

    @abstractmethod
    def meant_for(self, histories: Sequences) -> np.ndarray:
        """Return which users get them, bool [b]."""
