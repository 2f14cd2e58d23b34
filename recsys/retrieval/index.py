"""The items that can be found by vectors, and how: by comparison with every one, or by an approximate FAISS index.

An exact search (`exact.py`) needs nothing but the vectors. An approximate index finds candidates, whose scores are then
computed exactly (`top_k.py`). Ids inside a FAISS index are the items' codes (`IDMap2`); raw ids live in the bundle's
vocabulary. Searches by FAISS, and its threads, are here; `factory.py` builds an index and `stored.py` reads its file.

Shapes: U queries, V items (arrays by code have V + 1 rows), M of them that can be found, D width, n results a query.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, cast

import faiss
import numpy as np

from recsys.errors import RecsysError
from recsys.features.threads import processors

if TYPE_CHECKING:
    from recsys.retrieval.exact import ExactSearch

METRIC: Final = "inner_product"
NOTHING: Final = -1  # what FAISS returns in place of an id where it found too few
FEW: Final = 30_000  # items; among fewer a comparison with all takes less time than an index
SHARE: Final = 0.5  # of an index's items; where fewer may be found, its neighbourhoods hold too few of them
ALONE: Final = 20  # queries; FAISS computes the cells of fewer in another order of additions


@dataclass(frozen=True, kw_only=True, eq=False)
class Approximate:
    """A FAISS index, and how it is asked.

    Attributes
    ----------
    index
        The FAISS index; its ids are item codes.
    factory
        The string that FAISS knows it by.
    fetch
        How many times as many items as wanted are fetched, to be compared by exact scores.
    lengthened
        Whether its vectors have one more column, which gives all of them the same length; see `factory.py`.
    """

    index: Any
    factory: str
    fetch: float = 1.0
    lengthened: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemIndex:
    """The items that can be found.

    Attributes
    ----------
    vectors
        float32 [V + 1, D] by code, also of items that cannot be found.
    codes
        int64 [M] codes of those that can, ascending.
    approximate
        The index that finds candidates; it may hold more than the M items. None: every item is compared.
    """

    vectors: np.ndarray
    codes: np.ndarray
    approximate: Approximate | None = None

    @property
    def exact(self) -> bool:
        """Return whether a search compares the query with every item."""
        return self.approximate is None

    @cached_property
    def exact_search(self) -> ExactSearch:
        """The same items, for a comparison with every one of them."""
        from recsys.retrieval.exact import ExactSearch  # torch, which who only opens an index is spared

        return ExactSearch(self.vectors, self.codes)

    @cached_property
    def selector(self) -> Any:
        """Return what tells FAISS the items that can be found; None: all that its index holds."""
        if self.approximate is None or len(self.codes) == self.approximate.index.ntotal:
            return None
        made: Any = faiss.IDSelectorBitmap
        return made(np.packbits(self.exact_search.holds, bitorder="little"))

    def only(self, allowed: np.ndarray) -> ItemIndex:
        """The items that are allowed, too, bool [V + 1]; exact where an index would find them worse or no faster."""
        codes = self.codes[allowed[self.codes]]
        left = ItemIndex(vectors=self.vectors, codes=codes)
        if self.approximate is None or len(codes) < max(FEW, SHARE * self.approximate.index.ntotal):
            return left
        return replace(left, approximate=self.approximate) if _selects(self.approximate.index) else left


def build_index(vectors: np.ndarray, allowed: np.ndarray) -> ItemIndex:
    """The allowed items under their codes, for an exact search.

    Parameters
    ----------
    vectors
        float32 [V + 1, D], row 0 is padding.
    allowed
        bool [V + 1]; the others can never be found.

    Raises
    ------
    RecsysError
        No item is allowed, or an allowed vector is not finite.
    """
    codes = np.flatnonzero(allowed).astype(np.int64)
    if not len(codes):
        raise RecsysError("No item may be recommended: the model placed none of the catalogue's items.")
    bad = codes[~np.isfinite(vectors.sum(axis=1, dtype=np.float64))[codes]]
    if len(bad):
        raise RecsysError(
            f"{len(bad)} item vectors hold numbers that are not finite (the first: code {bad[0]}); "
            "did the training diverge?"
        )
    return ItemIndex(vectors=vectors, codes=codes)


def search(items: ItemIndex, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n best items of each query as the approximate index sees them: equal scores come in any order.

    Returns
    -------
    scores, codes
        float32 [U, n] and int64 [U, n], as the index ranks; `NOTHING` (-1) where it found fewer than n.
    """
    found = items.approximate
    assert found is not None
    given = np.ascontiguousarray(queries, dtype=np.float32)
    if found.lengthened:
        given = np.pad(given, ((0, 0), (0, 1)))
    if len(given) < ALONE:  # a list does not depend on who shares the batch
        given = np.resize(given, (ALONE, given.shape[1])) if len(given) else given
    with faiss_threads():
        scores, codes = found.index.search(given, n, params=_parameters(items))
    return scores[: len(queries)], codes[: len(queries)]


def ivf_of(index: Any) -> Any:
    """The part of a FAISS index that divides items among cells; None: it has none."""
    return faiss.try_extract_index_ivf(index)


def inner_of(index: Any) -> Any:
    """The index below the map of ids."""
    inner: Any = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexIDMap):  # IDMap2 is one too
        inner = faiss.downcast_index(inner.index)
    return inner


def _parameters(items: ItemIndex) -> Any:
    """The index's own, with the selector; None: they are as they are."""
    if items.selector is None:
        return None
    assert items.approximate is not None
    inner, library = inner_of(items.approximate.index), cast(Any, faiss)
    if isinstance(inner, faiss.IndexHNSW):
        return library.SearchParametersHNSW(sel=items.selector, efSearch=inner.hnsw.efSearch)
    return library.SearchParametersIVF(sel=items.selector, nprobe=inner.nprobe)


def _selects(index: Any) -> bool:
    """Return whether a search of this index can be limited to some items."""
    return isinstance(inner_of(index), (faiss.IndexHNSW, faiss.IndexIVF))


@contextmanager
def faiss_threads(wanted: int | None = None) -> Iterator[None]:
    """For one call FAISS uses OMP_NUM_THREADS threads, or one a processor of this process; then as before."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    if wanted is None:
        wanted = int(given) if given.isdigit() and int(given) > 0 else processors()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(wanted)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
