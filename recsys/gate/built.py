"""Checks of what a night has built: users, lists, look-ups, the index, and how personal the lists are.

Shapes: U users, V items (arrays by code have V + 1 entries), D width, k length of a list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from recsys.gate.check import Check, at_least, at_most, skipped, unless_off
from recsys.retrieval.index import ItemIndex, search

FIRST: Final = 10  # places of a list that are compared with popularity and with other lists
SMALL_SHELF: Final = 10 * FIRST  # items; of fewer, any two lists share many
FEWEST_USERS: Final = 20
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
        return at_least(name, rows / possible, least, f"The table has {rows:,} of {possible:,} possible rows.")

    return unless_off(name, limit, make)


def check_unseen(shares: Mapping[str, float], limit: float | None) -> Check:
    """Compare the attribute with the largest share of values that training has not seen with its limit."""
    name = "unseen values"

    def make(most: float) -> Check:
        if not shares:
            return skipped(name, "No categorical attribute is declared.", most)
        worst = max(shares, key=lambda attribute: shares[attribute])
        sentence = f"{shares[worst]:.0%} of the values of {worst} are such that training has not seen."
        return at_most(name, shares[worst], most, sentence)

    return unless_off(name, limit, make)


def index_recall(items: ItemIndex, queries: np.ndarray, k: int) -> float:
    """Return the share of the k best items, by exact products, that the index finds.

    Parameters
    ----------
    queries
        float32 [U, D].
    """
    k = min(k, len(items.codes))
    scores = queries @ items.vectors[items.codes].T  # [U, ntotal]
    last = np.partition(scores, -k, axis=1)[:, -k]
    found = search(items, queries, k)[1]  # [U, k] codes
    place = np.searchsorted(items.codes, found).clip(0, len(items.codes) - 1)
    there = (found >= 0) & (items.codes[place] == found)
    own = np.where(there, np.take_along_axis(scores, place, axis=1), -np.inf)
    near = last - ROUNDING * np.abs(scores).max(axis=1)  # equal scores stand in any order
    return float((own >= near[:, None]).mean())


def check_index(items: ItemIndex, queries: np.ndarray, k: int, limit: float | None) -> Check:
    """Compare the recall of the index, on a sample of users, with its limit."""
    name = "recall of the index"

    def make(least: float) -> Check:
        asked = queries[queries.any(axis=1)]
        if not len(asked):
            return skipped(name, "No user has a query vector.", least)
        recall = index_recall(items, asked, k)
        sentence = f"The index finds {recall:.1%} of the {min(k, len(items.codes))} best items of {len(asked):,} users."
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
