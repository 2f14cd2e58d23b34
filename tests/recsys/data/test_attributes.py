from __future__ import annotations

import polars as pl
import pytest

from recsys.data.attributes import attribute_values
from recsys.settings import ItemSettings


@pytest.mark.parametrize(
    ("decimal", "found"),
    [(".", [3.5, None, None, 1234.0, None]), (",", [None, 3.5, None, 1234.0, None])],
)
def test_numbers_have_the_declared_decimal_sign(decimal: str, found: list[float | None]) -> None:
    settings = ItemSettings.model_validate(
        {"source": "i.csv", "separator": ";", "decimal": decimal, "numeric": {"price": {}}}
    )
    rows = pl.DataFrame({"price": ["3.5", "3,5", "1.234,5", "1234", "1,234.5"]})
    assert attribute_values("items", settings, rows)["price"].to_list() == found


def test_a_pattern_comes_before_the_decimal_sign() -> None:
    settings = ItemSettings.model_validate(
        {"source": "i.tsv", "decimal": ",", "numeric": {"price": {"pattern": r"(\d+,\d+) €"}}}
    )
    rows = pl.DataFrame({"price": ["3,50 €", "?"]})
    assert attribute_values("items", settings, rows)["price"].to_list() == [3.5, None]
