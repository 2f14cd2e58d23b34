"""Sparse item-to-item tables: how much the item of a row speaks for that of a column.

Shapes: V items (tables by code have V + 1 rows, row 0 is no item).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
from scipy import sparse

KEPT: Final = 500  # entries of a row of a table that are kept, those furthest from 0
OF_ENTRY: Final = 12  # bytes of an entry: its value and its column, and what copying takes


def largest(table: sparse.csr_array, kept: int) -> sparse.csr_array:
    """The table with the `kept` largest entries of each row; of equal ones those of the lowest columns."""
    lengths = np.diff(table.indptr)
    if lengths.max(initial=0) <= kept:
        table.sort_indices()
        return table
    rows = np.repeat(np.arange(table.shape[0]), lengths)
    order = np.lexsort((table.indices, -table.data, rows))
    order = order[np.arange(len(rows)) - np.repeat(table.indptr[:-1], lengths) < kept]
    chosen = sparse.csr_array((table.data[order], (rows[order], table.indices[order])), shape=table.shape)
    chosen.sort_indices()
    return chosen


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


def entries_at_most(lengths: np.ndarray, touched: int, together: int) -> int:
    """Entries of a table of the pairs of events among the `together` newest of histories of these lengths."""
    return min(int((np.minimum(lengths, together) ** 2).sum()), touched**2)
