from __future__ import annotations

import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.reading.literals import parse_list, with_lists


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("['Action', 'Drama']", ["Action", "Drama"]),
        ('["Action","Drama"]', ["Action", "Drama"]),
        ("['it\\'s', \"O'Neil\", ]", ["it's", "O'Neil"]),
        ("['Action' 'Drama'\n 'Sci, Fi']", ["Action", "Drama", "Sci, Fi"]),  # as NumPy writes it
        ("[1, 2.5, None, nan]", ["1", "2.5"]),
        ('["a", null]', ["a"]),
        ("[]", []),
        ("[Rec] (2007)", None),
        ("[Rec]", None),
        ("['a', b]", None),
        ("['a'", None),
        ("[['a']]", None),
        ("[{'id': 1}]", None),
        ("[1 2]", None),
        ("['a'.upper()]", None),
        ("Action", None),
    ],
)
def test_lists_as_they_are_written(text: str, found: list[str] | None) -> None:
    assert parse_list(text) == found


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=6), max_size=4))
def test_what_python_and_json_write_is_read(values: list[str]) -> None:
    assert parse_list(repr(values)) == values
    assert parse_list(json.dumps(values)) == values
    assert parse_list(json.dumps(values, ensure_ascii=False)) == values


def test_a_column_is_of_lists_where_every_value_is_one() -> None:
    frame = pl.DataFrame(
        {
            "id": ["['x']", "['y']", "['z']", "['w']"],
            "genres": ["['Action', 'Drama']", "", None, " ['Drama']"],
            "title": ["[Rec]", "['a']", "['b']", "['c']"],
            "blank": ["", " ", None, ""],
            "year": [1, 2, 3, 4],
        }
    )
    found = with_lists(frame, "id")
    assert found["genres"].to_list() == [["Action", "Drama"], None, None, ["Drama"]]
    assert found.drop("genres").equals(frame.drop("genres"))
