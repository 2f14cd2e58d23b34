"""A bundle, opened: vectors of histories, the next items after them, and what is like an item.

The command, the candidate table, evaluation, MLflow's model and Python all ask this one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle, parsing, read_bundle
from recsys.bundles.manifest import BLEND
from recsys.candidates.popularity import Popularity
from recsys.columns import CANDIDATE_SOURCE, ITEM_ID, PADDING, RANK, SCORE, TITLE
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.models.base import Parts, Recommender
from recsys.models.registry import estimator_of
from recsys.ranking.blend import Blended, best_items
from recsys.retrieval.exact import best_first, exact_scores
from recsys.retrieval.shelf import Shelf
from recsys.serving.fallback import PART as FALLBACK
from recsys.serving.fallback import Fallback, Popular
from recsys.serving.histories import history_of
from recsys.serving.lists import lists
from recsys.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Answer:
    """Items for one history.

    Attributes
    ----------
    items
        `rank` (from 1), `item_id`, `title` (None where unknown), `score` (the blend's, or the inner product where the
        bundle has no blend), `source` (who proposed it), best first.
    unknown
        Ids of the history that the bundle does not know; they were left out.
    by_fallback
        Whether the model had nothing to say, and the items are what sells now.
    """

    items: list[dict[str, Any]]
    unknown: list[str] = field(default_factory=list)
    by_fallback: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class BundleRecommender:
    """Recommender that answers from a bundle alone, without warehouse and log.

    Attributes
    ----------
    bundle
        Its vocabulary and catalogue are what answers are told in.
    model
        Made of the bundle's parts.
    """

    bundle: Bundle
    model: Recommender

    @cached_property
    def blended(self) -> Blended | None:
        """The blend of all sources; None where the model's vectors serve alone."""
        tensors = self.bundle.part(BLEND)
        if tensors is None:
            return None
        with parsing(self.bundle.path):
            return Blended.from_tensors(tensors, self.bundle.features()[BLEND])

    def check_features(self, settings: Settings) -> None:
        """Refuse tables whose features are not declared as those that the bundle's model was trained with.

        Raises
        ------
        InputError
            Names the bundle, the feature, and what to do.
        """
        self.model.check_features(settings)

    def encode(self, histories: Sequences) -> np.ndarray:
        """float32 [U, D]: vectors of histories in the bundle's codes, with what they tell of users and events."""
        return self.model.encode(histories)

    def best(
        self,
        histories: Sequences,
        *,
        k: int,
        exclude_seen: bool = True,
        shelf: Shelf | None = None,
        queries: np.ndarray | None = None,
        hiding: Sequences | None = None,
        propose: int | None = None,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The k items that come next, for each history, as the bundle serves them.

        Parameters
        ----------
        histories
            Of U users, in the bundle's codes.
        shelf
            The items that may be recommended; None: all that the model can place.
        queries
            `encode` of these histories, where they are known already.
        hiding, propose
            See `recsys.ranking.blend.best_items`.

        Returns
        -------
        codes, scores, by
            See `recsys.ranking.blend.best_items`.
        """
        return best_items(
            self.bundle.index(),
            self.encode(histories) if queries is None else queries,
            self.blended,
            histories,
            k=k,
            exclude_seen=exclude_seen,
            repeats=self.model.repeats,
            shelf=shelf,
            hiding=hiding,
            propose=propose,
        )

    def proposing(self, n: int) -> int:
        """Items that each source proposes where n are asked for."""
        return n if self.blended is None else max(n, self.blended.candidates)

    def widest(self, n: int) -> int:
        """The most items of a user where n are asked of each source."""
        return n if self.blended is None else self.proposing(n) * len(self.blended.sources)

    def is_silent(self, histories: Sequences, queries: np.ndarray) -> np.ndarray:
        """bool [U]: users of whom the bundle can say nothing, by their histories and queries float32 [U, D]."""
        nothing: np.ndarray = histories.lengths == 0
        return nothing if self.blended is not None else nothing | ~queries.any(axis=1)

    @cached_property
    def fallback(self) -> Fallback | None:
        """The rungs below the model; None in a bundle that has counted nothing."""
        tensors = self.bundle.part(FALLBACK)
        if tensors is not None:
            with parsing(self.bundle.path):
                popular = Popular.from_tensors(tensors, self.bundle.features()[FALLBACK])
        else:
            counted = None if self.blended is None else self.blended.source(Popularity)
            if counted is None:
                return None
            popular = Popular(counts=counted.recent[None])
        return Fallback(popular=popular, allowed=self.bundle.allowed)

    def recommend(self, history: Sequence[Any], k: int, *, exclude_seen: bool = True) -> list[dict[str, Any]]:
        """The k items most likely to come after a history: the items of `answer`."""
        return self.answer(history, k, exclude_seen=exclude_seen).items

    def answer(self, history: Sequence[Any], k: int, *, exclude_seen: bool = True) -> Answer:
        """The k items most likely to come after a history, and which of it the bundle does not know.

        Parameters
        ----------
        history
            Raw item ids, oldest first; as numbers or as text. Unknown ones are left out. Where nothing is left, the
            answer is what sells now.
        k
            At least 1; fewer are given where the catalogue has no more.
        exclude_seen
            Leave out the history's own items.

        Raises
        ------
        InputError
            k is below 1; or the model cannot place the history, and the bundle has counted nothing.
        """
        _check_k(k)
        given = [str(item) for item in history]
        codes = self.bundle.vocabulary.encode(pl.Series(ITEM_ID, given, dtype=pl.String))
        unknown = [item for item, code in zip(given, codes.tolist(), strict=True) if code == PADDING]
        items = codes[codes != PADDING]
        one = Sequences.nameless(items, np.array([0, len(items)]))
        return replace(self._of_one(one, k, exclude_seen), unknown=unknown)

    def answer_user(self, user: str, k: int, *, exclude_seen: bool = True) -> Answer:
        """As `answer`, for a user of the warehouse that the bundle lies in, with what it tells of him and his events.

        Raises
        ------
        InputError
            An unknown user, or a bundle outside of a warehouse.
        """
        _check_k(k)
        return self._of_one(history_of(self.bundle, user), k, exclude_seen)

    def similar(self, item: Any, k: int) -> list[dict[str, Any]]:
        """The k items whose vectors point the same way; an output bias (popularity) takes no part.

        Parameters
        ----------
        item
            A raw item id, as a number or as text.

        Returns
        -------
        list of dict
            As `recommend`; `score` is the cosine, from -1 to 1. The item itself is left out.

        Raises
        ------
        InputError
            An unknown item, or one without a vector.
        """
        _check_k(k)
        bundle = self.bundle
        code = int(bundle.vocabulary.encode_text([str(item)])[0])
        meaning = bundle.vectors[:, : bundle.vectors.shape[1] - bundle.bias_dims]  # [V + 1, D]
        norms = np.sqrt(np.einsum("vd,vd->v", meaning, meaning, dtype=np.float64))
        if not norms[code]:
            raise InputError(f"Item {item!r} has no vector in this bundle (it has no text); ask for another.")
        others = np.flatnonzero(bundle.allowed & (norms > 0) & (np.arange(len(norms)) != code))
        query = (meaning[code] / norms[code]).astype(np.float32)[None, :]
        units = (meaning[others] / norms[others, None]).astype(np.float32)
        scores = exact_scores(query, units, np.zeros(len(others), dtype=np.int64), np.arange(len(others)))
        codes, scores = best_first(others[None, :], scores[None, :], min(k, len(others)))
        return self._rows(codes[0], scores[0])

    def _of_one(self, history: Sequences, k: int, exclude_seen: bool) -> Answer:
        if self.fallback is None and self.is_silent(history, self.encode(history))[0]:
            has = "no item that the bundle knows" if not len(history.items) else "no item that the model can place"
            raise InputError(
                f"The history has {has}, and {self.bundle.label} has counted nothing to fall back on, as it "
                f"learned from no event or is an old one; give items such as {self.bundle.vocabulary.items[0]!r}."
            )
        found = lists(self, history, k=k, exclude_seen=exclude_seen, fallback=self.fallback)
        items = self._rows(found.codes[0], found.scores[0], found.names[0])
        return Answer(items=items, by_fallback=bool(found.by_fallback[0]))

    def _rows(self, codes: np.ndarray, scores: np.ndarray, names: np.ndarray | None = None) -> list[dict[str, Any]]:
        found = codes != PADDING
        chosen = self.bundle.catalogue[codes[found].astype(np.int64) - 1]
        titles = chosen[TITLE].to_list() if TITLE in chosen.columns else [None] * len(chosen)
        rows: list[dict[str, Any]] = [
            {RANK: rank, ITEM_ID: item, TITLE: title, SCORE: score}
            for rank, (item, title, score) in enumerate(
                zip(chosen[ITEM_ID].to_list(), titles, scores[found].tolist(), strict=True), start=1
            )
        ]
        if names is not None:
            rows = [row | {CANDIDATE_SOURCE: name} for row, name in zip(rows, names[found].tolist(), strict=True)]
        return rows


def open_bundle(path: str | Path, verify: bool = True) -> BundleRecommender:
    """Open a bundle's folder for answers; see `recsys.bundles.bundle.read_bundle` for `verify`.

    Raises
    ------
    InputError
        Not a sound bundle, or its parts are not those of a model of its kind.
    """
    return recommender_of(read_bundle(path, verify))


def recommender_of(bundle: Bundle) -> BundleRecommender:
    """Return the recommender of a bundle that is open.

    Raises
    ------
    InputError
        Its parts are not those of a model of its kind, such as weights of another version of it.
    """
    kind = estimator_of(bundle.kind).recommender
    with parsing(bundle.path):
        parts = Parts(
            vectors=bundle.vectors, allowed=bundle.allowed, weights=bundle.weights(), declared=bundle.features()
        )
        return BundleRecommender(bundle=bundle, model=kind(bundle.settings, parts))


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k = {k} must be at least 1.")
