"""Answers to batches of queries, for the service and for MLflow's model.

Each query is answered as if it were alone, and a bad one fails no other.

Shapes: b queries, k items wanted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from recsys.columns import CANDIDATE_SOURCE, ITEM_ID, PADDING, RANK, SCORE, TITLE
from recsys.errors import InputError
from recsys.retrieval.shelf import Shelf
from recsys.rules.apply import Rules
from recsys.serving.fallback import Fallback
from recsys.serving.lists import lists
from recsys.serving.queries import CodeLookup, EncodedQueries, Query, check, read
from recsys.serving.recommender import Answer, BundleRecommender


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Policy:
    """Shelf, rules and fallback, which shape lists besides the model.

    Attributes
    ----------
    rules
        None: none.
    shelf, fallback
        Of `recsys.serving.lists.floor`: the items that may be recommended, and what fills lists. Without a fallback a
        query of which the model says nothing is refused.
    """

    rules: Rules | None = None
    shelf: Shelf | None = None
    fallback: Fallback | None = None


def answer_many(
    served: BundleRecommender,
    codes: CodeLookup,
    queries: Sequence[Query],
    policy: Callable[[tuple[str, ...] | None], Policy],
) -> list[Answer | InputError]:
    """Answer b queries together.

    Parameters
    ----------
    codes
        Of the bundle's vocabulary.
    policy
        For the names of a query's rules. An InputError of it refuses the queries of these names.

    Returns
    -------
    list
        In the order of the queries: the answer, or why there is none.
    """
    found: dict[int, Answer | InputError] = {}
    for place, query in enumerate(queries):
        try:
            check(served.bundle.settings, query)
            policy(query.rules)
        except InputError as error:
            found[place] = error
    sound = [place for place in range(len(queries)) if place not in found]
    if sound:
        asked = read(served.bundle.settings, codes, [queries[place] for place in sound])
        alike: dict[tuple[int, bool, tuple[str, ...] | None], list[int]] = {}
        for row, place in enumerate(sound):
            query = queries[place]
            # what is not wanted may stand above all that is
            key = (query.k + len(asked.exclude[row]), query.exclude_seen, query.rules)
            alike.setdefault(key, []).append(row)
        for (k, exclude_seen, names), rows in alike.items():
            part = asked if len(rows) == len(sound) else asked.select(rows)
            wanted = [queries[sound[row]].k for row in rows]
            answers = _answers(served, part, wanted, k, exclude_seen, policy(names))
            found.update(zip((sound[row] for row in rows), answers, strict=True))
    return [found[place] for place in range(len(queries))]


def _answers(
    served: BundleRecommender, asked: EncodedQueries, wanted: Sequence[int], k: int, exclude_seen: bool, policy: Policy
) -> list[Answer | InputError]:
    """Answer queries that want the same, k items each, of which the first `wanted` that are not excluded are told."""
    histories = asked.histories
    now = None if policy.rules is None else np.full(len(histories), time.time_ns() // 1000, dtype=np.int64)
    made = lists(
        served,
        histories,
        k=k,
        exclude_seen=exclude_seen,
        shelf=policy.shelf,
        fallback=policy.fallback,
        rules=policy.rules,
        now=now,
    )
    kept = made.codes != PADDING
    for row, exclude in enumerate(asked.exclude):
        if exclude:
            kept[row] &= ~np.isin(made.codes[row], exclude)
            kept[row] &= np.cumsum(kept[row]) <= wanted[row]
    items = rows_of(served.bundle.catalogue, made.codes, made.scores, made.names, kept)
    silent = np.zeros(len(histories), dtype=bool)
    if policy.fallback is None:
        silent = (histories.lengths == 0) | (made.zero & (served.blended is None))
    return [
        _nothing(served)
        if silent[row]
        else Answer(items=items[row], unknown=asked.unknown[row], by_fallback=bool(made.by_fallback[row]))
        for row in range(len(histories))
    ]


def rows_of(
    catalogue: pl.DataFrame, codes: np.ndarray, scores: np.ndarray, names: np.ndarray, kept: np.ndarray
) -> list[list[dict[str, Any]]]:
    """Rows of each list as people read them: `rank`, `item_id`, `title`, `score`, `source`; all arrays are [b, k].

    Parameters
    ----------
    kept
        bool: the places that are told.
    """
    places = codes[kept].astype(np.int64) - 1
    items = catalogue[ITEM_ID].gather(places).to_list()
    titles = catalogue[TITLE].gather(places).to_list() if TITLE in catalogue.columns else [None] * len(items)
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
