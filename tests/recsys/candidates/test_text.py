from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from recsys.candidates import text as module
from recsys.candidates.scores import Scores
from recsys.candidates.text import Text, whitened_text
from recsys.settings.read import parse_settings
from tests.recsys.ranking.blends import sequences, training


def test_shared_words_are_products_of_rows() -> None:
    rng = np.random.default_rng(0)
    weights = rng.random((5, 9)).astype(np.float32)
    words = rng.random((9, 7)) * (rng.random((9, 7)) < 0.4)
    words[3] = 0  # says nothing
    rows, codes = np.sort(rng.integers(0, 5, 40)), np.append(rng.integers(0, 9, 39), 3)
    found = Scores(sparse.csr_array(weights), sparse.csr_array(words.astype(np.float32))).shared(rows, codes)
    np.testing.assert_allclose(found, (weights @ words @ words.T)[rows, codes], rtol=1e-5, atol=1e-6)
    assert found[-1] == 0


def test_words_stand_in_the_row_of_their_item() -> None:
    """Words of a single item match nothing; of the others only the brand is rare enough to count."""
    titles = ["acme cup", "acme pot", "blip cup", "blip jar", "corn jug"]
    data = training(sequences([[1, 2]]), 5, np.zeros((6, 2), dtype=np.float32), titles)
    found = Text.fit(data)
    assert found is not None
    words = found.words.toarray()
    assert not words[0].any() and not words[5].any()
    assert words[1] @ words[2] > 0 and words[3] @ words[4] > 0 and words[1] @ words[3] > 0
    assert words[2] @ words[4] == 0
    assert Text.fit(training(sequences([[1, 2]]), 5)) is None


def test_whitened_text_is_zero_without_text_and_of_length_one_on_average(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = parse_settings({"name": "x", "interactions": {"source": "log.csv"}})
    raw = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float32) + 2
    raw[38:] = 0
    monkeypatch.setattr(module, "text_vectors", lambda *_: raw)
    sentences = pl.Series(["word"] * 38 + ["", None])
    found = whitened_text(settings, sentences)
    assert found is not None and found.dtype == np.float32 and len(found) == 41
    assert not found[[0, 39, 40]].any()
    np.testing.assert_allclose((found[1:39] ** 2).sum(axis=1).mean(), 1.0, rtol=1e-3)
    assert whitened_text(settings, pl.Series(["word", "", None])) is None
