from __future__ import annotations

import polars as pl
import pytest

from recsys.errors import InputError, first_line, no_panic


def test_a_panic_becomes_one_sentence() -> None:
    with (
        pytest.raises(InputError, match=r"^a\.parquet is damaged: index out of bounds\.$"),
        no_panic("a.parquet is damaged", InputError),
    ):
        raise pl.exceptions.PanicException("index out of bounds\nat line 1")


def test_other_errors_stay_what_they_are() -> None:
    for error in (KeyboardInterrupt, SystemExit, ValueError):
        with pytest.raises(error), no_panic("a.parquet is damaged"):
            raise error


def test_an_error_that_says_nothing_is_named() -> None:
    assert first_line(ValueError()) == "ValueError"
