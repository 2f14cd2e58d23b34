"""Both stages together: the sources propose, a ranker decides. Or the model's vectors alone, where nothing is blended.

Shapes: U users, b users of a block, V items (arrays by code have V + 1 rows), D width, k items wanted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from recsys.candidates.base import Block, Source
from recsys.candidates.registry import SOURCES, sources_of
from recsys.candidates.stage import Proposals, blocks, propose, source_names
from recsys.candidates.vector import Vector
from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.loops.choice import loops
from recsys.ranking.base import Ranker
from recsys.ranking.pairs import PairScores, ScoredPairs
from recsys.ranking.registry import DEFAULT, RANKERS
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.shelf import Shelf
from recsys.retrieval.top_k import top_k, top_k_with_repeats

S = TypeVar("S", bound=Source)


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Blended:
    """Parts of a blend: the fitted sources, the ranker, and how many items each source proposes."""

    sources: tuple[Source, ...]
    ranker: Ranker
    candidates: int

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the sources; bit s of what `best_items` returns stands for source s."""
        return tuple(source.name for source in self.sources)

    def source(self, kind: type[S]) -> S | None:
        """The source of a class; None where the bundle has none."""
        return next((source for source in self.sources if isinstance(source, kind)), None)

    def propose(self, block: Block, n: int | None = None) -> Proposals:
        """Candidates of a block of users, with what the ranker wants to see; `n` of each source, or as fitted."""
        wanted = {"features": self.ranker.features, "context": self.ranker.context}
        return propose(self.sources, block, n=self.candidates if n is None else n, **wanted)

    def declaration(self) -> dict[str, Any]:
        """JSON-friendly: what the tensors are of."""
        return {
            "sources": list(self.names),
            "ranker": self.ranker.name,
            "features": list(self.ranker.features),
            "context": list(self.ranker.context),
            "candidates": self.candidates,
        }

    def to_tensors(self) -> dict[str, np.ndarray]:
        """Arrays for a safetensors file, by name.

        Raises
        ------
        ValueError
            Two parts have tensors of one name.
        """
        found: dict[str, np.ndarray] = {}
        parts: tuple[Source | Ranker, ...] = (*self.sources, self.ranker)
        for part in parts:
            own = part.to_tensors()
            if taken := found.keys() & own.keys():
                raise ValueError(f"{part.name!r} has a tensor {min(taken)!r} as another part of the blend has")
            found |= own
        return found

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], declared: Mapping[str, Any]) -> Self:
        """The inverse of `to_tensors` and `declaration`, also of those that do not yet name their sources.

        Raises
        ------
        ValueError
            A source, a ranker or a feature that this program does not know, or a tensor that is lacking.
        """
        features, context = declared["features"], declared["context"]
        ranker = declared.get("ranker", DEFAULT)
        if ranker not in RANKERS:
            raise ValueError(f"its blend ranks by {ranker!r}, which this program does not know")
        sources = tuple(_read(name, tensors) for name in declared.get("sources", sources_of(features)))
        for kind, wanted, known in (
            ("weighs", features, {feature.name for source in sources for feature in source.FEATURES}),
            ("is given", context, {name for source in sources for name in source.CONTEXT}),
        ):
            if unknown := [name for name in wanted if name not in known]:
                named = ", ".join(map(repr, unknown))
                raise ValueError(f"the blend {kind} {named}, which none of its sources computes")
        return cls(
            sources=sources,
            ranker=RANKERS[ranker].from_tensors(tensors, features, context),
            candidates=int(declared["candidates"]),
        )


def best_items(
    items: ItemIndex,
    queries: np.ndarray,
    blended: Blended | None,
    histories: Sequences,
    *,
    k: int,
    exclude_seen: bool = True,
    repeats: np.ndarray | None = None,
    shelf: Shelf | None = None,
    hiding: Sequences | None = None,
    propose: int | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k best items of each user, by the blend or by the model's vectors alone: higher score first, then lower code.

    Parameters
    ----------
    items, queries
        The model: its index and float32 [U, D] vectors of the histories.
    repeats
        float32 [L] of a model that has them, for its vectors alone; the blend knows what was seen by itself.
    shelf
        The items that may be recommended; None: all.
    hiding
        Events of the same users whose items are left out, in place of all or none; None: as `exclude_seen` says.
    propose
        Items that each source of a blend proposes, at least; None: k.

    Returns
    -------
    codes, scores, by
        int32, float32 and uint64 (who proposed it; see `proposers`) [U, k], or fewer columns where there are fewer
        items, best first; code 0 and score minus infinity where nothing is left. The blend's scores compare items for
        one user, not users.
    """
    if blended is None:
        items = items if shelf is None else shelf.index
        k = min(k, len(items.codes))
        hidden, excluded = (histories, exclude_seen) if hiding is None else (hiding, True)
        if repeats is None or (exclude_seen and hiding is None):
            codes, scores = top_k(items, queries, hidden, k=k, exclude_seen=excluded)
        else:
            codes, scores = top_k_with_repeats(items, queries, histories, repeats, k=k, hiding=hiding)
        return codes, scores, (codes != PADDING).astype(np.uint64)
    k = min(k, len(items.vectors) - 1 if shelf is None else int(shelf.allowed.sum()))
    codes = np.full((len(histories), k), PADDING, dtype=np.int32)
    scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
    by = np.zeros((len(histories), k), dtype=np.uint64)
    options: dict[str, Any] = {"exclude_seen": exclude_seen, "shelf": shelf, "hiding": hiding}
    for part, block in blocks(items, queries, histories, **options):
        found = blended.propose(block, max(k if propose is None else propose, blended.candidates))
        values = blended.ranker.scores(found.features, found.context)
        order, place = loops(len(block)).first(found.rows, found.codes, values, len(block), k)
        at = (part.start + found.rows[order], place)
        codes[at], scores[at], by[at] = found.codes[order], values[order], found.by[order]
    return codes, scores, by


def proposers(by: np.ndarray, blended: Blended | None) -> np.ndarray:
    """Names of the sources of an item, str of the shape of `by` out of `best_items`: "vector+transitions", say."""
    return source_names(by, (Vector.name,) if blended is None else blended.names)


def blend_scores(
    items: ItemIndex,
    queries: np.ndarray,
    blended: Blended,
    histories: Sequences,
    *,
    n: int,
    exclude_seen: bool = True,
) -> PairScores:
    """Score what the sources propose, `n` items each; nothing else is ranked."""

    def score(start: int, stop: int) -> ScoredPairs:
        rows, codes, scores = [np.empty(0, np.int64)], [np.empty(0, np.int64)], [np.empty(0, np.float32)]
        asked = histories.select(np.arange(start, stop))
        for part, block in blocks(items, queries[start:stop], asked, exclude_seen=exclude_seen):
            found = blended.propose(block, n)
            rows.append(found.rows + part.start)
            codes.append(found.codes)
            scores.append(blended.ranker.scores(found.features, found.context))
        return ScoredPairs(rows=np.concatenate(rows), codes=np.concatenate(codes), scores=np.concatenate(scores))

    return PairScores(score)


def _read(name: str, tensors: Mapping[str, np.ndarray]) -> Source:
    if name not in SOURCES:
        raise ValueError(f"its blend asks the source {name!r}, which this program does not know")
    try:
        return SOURCES[name].from_tensors(tensors)
    except KeyError as error:
        raise ValueError(f"the source {name!r} of its blend lacks its part {error}") from None
