"""Item attributes and text vectors in the form that measures of lists need.

Shapes: V items (arrays by code have V + 1 entries), C values of a categorical attribute, D width.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import polars as pl
from scipy import sparse

MOST_CATEGORIES: Final = 200  # values of an attribute; one with more, such as a brand, is no category to calibrate


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ItemProfiles:
    """The properties of items that lists are measured by.

    Attributes
    ----------
    popularity
        float32 [V + 1] training interactions.
    categories
        By categorical attribute: sparse [V + 1, C], each row shares 1 among the item's values; 0 without any.
    vectors
        By name: [V + 1, D] vectors, and float64 [V + 1] what they are multiplied by to have length 1; 0 for an item
        without one. "attributes" holds all categorical attributes with equal weight, sparse; "text" holds text
        vectors, dense and as they were given, because a copy would double their memory.
    """

    popularity: np.ndarray
    categories: dict[str, sparse.csr_matrix] = field(default_factory=dict)
    vectors: dict[str, tuple[Any, np.ndarray]] = field(default_factory=dict)


def item_profiles(
    popularity: np.ndarray, attributes: pl.DataFrame | None = None, text: np.ndarray | None = None
) -> ItemProfiles:
    """Return the profiles of a catalogue.

    Parameters
    ----------
    popularity
        float32 [V + 1].
    attributes
        V rows: the declared attributes; columns of text or of lists of text are categorical. None: there are none.
    text
        float32 [V + 1, D] text vectors of any length, 0 for an item without text. None: there are none.
    """
    found = {} if attributes is None else {_name(name): _shares(attributes[name]) for name in _categorical(attributes)}
    found = {name: shares for name, shares in found.items() if shares.nnz}
    vectors: dict[str, tuple[Any, np.ndarray]] = {}
    if found:
        units = [sparse.diags(_scale(_squares(shares))) @ shares for shares in found.values()]
        joined = sparse.csr_matrix(sparse.hstack(units))
        vectors["attributes"] = joined, _scale(_squares(joined))
    if text is not None:
        vectors["text"] = text, _scale(np.einsum("vd,vd->v", text, text))
    return ItemProfiles(
        popularity=popularity,
        categories={name: shares for name, shares in found.items() if shares.shape[1] <= MOST_CATEGORIES},
        vectors=vectors,
    )


def _categorical(attributes: pl.DataFrame) -> list[str]:
    return [name for name, kind in attributes.schema.items() if kind in (pl.String, pl.List(pl.String))]


def _name(attribute: str) -> str:
    """Return an attribute's name as a part of a metric's, which MLflow restricts."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", attribute)


def _shares(values: pl.Series) -> sparse.csr_matrix:
    """Return [V + 1, C]: 1 / n for each of an item's n different values."""
    if values.dtype != pl.List:
        values = values.to_frame().select(pl.concat_list(pl.all()).list.drop_nulls()).to_series()
    kept = values.list.unique().list.drop_nulls()
    lengths = kept.list.len().fill_null(0).to_numpy().astype(np.int64)
    flat = kept.explode(empty_as_null=False, keep_nulls=False)
    codes = flat.rank("dense").to_numpy().astype(np.int64) - 1 if len(flat) else np.zeros(0, dtype=np.int64)
    weights = np.repeat(1.0 / np.maximum(lengths, 1), lengths)
    offsets = np.concatenate([[0, 0], np.cumsum(lengths)])  # row 0 is padding
    width = int(codes.max()) + 1 if len(codes) else 0
    return sparse.csr_matrix((weights, codes, offsets), shape=(len(lengths) + 1, width))


def _squares(rows: sparse.csr_matrix) -> np.ndarray:
    """Return the squared length of each row."""
    return np.asarray(rows.multiply(rows).sum(axis=1)).ravel()


def _scale(squares: np.ndarray) -> np.ndarray:
    """Return 1 / length, float64, for squared lengths; 0 for 0."""
    lengths = np.sqrt(squares.astype(np.float64))
    return np.divide(1.0, lengths, out=np.zeros_like(lengths), where=lengths > 0)
