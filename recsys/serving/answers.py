"""Many questions at once, each answered as if it were alone: what the service and MLflow's model call.

A question that cannot be answered costs the others nothing.

Shapes: b queries, k items wanted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import CANDIDATE_SOURCE, ITEM_ID, PADDING, RANK, SCORE, TITLE
from recsys.errors import InputError
from recsys.retrieval.shelf import Shelf
from recsys.serving.fallback import Fallback
from recsys.serving.lists import lists
from recsys.serving.queries import Codes, Query, check, read
from recsys.serving.recommender import Answer, BundleRecommender


def answer_many(
    served: BundleRecommender,
    codes: Codes,
    queries: Sequence[Query],
    *,
    shelf: Shelf | None = None,
    fallback: Fallback | None = None,
) -> list[Answer | InputError]:
    """Answer b queries together.

    Parameters
    ----------
    codes
        Of the bundle's vocabulary.
    shelf
        The items that may be recommended; None: all that the model can place.
    fallback
        Fills what the model leaves empty; None: a query of which the model says nothing is refused.

    Returns
    -------
    list
        In the order of the queries: the answer, or why there is none.
    """
    found: dict[int, Answer | InputError] = {}
    for place, query in enumerate(queries):
        try:
            check(served.bundle.settings, query)
        except InputError as error:
            found[place] = error
    sound = [place for place in range(len(queries)) if place not in found]
    if sound:
        asked = read(served.bundle.settings, codes, [queries[place] for place in sound])
        alike: dict[tuple[int, bool], list[int]] = {}
        for row, place in enumerate(sound):
            # what is not wanted may stand above all that is
            key = (queries[place].k + len(asked.exclude[row]), queries[place].exclude_seen)
            alike.setdefault(key, []).append(row)
        for (k, exclude_seen), rows in alike.items():
            histories = asked.histories if len(rows) == len(sound) else asked.histories.select(np.array(rows))
            made = lists(served, histories, k=k, exclude_seen=exclude_seen, shelf=shelf, fallback=fallback)
            kept = made.codes != PADDING
            for place, row in enumerate(rows):
                if asked.exclude[row]:
                    kept[place] &= ~np.isin(made.codes[place], asked.exclude[row])
                    kept[place] &= np.cumsum(kept[place]) <= queries[sound[row]].k
            items = rows_of(served.bundle.catalogue, made.codes, made.scores, made.names, kept)
            silent = (histories.lengths == 0) | (made.zero & (served.blended is None))
            for place, row in enumerate(rows):
                if fallback is None and silent[place]:
                    found[sound[row]] = _nothing(served)
                    continue
                found[sound[row]] = Answer(
                    items=items[place], unknown=asked.unknown[row], by_fallback=bool(made.by_fallback[place])
                )
    return [found[place] for place in range(len(queries))]


def rows_of(
    catalogue: pl.DataFrame, codes: np.ndarray, scores: np.ndarray, names: np.ndarray, kept: np.ndarray
) -> list[list[dict[str, Any]]]:
    """Rows of each list as people read them: `rank`, `item_id`, `title`, `score`, `source`; all arrays are [b, k].

    Parameters
    ----------
    kept
        bool: the places that are told.
    """
    chosen = catalogue[codes[kept].astype(np.int64) - 1]
    items = chosen[ITEM_ID].to_list()
    titles = chosen[TITLE].to_list() if TITLE in chosen.columns else [None] * len(items)
    told = list(zip(items, titles, scores[kept].tolist(), names[kept].tolist(), strict=True))
    found, start = [], 0
    for count in kept.sum(axis=1).tolist():
        found.append(
            [
                {RANK: rank, ITEM_ID: item, TITLE: title, SCORE: score, CANDIDATE_SOURCE: name}
                for rank, (item, title, score, name) in enumerate(told[start : start + count], start=1)
            ]
        )
        start += count
    return found


def _nothing(served: BundleRecommender) -> InputError:
    return InputError(
        f"The history has no item that the model can place, and {served.bundle.label} has counted nothing to fall back "
        f"on, as it learned from no event or is an old one; give items such as {served.bundle.vocabulary.items[0]!r}."
    )
