"""Sparse item-to-item tables: how much the item of a row speaks for that of a column.

Shapes: V items (tables by code have V + 1 rows, row 0 is no item).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy import sparse

KEPT: Final = 500  # entries of a row of a table that are kept, those furthest from 0
ENTRIES: Final = 50_000_000  # of a table, .4 GB; beyond, rows are cut to fewer
OF_ENTRY: Final = 12  # bytes of an entry: its value and its column, and what copying takes

OF_STORED: Final = 8  # bytes of an entry that lies: its value and its column
DISTINCT: Final = 1 / 3  # of the pairs of events of whole histories, the entries of rows that are cut; measured


def largest(table: sparse.csr_array, kept: int, by: np.ndarray | None = None) -> sparse.csr_array:
    """The table with the `kept` largest entries of each row; of equal ones those of the lowest columns.

    Parameters
    ----------
    by
        What is compared in place of each stored entry, for example its distance from 0; the table's rows ascend.
    """
    if by is None:
        table.sort_indices()
    lengths = np.diff(table.indptr)
    if lengths.max(initial=0) <= kept:
        return table
    by = table.data if by is None else by
    stay = np.ones(len(by), dtype=bool)
    for row in np.flatnonzero(lengths > kept):
        own = slice(table.indptr[row], table.indptr[row + 1])
        least = np.partition(by[own], -kept)[-kept]
        above, equal = by[own] > least, by[own] == least
        stay[own] = above | (equal & (np.cumsum(equal) <= kept - np.count_nonzero(above)))
    rows = np.concatenate([[0], np.cumsum(np.minimum(lengths, kept))])
    return sparse.csr_array((table.data[stay], table.indices[stay], rows), shape=table.shape)


def affordable(lengths: np.ndarray, kept: int) -> int:
    """Entries of a row that can be kept: `kept`, or fewer where rows of these lengths hold more than `ENTRIES`."""
    counts = np.bincount(np.minimum(lengths, kept), minlength=kept + 1)
    within = np.cumsum(np.cumsum(counts[::-1])[::-1][1:]) <= ENTRIES  # rows that have a first, a second, ... entry
    return max(1, int(np.count_nonzero(within)))


def stacked(blocks: list[sparse.csr_array], size: int) -> sparse.csr_array:
    """The table of consecutive blocks of its rows, float32 [V + 1, V + 1]; none at all: it is empty."""
    if not blocks:
        return sparse.csr_array((size + 1, size + 1), dtype=np.float32)
    data = np.concatenate([block.data for block in blocks]).astype(np.float32, copy=False)
    indices = np.concatenate([block.indices.astype(np.int32, copy=False) for block in blocks])
    rows = np.concatenate([[0], np.cumsum(np.concatenate([np.diff(block.indptr) for block in blocks]))])
    return sparse.csr_array((data, indices, rows), shape=(size + 1, size + 1))


def to_tensors(name: str, table: sparse.csr_array) -> dict[str, np.ndarray]:
    """The table as dense arrays `NAME.values`, `NAME.columns`, `NAME.rows` and `NAME.width`."""
    return {
        f"{name}.values": table.data,
        f"{name}.columns": table.indices.astype(np.int32),
        f"{name}.rows": table.indptr.astype(np.int64),
        f"{name}.width": np.array([table.shape[1]], dtype=np.int64),
    }


def from_tensors(name: str, tensors: Mapping[str, np.ndarray]) -> sparse.csr_array:
    """The inverse of `to_tensors`; a KeyError names what is lacking."""
    values, columns, rows, width = (tensors[f"{name}.{part}"] for part in ("values", "columns", "rows", "width"))
    return sparse.csr_array((values, columns, rows), shape=(len(rows) - 1, int(width[0])))


def reach(table: sparse.csr_array) -> tuple[np.ndarray, np.ndarray]:
    """bool [V + 1] twice: items that say something of others, and items that others say something of."""
    return np.diff(table.indptr) > 0, np.bincount(table.indices, minlength=table.shape[1]) > 0


def entries_expected(pairs: int, touched: int, kept: int) -> int:
    """Entries of a table of so many pairs of items, of which each of `touched` rows keeps so many."""
    return min(pairs, touched**2, kept * touched, ENTRIES)


def recoded(table: sparse.csr_array, codes: np.ndarray, size: int) -> sparse.csr_array:
    """The entries of a table by other codes, columns ascending.

    Parameters
    ----------
    codes
        int [V]: the new code of each code from 1 on; 0 where the item is gone.
    size
        New number of items.
    """
    places = np.concatenate([[0], codes]).astype(np.int64)
    rows = places[np.repeat(np.arange(table.shape[0]), np.diff(table.indptr))]
    columns = places[table.indices]
    known = (rows > 0) & (columns > 0)
    made = sparse.csr_array((table.data[known], (rows[known], columns[known])), shape=(size + 1, size + 1))
    made.sort_indices()
    return sparse.csr_array(
        (made.data, made.indices.astype(table.indices.dtype), made.indptr.astype(table.indptr.dtype)), shape=made.shape
    )
