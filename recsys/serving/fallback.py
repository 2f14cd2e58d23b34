"""Lists that need no model: for users of whom it knows too little, and for places that it leaves empty.

The ladder: the model (and its blend) where it has something to say; else what is called like the user's items; else
what sells now, in the user's segment where one is declared. A bundle keeps the last rung: it answers without the log.

Shapes: U users, b users of a batch, V items (arrays by code have V + 1 rows, row 0 is no item), E width of texts, k.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final, Self

import numpy as np
import polars as pl

from recsys.candidates.popularity import recent_popularity
from recsys.columns import PADDING
from recsys.data.sequences import Sequences

PART: Final = "fallback"  # of a bundle
OWN, BY_TEXT, BY_POPULARITY = 0, 1, 2  # the rungs
BY_RULE: Final = -1  # beside them: a pinned item
PINNED_BY: Final = "rule-"  # in the table, before the name of the rule that pins an item
FEWEST: Final = 30  # users of a segment whose counts say something
NAMES: Final = {BY_TEXT: "fallback-text", BY_POPULARITY: "fallback-popularity"}  # as the table calls them


@dataclass(frozen=True, kw_only=True, eq=False)
class Popular:
    """Counts of what sells now, by segment.

    Attributes
    ----------
    counts
        float32 [S + 1, V + 1], newer events of a user weighing more; row 0 is of all users.
    attribute
        The user attribute that makes the segments; None: there are none.
    segments
        The S values, in the order of the rows from 1.
    """

    counts: np.ndarray
    attribute: str | None = None
    segments: tuple[str, ...] = ()

    @classmethod
    def fit(cls, histories: Sequences, size: int, attribute: str | None = None) -> Self:
        """Count the newest events of all users, and of each segment's; a segment of few users says what all say.

        Without the attribute there are no segments.
        """
        everyone = recent_popularity(histories.items, histories.offsets, size)
        known = histories.attributes
        if attribute is None or known is None or attribute not in known.columns:
            return cls(counts=everyone[None])
        owners = _values(known[attribute])
        bare = replace(histories, times=None, attributes=None, context=None)
        counts, segments = [everyone], []
        for value in owners.drop_nulls().unique().sort().to_list():
            own = bare.select((owners == value).fill_null(False).to_numpy())
            if len(own) >= FEWEST:
                counts.append(recent_popularity(own.items, own.offsets, size))
                segments.append(value)
        return cls(counts=np.stack(counts), attribute=attribute, segments=tuple(segments))

    def rows_of(self, histories: Sequences) -> np.ndarray:
        """int64 [U] rows of `counts`; 0 where the segment is not known."""
        if self.attribute is None or histories.attributes is None or self.attribute not in histories.attributes.columns:
            return np.zeros(len(histories), dtype=np.int64)
        place = {value: row for row, value in enumerate(self.segments, 1)}
        owners = _values(histories.attributes[self.attribute]).to_list()
        return np.array([place.get(value or "", 0) for value in owners], dtype=np.int64)

    def declaration(self) -> dict[str, Any]:
        """JSON-friendly: which attribute makes the segments, and their names."""
        return {"attribute": self.attribute, "segments": list(self.segments)}

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Arrays by name."""
        return {"counts": self.counts}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], declared: Mapping[str, Any]) -> Self:
        """The inverse of `to_tensors` and `declaration`."""
        return cls(counts=tensors["counts"], attribute=declared["attribute"], segments=tuple(declared["segments"]))


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts:
    """Texts of items that the bundle knows, and of what users had that it does not know.

    Attributes
    ----------
    items
        float32 [V + 1, E] unit vectors; zeros without a text.
    users
        User id to float32 [E], the mean of the texts of what the user had.
    """

    items: np.ndarray
    users: Mapping[Any, np.ndarray]


@dataclass(frozen=True, kw_only=True, eq=False)
class Fallback:
    """The rungs below the model.

    Attributes
    ----------
    popular
        What sells now.
    allowed
        bool [V + 1]: items that may be recommended.
    texts
        None: no texts.
    """

    popular: Popular
    allowed: np.ndarray
    texts: Texts | None = None
    _orders: dict[int, np.ndarray] = field(default_factory=dict, init=False, repr=False)

    def fill(
        self,
        histories: Sequences,
        codes: np.ndarray,
        scores: np.ndarray,
        silent: np.ndarray,
        *,
        k: int,
        exclude_seen: bool,
        hiding: Sequences | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Fill lists up to k.

        Parameters
        ----------
        codes, scores
            int32 and float32 [b, K] of `best_items`, K at most k.
        silent
            bool [b]: users of whom the model says nothing; what stands in their rows is replaced.
        hiding
            Events of the same users whose items are left out, in place of all or none; None: as `exclude_seen` says.

        Returns
        -------
        codes, scores, rungs
            [b, k], or as many columns as there are items; scores fall from rank to rank in a list and compare no users;
            `rungs` int8 says who chose an item.
            Code 0 where nothing is left.
        """
        b, given = codes.shape
        k = max(given, min(k, int(self.allowed.sum())))
        full = np.full((b, k), PADDING, dtype=np.int32)
        value = np.full((b, k), -np.inf, dtype=np.float32)
        full[:, :given], value[:, :given] = codes, scores
        full[silent], value[silent] = PADDING, -np.inf
        rungs = np.zeros((b, k), dtype=np.int8)
        short = np.flatnonzero((full == PADDING).any(axis=1))
        segment = self.popular.rows_of(histories)
        for row in short:
            had = int((full[row] != PADDING).sum())
            taken = full[row, :had]
            if hiding is not None or exclude_seen:
                taken = np.concatenate([taken, (histories if hiding is None else hiding).history(int(row))])
            place = had
            for rung, order in self._rungs(histories, int(row), int(segment[row]), had):
                enough = order[: k - place + len(taken)]  # what was taken can cost no more than its number
                new = enough[~np.isin(enough, taken)][: k - place]
                full[row, place : place + len(new)], rungs[row, place : place + len(new)] = new, rung
                place += len(new)
                taken = np.concatenate([taken, new])
            below = min(float(value[row, had - 1]), 0.0) if had else 0.0
            value[row, had:place] = below - np.arange(1, place - had + 1, dtype=np.float32)
        return full, value, rungs

    def _rungs(self, histories: Sequences, row: int, segment: int, had: int) -> Sequence[tuple[int, np.ndarray]]:
        """Orders of codes, best first: by text where the model said nothing, then by popularity."""
        found = [] if segment == 0 else [(BY_POPULARITY, self._popular(segment))]
        found.append((BY_POPULARITY, self._popular(0)))
        query = None if self.texts is None or had else self.texts.users.get(histories.users[row])
        if self.texts is not None and query is not None and query.any():
            similar = self.texts.items @ query
            order = np.argsort(-similar, kind="stable")
            found.insert(0, (BY_TEXT, order[(similar[order] > 0) & self.allowed[order]].astype(np.int32)))
        return found

    def _popular(self, segment: int) -> np.ndarray:
        """All allowed codes, most popular first; those that nobody had come last, by code."""
        if segment not in self._orders:
            counts = np.where(self.allowed, self.popular.counts[segment], -1.0)
            order = np.argsort(-counts, kind="stable").astype(np.int32)
            kept = order[self.allowed[order] & (order != PADDING)]
            self._orders[segment] = kept if segment == 0 else kept[self.popular.counts[segment][kept] > 0]
        return self._orders[segment]


def named(names: np.ndarray, rungs: np.ndarray) -> np.ndarray:
    """Name who chose each item, [b, k], out of the proposers' names [b, K], K at most k, and the rungs [b, k]."""
    whole = np.full(rungs.shape, "", dtype=object)
    whole[:, : names.shape[1]] = names
    for rung, name in NAMES.items():
        whole[rungs == rung] = name
    return whole


def _values(column: pl.Series) -> pl.Series:
    """A segment's name for each user, String: text of a value, or the first of several."""
    if column.dtype == pl.List:
        column = column.list.first()
    return column.cast(pl.String)
