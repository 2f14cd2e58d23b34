"""The index holds the allowed items under their codes, survives a file, and refuses what is not its own."""

from __future__ import annotations

from pathlib import Path

import faiss
import numpy as np
import pytest

from recsys.errors import InputError, RecsysError
from recsys.retrieval.index import build_index, read_index, search, write_index

VECTORS = np.array([[0, 0], [1, 0], [0, 1], [3, 3], [2, 0]], dtype=np.float32)
ALLOWED = np.array([False, True, True, False, True])


def test_search_finds_codes_of_allowed_items_by_inner_product() -> None:
    scores, codes = search(build_index(VECTORS, ALLOWED), np.array([[1, 0.5]], dtype=np.float32), 5)
    assert codes.tolist() == [[4, 1, 2, -1, -1]]
    assert scores[0, :3].tolist() == [2.0, 1.0, 0.5]


def test_round_trip_leaves_one_file(tmp_path: Path) -> None:
    write_index(build_index(VECTORS, ALLOWED), tmp_path / "index.faiss")
    assert [path.name for path in tmp_path.iterdir()] == ["index.faiss"]
    items = read_index(tmp_path / "index.faiss", VECTORS, ALLOWED)
    assert items.exact and items.codes.tolist() == [1, 2, 4]
    assert search(items, VECTORS[2:3], 1)[1].tolist() == [[2]]


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_index(build_index(VECTORS, ALLOWED), tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    ("vectors", "allowed", "what"),
    [
        (VECTORS, np.array([False, True, True, True, True]), "number of items is 3"),
        (VECTORS, np.array([False, True, True, True, False]), "other items"),
        (np.zeros((5, 3), dtype=np.float32), ALLOWED, "width is 2"),
    ],
)
def test_an_index_of_another_bundle_is_refused(
    tmp_path: Path, vectors: np.ndarray, allowed: np.ndarray, what: str
) -> None:
    write_index(build_index(VECTORS, ALLOWED), tmp_path / "index.faiss")
    with pytest.raises(InputError, match=what):
        read_index(tmp_path / "index.faiss", vectors, allowed)


def test_another_metric_is_refused(tmp_path: Path) -> None:
    index = faiss.index_factory(2, "IDMap2,Flat", faiss.METRIC_L2)
    index.add_with_ids(VECTORS[ALLOWED], np.flatnonzero(ALLOWED))
    faiss.write_index(index, str(tmp_path / "index.faiss"))
    with pytest.raises(InputError, match="metric"):
        read_index(tmp_path / "index.faiss", VECTORS, ALLOWED)


@pytest.mark.parametrize("content", [b"", b"not an index at all", b"IxM2" + b"\xff" * 64])
def test_a_broken_file_is_one_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.faiss").write_bytes(content)
    before = faiss.get_deserialization_vector_byte_limit()
    with pytest.raises(InputError, match="no index that FAISS"):
        read_index(tmp_path / "index.faiss", VECTORS, ALLOWED)
    assert faiss.get_deserialization_vector_byte_limit() == before


def test_vectors_that_are_not_finite_are_refused() -> None:
    vectors = VECTORS.copy()
    vectors[4, 1] = np.nan
    with pytest.raises(RecsysError, match="code 4"):
        build_index(vectors, ALLOWED)


def test_no_item_allowed() -> None:
    with pytest.raises(RecsysError, match="No item"):
        build_index(VECTORS, np.zeros(5, dtype=bool))


def test_the_thread_count_of_others_stays() -> None:
    before = faiss.omp_get_max_threads()
    search(build_index(VECTORS, ALLOWED), VECTORS, 2)
    assert faiss.omp_get_max_threads() == before
