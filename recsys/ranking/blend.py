"""Candidates of several sources: each proposes its best unseen items, the union gets features, the blend decides.

Everything is computed for one block of users, so memory does not grow with users x items. Evaluation, retrieval and
answers call the same function, so what is measured is what is served.

Shapes: b users of a block, V items (arrays by code have V + 1 rows), D width, P pairs of user and candidate,
F features, C context values, n proposals of one source.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import torch
from scipy import sparse

from recsys.candidates.counts import DECAY, LAST, recency_weights
from recsys.candidates.linear import FADING, PAST, WHOLE
from recsys.candidates.neighbours import TOGETHER, Neighbours, mean_weights
from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.ranking.loglinear import Blend
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.shelf import Shelf
from recsys.retrieval.top_k import top_k, top_k_with_repeats

# who proposes; bits of `Proposals.by`
SOURCES: Final = ("vector", "transitions", "together", "linear", "text", "popularity", "history")
ROOTED: Final = ("followed", "next", "together", "linear", "linear_next")  # features that are square roots
# pairs of features without a product: the regressions say 0 of every new item, so it would move all new items together
UNPAIRED: Final = (("new", "linear"), ("new", "linear_next"))
CONTEXT: Final = ("sightings", "length")  # of the newest item, of the history
REFERENCE: Final = 10  # of the model's best unseen items, to which its scores are compared; the least `n` there is
BLOCK_FLOATS: Final = 4_000_000  # of a block's scores against the whole catalogue


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Proposals:
    """The candidates of a block of users.

    Attributes
    ----------
    rows, codes
        int64 [P], ascending by (row, code).
    by
        uint8 [P]: bit s is set where `SOURCES[s]` proposed the candidate.
    features, context
        float32 [P, F] in the order of `feature_names`, and [P, C].
    """

    rows: np.ndarray
    codes: np.ndarray
    by: np.ndarray
    features: np.ndarray
    context: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Blended:
    """What a bundle needs to blend: the tables, the weights, and how many items each source proposes."""

    neighbours: Neighbours
    weights: Blend
    candidates: int

    def declaration(self) -> dict[str, Any]:
        """JSON-friendly: what the tensors are weights of."""
        return {
            "features": list(self.weights.features),
            "context": list(self.weights.context),
            "candidates": self.candidates,
        }

    def to_tensors(self) -> dict[str, np.ndarray]:
        """What a safetensors file needs to hold, by name."""
        return self.neighbours.to_tensors() | self.weights.to_tensors()

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], declared: Mapping[str, Any]) -> Self:
        """The inverse of `to_tensors` and `declaration`.

        Raises
        ------
        ValueError
            The weights are of other features than this program computes.
        """
        neighbours = Neighbours.from_tensors(tensors)
        weights = Blend.from_tensors(tensors, declared["features"], declared["context"])
        expected = (feature_names(neighbours), CONTEXT)
        if (weights.features, weights.context) != expected:
            raise ValueError(f"the blend weighs {weights.features} given {weights.context}, not {expected}")
        return cls(neighbours=neighbours, weights=weights, candidates=int(declared["candidates"]))


def feature_names(neighbours: Neighbours) -> tuple[str, ...]:
    """F names: what the sources say of a pair of user and item.

    - "model": the model's score minus the logarithm of the summed exponentials of its ten best for this user.
    - "followed", "next", "together": square roots of shares and cosines. They lie between the shares, which trust one
      sighting too much, and logarithms, which trust the lack of any too much.
    - "linear", "linear_next": square roots of what the regressions say, signs kept.
    - "popular", "recent": logarithms of counts.
    - "new": the item has no count at all. Counts then say nothing, and the products with "new" leave it to the others.
    - "seen": how often the item is in the history, 0 for never, 1 for once, then growing as the logarithm does.
    - "text", "words": similarities.
    """
    names = ("model", *ROOTED, "popular", "recent", "new", "seen")
    return names if neighbours.text is None else (*names, "text", "words")


def propose(
    items: ItemIndex,
    queries: np.ndarray,
    neighbours: Neighbours,
    histories: Sequences,
    *,
    n: int,
    exclude_seen: bool = True,
    shelf: Shelf | None = None,
) -> Proposals:
    """The union of what the sources propose for a block of users, with features.

    Parameters
    ----------
    items, queries
        The model: its index and float32 [b, D] vectors of the histories.
    neighbours
        The other sources.
    histories
        Of the b users.
    n
        Items that each source proposes, at most: those that it knows nothing of are not proposed, but by popularity.
    exclude_seen
        Leave out the items of the user's own history.
    shelf
        Propose its items alone; None: all. Features are the same with it and without it.
    """
    stride = len(items.vectors)
    allowed = None if shelf is None else shelf.allowed
    seen = _keys_of_histories(histories, stride)
    newest = mean_weights(histories.items, histories.offsets, stride - 1, last=LAST, decay=DECAY)
    last = mean_weights(histories.items, histories.offsets, stride - 1, last=1, decay=1.0)
    every = mean_weights(histories.items, histories.offsets, stride - 1, last=TOGETHER, decay=1.0)
    whole = recency_weights(histories.items, histories.offsets, stride - 1, last=WHOLE, decay=1.0)
    fading = recency_weights(histories.items, histories.offsets, stride - 1, last=PAST, decay=FADING)
    hidden = seen if exclude_seen else seen[:0]

    found, logits = top_k(items, queries, histories, k=min(n, len(items.codes)), exclude_seen=exclude_seen)
    if shelf is not None:
        k = min(n, len(shelf.index.codes))
        found, _ = top_k(shelf.index, queries, histories, k=k, exclude_seen=exclude_seen)
    place = np.nonzero(found != PADDING)
    scores = {  # each [b, V + 1]
        "followed": (newest @ neighbours.followed).toarray(),
        "next": (last @ neighbours.next).toarray(),
        "together": (every @ neighbours.together).toarray(),
        "linear": (whole @ neighbours.linear).toarray(),
        "linear_next": (fading @ neighbours.linear_next).toarray(),
    }
    proposed = {
        "vector": np.sort(place[0] * stride + found[place]),
        "transitions": _best_keys(scores["followed"], hidden, n, allowed),
        "together": _best_keys(scores["together"], hidden, n, allowed),
        "linear": _best_keys(scores["linear"], hidden, n, allowed),
        "popularity": _most_popular(neighbours.recent, hidden, len(histories), n, allowed),
    }
    if neighbours.text is not None:
        scores["text"] = (newest @ neighbours.text) @ neighbours.text.T
        proposed["text"] = _best_keys(scores["text"], hidden, n, allowed)

    if not exclude_seen:  # what somebody buys again and again need not be what others buy
        had = recency_weights(histories.items, histories.offsets, stride - 1, last=WHOLE, decay=1.0).toarray()
        proposed["history"] = _best_keys(had, hidden, n, allowed)

    keys = _distinct(np.concatenate(list(proposed.values())))
    by = np.zeros(len(keys), dtype=np.uint8)
    for name, own in proposed.items():
        by[np.searchsorted(keys, own)] |= 1 << SOURCES.index(name)
    rows, codes = keys // stride, keys % stride
    features = [
        _logits(items, queries, logits, rows, codes) - _log_sum(logits[:, :REFERENCE])[rows],
        *(_signed_root(scores[name][rows, codes]) for name in ROOTED),
        np.log1p(neighbours.popular[codes]),
        np.log1p(neighbours.recent[codes]),
        neighbours.popular[codes] == 0,
        np.zeros(len(keys)) if exclude_seen else np.log2(1 + had[rows, codes]),
    ]
    if neighbours.words is not None:
        asked = (newest @ neighbours.words).toarray()  # [b, W]
        features += [scores["text"][rows, codes], _shared_words(asked, neighbours.words, rows, codes)]
    lengths = np.log1p(np.minimum(histories.lengths, TOGETHER))
    sightings = np.log1p(last @ neighbours.popular)
    return Proposals(
        rows=rows,
        codes=codes,
        by=by,
        features=np.stack(features, axis=1).astype(np.float32),
        context=np.stack([sightings, lengths], axis=1).astype(np.float32)[rows],
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
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The k best items of each user, by the blend or by the model's vectors alone: higher score first, then lower code.

    Parameters
    ----------
    repeats
        float32 [L] of a model that has them, for its vectors alone; the blend knows what was seen by itself.
    shelf
        The items that may be recommended; None: all.

    Returns
    -------
    codes, scores, by
        int32, float32 and uint8 (bits of `SOURCES`) [b, k], or fewer columns where there are fewer items, best first;
        code 0 and score minus infinity where nothing is left. The blend's scores compare items for one user, not users.
    """
    if blended is None:
        items = items if shelf is None else shelf.index
        k = min(k, len(items.codes))
        if repeats is None or exclude_seen:
            codes, scores = top_k(items, queries, histories, k=k, exclude_seen=exclude_seen)
        else:
            codes, scores = top_k_with_repeats(items, queries, histories, repeats, k=k)
        return codes, scores, np.where(codes != PADDING, 1 << SOURCES.index("vector"), 0).astype(np.uint8)
    k = min(k, len(items.vectors) - 1 if shelf is None else int(shelf.allowed.sum()))
    n = max(k, blended.candidates)
    codes = np.full((len(histories), k), PADDING, dtype=np.int32)
    scores = np.full((len(histories), k), -np.inf, dtype=np.float32)
    by = np.zeros((len(histories), k), dtype=np.uint8)
    block = max(1, BLOCK_FLOATS // len(items.vectors))
    for start in range(0, len(histories), block):
        part = np.arange(start, min(start + block, len(histories)))
        found = propose(
            items,
            queries[part],
            blended.neighbours,
            histories.select(part),
            n=n,
            exclude_seen=exclude_seen,
            shelf=shelf,
        )
        values = blended.weights.scores(found.features, found.context)
        order = np.lexsort((found.codes, -values, found.rows))
        counts = np.bincount(found.rows, minlength=len(part))
        place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        order, place = order[place < k], place[place < k]
        at = (start + found.rows[order], place)
        codes[at], scores[at], by[at] = found.codes[order], values[order], found.by[order]
    return codes, scores, by


def blend_scores(
    items: ItemIndex,
    queries: np.ndarray,
    blended: Blended,
    histories: Sequences,
    *,
    n: int,
    exclude_seen: bool = True,
) -> Callable[[int, int], np.ndarray]:
    """(start, stop) -> scores float32 [stop - start, V + 1]; minus infinity for what no source proposed."""

    def score(start: int, stop: int) -> np.ndarray:
        part = histories.select(np.arange(start, stop))
        found = propose(items, queries[start:stop], blended.neighbours, part, n=n, exclude_seen=exclude_seen)
        scores = np.full((stop - start, len(items.vectors)), -np.inf, dtype=np.float32)
        scores[found.rows, found.codes] = blended.weights.scores(found.features, found.context)
        return scores

    return score


def source_names() -> np.ndarray:
    """What each value of `Proposals.by` is called: str [64], for example "vector+transitions"."""
    return np.array(
        ["+".join(name for bit, name in enumerate(SOURCES) if value >> bit & 1) for value in range(1 << len(SOURCES))]
    )


def _keys_of_histories(histories: Sequences, stride: int) -> np.ndarray:
    """Ascending distinct int64 keys `row * stride + code` of the histories' events, unknown items left out."""
    rows = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
    known = histories.items != PADDING
    return _distinct(rows[known] * stride + histories.items[known])


def _distinct(keys: np.ndarray) -> np.ndarray:
    """Ascending distinct keys; np.unique hashes, and takes longer."""
    keys = np.sort(keys)
    return keys[np.diff(keys, prepend=-1) > 0]


def _best_keys(scores: np.ndarray, hidden: np.ndarray, n: int, allowed: np.ndarray | None) -> np.ndarray:
    """Ascending keys of the n largest positive, allowed entries of each row [b, V + 1] that are not `hidden`."""
    width = scores.shape[1]
    masked = scores.copy() if allowed is None else np.where(allowed, scores, -np.inf).astype(scores.dtype)
    masked.reshape(-1)[hidden] = -np.inf
    best, codes = torch.from_numpy(masked).topk(min(n, width), dim=1, sorted=False)
    row, place = np.nonzero(best.numpy() > 0)
    return np.sort(row * width + codes.numpy()[row, place])


def _signed_root(values: np.ndarray) -> np.ndarray:
    """The square root of each value's distance from 0, with its sign."""
    return np.sign(values) * np.sqrt(np.abs(values))


def _most_popular(recent: np.ndarray, hidden: np.ndarray, users: int, n: int, allowed: np.ndarray | None) -> np.ndarray:
    """Ascending keys: for each user those of the n most popular, allowed items that are not `hidden`."""
    recent = recent if allowed is None else np.where(allowed, recent, 0)
    codes = np.argsort(-recent, kind="stable")[:n]
    codes = codes[recent[codes] > 0].astype(np.int64)
    keys = (np.arange(users, dtype=np.int64)[:, None] * len(recent) + np.sort(codes)).ravel()
    return keys[~_among(keys, hidden)]


def _among(keys: np.ndarray, ascending: np.ndarray) -> np.ndarray:
    """bool: which keys are in the ascending ones."""
    if not len(ascending):
        return np.zeros(len(keys), dtype=bool)
    return ascending[np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)] == keys


def _logits(
    items: ItemIndex, queries: np.ndarray, proposed: np.ndarray, rows: np.ndarray, codes: np.ndarray
) -> np.ndarray:
    """float32 [P] products of row `rows[p]` of `queries` and the vector of `codes[p]`.

    An item that the model cannot place has as much as the last one that it proposed, out of `proposed` [b, n].
    """
    found = np.empty(len(rows), dtype=np.float32)
    step = max(1, BLOCK_FLOATS // queries.shape[1])
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        found[part] = np.einsum("pd,pd->p", queries[rows[part]], items.vectors[codes[part]])
    placed = np.zeros(len(items.vectors), dtype=bool)
    placed[items.codes] = True
    lowest = np.where(np.isfinite(proposed), proposed, np.inf).min(axis=1, initial=np.inf)
    lowest = np.where(np.isfinite(lowest), lowest, 0.0)
    return np.where(placed[codes], found, lowest[rows])


def _log_sum(scores: np.ndarray) -> np.ndarray:
    """float64 [b]: the logarithm of the summed exponentials of each row [b, m]; 0 where a row has no finite score."""
    highest = scores.max(axis=1, initial=-np.inf, keepdims=True)
    finite = np.isfinite(highest)
    highest = np.where(finite, highest, 0.0)
    totals = np.exp(scores - highest, dtype=np.float64).sum(axis=1)
    return highest[:, 0] + np.log(np.where(finite[:, 0], totals, 1.0))


def _shared_words(asked: np.ndarray, words: sparse.csr_array, rows: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float32 [P]: the product of row `rows[p]` of `asked` [b, W] and row `codes[p]` of `words` [V + 1, W]."""
    theirs = words[codes]  # [P, W]
    owner = np.repeat(np.arange(len(rows)), np.diff(theirs.indptr))
    products = asked[rows[owner], theirs.indices] * theirs.data
    return np.bincount(owner, weights=products, minlength=len(rows)).astype(np.float32)
