"""Sentences: what a catalogue's rows turn into, mess included."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.features.sentences import cleaned, sentences, shortened


def one(value: object, dtype: pl.DataType | None = None) -> str:
    """The text of a single value."""
    frame = pl.DataFrame({"v": pl.Series([value], dtype=dtype, strict=False)})
    return str(sentences(frame, ["v"], names=False)[0])


def test_names_before_values_in_the_given_order() -> None:
    frame = pl.DataFrame(
        {
            "attributes": [["OPI", "Makeup", "Nails"]],
            "title": ["OPI Nail Lacquer"],
            "price": [9.0],
        }
    )
    assert sentences(frame, ["title", "attributes"]).to_list() == [
        "title: OPI Nail Lacquer attributes: OPI, Makeup, Nails"
    ]
    assert sentences(frame, ["attributes", "title"], names=False).to_list() == ["OPI, Makeup, Nails OPI Nail Lacquer"]


def test_missing_and_blank_values_leave_no_trace() -> None:
    frame = pl.DataFrame(
        {
            "title": ["A", None, " \n", "&nbsp;<br>"],
            "tags": [["x", None, " ", "y"], [], None, [None]],
        }
    )
    assert sentences(frame, ["title", "tags"]).to_list() == ["title: A tags: x, y", "", "", ""]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Simmer &amp; Shimmer", "Simmer & Shimmer"),
        ("6&amp;quot; brush", '6" brush'),  # escaped twice
        ("caf&eacute; &#233;&#x1F600;", "café é😀"),
        ("AT&T &nosuch; &;", "AT&T &nosuch; &;"),
        ("<p>one</p><p>two</p>", "one two"),
        ("&lt;b&gt;F&lt;/b&gt;ast<br/>dry", "Fast dry"),
        ("<style>p {color: red}</style>red<!-- hidden -->", "red"),
        ("5 < 6 and 7 > 6", "5 < 6 and 7 > 6"),
        ("size <large>", "size <large>"),
        ("  tabs\t\tand\nlines\r\n ", "tabs and lines"),
        ("soft\u00adhyphen zero\u200bwidth", "softhyphen zerowidth"),
        ("👩‍👩‍👧 日本語 наив naïve", "👩‍👩‍👧 日本語 наив naïve"),
    ],
)
def test_cleaning(given: str, expected: str) -> None:
    assert one(given) == expected


@pytest.mark.parametrize(
    ("value", "dtype", "expected"),
    [
        (3, pl.Int64(), "3"),
        (12.0, pl.Float64(), "12"),
        (0.25, pl.Float64(), "0.25"),
        (float("nan"), pl.Float64(), ""),
        (float("inf"), pl.Float64(), ""),
        (True, pl.Boolean(), "true"),
        (date(2014, 7, 1), pl.Date(), "2014-07-01"),
        ([["a", "b"], [], None, ["c"]], pl.List(pl.List(pl.String)), "a, b, c"),
        ([1.0, 2.5], pl.List(pl.Float64), "1, 2.5"),
        (["x", "y"], pl.Array(pl.String, 2), "x, y"),
        ({"brand": "OPI", "sizes": [1, 2]}, None, "OPI, 1, 2"),
        ([{"name": "a"}, {"name": None}], None, "a"),
        ("u", pl.Categorical(), "u"),
        (None, pl.Null(), ""),
    ],
)
def test_every_type_becomes_text(value: object, dtype: pl.DataType | None, expected: str) -> None:
    assert one(value, dtype) == expected


def test_a_very_long_description_stays_whole() -> None:
    text = one("<p>word &amp; 👍</p>" * 10_000)
    assert text == " ".join(["word & 👍"] * 10_000)


def test_no_items_and_no_attributes() -> None:
    frame = pl.DataFrame({"title": ["a", "b"]})
    assert sentences(frame[:0], ["title"]).dtype == pl.String
    assert sentences(frame, []).to_list() == ["", ""]


def test_an_unknown_attribute_is_named() -> None:
    with pytest.raises(ValueError, match=r"no attribute 'titel'; the columns are title"):
        sentences(pl.DataFrame({"title": ["a"]}), ["titel"])


def test_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="'image' is of type Binary"):
        sentences(pl.DataFrame({"image": [b"\xff"]}), ["image"])


@given(st.lists(st.one_of(st.none(), st.text()), min_size=1, max_size=8))
def test_any_text_becomes_tidy_text_row_by_row(values: list[str | None]) -> None:
    frame = pl.DataFrame({"title": pl.Series(values, dtype=pl.String)})
    result = sentences(frame, ["title"], names=False)
    assert len(result) == len(values)
    for text in result:
        assert text is not None
        assert "  " not in text and "\n" not in text and text == text.strip(" ")
    # a row's sentence does not depend on the other rows
    assert result[-1] == sentences(frame[-1:], ["title"], names=False)[0]


@pytest.mark.parametrize(
    ("given", "words", "kept", "dropped"),
    [
        ("one two  three", 2, "one two", "three"),
        ("one two", 2, "one two", None),
        ("0.5-Fluid Ounce", 4, "0.5-", "Fluid Ounce"),  # a sign is a word
        ("夜用面霜 крем", 3, "夜用面", "霜 крем"),  # scripts without blanks: by the character
        ("ночной крем", 1, "ночной", "крем"),
        ("a👩‍👩‍👧👍🏽🇩🇪b", 3, "a👩‍👩‍👧👍🏽", "🇩🇪b"),  # what makes up one emoji stays together
        (None, 2, None, None),
    ],
)
def test_an_attribute_keeps_its_first_words(
    given: str | None, words: int, kept: str | None, dropped: str | None
) -> None:
    (attribute,) = cleaned(pl.DataFrame({"v": pl.Series([given], dtype=pl.String)}), ["v"], words)
    assert (attribute.kept[0], attribute.dropped[0]) == (kept, dropped)


def test_each_attribute_has_a_budget_of_its_own_and_cut_items_are_counted() -> None:
    frame = pl.DataFrame({"title": ["a b c d", "a", None], "tags": [["x", "y z"], ["x y z", "u"], None]})
    assert sentences(frame, ["title", "tags"], words=3).to_list() == [
        "title: a b c tags: x, y",
        "title: a tags: x y z",
        "",
    ]
    assert shortened(cleaned(frame, ["title", "tags"], 3)) == 2  # the first item twice, but it is one item
    assert shortened(cleaned(frame, ["title", "tags"])) == 0
    assert shortened([]) == 0


@given(st.text(max_size=60), st.integers(1, 5))
def test_the_budget_loses_no_character(text: str, words: int) -> None:
    (whole,), (cut,) = (cleaned(pl.DataFrame({"v": [text]}), ["v"], most) for most in (None, words))
    together = (cut.kept[0] or "") + (cut.dropped[0] or "")
    assert together.replace(" ", "") == (whole.kept[0] or "").replace(" ", "")
    assert (cut.kept[0] is None) == (whole.kept[0] is None)
