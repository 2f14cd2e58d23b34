"""A history as Recformer reads it: the newest item first, four ids a token.

Source: Li et al., "Text Is All You Need" (KDD 2023, arXiv 2305.13731), sections 3.1 and 3.2. Newest first, so that
what does not fit is the oldest. An item alone is a history of one.

Shapes: B histories, L tokens, V items of the catalogue.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from recsys.features.tokens import FILL, FIRST, ItemTokens, spans


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """Limits of what is read of a history.

    Attributes
    ----------
    items
        The newest so many.
    tokens
        Tokens, the first one (`<s>`) included.
    first, padding
        Ids of these two tokens.
    places
        What a token's position counts: tokens of the "history", as published, or of its "item".
    """

    items: int
    tokens: int
    first: int
    padding: int
    places: Literal["history", "item"] = "history"


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Input:
    """Histories padded on the right to one length, int64 [B, L] each.

    Attributes
    ----------
    tokens
        Token ids.
    types
        FIRST, NAME, VALUE or FILL.
    places
        Token positions from 0, the first token's: of the history or, from 1, of the item; 0 at padding.
    items
        Item positions: 0 for the first token, k for every token of the k-th newest item, `Limits.items` at padding.
    lengths
        int64 [B], tokens that are not padding.
    """

    tokens: np.ndarray
    types: np.ndarray
    places: np.ndarray
    items: np.ndarray
    lengths: np.ndarray


def token_lengths(
    catalogue: ItemTokens, codes: np.ndarray, starts: np.ndarray, ends: np.ndarray, limits: Limits
) -> np.ndarray:
    """int64 [B] tokens that each history takes, the first one included; arguments as of `read`."""
    count = np.minimum(ends - starts, limits.items)  # items read; a batch has few of all users' events
    per_item = catalogue.lengths[codes[spans(ends - count, count)]]
    before = np.concatenate([[0], np.cumsum(per_item)])
    last = np.cumsum(count)
    return np.minimum(1 + before[last] - before[last - count], limits.tokens)


def read(
    catalogue: ItemTokens,
    codes: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    limits: Limits,
    multiple: int = 1,
) -> Input:
    """The input of B histories.

    Parameters
    ----------
    catalogue
        Tokens by item code.
    codes
        int [N] item codes of all users, oldest first.
    starts, ends
        int64 [B] slices of `codes`; an empty one is a history of the first token alone.
    multiple
        L is the longest history's tokens, rounded up to a multiple of this.
    """
    count = np.minimum(ends - starts, limits.items)  # items read
    rank = spans(np.zeros_like(count), count)  # 0: the newest, of all items of all histories
    code = codes[np.repeat(ends - 1, count) - rank]
    whole = catalogue.lengths[code]
    total = np.concatenate([[0], np.cumsum(whole)])
    owner_start = np.repeat(np.cumsum(count) - count, count)  # place of the history's newest item among all
    begin = 1 + total[:-1] - total[owner_start]  # column of each item's first token
    kept = np.clip(limits.tokens - begin, 0, whole)
    owner = np.repeat(np.arange(len(count)), count)
    lengths = 1 + np.bincount(owner, weights=kept, minlength=len(count)).astype(np.int64)
    width = multiple * -(-int(lengths.max(initial=1)) // multiple)
    tokens = np.full((len(count), width), limits.padding, dtype=np.int64)
    types = np.full((len(count), width), FILL, dtype=np.int64)
    places = np.zeros((len(count), width), dtype=np.int64)
    items = np.full((len(count), width), limits.items, dtype=np.int64)
    tokens[:, 0], types[:, 0], items[:, 0] = limits.first, FIRST, 0
    source = spans(catalogue.offsets[code], kept)
    to = spans(owner * width + begin, kept)
    tokens.ravel()[to] = catalogue.tokens[source]
    types.ravel()[to] = catalogue.types[source]
    items.ravel()[to] = np.repeat(rank + 1, kept)
    places.ravel()[to] = spans(begin if limits.places == "history" else np.ones_like(begin), kept)
    return Input(tokens=tokens, types=types, places=places, items=items, lengths=lengths)


def groups(lengths: np.ndarray, budget: int, filled: float) -> Iterator[np.ndarray]:
    """Rows to encode together, the longest first: what does not fit into memory fails at once.

    Parameters
    ----------
    lengths
        int64 [B] tokens of each history.
    budget
        Tokens of a group at most, padding included (one history is always taken).
    filled
        The shortest history of a group, at least, as a share of its longest; the rest is padding. 1: only histories of
        one length together, so that nothing is padded and no mask is needed.

    Yields
    ------
    ndarray
        int64 indices into `lengths`.
    """
    order = np.argsort(-lengths, kind="stable")
    start = 0
    while start < len(order):
        longest = int(lengths[order[start]])
        stop = min(start + max(1, budget // longest), len(order))
        shortest = int(filled * longest)
        stop = start + int(np.searchsorted(-lengths[order[start:stop]], -shortest, side="right"))
        yield order[start:stop]
        start = stop
