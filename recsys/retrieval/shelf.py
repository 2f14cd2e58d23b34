"""Items that may be recommended: by default those that the newest reading of the catalogue lists.

A model knows more items than the shop sells today: the log's and the catalogue's history. They stay in histories, in
training and in evaluation; `retrieve.items = "catalogue"` keeps them out of the candidate table.

Shapes: U users, V items (arrays by code have V + 1 rows).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from recsys.columns import ITEM_ID, ITEMS, LISTED, PADDING
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.forgetting.forgotten import read_forgotten
from recsys.retrieval.index import ItemIndex
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Shelf:
    """The items that may be recommended.

    Attributes
    ----------
    allowed
        bool [V + 1], also of items that the model cannot place.
    index
        Those that it can place, for the search by vectors.
    """

    allowed: np.ndarray
    index: ItemIndex


def shelf_of(items: ItemIndex, allowed: np.ndarray | None) -> Shelf | None:
    """The shelf of the allowed items, bool [V + 1]; None: every item may be recommended.

    Raises
    ------
    InputError
        None of the allowed items has a vector.
    """
    if allowed is None:
        return None
    placed = np.zeros(len(items.vectors), dtype=bool)
    placed[items.codes] = True
    if not (placed & allowed).any():
        raise InputError(
            f"None of the {len(items.codes)} items that the bundle can recommend is in the newest catalogue; train "
            'again, or set retrieve.items = "all".'
        )
    return Shelf(allowed=allowed, index=items.only(allowed))


def listed_items(settings: Settings, versions: TableVersions, vocabulary: Vocabulary) -> np.ndarray | None:
    """bool [V + 1] of a vocabulary: what `retrieve.items` allows and nobody has forgotten; None: every item."""
    allowed = np.ones(vocabulary.size + 1, dtype=bool)
    if settings.retrieve.items != "all" and settings.items is not None and versions.items is not None:
        table = scan(settings.warehouse, ITEMS, versions.items)
        if LISTED in table.collect_schema():
            table = table.filter(LISTED)
        allowed[:] = False
        allowed[vocabulary.encode(table.select(ITEM_ID).collect()[ITEM_ID])] = True
    elif (forgotten := read_forgotten(settings.warehouse)) is not None:  # the catalogue has none of them
        allowed[1:] = [not forgotten.has_item(item) for item in vocabulary.items]
    allowed[PADDING] = False
    return None if allowed[1:].all() else allowed


def most_rows(histories: Sequences, allowed: np.ndarray, k: int, exclude_seen: bool) -> np.ndarray:
    """Most rows that the list of each user can have, int64 [U]: k, the shelf, and what the user has seen bound it.

    Parameters
    ----------
    allowed
        bool [V + 1]: the items on the shelf.
    """
    shelf = int(allowed[1:].sum())
    found = np.full(len(histories), min(k, shelf), dtype=np.int64)
    if not exclude_seen:
        return found
    for part, block in histories.blocks():
        owner = np.repeat(np.arange(len(block), dtype=np.int64), block.lengths)
        on_shelf = allowed[block.items] & (block.items != PADDING)
        keys = np.unique(owner[on_shelf] * len(allowed) + block.items[on_shelf])
        seen = np.bincount(keys // len(allowed), minlength=len(block))
        found[part] = np.minimum(k, shelf - seen)
    return found
