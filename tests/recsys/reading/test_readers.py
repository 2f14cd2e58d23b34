from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import hashlib
import io
import json
import lzma
import tempfile
import zipfile
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Any

import polars as pl
import pytest
from deltalake import write_deltalake
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, RecsysError
from recsys.reading.readers import Rows, read_rows, reading
from recsys.reading.reasons import DEFECT, FILE_LINE, FILE_RAW
from recsys.reading.sources import SourceFile, find_files, unreadable
from recsys.settings import SourceSettings

# any text but surrogates, which no encoding writes, and NUL
ANY = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.text(ANY, max_size=8) | st.text(st.sampled_from('a1",;\n é\\'), max_size=8)
LINE = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r\n"), max_size=8)
QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, wanted: Sequence[str] | None = None, **options: Any) -> Rows:
    options.setdefault("source", path.name)
    source = SourceSettings(**options)
    (file,) = find_files("interactions", source, str(path.parent))
    return read_rows(file, source, Path(tempfile.mkdtemp(dir=path.parent)), wanted)


def table(rows: Rows) -> list[tuple[Any, ...]]:
    """The sound rows."""
    frame = rows.frame.collect().sort(FILE_LINE, maintain_order=True)
    return frame.filter(pl.col(DEFECT).is_null()).select(name for name in rows.columns if name in frame.columns).rows()


def defects(rows: Rows) -> list[tuple[int, str, str]]:
    broken = rows.frame.filter(pl.col(DEFECT).is_not_null()).collect().sort(FILE_LINE)
    return broken.select(FILE_LINE, pl.col(DEFECT).cast(pl.String), FILE_RAW).rows()


# --- round trips --------------------------------------------------------------------------------------------


@QUICK
@given(
    names=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=4, unique=True),
    data=st.data(),
    separator=st.sampled_from([",", ";", "\t", "|", " ", "^"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
def test_csv_round_trip(tmp_path: Path, names: list[str], data: Any, separator: str, quoting: Any, end: str) -> None:
    field = TEXT.map(lambda text: text.replace("\r", ""))  # a line of a field may not end like a line of the file
    records = data.draw(st.lists(st.lists(field, min_size=len(names), max_size=len(names)), max_size=6))
    path = tmp_path / "log.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter=separator, quoting=quoting, lineterminator=end)
        writer.writerows([names, *(record for record in records if record != names)])
    with path.open(encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file, delimiter=separator, skipinitialspace=separator != " "))[1:]
    rows = read(path, separator=separator)
    assert rows.columns == tuple(names)
    assert table(rows) == [tuple(record) for record in expected]
    assert defects(rows) == []


@QUICK
@given(
    records=st.lists(st.tuples(LINE, LINE, LINE), max_size=6),
    separator=st.sampled_from(["::", "||", "\t\t", "<>"]),
    encoding=st.sampled_from(["utf-8", "utf-16", "utf-8-sig"]),
)
def test_long_separators_round_trip(
    tmp_path: Path, records: list[tuple[str, ...]], separator: str, encoding: str
) -> None:
    safe = [
        tuple(value.replace(character, "") for value in record) for record in records for character in [separator[0]]
    ]
    safe = [tuple(value.replace(separator[-1], "").lstrip("\ufeff") for value in record) for record in safe]
    path = tmp_path / "log.dat"
    path.write_bytes("".join(separator.join(record) + "\n" for record in safe).encode(encoding))
    rows = read(path, format="csv", separator=separator, fields=("a", "b", "c"), encoding=encoding)
    assert table(rows) == [tuple(value.lstrip(" ") for value in record) for record in safe]


@QUICK
@given(
    st.lists(
        st.fixed_dictionaries({"user": st.integers(-(2**63), 2**63 - 1) | TEXT, "ts": st.none() | TEXT}),
        max_size=6,
    )
)
def test_jsonl_round_trip(tmp_path: Path, records: list[dict[str, Any]]) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text("".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records), encoding="utf-8")
    rows = read(path, wanted=["user", "ts"])
    expected = [(str(record["user"]), record["ts"]) for record in records]
    assert rows.frame.collect().height == len(records)
    if "ts" in rows.columns and "user" in rows.columns:
        assert table(rows) == expected


@QUICK
@given(
    st.lists(
        st.tuples(st.integers(0, 99), st.lists(st.integers(0, 99), min_size=1, max_size=4)),
        min_size=1,
        max_size=6,
    )
)
def test_sequences_round_trip(tmp_path: Path, users: list[tuple[int, list[int]]]) -> None:
    path = tmp_path / "log.txt"
    path.write_text("".join(f"{user} {' '.join(map(str, items))}\n" for user, items in users))
    rows = read(path, format="sequences")
    assert rows.columns == (USER_ID, ITEM_ID)
    assert table(rows) == [(str(user), str(item)) for user, items in users for item in items]
    lines = rows.frame.collect()[FILE_LINE].to_list()
    assert lines == [number for number, (_, items) in enumerate(users, start=1) for _ in items]


@QUICK
@given(st.lists(st.tuples(st.integers(-(2**31), 2**31), TEXT, st.none() | st.floats(allow_nan=False)), min_size=1))
def test_parquet_and_delta_round_trip(tmp_path: Path, records: list[tuple[Any, ...]]) -> None:
    frame = pl.DataFrame(records, schema={"u": pl.Int64, "i": pl.String, "w": pl.Float64}, orient="row")
    folder = Path(tempfile.mkdtemp(dir=tmp_path))
    frame.write_parquet(folder / "log.parquet")
    write_deltalake(str(folder / "log"), frame.to_arrow())
    for name in ("log.parquet", "log"):
        rows = read(folder / name)
        assert rows.columns == ("u", "i", "w")
        assert table(rows) == records
        assert rows.frame.collect()[FILE_LINE].to_list() == list(range(1, len(records) + 1))
        raw = json.loads(rows.frame.select(FILE_RAW).head(1).collect().item())
        assert raw["u"] == records[0][0] and raw["i"] == records[0][1]


# --- defects ------------------------------------------------------------------------------------------------


def test_csv_defects_are_told_by_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(
        b"u,i,t\n"  # 1
        b"1,2,3\n"  # 2
        b"\n"  # 3: nothing, no row
        b"1,2\n"  # 4
        b"1,2,3,4\n"  # 5
        b"1,\xff2,3\r\n"  # 6
        b",,\n"  # 7: empty fields are the contract's business
        b"4,5,6"  # 8
    )
    rows = read(path)
    assert table(rows) == [("1", "2", "3"), ("", "", ""), ("4", "5", "6")]
    assert defects(rows) == [
        (4, "wrong number of fields", "1,2"),
        (5, "wrong number of fields", "1,2,3,4"),
        (6, "bytes that are not the declared encoding", "1,\\xff2,3"),
    ]
    assert rows.open_end
    assert rows.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    assert rows.size == path.stat().st_size


def test_quotes(tmp_path: Path) -> None:
    path = tmp_path / "movies.csv"
    path.write_text(
        "id,title,genres\n"  # 1
        '1,"American President, The (1995)",Drama\n'  # 2
        '2,"He said ""no""",""\n'  # 3
        "3,11'09\"01,Short\n"  # 4: a quote inside a bare field is itself
        '4,"two\nlines, one title",Drama\n'  # 5, 6
        '5,"never closed,Drama\n'  # 7
        "6,fine,Drama\n"  # 8
        '7,"closed" too early,Drama\n'  # 9
        '8,"a ""b""\n\n c","x\n"""\n'  # 10 to 13
        '9,5" disc,Music\n'  # 14
        '10,"a, b",Drama,more\n'  # 15
    )
    rows = read(path)
    assert table(rows) == [
        ("1", "American President, The (1995)", "Drama"),
        ("2", 'He said "no"', ""),
        ("3", "11'09\"01", "Short"),
        ("4", "two\nlines, one title", "Drama"),
        ("6", "fine", "Drama"),
        ("8", 'a "b"\n\n c', 'x\n"'),
        ("9", '5" disc', "Music"),
    ]
    assert defects(rows) == [
        (7, "a quote that is not closed", '5,"never closed,Drama'),
        (9, "wrong number of fields", '7,"closed" too early,Drama'),
        (15, "wrong number of fields", '10,"a, b",Drama,more'),
    ]


def test_one_stray_quote_costs_one_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    good = [f"{n},x" for n in range(3000)]
    path.write_text("\n".join(["u,i", '0,"broken', *good, '1,"also broken', *good, ""]))
    rows = read(path)
    assert defects(rows) == [
        (2, "a quote that is not closed", '0,"broken'),
        (3003, "a quote that is not closed", '1,"also broken'),
    ]
    assert len(table(rows)) == 6000


def test_latin_1_with_a_long_separator(tmp_path: Path) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes('1::"Cité" des enfants: perdus::Drama\n2::Miserables, Les::Drama\n3::x\n'.encode("latin-1"))
    options = {"format": "csv", "separator": "::", "fields": ("id", "title", "genres")}
    rows = read(path, encoding="latin-1", **options)
    assert table(rows) == [("1", '"Cité" des enfants: perdus', "Drama"), ("2", "Miserables, Les", "Drama")]
    assert defects(rows) == [(3, "wrong number of fields", "3::x")]
    assert rows.digest == hashlib.sha256(path.read_bytes()).hexdigest()
    # the same bytes are not utf-8
    assert defects(read(path, **options))[0] == (
        1,
        "bytes that are not the declared encoding",
        '1::"Cit\\xe9" des enfants: perdus::Drama',
    )


def test_a_bad_byte_far_into_a_file_has_its_line(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    lines = [f"{n},{n}".encode() for n in range(700_000)]  # more than one block of reading
    lines[650_000] = b"7,\xc3"
    path.write_bytes(b"u,i\n" + b"\n".join(lines))
    rows = read(path)
    assert defects(rows) == [(650_002, "bytes that are not the declared encoding", "7,\\xc3")]
    assert rows.frame.select(pl.len()).collect().item() == 700_000


def test_jsonl_defects(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_bytes(
        b'{"user": 1, "item": "a", "w": 1.50, "more": {"x": [1]}}\n'
        b'{"user": 1, "item": \n'
        b"\n"
        b"[1, 2]\n"
        b'{"item": "b", "user": "007"}\n'
        b'{"user": true, "item": "c\\u00e9\\n"} \n'
        b'{"user": 1, "item": "\xff"}\n'
        b'{"user": 1'
    )
    rows = read(path, wanted=["user", "item", "w", "absent"])
    assert rows.columns == ("user", "item", "w", "more")
    assert [row[:2] for row in table(rows)] == [("1", "a"), ("007", "b"), ("true", "cé\n")]
    assert float(table(rows)[0][2]) == 1.5
    assert [(line, reason) for line, reason, _ in defects(rows)] == [
        (2, "not a JSON object"),
        (4, "not a JSON object"),
        (7, "bytes that are not the declared encoding"),
        (8, "not a JSON object"),
    ]


def test_jsonl_attributes_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "items.jsonl"
    path.write_text('{"id": 1, "tags": ["a", "b"], "year": 1999}\n{"id": "x", "price": 2.5}\n{broken\n')
    rows = read(path)
    assert rows.columns == ("id", "tags", "year", "price")
    assert table(rows) == [("1", ["a", "b"], 1999, None), ("x", None, None, 2.5)]
    assert [line for line, *_ in defects(rows)] == [3]


def test_a_key_that_appears_late_is_found(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"u": 1}\n' * 10_500 + '{"u": 1, "event": "buy"}\n')
    assert read(path, wanted=["u", "event", "weight"]).columns == ("u", "event")


def test_comments_before_sequences_are_no_users(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("# user items\n#\n1 10 11\n#2 12\n# 13\n")
    rows = read(path, format="sequences")
    assert table(rows) == [("1", "10"), ("1", "11"), ("#2", "12"), ("#", "13")]


def test_sequences_defects(tmp_path: Path) -> None:
    path = tmp_path / "log.txt"
    path.write_text("1 10 11\n2\n\n  3\t12  \n")
    rows = read(path, format="sequences")
    assert table(rows) == [("1", "10"), ("1", "11"), ("3", "12")]
    assert defects(rows) == [(2, "wrong number of fields", "2")]


# --- sources ------------------------------------------------------------------------------------------------


def names(source: str | tuple[str, ...], root: Path, **options: Any) -> list[str]:
    return [file.name for file in find_files("interactions", SourceSettings(source=source, **options), str(root))]


def test_paths_globs_lists_and_folders(tmp_path: Path) -> None:
    for name in ("logs/b.csv", "logs/a.csv", "logs/deep/c.jsonl", "logs/_tmp/x.csv", "d[1].csv", "notes.md"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("u\n1\n")
    assert names("logs/*.csv", tmp_path) == ["logs/a.csv", "logs/b.csv"]
    assert names(("logs/b.csv", "logs/**/*.jsonl"), tmp_path) == ["logs/b.csv", "logs/deep/c.jsonl"]
    assert names("logs", tmp_path) == ["logs/a.csv", "logs/b.csv", "logs/deep/c.jsonl"]
    assert names("d[1].csv", tmp_path) == ["d[1].csv"]  # a path before it is a glob
    assert names(str(tmp_path / "logs/a.csv"), Path("/nowhere")) == [str(tmp_path / "logs/a.csv")]
    assert names(f"file://{tmp_path}/logs/*.csv", tmp_path) == [
        f"file://{tmp_path}/logs/a.csv",
        f"file://{tmp_path}/logs/b.csv",
    ]


def test_a_url_a_packed_file_and_a_table_of_tabs_are_read(tmp_path: Path) -> None:
    text = "u,i\n1,2\n3\n"
    (tmp_path / "log.csv").write_text(text)
    (tmp_path / "log.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "log.tsv").write_text(text.replace(",", "\t"))
    sources = [f"file://{tmp_path}/log.csv", "log.csv.gz", "log.tsv"]
    for source in sources:
        rows = read(tmp_path / "log.csv", source=source)
        assert table(rows) == [("1", "2")]
        assert [line for line, *_ in defects(rows)] == [3]
    assert read(tmp_path / "log.csv", source="log.csv.gz").digest == hashlib.sha256(text.encode()).hexdigest()


def test_partitions_are_columns_of_text_as_written(tmp_path: Path) -> None:
    for user in ("0007", "7", "a%3Ab", "__HIVE_DEFAULT_PARTITION__"):
        folder = tmp_path / "log" / "day=2024-01-02" / f"user_id={user}"
        folder.mkdir(parents=True)
        pl.DataFrame({"item_id": [1]}).write_parquet(folder / "part.parquet")
    found = []
    for file in find_files("interactions", SourceSettings(source="log"), str(tmp_path)):
        rows = read_rows(file, SourceSettings(source="log"), tmp_path)
        assert rows.columns == ("item_id", "day", "user_id")
        found += table(rows)
    assert found == [(1, "2024-01-02", user) for user in ("0007", "7", None, "a:b")]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("absent.csv", {}, r"There is no absent.csv for interactions.source; looked at /.*/absent.csv"),
        ("*.jsonl", {}, r"interactions.source = '\*.jsonl' matches no file; looked at /"),
        ("log.dat", {}, r'log.dat: its ending does not tell the format; set interactions.format to "csv"'),
        ("log.csv", {"encoding": "latin1x"}, "there is no encoding 'latin1x'; did you mean 'latin1'"),
        ("log.csv", {"format": "parquet"}, "log.csv cannot be read as parquet"),
        ("log.csv", {"format": "delta"}, "log.csv cannot be read"),
        ("twice.csv", {}, "has two columns named 'u'"),
        ("array.json", {}, "is one JSON array; write one object a line"),
        ("log.csv", {"encoding": "utf-16"}, "log.csv is not utf-16"),
        ("broken.csv.gz", {}, "broken.csv.gz cannot be read"),
    ],
)
def test_what_cannot_be_read_is_said(tmp_path: Path, source: str, options: dict[str, Any], message: str) -> None:
    for name, text in {
        "log.csv": "u,i\n1,2\n3",
        "log.dat": "1::2\n",
        "twice.csv": "u,u\n1,2\n",
        "array.json": '[{"u": 1},\n{"u": 2}]\n',
        "broken.csv.gz": "no gzip",
    }.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read(tmp_path / "log.csv", source=source, **options)


def test_prefixes_tell_whether_a_file_continues_another(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(b"u,i\n1,2\n3,44\n")
    file = SourceFile(name="log.csv", path=str(path), format="csv", separator=",")
    for encoding in ("utf-8", "latin-1"):
        source = SourceSettings(source="log.csv", encoding=encoding)
        prefixes = read_rows(file, source, tmp_path, marks=[0, 11, 12, 13, 99]).prefixes
        assert {size: byte for size, (_, byte) in prefixes.items()} == {0: b"u", 11: b"4", 12: b"\n"}
        assert prefixes[11][0] == hashlib.sha256(b"u,i\n1,2\n3,4").hexdigest()


@pytest.mark.parametrize(
    ("name", "options", "content", "more", "rows"),
    [
        ("log.csv", {}, "u,i,t\n1,2,3\n", "9,9,17", [("1", "2", "3")]),
        ("log.csv", {}, 'u,i,t\n1,"a\nb",3\n', '9,"c\n', [("1", "a\nb", "3")]),
        ("log.csv", {}, "u,i,t\n1,2,3", "45\n9,9,17", [("1", "2", "345")]),  # its open end tells the next reading
        ("log.txt", {"format": "sequences"}, "1 2 3\n", "9 9 1", [("1", "2"), ("1", "3")]),
    ],
)
def test_lines_that_come_while_a_file_is_read_wait_for_the_next_reading(
    tmp_path: Path, name: str, options: dict[str, Any], content: str, more: str, rows: list[tuple[Any, ...]]
) -> None:
    path = tmp_path / name
    path.write_text(content)
    opened = read(path, **options)
    with path.open("a") as file:
        file.write(more)
    assert table(opened) == rows and not defects(opened)
    assert opened.open_end is not content.endswith("\n")


def test_python_reads_quoted_files_alike(tmp_path: Path) -> None:
    text = 'a,b,c\n1,"x, ""y""",\n"",2" disc,"line\none"\n"""",",\n",""""""\n'
    path = tmp_path / "log.csv"
    path.write_text(text)
    assert table(read(path)) == [tuple(row) for row in list(csv.reader(io.StringIO(text)))[1:]]


def test_columns_without_a_name_are_named_by_their_place(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(",user_id,item_id,\n0,1,2,\n1,3,4,\n")
    rows = read(path)
    assert rows.columns == ("column_1", "user_id", "item_id", "column_4")
    assert [row[1:3] for row in table(rows)] == [("1", "2"), ("3", "4")]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (gzip.compress(b"user_id,item_id\n1,2\n", mtime=0), "control characters .* unpack it"),
        ("user_id,item_id\n1,2\n".encode("utf-16"), "control characters .* set its encoding"),
        (b"user_id,item_id\r1,2\r3,4\r", "control characters .* end its lines with a line feed"),
        (b"user_id,item_id,__line\n1,2,3\n", "a column named '__line', a name that recsys needs itself"),
    ],
)
def test_a_header_that_is_none_is_told(tmp_path: Path, content: bytes, told: str) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=told):
        read(path)


def test_a_codec_that_is_not_of_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id,item_id\n")
    with pytest.raises(InputError, match="'base64' is no encoding of text"):
        read(tmp_path / "log.csv", encoding="base64")


def test_one_odd_value_does_not_spoil_a_jsonl_log(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"user_id": 1, "item_id": "a", "more": 1}\n{"user_id": {"a": 1}, "item_id": "b"}\n')
    rows = read(path, ["user_id", "item_id", "timestamp"])
    assert rows.columns == ("user_id", "item_id", "more")  # the names that an error can suggest
    assert table(rows) == [("1", "a")]
    assert defects(rows) == [
        (2, "a list or an object where one value belongs", '{"user_id": {"a": 1}, "item_id": "b"}')
    ]


def test_a_store_that_does_not_answer_is_no_fault_of_the_input() -> None:
    def blamed(path: str, error: OSError) -> type[Exception]:
        with pytest.raises(RecsysError) as caught:
            raise unreadable("a.csv", path, error)
        return caught.type

    assert blamed("s3://bucket/a.csv", OSError("timeout")) is RecsysError
    assert blamed("s3://bucket/a.csv", FileNotFoundError("a.csv")) is InputError
    assert blamed("/folder/a.csv", OSError("permission")) is InputError


def test_a_control_character_may_be_the_separator(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user_id\x01item_id\n1\x012\n")  # as Hive writes tables
    assert table(read(tmp_path / "log.csv", separator="\x01")) == [("1", "2")]


# --- before the rows, and between them ------------------------------------------------------------------------


def test_blanks_after_a_separator_are_skipped(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text('"u", "i",  "t"\n u1,  i1, "Title, x"\nu2,i 2,""\nu3, "two\nlines",  \nu4, "open, 1\n')
    rows = read(path)
    assert rows.columns == ("u", "i", "t")
    assert table(rows) == [("u1", "i1", "Title, x"), ("u2", "i 2", ""), ("u3", "two\nlines", "")]
    assert defects(rows) == [(6, "a quote that is not closed", 'u4, "open, 1')]
    path.write_text("u, i,  t\nu1,  i1, x\n")
    assert table(read(path)) == [("u1", "i1", "x")]
    path.write_text("u i\nu1  i1\n")  # where the blank is the separator it stays one
    assert defects(read(path, separator=" ")) == [(2, "wrong number of fields", "u1  i1")]


@pytest.mark.parametrize(
    ("text", "options", "columns", "found"),
    [
        ("# exported\n# by x\nu,i\n1,2\n", {}, ("u", "i"), [("1", "2")]),
        ("sep=,\nu,i\n1,2\n", {}, ("u", "i"), [("1", "2")]),
        ('"sep=;"\nu;i\n1;2\n', {"separator": ";"}, ("u", "i"), [("1", "2")]),
        ("#u,i\n1,2\n", {}, ("#u", "i"), [("1", "2")]),
        ("u,i\n#1,2\n#2,3\n", {}, ("u", "i"), [("#1", "2"), ("#2", "3")]),
        ("#1,2\n#2,3\n", {"fields": ("u", "i")}, ("u", "i"), [("#1", "2"), ("#2", "3")]),
        ("# exported\n#1,2\n3,4\n", {"fields": ("u", "i")}, ("u", "i"), [("#1", "2"), ("3", "4")]),
    ],
)
def test_comments_before_the_header(
    tmp_path: Path, text: str, options: dict[str, Any], columns: tuple[str, ...], found: list[tuple[str, ...]]
) -> None:
    path = tmp_path / "log.csv"
    path.write_text(text)
    rows = read(path, **options)
    assert (rows.columns, table(rows), defects(rows)) == (columns, found, [])


def test_a_stated_separator_that_is_not_the_configured_one_is_told(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("sep=;\nu;i\n1;2\n")
    with pytest.raises(InputError, match=r"says in its first line that its separator is ';', and separator = ','"):
        read(tmp_path / "log.csv")


def test_the_header_line_of_a_second_export_is_no_row(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("u,i\n1,2\nu,i\n3,4\n")
    rows = read(tmp_path / "log.csv")
    assert table(rows) == [("1", "2"), ("3", "4")]
    assert defects(rows) == [(3, "the header line again", "u,i")]


@pytest.mark.parametrize(
    ("name", "content"), [("a.csv", b""), ("a.csv", b"\n\n"), ("a.jsonl", b""), ("a.parquet", b"")]
)
def test_a_file_with_nothing_in_it_has_no_rows(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    rows = read(tmp_path / name)
    assert rows.empty and rows.columns == () and rows.frame.collect().is_empty()


def zipped(**files: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, text in files.items():
            archive.writestr(name.replace("__", "."), text)
    return packed.getvalue()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("LOG.CSV.GZ", gzip.compress(b"u,i\n1,2\n", mtime=0)),
        ("log.csv.bz2", bz2.compress(b"u,i\n1,2\n")),
        ("log.csv.xz", lzma.compress(b"u,i\n1,2\n")),
        ("log.csv.zip", zipped(log__csv="u,i\n1,2\n")),
    ],
)
def test_packed_files_are_read_whatever_the_case_of_their_names(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    for source in (name, f"file://{tmp_path}/{name}"):
        rows = read(tmp_path / name, source=source)
        assert table(rows) == [("1", "2")]
        assert rows.digest == hashlib.sha256(b"u,i\n1,2\n").hexdigest()


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("log.csv.zip", zipped(a__csv="u\n", b__csv="u\n"), r"holds 2 files \(a.csv, b.csv\); .*unpack it"),
        ("log.csv.zip", b"PK no archive", "log.csv.zip cannot be read"),
        ("log.csv.gz", gzip.compress(b"u,i\n1,2\n", mtime=0)[:-9], "log.csv.gz cannot be read"),
        ("log.csv.xz", lzma.compress(b"u,i\n1,2\n")[:-9], "log.csv.xz cannot be read"),
        ("log.tar.gz", b"", r"log.tar.gz is packed in a way that is not read \(.tar\); unpack it"),
        ("log.7z", b"", r"log.7z is packed in a way that is not read"),
    ],
)
def test_what_cannot_be_unpacked_is_told(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told):
        read(tmp_path / name)


# --- tables -------------------------------------------------------------------------------------------------------


def test_a_panic_names_the_file() -> None:
    file = SourceFile(name="log.parquet", path="/data/log.parquet", format="parquet", separator=",")
    told = r"^log.parquet cannot be read as parquet \(/data/log.parquet\): out of bounds\.$"
    with pytest.raises(InputError, match=told), reading(file):
        raise pl.exceptions.PanicException("out of bounds")


def test_damaged_tables_are_told_in_one_sentence(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"u": [f"u{n % 50}" for n in range(2000)], "t": range(2000)}).write_parquet(path)
    whole, random = path.read_bytes(), Random(1)
    for _ in range(40):
        damaged = bytearray(whole)
        for _ in range(8):
            damaged[random.randrange(4, len(whole) - 8)] = random.randrange(256)
        path.write_bytes(damaged)
        with contextlib.suppress(InputError):
            rows = read(path)
            with reading(rows.file):
                rows.frame.collect(engine="streaming")


def test_durations_and_bytes_of_text_are_text(tmp_path: Path) -> None:
    frame = pl.DataFrame({"u": [b"u1", b"\xff"], "t": [timedelta(seconds=1), None]})
    frame.write_parquet(tmp_path / "log.parquet")
    assert table(read(tmp_path / "log.parquet")) == [("u1", "PT1S"), (None, None)]
