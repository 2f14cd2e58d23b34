"""Checks of what a night has built: users, lists, look-ups, the index, and how personal the lists are.

Shapes: U users, V items (arrays by code have V + 1 entries), D width, k length of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from recsys.data.sequences import Sequences
from recsys.gate.check import Check, at_least, at_most, skipped, unless_off
from recsys.retrieval.index import ItemIndex
from recsys.retrieval.shelf import most_rows
from recsys.retrieval.top_k import top_k

FIRST: Final = 10  # places of a list that are compared with popularity and with other lists
SMALL_SHELF: Final = 10 * FIRST  # items; of fewer, any two lists share many
FEWEST_USERS: Final = 20
USERS: Final = 32  # whose products with all items are made at once
ROUNDING: Final = 1e-4  # of the largest score: items closer than this to the last one count as found


def check_users(with_rows: int, users: int, limit: float | None) -> Check:
    """Compare the share of users with candidates, among those with a history, with its limit."""
    name = "users with candidates"

    def make(least: float) -> Check:
        share = with_rows / max(users, 1)
        return at_least(name, share, least, f"{with_rows:,} of {users:,} users with a history have candidates.")

    return unless_off(name, limit, make)


def check_former_users(kept: int, former: int, limit: float | None) -> Check:
    """Compare the share of the served table's users that the new one has, too, with its limit."""
    name = "users of the table before"

    def make(least: float) -> Check:
        if not former:
            return skipped(name, "The table before has no users.", least)
        sentence = f"{former - kept:,} of {former:,} users of the table served now are missing from the new one."
        return at_least(name, kept / former, least, sentence)

    return unless_off(name, limit, make)


def check_full_lists(rows: int, possible: int, limit: float | None) -> Check:
    """Compare the rows of the table with all that k, the shelf and what users have seen allow."""
    name = "full lists"

    def make(least: float) -> Check:
        if not possible:
            return skipped(name, "No user has an item left on the shelf.", least)
        sentence = f"Users with a history and a list have {rows:,} of {possible:,} possible rows."
        return at_least(name, rows / possible, least, sentence)

    return unless_off(name, limit, make)


def check_unseen(shares: Mapping[str, float], limit: float | None) -> Check:
    """Compare the attribute with the largest share of values that training has not seen with its limit."""
    name = "unseen values"

    def make(most: float) -> Check:
        if not shares:
            return skipped(name, "No categorical attribute is declared.", most)
        worst = max(shares, key=lambda attribute: shares[attribute])
        sentence = f"Training has not seen {shares[worst]:.0%} of the values of {worst}."
        if not shares[worst]:
            sentence = f"Training has seen all values of {worst}."
        return at_most(name, shares[worst], most, sentence)

    return unless_off(name, limit, make)


def index_recall(
    items: ItemIndex, queries: np.ndarray, histories: Sequences, k: int, exclude_seen: bool = True
) -> float:
    """Return the share of the k best items, by products with all of them, that the lists as they are served hold.

    The products are made apart from the search, so that an exact one is checked, too.

    Parameters
    ----------
    items
        What is searched: the shelf's items, where there is a shelf.
    queries, histories
        float32 [U, D] and what these users have seen.
    """
    k = min(k, len(items.codes))
    lists, _ = top_k(items, queries, histories, k=k, exclude_seen=exclude_seen)
    found = wanted = 0
    for start in range(0, len(queries), USERS):
        part = slice(start, start + USERS)
        scores = queries[part] @ items.vectors.T  # [u, V + 1]
        outside = np.ones(len(items.vectors), dtype=bool)
        outside[items.codes] = False
        scores[:, outside] = -np.inf
        own = histories.select(np.arange(start, min(start + USERS, len(queries))))
        if exclude_seen:
            scores[np.repeat(np.arange(len(own)), own.lengths), own.items] = -np.inf
        left = np.minimum(np.isfinite(scores).sum(axis=1), k)
        last = -np.partition(-scores, k - 1, axis=1)[:, :k]  # in any order
        last = np.where(np.isfinite(last), last, np.inf).min(axis=1)
        near = last - ROUNDING * np.abs(np.where(np.isfinite(scores), scores, 0)).max(axis=1)
        listed = np.take_along_axis(scores, lists[part].astype(np.int64), axis=1)  # row 0 is no item
        found += int((listed >= near[:, None]).sum())
        wanted += int(left.sum())
    return found / max(wanted, 1)


def check_index(
    items: ItemIndex,
    queries: np.ndarray,
    histories: Sequences,
    k: int,
    limit: float | None,
    exclude_seen: bool = True,
) -> Check:
    """Compare the recall of what is served, on a sample of users, with its limit."""
    name = "recall of the index"

    def make(least: float) -> Check:
        asked = np.flatnonzero(queries.any(axis=1))
        if not len(asked):
            return skipped(name, "No user has a query vector.", least)
        some = histories.select(asked)
        allowed = np.zeros(len(items.vectors), dtype=bool)
        allowed[items.codes] = True
        if not most_rows(some, allowed, k, exclude_seen).any():
            return skipped(name, "These users have had every item that may be recommended.", least)
        recall = index_recall(items, queries[asked], some, k, exclude_seen)
        how = "exact" if items.approximate is None else items.approximate.factory
        best = min(k, len(items.codes))
        sentence = f"The search ({how}) finds {recall:.1%} of the {best} best items of {len(asked):,} users."
        return at_least(name, recall, least, sentence)

    return unless_off(name, limit, make)


def check_popularity(lists: np.ndarray, popular: np.ndarray, shelf: int, limit: float | None) -> Check:
    """Compare the share of the lists that the popularity lists of the same users have, too, with its limit.

    Parameters
    ----------
    lists, popular
        int [U, 10] codes of the same users: their lists, and the most popular items that their lists could hold; 0 for
        no item.
    shelf
        Items that may be recommended.
    """
    name = "popularity in disguise"

    def make(most: float) -> Check:
        if reason := _too_few(lists, shelf):
            return skipped(name, reason, most)
        hits = ((lists[:, :, None] == popular[:, None, :]).any(axis=2) & (lists > 0)).sum()
        share = float(hits / max((lists > 0).sum(), 1))
        sentence = f"{share:.0%} of the first {FIRST} of the lists are the most popular items."
        return at_most(name, share, most, sentence)

    return unless_off(name, limit, make)


def check_same_lists(lists: np.ndarray, shelf: int, limit: float | None) -> Check:
    """Compare the mean share of a list that the list of another user has, too, with its limit.

    Parameters
    ----------
    lists
        int [U, 10] codes, users in a random order; 0 for no item.
    """
    name = "the same list for everybody"

    def make(most: float) -> Check:
        if reason := _too_few(lists, shelf):
            return skipped(name, reason, most)
        others = np.roll(lists, 1, axis=0)
        hits = ((lists[:, :, None] == others[:, None, :]).any(axis=2) & (lists > 0)).sum()
        share = float(hits / max((lists > 0).sum(), 1))
        return at_most(name, share, most, f"Two users share {share:.0%} of the first {FIRST} of their lists.")

    return unless_off(name, limit, make)


def _too_few(lists: np.ndarray, shelf: int) -> str | None:
    if shelf < SMALL_SHELF:
        return f"{shelf} items are so few that all lists are alike ({SMALL_SHELF} are needed)."
    if len(lists) < FEWEST_USERS:
        return f"{len(lists)} users are too few ({FEWEST_USERS} are needed)."
    return None
