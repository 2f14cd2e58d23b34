from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from recsys.candidates import tables
from recsys.candidates.tables import largest


def test_largest_keeps_the_best_of_each_row() -> None:
    table = sparse.csr_array(np.array([[0, 3, 1, 3, 2], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]], dtype=np.float32))
    assert largest(table, 2).toarray().tolist() == [[0, 3, 0, 3, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert largest(table, 1).toarray().tolist() == [[0, 3, 0, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 0]]
    assert largest(table, 9).toarray().tolist() == table.toarray().tolist()


def test_a_table_survives_the_file() -> None:
    dense = np.array([[0, 3, 0, 1], [0, 0, 0, 0], [2, 0, 0, 0]], dtype=np.float32)
    stored = tables.to_tensors("words", sparse.csr_array(dense))
    assert sorted(stored) == ["words.columns", "words.rows", "words.values", "words.width"]
    again = tables.from_tensors("words", stored | {"other": np.zeros(1)})
    np.testing.assert_array_equal(again.toarray(), dense)
    with pytest.raises(KeyError, match=r"words\.rows"):
        tables.from_tensors("words", {name: value for name, value in stored.items() if name != "words.rows"})
