"""Answers from a bundle alone: what comes after a history, and what is like an item. No warehouse, no log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys.bundles.bundle import Bundle
from recsys.columns import ITEM_ID, PADDING, RANK, SCORE, TITLE, USER_ID
from recsys.data.sequences import Sequences
from recsys.errors import InputError
from recsys.ranking.blend import best_items
from recsys.retrieval.top_k import best_first, exact_scores


def recommend(bundle: Bundle, history: Sequence[Any], k: int, *, exclude_seen: bool = True) -> list[dict[str, Any]]:
    """The k items most likely to come after a history.

    Parameters
    ----------
    history
        Raw item ids, oldest first; as numbers or as text.
    k
        At least 1; fewer are given where the catalogue has no more.
    exclude_seen
        Leave out the history's own items.

    Returns
    -------
    list of dict
        `rank` (from 1), `item_id`, `title` (None where unknown), `score` (the blend's, or the inner product where the
        bundle has no blend), best first.

    Raises
    ------
    InputError
        An empty history, an unknown item, or a history that the model cannot place.
    """
    _check_k(k)
    items = bundle.vocabulary.encode_text([str(item) for item in history])
    if not len(items):
        raise InputError("The history is empty; give at least one item id, for example --history a,b,c.")
    offsets = np.array([0, len(items)], dtype=np.int64)
    query = bundle.queries(items, offsets)  # [1, D]
    if not query.any():
        raise InputError(f"None of the {len(items)} items of the history has a vector in this bundle; give others.")
    alone = Sequences(users=pl.Series(USER_ID, ["you"]), items=items, offsets=offsets)
    codes, scores, _ = best_items(
        bundle.index(), query, bundle.blended, alone, k=k, exclude_seen=exclude_seen, repeats=bundle.repeats
    )
    return _rows(bundle, codes[0], scores[0])


def similar(bundle: Bundle, item: Any, k: int) -> list[dict[str, Any]]:
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
    return _rows(bundle, codes[0], scores[0])


def _rows(bundle: Bundle, codes: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
    found = codes != PADDING
    chosen = bundle.catalogue[codes[found].astype(np.int64) - 1]
    titles = chosen[TITLE].to_list() if TITLE in chosen.columns else [None] * len(chosen)
    return [
        {RANK: rank, ITEM_ID: item, TITLE: title, SCORE: score}
        for rank, (item, title, score) in enumerate(
            zip(chosen[ITEM_ID].to_list(), titles, scores[found].tolist(), strict=True), start=1
        )
    ]


def _check_k(k: int) -> None:
    if k < 1:
        raise InputError(f"k = {k} must be at least 1.")
