"""The file of an index survives a round trip, is the same every time, and refuses what is not its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pytest

from recsys.errors import InputError
from recsys.retrieval.factory import build_approximate
from recsys.retrieval.index import Approximate, ItemIndex, inner_of, ivf_of, search
from recsys.retrieval.stored import described, read_index, set_parameters, write_index

RNG = np.random.default_rng(0)
VECTORS = np.vstack([np.zeros((1, 8)), RNG.standard_normal((400, 8))]).astype(np.float32)
ALLOWED = (np.arange(401) % 5 > 0) & (np.arange(401) > 0)
CODES = np.flatnonzero(ALLOWED)
QUERIES = RNG.standard_normal((30, 8)).astype(np.float32)
FACTORIES = ["IVF8,SQ8", "IVF8,PQ4x4fs", "IVF8,RaBitQ", "HNSW8,SQ8", "SQ8"]


def index_of(factory: str, lengthened: bool = False) -> ItemIndex:
    built = build_approximate(VECTORS, CODES, factory, lengthened=lengthened)
    return ItemIndex(vectors=VECTORS, codes=CODES, approximate=built)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "index.faiss"


@pytest.mark.parametrize("factory", FACTORIES)
def test_round_trip_leaves_one_file_and_finds_the_same(path: Path, factory: str) -> None:
    items = index_of(factory, lengthened=factory == "HNSW8,SQ8")
    assert items.approximate is not None
    set_parameters(items.approximate.index, {"IVF8": {"nprobe": 3}, "HNSW8": {"efSearch": 20}}.get(factory[:5], {}))
    write_index(items, path)
    assert [found.name for found in path.parent.iterdir()] == ["index.faiss"]
    opened = read_index(path, VECTORS, ALLOWED, described(items))
    assert opened.approximate is not None and opened.codes.tolist() == CODES.tolist()
    assert described(opened) == described(items)
    np.testing.assert_array_equal(search(opened, QUERIES, 10)[1], search(items, QUERIES, 10)[1])


@pytest.mark.parametrize("factory", FACTORIES)
def test_building_twice_gives_the_same_bytes(path: Path, factory: str) -> None:
    """Whatever the threads of others are."""
    contents = []
    for threads in (1, 2):
        before = faiss.omp_get_max_threads()
        faiss.omp_set_num_threads(threads)
        write_index(index_of(factory), path)
        faiss.omp_set_num_threads(before)
        contents.append(path.read_bytes())
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("vectors", "allowed", "what"),
    [
        (VECTORS, np.arange(401) > 0, "number of items is 320"),
        (VECTORS, np.roll(ALLOWED, 1), "other items"),
        (np.zeros((401, 9), dtype=np.float32), ALLOWED, "width is 8"),
    ],
)
def test_an_index_of_another_bundle_is_refused(path: Path, vectors: np.ndarray, allowed: np.ndarray, what: str) -> None:
    items = index_of("IVF8,SQ8")
    write_index(items, path)
    with pytest.raises(InputError, match=what):
        read_index(path, vectors, allowed, described(items))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"lengthened": True}, "the metric"),
        ({"parameters": {"nprobe": 8}}, "searched by {'nprobe': 1}"),
        ({"parameters": {}}, "searched by"),
        ({"parameters": {"nprobe": 1 << 30}}, "search parameters"),
        ({"parameters": {"other": 1}}, "search parameters"),
        ({"parameters": [1]}, "search parameters"),
        ({"fetch": 1e9}, "search parameters"),
        ({"fetch": float("nan")}, "search parameters"),
        ({"factory": "exact"}, "searched by"),
    ],
)
def test_a_manifest_that_says_otherwise_is_refused(path: Path, change: dict[str, Any], what: str) -> None:
    items = index_of("IVF8,SQ8")
    write_index(items, path)
    with pytest.raises(InputError, match=what):
        read_index(path, VECTORS, ALLOWED, described(items) | change)


def test_an_older_exact_index_is_read_as_an_exact_search(path: Path) -> None:
    index = faiss.index_factory(8, "IDMap2,Flat", faiss.METRIC_INNER_PRODUCT)
    index.add_with_ids(VECTORS[CODES], CODES)
    faiss.write_index(index, str(path))
    assert read_index(path, VECTORS, ALLOWED).exact
    assert read_index(path, VECTORS, ALLOWED, {"factory": "IDMap2,Flat"}).exact


def another_item(index: Any) -> None:
    lists = ivf_of(index).invlists
    cell = max(range(8), key=lists.list_size)
    faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell))[0] = 1 << 40


def twice(index: Any) -> None:
    lists = ivf_of(index).invlists
    cell = max(range(8), key=lists.list_size)
    ids = faiss.rev_swig_ptr(lists.get_ids(cell), lists.list_size(cell))
    ids[0] = ids[1]


def a_link_outside(index: Any) -> None:
    graph = inner_of(index).hnsw
    links = faiss.vector_to_array(graph.neighbors)
    links[0] = 1 << 30
    faiss.copy_array_to_vector(links, graph.neighbors)


@pytest.mark.parametrize(
    ("factory", "spoil"), [("IVF8,SQ8", another_item), ("IVF8,SQ8", twice), ("HNSW8", a_link_outside)]
)
def test_ids_that_lead_out_of_the_index_are_refused(path: Path, factory: str, spoil: Callable[[Any], None]) -> None:
    """A search would read memory that is not its own."""
    items = index_of(factory)
    assert items.approximate is not None
    spoil(items.approximate.index)
    write_index(items, path)
    with pytest.raises(InputError, match=r"other items|no index that FAISS"):
        read_index(path, VECTORS, ALLOWED, described(items))


@pytest.mark.parametrize("content", [b"", b"not an index at all", b"IxM2" + b"\xff" * 64])
def test_a_broken_file_is_one_sentence(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    before = faiss.get_deserialization_vector_byte_limit()
    with pytest.raises(InputError, match="no index that FAISS"):
        read_index(path, VECTORS, ALLOWED)
    assert faiss.get_deserialization_vector_byte_limit() == before


@pytest.mark.parametrize("factory", ["IVF8,SQ8", "HNSW8,SQ8", "IVF8,PQ4x4fs"])
def test_a_file_that_ends_early_or_was_changed_is_one_sentence_or_finds_items(path: Path, factory: str) -> None:
    """Nothing but an error of ours comes out, and what is read holds no other items; a hash is compared before."""
    items = index_of(factory)
    write_index(items, path)
    content, about = path.read_bytes(), described(items)
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(content), 40).tolist():
        spoilt = bytearray(content)
        spoilt[at] ^= 0xFF
        for changed in (content[:at], bytes(spoilt)):
            path.write_bytes(changed)
            try:
                opened = read_index(path, VECTORS, ALLOWED, about)
            except InputError:
                continue
            assert isinstance(opened.approximate, Approximate) and opened.codes.tolist() == CODES.tolist()
