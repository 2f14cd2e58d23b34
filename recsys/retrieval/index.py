"""The FAISS index over item codes: exact inner product. FAISS, and its threads, are touched here only.

Ids inside the index are the items' codes (`IDMap2`); raw ids live in the bundle's vocabulary. Quantizer and
index agree on the metric because `index_factory` builds both.

Shapes: U queries, V items (arrays by code have V + 1 rows), D width, n results a query.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import faiss
import numpy as np

from recsys.errors import InputError, RecsysError
from recsys.features.threads import processors
from recsys.storage.files import file_aside

if TYPE_CHECKING:
    from recsys.retrieval.exact import ExactSearch

FACTORY: Final = "IDMap2,Flat"
METRIC: Final = "inner_product"
NOTHING: Final = -1  # what FAISS returns in place of an id where it found too few
LOOP_LIMIT: Final = 1 << 20  # of FAISS when it reads a file; a flat index has no long loops


@dataclass(frozen=True, kw_only=True, eq=False)
class ItemIndex:
    """A FAISS index and the vectors it was made of.

    Attributes
    ----------
    index
        The FAISS index; its ids are item codes.
    vectors
        float32 [V + 1, D] by code, also of items that the index leaves out.
    codes
        int64 [ntotal] codes that the index holds, ascending.
    exact
        Whether a search compares the query with every item.
    """

    index: Any
    vectors: np.ndarray
    codes: np.ndarray
    exact: bool

    @cached_property
    def exact_search(self) -> ExactSearch:
        """The same items, for a comparison with every one of them."""
        from recsys.retrieval.exact import ExactSearch  # torch, which who only opens an index is spared

        return ExactSearch(self.vectors, self.codes)


def build_index(vectors: np.ndarray, allowed: np.ndarray) -> ItemIndex:
    """An exact index of the allowed items under their codes.

    Parameters
    ----------
    vectors
        float32 [V + 1, D], row 0 is padding.
    allowed
        bool [V + 1]; the others are left out, so they can never be found.

    Raises
    ------
    RecsysError
        No item is allowed, or an allowed vector is not finite.
    """
    codes = np.flatnonzero(allowed).astype(np.int64)
    if not len(codes):
        raise RecsysError("No item may be recommended: the model placed none of the catalogue's items.")
    rows = np.ascontiguousarray(vectors[codes], dtype=np.float32)
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise RecsysError(
            f"{len(bad)} item vectors hold numbers that are not finite (the first: code {codes[bad[0]]}); "
            "did the training diverge?"
        )
    index = faiss.index_factory(rows.shape[1], FACTORY, faiss.METRIC_INNER_PRODUCT)
    with _threads():
        index.add_with_ids(rows, codes)
    return item_index(index, vectors)


def item_index(index: Any, vectors: np.ndarray) -> ItemIndex:
    """Any FAISS index over item codes, with the vectors [V + 1, D] behind it."""
    outer: Any = faiss.downcast_index(index)
    codes = np.sort(faiss.vector_to_array(outer.id_map))
    return ItemIndex(index=index, vectors=vectors, codes=codes, exact=_is_exact(index))


def search(items: ItemIndex, queries: np.ndarray, n: int) -> tuple[np.ndarray, np.ndarray]:
    """The n best items of each query as FAISS sees them: equal scores come in any order.

    Returns
    -------
    scores, codes
        float32 [U, n] descending and int64 [U, n]; `NOTHING` (-1) where the index found fewer than n.
    """
    with _threads():
        scores, codes = items.index.search(np.ascontiguousarray(queries, dtype=np.float32), n)
    return scores, codes


def write_index(items: ItemIndex, path: Path) -> None:
    """Write under a temporary name beside `path`, then rename."""
    with file_aside(path) as aside:
        faiss.write_index(items.index, str(aside))


def read_index(path: Path, vectors: np.ndarray, allowed: np.ndarray) -> ItemIndex:
    """Open an index file and check that it is the one that was expected.

    FAISS does not defend itself against hostile files: compare the file's hash with the manifest first.

    Parameters
    ----------
    path
        The file.
    vectors
        float32 [V + 1, D] of the same bundle.
    allowed
        bool [V + 1]; the index must hold exactly these items.

    Raises
    ------
    InputError
        The file is not an index, or differs in metric, width or items.
    """
    codes = np.flatnonzero(allowed)
    with _deserialization_limits(path.stat().st_size):
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            reason = str(error).splitlines()[0].rpartition("Error: ")[2].rstrip(".")
            raise InputError(f"{path} is no index that FAISS {faiss.__version__} reads: {reason}.") from None
    for what, found, expected in (
        ("the metric", index.metric_type, faiss.METRIC_INNER_PRODUCT),
        ("the width", index.d, vectors.shape[1]),
        ("the number of items", index.ntotal, len(codes)),
    ):
        if found != expected:
            raise InputError(
                f"{path} does not belong to its bundle: {what} is {found} and the bundle says {expected}; "
                "write the bundle again."
            )
    items = item_index(index, vectors) if isinstance(faiss.downcast_index(index), faiss.IndexIDMap) else None
    if items is None or not np.array_equal(items.codes, codes):
        raise InputError(
            f"{path} does not belong to its bundle: it holds other items than the bundle allows; "
            "write the bundle again."
        )
    return items


def _is_exact(index: Any) -> bool:
    inner = faiss.downcast_index(index)
    while isinstance(inner, faiss.IndexIDMap):  # IDMap2 is one too
        inner = faiss.downcast_index(inner.index)
    return isinstance(inner, faiss.IndexFlat)


@contextmanager
def _threads() -> Iterator[None]:
    """For one call FAISS uses OMP_NUM_THREADS threads, or one a processor of this process; then as before."""
    given = os.environ.get("OMP_NUM_THREADS", "")
    wanted = int(given) if given.isdigit() and int(given) > 0 else processors()
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(wanted)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


@contextmanager
def _deserialization_limits(file_bytes: int) -> Iterator[None]:
    """No vector in a file is larger than the file: a broken header cannot ask for all memory."""
    names = ("vector_byte_limit", "loop_limit")
    before = [getattr(faiss, f"get_deserialization_{name}")() for name in names]
    for name, limit in zip(names, (file_bytes, LOOP_LIMIT), strict=True):
        getattr(faiss, f"set_deserialization_{name}")(limit)
    try:
        yield
    finally:
        for name, limit in zip(names, before, strict=True):
            getattr(faiss, f"set_deserialization_{name}")(limit)
