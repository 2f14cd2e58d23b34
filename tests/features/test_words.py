from __future__ import annotations

import numpy as np
import polars as pl

from recsys.features.words import word_table


def test_shared_rare_words_make_items_alike() -> None:
    table = word_table(
        pl.Series(["title: OPI red lacquer", "title: OPI pink lacquer", "title: soap", "title: red soap"])
    ).toarray()
    # "title" is everywhere, "pink" in one sentence only; opi, red, lacquer and soap are in two of four each
    weight = np.log(4 / 2)
    expected = [np.array([weight, weight, weight]), np.array([weight, weight]), np.array([weight]), np.full(2, weight)]
    assert table.shape == (4, 4)
    for row, weights in zip(table, expected, strict=True):
        np.testing.assert_allclose(np.sort(row[row > 0]), weights / np.linalg.norm(weights), rtol=1e-6)
    alike = table @ table.T
    np.testing.assert_allclose(np.diag(alike), 1.0, rtol=1e-6)
    assert alike[0, 1] > alike[0, 3] > alike[1, 3] == 0.0


def test_rare_words_weigh_more() -> None:
    sentences = [f"common {'rare' if n < 2 else f'w{n // 2}'}" for n in range(10)] + ["other"] * 12
    table = word_table(pl.Series(sentences)).toarray()
    first = table[0][table[0] > 0]
    np.testing.assert_allclose(first.max() / first.min(), np.log(22 / 2) / np.log(22 / 10), rtol=1e-5)


def test_nothing_said_is_an_empty_row_and_every_script_counts() -> None:
    table = word_table(pl.Series([None, "", "Крем для рук", "КРЕМ!", "💅", "x", "y", "z"])).toarray()
    assert not table[[0, 1, 4, 5]].any()
    assert table[2] @ table[3] > 0  # the same word in another case


def test_no_words_at_all() -> None:
    assert word_table(pl.Series([None, None], dtype=pl.String)).shape == (2, 0)
    assert word_table(pl.Series(["a b", "c d"])).shape == (2, 0)
