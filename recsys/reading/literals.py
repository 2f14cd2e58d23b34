"""Lists that a table's export wrote as text, `['Action', 'Drama']` or `["Action","Drama"]`, as lists again."""

from __future__ import annotations

import ast
import json
import re
from typing import Any, Final

import polars as pl

_TEXT: Final = r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\""
_WORD: Final = rf"{_TEXT}|[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|None|True|False|null|true|false|nan|NaN"
# NumPy writes no commas; words without quotes beside each other are none of its lists of text
_LIST: Final = re.compile(rf"(?s)\[\s*(?:(?:{_WORD})(?:\s*,\s*(?:{_WORD}))*\s*,?|(?:{_TEXT})(?:\s+(?:{_TEXT}))*)?\s*\]")
_WORDS: Final = re.compile(rf"(?s){_WORD}")
_LIKELY: Final = r"^\s*(?:\[(?s:.*)\]\s*)?$"
_NOTHING: Final = ("None", "null", "nan", "NaN")


def with_lists(frame: pl.DataFrame, besides: str = "") -> pl.DataFrame:
    """Columns of text (but `besides`) whose every value is written as a list become lists; a blank value is none.

    >>> with_lists(pl.DataFrame({"genres": ["['Action', 'Drama']", None]}))["genres"].to_list()
    [['Action', 'Drama'], None]
    """
    text = [name for name, dtype in frame.schema.items() if dtype == pl.String and name != besides]
    likely = frame.select(pl.col(name).drop_nulls().str.contains(_LIKELY).all() for name in text)
    for name in text:
        values = [value for value in frame[name].unique() if value and value.strip()] if likely[name].item() else []
        lists = {value: found for value in values if (found := parse_list(value)) is not None}
        if values and len(lists) == len(values):
            column = pl.Series(name, [lists.get(value) for value in frame[name]], dtype=pl.List(pl.String))
            frame = frame.with_columns(column)
    return frame


def parse_list(text: str) -> list[str] | None:
    """The elements of a list of texts and numbers as JSON, Python or NumPy writes it; None where it is none.

    >>> parse_list("['Action' 'Drama']")
    ['Action', 'Drama']
    >>> parse_list("[Rec] (2007)") is None
    True
    """
    text = text.strip()
    try:
        found = json.loads(text)
        if isinstance(found, list) and not any(isinstance(value, list | dict) for value in found):
            return [_shown(value) for value in found if value is not None and value == value]  # not a number
    except ValueError:
        pass
    if _LIST.fullmatch(text) is None:
        return None
    try:
        return [_literal(word) for word in _WORDS.findall(text) if word not in _NOTHING]
    except (ValueError, SyntaxError):  # an escape that is none, such as '\x'
        return None


def _literal(word: str) -> str:
    return str(ast.literal_eval(word)) if word[0] in "'\"" else word


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
