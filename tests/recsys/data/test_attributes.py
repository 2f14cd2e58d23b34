from __future__ import annotations

import polars as pl
import pytest

from recsys.data.attributes import attribute_values
from recsys.settings import ItemSettings, UserSettings


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


def test_whole_floats_are_written_as_integers() -> None:
    """A table from pandas holds codes as floats where some are missing; those of the catalogue are integers."""
    settings = UserSettings.model_validate(
        {
            "source": "u.parquet",
            "categorical": {
                "region": {},
                "single": {"column": "region", "kind": "single"},
                "cut": {"column": "region", "kind": "single", "pattern": r"(\d+)\.0"},  # written for what there was
                "several": {},
                "price": {"kind": "single"},
            },
            "numeric": {"number": {"column": "region"}, "fraction": {"column": "region", "pattern": r"\d+(\.\d)"}},
        }
    )
    rows = pl.DataFrame(
        {
            "region": [49.0, None, 7.5],
            "several": [[1.0, 2.5, None], [], None],
            "price": pl.Series(["10.00", "2.50", None]).cast(pl.Decimal(10, 2)),
        }
    )
    assert attribute_values("users", settings, rows).to_dict(as_series=False) == {
        "region": [["49"], [], ["7.5"]],
        "single": ["49", None, "7.5"],
        "cut": ["49", None, None],
        "several": [["1", "2.5"], [], []],
        "price": ["10", "2.5", None],
        "number": [49.0, None, 7.5],
        "fraction": [0.0, None, 0.5],
    }
