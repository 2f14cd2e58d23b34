from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.data.vocabulary import Vocabulary, fit_vocabulary
from recsys.errors import InputError

ids = st.one_of(
    st.lists(st.integers(-(2**62), 2**62), min_size=1, unique=True),
    st.lists(st.text(min_size=1), min_size=1, unique=True),
)


@given(ids)
def test_decode_undoes_encode(values: list[int] | list[str]) -> None:
    vocabulary = Vocabulary(pl.Series("item_id", values))
    codes = vocabulary.encode(pl.Series(values))
    assert codes.tolist() == list(range(1, len(values) + 1))
    assert vocabulary.decode(codes).to_list() == values


@given(st.lists(st.integers(0, 50)), st.lists(st.integers(0, 50)))
def test_growing_keeps_old_codes_and_adds_only_what_is_new(first: list[int], second: list[int]) -> None:
    before = Vocabulary(pl.Series("item_id", [], dtype=pl.Int64)).grow(pl.Series(first, dtype=pl.Int64))
    after = before.grow(pl.Series(second, dtype=pl.Int64))
    assert after.items.to_list()[: before.size] == before.items.to_list()
    assert after.items.to_list() == list(dict.fromkeys(first + second))


def test_unknown_ids_are_padding() -> None:
    vocabulary = Vocabulary(pl.Series("item_id", ["a", "b"]))
    assert vocabulary.encode(pl.Series(["b", "zz", None])).tolist() == [2, 0, 0]
    assert vocabulary.decode(np.array([2, 0])).to_list() == ["b", None]


def test_integer_ids_are_found_when_written_as_text() -> None:
    vocabulary = Vocabulary(pl.Series("item_id", [10, 20]))
    assert vocabulary.encode_text(["20", "10"]).tolist() == [2, 1]
    with pytest.raises(InputError, match=r"'x'.*2 items"):
        vocabulary.encode_text(["10", "x"])


def test_a_code_beyond_the_vocabulary_is_an_error_not_a_wrap_around() -> None:
    vocabulary = Vocabulary(pl.Series("item_id", [10, 20]))
    for code in (-1, 3):
        with pytest.raises(IndexError):
            vocabulary.decode(np.array([code]))


def test_round_trip_and_digest(tmp_path: Path) -> None:
    vocabulary = Vocabulary(pl.Series("item_id", ["b", "a"]))
    vocabulary.write(tmp_path / "vocabulary.parquet")
    read = Vocabulary.read(tmp_path / "vocabulary.parquet")
    assert read.items.to_list() == ["b", "a"]
    assert read.digest == vocabulary.digest
    assert Vocabulary(pl.Series("item_id", ["a", "b"])).digest != vocabulary.digest


def test_training_items_come_first_then_the_catalogue() -> None:
    vocabulary = fit_vocabulary(pl.Series([3, 1, 3]), pl.Series([1, 2, 3, 4]))
    assert vocabulary.items.to_list() == [3, 1, 2, 4]
