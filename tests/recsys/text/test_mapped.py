"""Text vectors of a large catalogue lie in a file, a row an item, and are read from the table once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.columns import CONTENT_HASH, SENTENCE, VECTOR
from recsys.errors import RecsysError
from recsys.text import mapped
from recsys.text.known import KnownEncoder
from recsys.text.mapped import mapped_vectors

ENCODER = KnownEncoder(id="e" * 16, model="tiny", dimensions=3, precision="fp32")
KNOWN = {word: np.random.default_rng(number).standard_normal(3) for number, word in enumerate("abcdef")}


def hashed(words: list[str | None]) -> pl.DataFrame:
    distinct = sorted({word for word in words if word})
    return pl.DataFrame({SENTENCE: distinct, CONTENT_HASH: [f"#{word}" for word in distinct]}, schema_overrides=TEXTS)


TEXTS = {SENTENCE: pl.String, CONTENT_HASH: pl.String}


def batches() -> Iterator[pl.DataFrame]:
    """The table's rows, two at once, in an order of their own."""
    for pair in ("fa", "ec", "db"):
        vectors = pl.Series(VECTOR, [KNOWN[word].tolist() for word in pair], dtype=pl.List(pl.Float32))
        yield pl.DataFrame([pl.Series(CONTENT_HASH, [f"#{word}" for word in pair]), vectors])


def never() -> Iterator[pl.DataFrame]:
    raise AssertionError("the table was read")


def read(folder: Path, words: list[str | None], rows: Any = batches) -> np.ndarray:
    return mapped_vectors(str(folder), ENCODER, pl.Series(words, dtype=pl.String), hashed(words), rows)


@settings(max_examples=25, deadline=None)
@given(words=st.lists(st.sampled_from([*"abcdef", "", None]), min_size=1, max_size=9))
def test_each_item_has_the_vector_of_its_sentence(tmp_path_factory: pytest.TempPathFactory, words: list[Any]) -> None:
    found = read(tmp_path_factory.mktemp("warehouse"), words)
    expected = np.array([KNOWN[word] if word else np.zeros(3) for word in words], dtype=np.float16)
    assert found.dtype == np.float16 and not found.flags.writeable
    assert (found == expected).all()


def test_the_table_is_read_once(tmp_path: Path) -> None:
    first = read(tmp_path, ["b", None, "a", "b"]).copy()
    assert (read(tmp_path, ["b", None, "a", "b"], never) == first).all()
    with pytest.raises(AssertionError, match="was read"):
        read(tmp_path, ["b", None, "b", "a"], never)
    file = next(path for path in tmp_path.rglob("vectors.npy"))
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert (read(tmp_path, ["b", None, "a", "b"]) == first).all()  # damaged: made again


def test_a_full_disk_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(mapped.os, "pwrite", full)
    with pytest.raises(RecsysError, match="No space left"):
        read(tmp_path, ["a"])
    assert not list(tmp_path.rglob("vectors.npy"))
