"""The k best unseen items of each user; ties: higher score first, then lower code.

An exact index is searched by `exact.py`. An approximate FAISS index finds k, a margin, and as many as the user has
seen, or several times as many where its codes are coarse; seen items are masked, and the rest is scored again by
`exact_scores`. Where it finds too few, or the query is zero, the user is compared with every item.

Shapes: b users, n fetched, m kept, k wanted, P pairs, D width, V items (arrays by code have V + 1 rows).
"""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.columns import PADDING
from recsys.data.sequences import Sequences
from recsys.errors import RecsysError
from recsys.retrieval.exact import best_first, exact_scores
from recsys.retrieval.index import NOTHING, ItemIndex, search
from recsys.retrieval.repeats import bonuses

MARGIN: Final = 16  # fetched from an approximate index beyond k
FETCHED_AT_ONCE: Final = 2_000_000  # entries of one search's result; bounds memory


def top_k(
    items: ItemIndex,
    queries: np.ndarray,
    histories: Sequences,
    *,
    k: int,
    exclude_seen: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best items of the index for each query.

    Parameters
    ----------
    items
        The index. An approximate one gives approximate lists, but never short ones.
    queries
        float32 [b, D].
    histories
        What each of the b users has seen, in the same order.
    k
        Length of the lists.
    exclude_seen
        Leave out the items of the user's own history.

    Returns
    -------
    codes, scores
        int32 [b, k] and float32 [b, k], best first; code 0 and score minus infinity where nothing is left.

    Raises
    ------
    RecsysError
        A query vector is not finite.
    """
    if len(queries) != len(histories):
        raise ValueError(f"{len(queries)} queries do not fit {len(histories)} histories")
    bad = np.flatnonzero(~np.isfinite(queries).all(axis=1))
    if len(bad):
        raise RecsysError(
            f"The query vectors of {len(bad)} of {len(queries)} users hold numbers that are not finite; did the "
            "training diverge?"
        )
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    vectors, members, stride = items.vectors, items.codes, len(items.vectors)
    seen = _seen_keys(histories, items) if exclude_seen else np.empty(0, dtype=np.int64)
    if items.exact:
        return items.exact_search.best(queries, seen, k)
    seen_counts = np.bincount(seen // stride, minlength=len(queries))  # [b]
    codes = np.full((len(queries), k), PADDING, dtype=np.int32)
    scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
    wanted = wanted_of(items, k)
    fetch = _round_up(wanted + seen_counts, len(members))
    asked = queries.any(axis=1)
    for n in np.unique(fetch[asked]):
        group = np.flatnonzero(asked & (fetch == n))
        step = max(1, FETCHED_AT_ONCE // int(n))
        for start in range(0, len(group), step):
            rows = group[start : start + step]
            kept = _unseen(items, queries, rows, seen, int(n), wanted)
            codes[rows], scores[rows] = _best(queries, vectors, rows, kept, k)
    short = np.flatnonzero(codes[:, -1] == PADDING)
    if len(short):
        place = np.minimum(np.searchsorted(short, seen // stride), len(short) - 1)
        own = short[place] == seen // stride
        codes[short], scores[short] = items.exact_search.best(
            queries[short], place[own] * stride + seen[own] % stride, k
        )
    return codes, scores


def wanted_of(items: ItemIndex, k: int) -> int:
    """Return how many unseen items an approximate index is to find for a list of k, to be scored again."""
    assert items.approximate is not None
    return int(np.ceil((k + MARGIN) * items.approximate.fetch))


def top_k_with_repeats(
    items: ItemIndex,
    queries: np.ndarray,
    histories: Sequences,
    repeats: np.ndarray,
    *,
    k: int,
    hiding: Sequences | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """As `top_k` without `exclude_seen`, where the history's own items score more or less than their vectors say.

    Parameters
    ----------
    repeats
        float32 [L] that is added to the score of an item of the history, by steps back (recsys/models/repeats.py).
    hiding
        Events of the same users whose items are left out all the same; None: no item is.
    """
    codes, scores = top_k(items, queries, histories, k=k)
    stride = len(items.vectors)
    seen = _seen_keys(histories, items)
    if hiding is not None:
        seen = seen[~np.isin(seen, _seen_keys(hiding, items))]
    rows, own = seen // stride, seen % stride
    own_scores = exact_scores(queries, items.vectors, rows, own)
    users, had, values = bonuses(histories.items, histories.offsets, repeats)
    keys = users * stride + had
    place = np.minimum(np.searchsorted(seen, keys), max(len(seen) - 1, 0))
    known = seen[place] == keys if len(seen) else np.zeros(len(keys), dtype=bool)
    np.add.at(own_scores, place[known], values[known])
    column = np.arange(len(seen)) - np.searchsorted(rows, rows)
    widest = int(column.max(initial=-1)) + 1
    own_codes = np.full((len(queries), widest), PADDING, dtype=codes.dtype)
    beside = np.full((len(queries), widest), -np.inf, dtype=np.float32)
    own_codes[rows, column], beside[rows, column] = own, own_scores
    return best_first(np.hstack([codes, own_codes]), np.hstack([scores, beside]), k)


def _best(
    queries: np.ndarray, vectors: np.ndarray, rows: np.ndarray, kept: np.ndarray, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Exact scores of the kept codes [b, m] of some users, and the k best of them."""
    place, column = np.nonzero(kept != PADDING)
    scores = np.full(kept.shape, -np.inf, dtype=np.float32)
    scores[place, column] = exact_scores(queries, vectors, rows[place], kept[place, column])
    return best_first(kept, scores, k)


def _unseen(items: ItemIndex, queries: np.ndarray, rows: np.ndarray, seen: np.ndarray, n: int, keep: int) -> np.ndarray:
    """Codes [b, m] of the first `keep` unseen among n fetched; code 0: no more."""
    _, codes = search(items, queries[rows], n)  # [b, n]
    usable = codes != NOTHING
    if len(seen):
        keys = rows[:, None] * len(items.vectors) + codes
        place = np.minimum(np.searchsorted(seen, keys), len(seen) - 1)
        usable &= seen[place] != keys
    column = np.cumsum(usable, axis=1) - 1  # place among the unseen
    usable &= column < keep
    kept = np.full((len(rows), min(keep, n)), PADDING, dtype=np.int64)
    place = np.nonzero(usable)
    kept[place[0], column[place]] = codes[place]
    return kept


def _seen_keys(histories: Sequences, items: ItemIndex) -> np.ndarray:
    """Ascending distinct int64 keys `row * (V + 1) + code` of the events whose item can be found."""
    owner = np.repeat(np.arange(len(histories), dtype=np.int64), histories.lengths)
    relevant = items.exact_search.holds[histories.items]
    keys = np.sort(owner[relevant] * len(items.vectors) + histories.items[relevant])
    return keys[np.diff(keys, prepend=-1) > 0]  # np.unique hashes, and takes ten times as long


def _round_up(fetch: np.ndarray, limit: int) -> np.ndarray:
    """To the next power of two or three quarters of one: few groups, at most half more than needed."""
    power = 2 ** np.ceil(np.log2(fetch))
    return np.minimum(np.where(fetch <= power * 0.75, power * 0.75, power).astype(np.int64), limit)
