"""One JSON object whose keys are ids: histories, attributes, titles or an id map, by what its values are.

    {"u1": ["i1", "i2"], ...}           events: user_id, item_id, oldest first
    {"i1": {"title": "...", ...}, ...}  items: item_id and the attributes
    {"i1": "...", ...}                  items: item_id and title

The file is read whole: that is the nature of such files.
"""

from __future__ import annotations

import json
from typing import Any

import polars as pl

from recsys.columns import ITEM_ID, TITLE, USER_ID
from recsys.data.contracts import DEFECT, FILE_LINE, FILE_RAW
from recsys.data.sources import SourceFile, TextFile
from recsys.errors import InputError, first_line


def read_object(file: SourceFile, text: TextFile) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """Rows with FILE_LINE (the number of the key, from 1), FILE_RAW and DEFECT, and the names of their columns.

    An event without an item becomes a row with a null: the contracts judge them.

    Raises
    ------
    InputError
        Not one JSON object, or one whose values are of several kinds.
    """
    try:
        tree = json.loads(text.path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{file.name} is not JSON: {first_line(error)}; correct the file, or its format.") from None
    if not isinstance(tree, dict):
        raise InputError(f"{file.name} is not one JSON object; set its format to what it is.")
    kinds = {"a list" if isinstance(v, list) else "an object" if isinstance(v, dict) else "text" for v in tree.values()}
    if kinds == {"a list"}:
        return _events(tree), (USER_ID, ITEM_ID)
    if kinds == {"an object"}:
        return _attributes(file, tree)
    if kinds <= {"text"}:
        return _titles(tree), (ITEM_ID, TITLE)
    raise InputError(
        f"{file.name} has keys whose value is {' and keys whose value is '.join(sorted(kinds))}; make them all alike."
    )


def _events(tree: dict[str, list[Any]]) -> pl.LazyFrame:
    users = [user for user, items in tree.items() for _ in items]
    items = [_as_id(item) for items in tree.values() for item in items]
    lines = [line for line, items in enumerate(tree.values(), 1) for _ in items]
    raw = [json.dumps({user: item}, ensure_ascii=False) for user, items in tree.items() for item in items]
    return _rows({USER_ID: pl.Series(users, dtype=pl.String), ITEM_ID: pl.Series(items, dtype=pl.String)}, lines, raw)


def _titles(tree: dict[str, Any]) -> pl.LazyFrame:
    values = [None if value is None else str(value) for value in tree.values()]
    raw = [json.dumps({key: value}, ensure_ascii=False) for key, value in tree.items()]
    columns = {ITEM_ID: pl.Series(list(tree), dtype=pl.String), TITLE: pl.Series(values, dtype=pl.String)}
    return _rows(columns, range(1, len(tree) + 1), raw)


def _attributes(file: SourceFile, tree: dict[str, dict[str, Any]]) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    try:
        frame = pl.from_dicts(list(tree.values()), infer_schema_length=None)
    except (pl.exceptions.PolarsError, TypeError) as error:
        raise InputError(
            f"{file.name}: the values of one attribute do not go together ({first_line(error)}); "
            "write each attribute's values in one form."
        ) from None
    if ITEM_ID in frame.columns:
        raise InputError(f"{file.name} has an attribute {ITEM_ID!r} beside the ids that are its keys; rename it.")
    raw = [json.dumps({key: value}, ensure_ascii=False) for key, value in tree.items()]
    columns = {ITEM_ID: pl.Series(list(tree), dtype=pl.String)} | {name: frame[name] for name in frame.columns}
    return _rows(columns, range(1, len(tree) + 1), raw), tuple(columns)


def _rows(columns: dict[str, pl.Series], lines: Any, raw: list[str]) -> pl.LazyFrame:
    ours = {
        FILE_LINE: pl.Series(list(lines), dtype=pl.Int64),
        FILE_RAW: pl.Series(raw, dtype=pl.String),
        DEFECT: pl.Series([None] * len(raw), dtype=pl.String),
    }
    return pl.DataFrame(columns | ours).lazy()


def _as_id(value: Any) -> str | None:
    """An id as text; null for what can be none."""
    return str(value) if isinstance(value, str | int) and not isinstance(value, bool) else None
