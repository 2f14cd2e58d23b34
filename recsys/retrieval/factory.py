"""FAISS indexes by their factory strings: whether there is such a one, what it needs, and one that is built.

Inner products of vectors of unequal lengths suit no index: the longest items are everybody's neighbours in a graph, and
crowd into few cells. `lengthened` gives every vector one more column, so that all are equally long; a query has 0
there, so that its products stay the same, and the nearest items by distance are those of the largest product.
Source: Y. Bachrach et al., "Speeding up the Xbox recommender system using a Euclidean transformation for inner-product
spaces", RecSys 2014, section 3.

A build depends on its vectors alone: every random number is seeded, and one thread does it, since a graph that two
threads build depends on who came first.

Shapes: V items (arrays by code have V + 1 rows), M of them in the index, D width.
"""

from __future__ import annotations

from typing import Any, Final

import faiss
import numpy as np

from recsys.errors import InputError, RecsysError
from recsys.retrieval.index import Approximate, faiss_threads, inner_of, ivf_of
from recsys.retrieval.work import cells_of

AUTO: Final = "auto"
EXACT: Final = "exact"
MAPPED: Final = "IDMap2,"  # before the string of an index, whose ids are then the items' codes
FLAT: Final = frozenset(("Flat", "IDMap,Flat", "IDMap2,Flat"))  # comparisons with every item, as "exact"
ANY_WIDTH: Final = 11_520  # a width that most numbers of parts divide, for a string whose width is not known yet
MOST_CELLS: Final = 1 << 22
PER_CELL: Final = 40  # vectors that cells are trained on; FAISS asks for 39 and takes 256
TRAINED: Final = 1 << 16  # least vectors that are drawn for training
AT_ONCE: Final = 1 << 16  # vectors that are added at once; bounds memory
SEED: Final = 1234  # of whatever FAISS draws; the choice of vectors has one, too


def is_exact(factory: str) -> bool:
    """Return whether a setting or a string means a comparison with every item."""
    return factory == EXACT or factory in FLAT


def check_factory(factory: str, width: int | None = None, items: int | None = None) -> None:
    """Refuse what no index can be made of, before any work.

    Parameters
    ----------
    factory
        Of `retrieve.index`.
    width
        D, where it is known.
    items
        V, where it is known.

    Raises
    ------
    InputError
        FAISS does not know the string, or it does not fit the width or so few items.
    """
    if factory == AUTO or is_exact(factory):
        return
    cells, most = cells_of(factory), MOST_CELLS if items is None else items
    if cells > most:
        have = "more cells than any catalogue needs" if items is None else f"more cells than the {items:,} items"
        raise InputError(
            f'retrieve.index = "{factory}" has {cells:,} cells, {have}; take fewer cells, or "auto" or "exact".'
        )
    index = _made(factory, ANY_WIDTH if width is None else width, width is not None)
    if items is not None and (least := _least_items(index)) > items:
        raise InputError(
            f'retrieve.index = "{factory}" needs at least {least:,} items to be trained, and there are {items:,}; '
            'take a smaller index, or "auto" or "exact".'
        )


def build_approximate(
    vectors: np.ndarray, codes: np.ndarray, factory: str, *, lengthened: bool, like: Approximate | None = None
) -> Approximate:
    """Build an index of some items.

    Parameters
    ----------
    vectors
        float32 [V + 1, D].
    codes
        int64 [M] ascending, of the items.
    lengthened
        Whether the vectors get a column that makes them equally long.
    like
        An index of the same items whose cells this one takes over, where it has as many.

    Raises
    ------
    RecsysError
        FAISS cannot make it of these vectors.
    """
    width = vectors.shape[1] + lengthened
    index = faiss.IndexIDMap2(
        _made(factory, width, True, faiss.METRIC_L2 if lengthened else faiss.METRIC_INNER_PRODUCT)
    )
    longest = _squares(vectors, codes).max() if lengthened else 0.0
    ivf = ivf_of(index)
    if ivf is not None:
        ivf.cp.seed, ivf.cp.max_points_per_centroid = SEED, PER_CELL
        _take_cells(ivf, None if like is None or like.lengthened != lengthened else ivf_of(like.index))
    wanted = max(TRAINED, 0 if ivf is None else PER_CELL * ivf.nlist)
    drawn = codes if len(codes) <= wanted else np.sort(np.random.default_rng(SEED).choice(codes, wanted, replace=False))
    try:
        with faiss_threads(1):
            index.train(_rows(vectors, drawn, longest, lengthened))
            for start in range(0, len(codes), AT_ONCE):
                part = codes[start : start + AT_ONCE]
                index.add_with_ids(_rows(vectors, part, longest, lengthened), part)
    except RuntimeError as error:
        raise RecsysError(f'FAISS cannot make "{factory}" of {len(codes):,} items: {reason_of(error)}.') from None
    return Approximate(index=index, factory=factory, lengthened=lengthened)


def norms_spread(vectors: np.ndarray, codes: np.ndarray) -> float:
    """Standard deviation of the items' lengths, as a share of their mean."""
    norms = np.sqrt(_squares(vectors, codes))
    return float(norms.std() / norms.mean()) if norms.any() else 0.0


def reason_of(error: RuntimeError) -> str:
    """Return what FAISS says in its first line, without its place in the source."""
    return str(error).splitlines()[0].rpartition("Error: ")[2].rpartition(".cpp:")[2].lstrip("0123456789: ").rstrip(".")


def _made(factory: str, width: int, is_known: bool, metric: int = faiss.METRIC_INNER_PRODUCT) -> Any:
    try:
        return faiss.index_factory(width, factory, metric)
    except RuntimeError as error:
        given = f" for vectors of width {width}" if is_known else ""
        raise InputError(
            f'retrieve.index = "{factory}" is no index that FAISS {faiss.__version__} makes{given}: {reason_of(error)};'
            ' take another string, "auto" or "exact".'
        ) from None


def _least_items(index: Any) -> int:
    """Items that the training needs at least: one for each cell, and for each word of a code book."""
    ivf, inner = ivf_of(index), inner_of(index)
    cells = 0 if ivf is None else ivf.nlist
    parts = [getattr(part, "pq", None) for part in (inner, None if ivf is None else faiss.downcast_index(ivf))]
    return max(1, cells, *(part.ksub for part in parts if part is not None))


def _take_cells(ivf: Any, other: Any) -> None:
    if other is not None and other.nlist == ivf.nlist and not ivf.quantizer.ntotal:
        centroids = other.quantizer.reconstruct_n(0, other.nlist)
        ivf.quantizer.add(centroids)


def _squares(vectors: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """float64 [M] squared lengths."""
    found = np.einsum("vd,vd->v", vectors, vectors, dtype=np.float64)
    return np.asarray(found[codes])


def _rows(vectors: np.ndarray, codes: np.ndarray, longest: float, lengthened: bool) -> np.ndarray:
    """float32 [m, D] or [m, D + 1] vectors of some items; the column makes their squared lengths equal `longest`."""
    rows = np.ascontiguousarray(vectors[codes], dtype=np.float32)
    if not lengthened:
        return rows
    lacking = np.sqrt(np.maximum(longest - np.einsum("vd,vd->v", rows, rows, dtype=np.float64), 0.0))
    return np.hstack([rows, lacking[:, None].astype(np.float32)])
