from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import InputError
from recsys.reading.json_lines import odd_forms, read_texts
from recsys.reading.readers import Rows, read_rows
from recsys.reading.reasons import DEFECT, FILE_LINE, INEXACT_ID, NESTED, NO_RECORD
from recsys.reading.sources import find_files
from recsys.settings import SourceSettings

KEYS = ("user", 'it"em\\é')
IDS = (
    st.integers(-(2**100), 2**100)
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([7.0, -0.0, 1e2, 1e22, 2.0**53, 2.0**53 - 1, 0.1])
    | st.booleans()
    | st.none()
    | st.text(max_size=6)
    | st.text(st.sampled_from('\\"ud83é'), max_size=8)
    | st.lists(st.integers(0, 9), max_size=2)
    | st.dictionaries(st.sampled_from("ab"), st.integers(0, 9), max_size=2)
)
BROKEN = st.sampled_from(
    ['{"user": ', "[1]", "null", "7", "", "   ", '{"user": NaN}', '{"user": 1} x', '{"user": 1e999}']
)
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, *lines: str, wanted: tuple[str, ...] | None = KEYS) -> Rows:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    source = SourceSettings(source=path.name, format="jsonl")
    (file,) = find_files("interactions", source, str(path.parent))
    return read_rows(file, source, Path(tempfile.mkdtemp(dir=path.parent)), wanted, ids=KEYS[:2])


def sound(rows: Rows) -> list[tuple[Any, ...]]:
    frame = rows.frame.filter(pl.col(DEFECT).is_null()).collect().sort(FILE_LINE)
    return frame.select(name for name in KEYS if name in frame.columns).rows()


def expected(value: Any) -> str | None:
    """The id of a value: an integer's digits, a whole float's integer, otherwise the text."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if value is None or isinstance(value, str) else str(value)


@QUICK
@given(
    records=st.lists(st.tuples(IDS, IDS), min_size=1, max_size=5),
    broken=st.lists(st.tuples(st.integers(0, 5), BROKEN), max_size=3),
    ascii=st.booleans(),
)
def test_a_value_has_one_id_whatever_stands_beside_it(
    tmp_path: Path, records: list[tuple[Any, Any]], broken: list[tuple[int, str]], ascii: bool
) -> None:
    try:
        lines = [json.dumps(dict(zip(KEYS, pair, strict=True)), ensure_ascii=ascii) for pair in records]
        "".join(lines).encode()
    except UnicodeEncodeError:  # a lone surrogate, which no file in UTF-8 holds
        return
    clean = sound(read(tmp_path / "clean.jsonl", *lines))
    for place, line in broken:
        lines.insert(place + 1, line)  # a file that begins with [ is one array
    assert sound(read(tmp_path / "broken.jsonl", *lines)) == clean
    if all(isinstance(value, int | str | None) for pair in records for value in pair):
        lone = [any(isinstance(v, str) and any("\ud800" <= c <= "\udfff" for c in v) for v in pair) for pair in records]
        named = [tuple(map(expected, pair)) for pair, odd in zip(records, lone, strict=True) if not odd]
        assert clean == named or len(clean[0] if clean else ()) < len(KEYS)


@pytest.mark.parametrize(
    ("written", "identity", "defect"),
    [
        ("7", "7", None),
        ("7.0", "7", None),
        ("1e2", "100", None),
        ("-0", "0", None),
        ("-0.0", "0", None),
        ('"-0"', "-0", None),
        ('"007"', "007", None),
        ("123456789012345678901234567890", "123456789012345678901234567890", None),
        ("9007199254740993", "9007199254740993", None),
        ("9007199254740991.0", "9007199254740991", None),
        ("9007199254740993.0", None, INEXACT_ID),
        ("1e22", None, INEXACT_ID),
        ("-1E17", None, INEXACT_ID),
        ('"1e22"', "1e22", None),
        ("true", "true", None),
        ("null", None, None),
        ('"\\u00e9 \\ud83d\\ude00"', "é 😀", None),
        ('"\\\\ud800"', "\\ud800", None),
        ('"\\ud800"', None, NO_RECORD),
        ('["a1", "b1"]', None, NESTED),
        ('{"$oid": "5"}', None, NESTED),
        ("1e999", None, NO_RECORD),
    ],
)
@pytest.mark.parametrize("beside", [(), ("{broken",), ('{"u": [1]}',), ("1e999",)])
def test_ids_of_every_kind(written: str, identity: str | None, defect: str | None, beside: tuple[str, ...]) -> None:
    frame = read_texts(pl.Series([f'{{"u": {written}}}', *beside]), ["u"], ["u"])
    assert frame[DEFECT][0] == defect
    if defect is None:
        assert frame["u"][0] == identity


def test_large_floats_that_are_no_ids_stay() -> None:
    frame = read_texts(pl.Series(['{"u": "a", "t": 1.7e18}']), ["u", "t"], ["u"])
    assert frame.row(0) == ("a", "1700000000000000000", None)


def test_ids_are_the_same_in_a_log_and_in_a_catalogue(tmp_path: Path) -> None:
    lines = [f'{{"user": {written}}}' for written in ("1", "true", "2.0", '"x"', "9007199254740993", "1e22", "[1]")]
    log = read(tmp_path / "log.jsonl", *lines)
    catalogue = read(tmp_path / "items.jsonl", *lines, wanted=None)
    assert sound(log) == sound(catalogue) == [("1",), ("true",), ("2",), ("x",), ("9007199254740993",)]


def test_a_catalogue_row_of_another_form_is_broken_alone(tmp_path: Path) -> None:
    rows = read(
        tmp_path / "items.jsonl",
        '{"user": 1, "tags": ["a", "b"], "more": {"x": 1}}',
        '{"user": 2, "tags": {"a": 1}, "more": {"x": 2}}',
        '{"user": 3, "tags": "c", "more": {"x": {"y": 1}}}',
        '{"user": 4, "tags": ["d"], "more": {"x": null}}',
        '{"user": 5, "tags": "e", "more": {"x": 3}}',
        wanted=None,
    )
    frame = rows.frame.collect()
    assert frame.filter(pl.col(DEFECT).is_not_null()).select(FILE_LINE, DEFECT).rows() == [
        (2, "'tags' is an object, unlike in most rows"),
        (3, "'more.x' is an object, unlike in most rows"),
    ]
    good = frame.filter(pl.col(DEFECT).is_null())
    assert good["user"].to_list() == ["1", "4", "5"]
    assert good["tags"].to_list() == [["a", "b"], ["d"], ["e"]]  # a value where others have lists is a list of one


def test_the_form_of_most_rows_is_the_usual_one() -> None:
    assert odd_forms([{"a": {"x": 1}}, {"a": {"x": 2}}, {"a": "b"}, None, {}]) == [
        *(None, None, "'a' is no object, unlike in most rows", None, None),
    ]


def test_values_that_do_not_go_together_in_one_row_are_told(tmp_path: Path) -> None:
    rows = read(tmp_path / "items.jsonl", '{"user": 1, "t": [1, {"a": 2}]}', '{"user": 2, "t": [3]}', wanted=None)
    assert rows.frame.collect()[DEFECT].to_list() == ["'t[]' is an object, unlike in most rows", None]


def test_an_array_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is one JSON array; write one object a line"):
        read(tmp_path / "log.jsonl", '[{"user": 1}]')
