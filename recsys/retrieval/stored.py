"""The file of an approximate index: written whole, read within limits and compared with what its bundle says.

FAISS does not defend itself against hostile files. So the caller compares the file's hash first, FAISS reads it under
limits, and what came out is checked: kind, widths, numbers, and that every id inside is one of the bundle's items. The
lists of items stay in the file and are mapped into memory, so that processes share them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import faiss
import numpy as np

from recsys.errors import InputError
from recsys.retrieval.factory import EXACT, is_exact, reason_of
from recsys.retrieval.index import METRIC, Approximate, ItemIndex, inner_of, ivf_of
from recsys.storage.files import file_aside

LOOPS: Final = 1 << 24  # FAISS' longest loop when it reads a file: cells, or links of a graph's level
PARAMETERS: Final = {"nprobe": 1 << 22, "efSearch": 1 << 20}  # what a search may be told, and at most
MOST_FETCHED: Final = 64.0


def described(items: ItemIndex) -> dict[str, Any]:
    """Return what a manifest says of an index; JSON-friendly."""
    about = {"factory": EXACT, "metric": METRIC, "width": items.vectors.shape[1], "ntotal": len(items.codes)}
    found = items.approximate
    if found is None:
        return about
    return about | {
        "factory": found.factory,
        "parameters": parameters_of(found.index),
        "fetch": found.fetch,
        "lengthened": found.lengthened,
    }


def parameters_of(index: Any) -> dict[str, int]:
    """Return what a search of this index is told: cells to look into, or the width of a search through a graph."""
    inner, ivf = inner_of(index), ivf_of(index)
    if ivf is not None:
        return {"nprobe": int(ivf.nprobe)}
    return {"efSearch": int(inner.hnsw.efSearch)} if isinstance(inner, faiss.IndexHNSW) else {}


def set_parameters(index: Any, parameters: Mapping[str, int]) -> None:
    """Tell an index how to search; names are those of `parameters_of`."""
    for name, value in parameters.items():
        if name == "nprobe":
            ivf_of(index).nprobe = value
        else:
            inner_of(index).hnsw.efSearch = value


def write_index(items: ItemIndex, path: Path) -> None:
    """Write an approximate index under a temporary name beside `path`, then rename."""
    assert items.approximate is not None
    with file_aside(path) as aside:
        faiss.write_index(items.approximate.index, str(aside))


def read_index(
    path: Path, vectors: np.ndarray, allowed: np.ndarray, about: Mapping[str, Any] | None = None
) -> ItemIndex:
    """Open an index file and check that it is the one that was expected.

    Parameters
    ----------
    path
        The file.
    vectors
        float32 [V + 1, D] of the same bundle.
    allowed
        bool [V + 1]; the index must hold exactly these items.
    about
        What the manifest says of it; None, or without parameters: an exact one, as older bundles have.

    Raises
    ------
    InputError
        The file is not an index, or differs in metric, width, items or parameters.
    """
    about = about or {}
    lengthened, fetch = about.get("lengthened", False) is True, about.get("fetch", 1.0)
    parameters = about.get("parameters", {})
    if not (isinstance(fetch, (int, float)) and 1.0 <= fetch <= MOST_FETCHED and _are_parameters(parameters)):
        raise _strange(path, "its search parameters are none that this program knows")
    with _deserialization_limits(path.stat().st_size):
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP_IFC)
        except RuntimeError as error:
            raise InputError(f"{path} is no index that FAISS {faiss.__version__} reads: {reason_of(error)}.") from None
    codes = np.flatnonzero(allowed).astype(np.int64)
    metric = faiss.METRIC_L2 if lengthened else faiss.METRIC_INNER_PRODUCT
    for what, found, expected in (
        ("the metric", index.metric_type, metric),
        ("the width", index.d, vectors.shape[1] + lengthened),
        ("the number of items", index.ntotal, len(codes)),
    ):
        if found != expected:
            raise _strange(path, f"{what} is {found} and the bundle says {expected}")
    if not isinstance(faiss.downcast_index(index), faiss.IndexIDMap) or not _holds(index, codes):
        raise _strange(path, "it holds other items than the bundle allows")
    if isinstance(inner_of(index), faiss.IndexFlat):  # of an older bundle; a comparison with all needs no FAISS
        return ItemIndex(vectors=vectors, codes=codes)
    factory = str(about.get("factory"))
    if is_exact(factory) or parameters_of(index) != parameters:
        raise _strange(path, f"it is searched by {parameters_of(index)} and the bundle says {factory} {parameters}")
    approximate = Approximate(index=index, factory=factory, fetch=float(fetch), lengthened=lengthened)
    return ItemIndex(vectors=vectors, codes=codes, approximate=approximate)


def _strange(path: Path, what: str) -> InputError:
    return InputError(f"{path} does not belong to its bundle: {what}; write the bundle again.")


def _are_parameters(given: Any) -> bool:
    return isinstance(given, Mapping) and all(
        name in PARAMETERS and type(value) is int and 1 <= value <= PARAMETERS[name] for name, value in given.items()
    )


def _holds(index: Any, codes: np.ndarray) -> bool:
    """Return whether the index holds these codes, each once, and nothing inside points elsewhere."""
    outer: Any = faiss.downcast_index(index)
    inner = inner_of(outer)
    if not np.array_equal(np.sort(faiss.vector_to_array(outer.id_map)), codes):
        return False
    if inner.ntotal != len(codes) or inner.d != index.d or faiss.downcast_index(outer.index).ntotal != len(codes):
        return False
    ivf = ivf_of(inner)
    if ivf is None:
        return _links_stay_inside(inner.hnsw, len(codes)) if isinstance(inner, faiss.IndexHNSW) else True
    if ivf.quantizer.ntotal != ivf.nlist or ivf.invlists.nlist != ivf.nlist or ivf.ntotal != len(codes):
        return False
    lists = faiss.downcast_InvertedLists(ivf.invlists)
    places = [
        faiss.rev_swig_ptr(lists.get_ids(cell), size) for cell in range(ivf.nlist) if (size := lists.list_size(cell))
    ]
    return np.array_equal(np.sort(np.concatenate(places)), np.arange(len(codes)))


def _links_stay_inside(graph: Any, size: int) -> bool:
    """Return whether a graph's links lead to its own items; -1 is none."""
    links = faiss.vector_to_array(graph.neighbors)
    return bool(-1 <= graph.entry_point < size and links.min(initial=0) >= -1 and links.max(initial=-1) < size)


@contextmanager
def _deserialization_limits(file_bytes: int) -> Iterator[None]:
    """No vector in a file is larger than the file: a broken header cannot ask for all memory."""
    names = ("vector_byte_limit", "loop_limit")
    before = [getattr(faiss, f"get_deserialization_{name}")() for name in names]
    for name, limit in zip(names, (file_bytes, min(LOOPS, max(file_bytes, 1))), strict=True):
        getattr(faiss, f"set_deserialization_{name}")(limit)
    try:
        yield
    finally:
        for name, limit in zip(names, before, strict=True):
            getattr(faiss, f"set_deserialization_{name}")(limit)
