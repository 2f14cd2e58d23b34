"""One JSON object whose keys are ids: histories, attributes, titles or an id map, by what its values are.

    {"u1": ["i1", "i2"], ...}           events: user_id, item_id, oldest first
    {"i1": {"title": "...", ...}, ...}  items: item_id and the attributes
    {"i1": "...", ...}                  items: item_id and title

The file is read whole: that is the nature of such files.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

import polars as pl

from recsys.columns import ITEM_ID, TITLE, USER_ID
from recsys.errors import InputError, first_line
from recsys.reading.json_lines import decode_objects, read_texts
from recsys.reading.reasons import DEFECT, FILE_LINE, FILE_RAW
from recsys.reading.sources import SourceFile, TextFile

_LIST: Final = "a list"
_OBJECT: Final = "an object"
_TEXT: Final = "text"


def read_object(file: SourceFile, text: TextFile) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """Rows with FILE_LINE (the number of the key, from 1), FILE_RAW and DEFECT, and the names of their columns.

    An event without an item becomes a row with a null: the contracts judge them. A value of another kind than most
    has a defect.

    Raises
    ------
    InputError
        Not one JSON object.
    """
    try:
        tree = json.loads(text.path.read_text(encoding="utf-8"), parse_constant=_no_number)
    except ValueError as error:
        raise InputError(f"{file.name} is not JSON: {first_line(error)}; correct the file, or its format.") from None
    if not isinstance(tree, dict):
        raise InputError(f"{file.name} is not one JSON object; set its format to what it is.")
    kinds = [_kind(value) for value in tree.values()]
    usual = Counter(kinds).most_common(1)[0][0] if kinds else _TEXT
    odd = [None if kind == usual else f"the value is {kind}, unlike in most rows" for kind in kinds]
    if usual == _LIST:
        return _events(tree, odd), (USER_ID, ITEM_ID)
    if usual == _OBJECT:
        return _attributes(file, tree, odd)
    return _titles(tree, odd), (ITEM_ID, TITLE)


def _no_number(_: str) -> None:
    """NaN and the infinities, which are no JSON, are no values."""


def _kind(value: Any) -> str:
    return _LIST if isinstance(value, list) else _OBJECT if isinstance(value, dict) else _TEXT


def _events(tree: dict[str, Any], odd: list[str | None]) -> pl.LazyFrame:
    rows = [
        (line, user, item, fault)
        for line, ((user, items), fault) in enumerate(zip(tree.items(), odd, strict=True), 1)
        for item in (items if fault is None else [items])
    ]
    # an id is what it would be in JSON lines
    values = read_texts(pl.Series([json.dumps({ITEM_ID: row[2]}) for row in rows], dtype=pl.String), [ITEM_ID], ITEM_ID)
    faults = [fault or told for (*_, fault), told in zip(rows, values[DEFECT], strict=True)]
    raw = [_shown(user, item) for _, user, item, _ in rows]
    columns = {USER_ID: pl.Series([row[1] for row in rows], dtype=pl.String), ITEM_ID: values[ITEM_ID]}
    return _rows(columns, [row[0] for row in rows], raw, faults)


def _titles(tree: dict[str, Any], odd: list[str | None]) -> pl.LazyFrame:
    values = [None if value is None or fault else str(value) for value, fault in zip(tree.values(), odd, strict=True)]
    columns = {ITEM_ID: pl.Series(list(tree), dtype=pl.String), TITLE: pl.Series(values, dtype=pl.String)}
    return _rows(columns, range(1, len(tree) + 1), list(map(_shown, tree, tree.values())), odd)


def _attributes(file: SourceFile, tree: dict[str, Any], odd: list[str | None]) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    sound = [json.dumps(value) if fault is None else None for value, fault in zip(tree.values(), odd, strict=True)]
    faults = pl.Series(odd, dtype=pl.String)
    frame, faults = decode_objects(file.name, pl.Series(sound, dtype=pl.String), faults)
    if ITEM_ID in frame.columns:
        raise InputError(f"{file.name} has an attribute {ITEM_ID!r} beside the ids that are its keys; rename it.")
    columns = {ITEM_ID: pl.Series(list(tree), dtype=pl.String)} | {name: frame[name] for name in frame.columns}
    return _rows(columns, range(1, len(tree) + 1), list(map(_shown, tree, tree.values())), faults), tuple(columns)


def _shown(key: str, value: Any) -> str:
    return json.dumps({key: value}, ensure_ascii=False)


def _rows(
    columns: dict[str, pl.Series], lines: Iterable[int], raw: list[str], odd: Iterable[str | None]
) -> pl.LazyFrame:
    ours = {
        FILE_LINE: pl.Series(list(lines), dtype=pl.Int64),
        FILE_RAW: pl.Series(raw, dtype=pl.String),
        DEFECT: pl.Series(list(odd), dtype=pl.String),
    }
    return pl.DataFrame(columns | ours).lazy()
