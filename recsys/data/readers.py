"""Files to rows: a reader yields the file's columns as they came, each row with its line and, if broken, why.

Text is scanned as lines and split by expressions, so that a line with the wrong number of fields or with
bytes that are not the declared encoding is told by its exact number and quoted as it came. Fields of text
formats are strings; what they mean is decided by `recsys.data.contracts`.

A quoted field follows RFC 4180 where the separator is one character: it may hold separators, line ends and
doubled quotes. With a longer separator ("::") a quote is a character like any other.
"""

from __future__ import annotations

import csv
import json
import re
from bisect import bisect_right
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import polars as pl
from deltalake import DeltaTable

from recsys.columns import ITEM_ID, USER_ID
from recsys.config import SourceSettings
from recsys.data.contracts import (
    BAD_BYTES,
    DEFECT,
    FILE_LINE,
    FILE_RAW,
    NO_RECORD,
    OPEN_QUOTE,
    WRONG_FIELDS,
    first_reason,
    no_reason,
)
from recsys.data.delta import scan_delta
from recsys.data.headers import without_types
from recsys.data.json_object import read_object
from recsys.data.sources import SourceFile, TextFile, digest_file, read_text
from recsys.errors import InputError, first_line

_LONGEST_RECORD: Final = 1000  # lines that one quoted field may span; a stray quote swallows no more than these
_WRITTEN: Final = pl.col(FILE_RAW) != ""  # an empty line is no row
_SAMPLE: Final = 10_000  # lines of a jsonl file whose keys are looked at before all of them are
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\r]")


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Rows:
    """One file's rows.

    `frame` holds the file's own columns (of jsonl those wanted) and three of ours: FILE_LINE (Int64, from 1; the
    row's number in formats without lines), FILE_RAW (the row as it came), DEFECT (a reason, or null).
    """

    file: SourceFile
    frame: pl.LazyFrame
    columns: tuple[str, ...]  # the file's own
    digest: str  # sha256 (hex) of the content
    size: int | None = None  # bytes of the content; text formats only
    open_end: bool = False  # the last line has no line end
    prefixes: Mapping[int, tuple[str, bytes]] = field(default_factory=dict)  # see TextFile


def read_rows(
    file: SourceFile,
    settings: SourceSettings,
    scratch: Path,
    wanted: Sequence[str] | None = None,
    marks: Collection[int] = (),
) -> Rows:
    """One file's rows, lazily; temporary copies lie in `scratch` for as long as the rows are used.

    Parameters
    ----------
    wanted
        Columns to read where that saves time (jsonl); None: all, with their own types.
    marks
        See `read_text`.

    Raises
    ------
    InputError
        The file cannot be read in this format, or its header is wrong.
    """
    columns: tuple[str, ...]
    with reading(file):
        if file.format == "parquet":
            return _typed(file, pl.scan_parquet(file.path, glob=False, hive_partitioning="=" in file.path))
        if file.format == "delta":
            digest_file(file)  # says in our words that there is no table
            return _typed(file, scan_delta(DeltaTable(file.path)))
        text = read_text(file, settings.encoding, scratch, marks)
        if file.format == "sequences":
            frame, columns = _sequences(text), (USER_ID, ITEM_ID)
        elif file.format == "json":
            frame, columns = read_object(file, text)
        elif file.format == "jsonl":
            frame, columns = _jsonl(file, text, scratch, wanted)
        else:
            frame, columns = without_types(*_csv(file, text, settings.fields), settings)
        _check_names(file, columns)
        return Rows(
            file=file,
            frame=frame,
            columns=columns,
            digest=text.digest,
            size=text.size,
            open_end=text.open_end and file.format != "json",  # an object does not go on after its end
            prefixes=text.prefixes,
        )


def _check_names(file: SourceFile, columns: Sequence[str]) -> None:
    taken = [name for name in columns if name in (FILE_LINE, FILE_RAW, DEFECT)]
    if taken:
        raise InputError(f"{file.name} has a column named {taken[0]!r}, a name that recsys needs itself; rename it.")


@contextmanager
def reading(file: SourceFile) -> Iterator[None]:
    """Turn what polars says about a file into one sentence."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        raise InputError(f"{file.name} cannot be read as {file.format} ({file.path}): {first_line(error)}.") from None


def _lines(text: TextFile) -> pl.LazyFrame:
    """FILE_LINE, FILE_RAW and DEFECT (bad bytes) of every line."""
    lines = pl.scan_lines(text.path, name=FILE_RAW, row_index_name=FILE_LINE, row_index_offset=1, glob=False)
    bad = pl.Series(text.bad_lines, dtype=pl.Int64)
    defect = first_reason((pl.col(FILE_LINE).is_in(bad.implode()), BAD_BYTES)) if len(bad) else no_reason()
    return lines.select(pl.col(FILE_LINE).cast(pl.Int64), FILE_RAW, defect.alias(DEFECT))


# --- csv ------------------------------------------------------------------------------------------


def _csv(file: SourceFile, text: TextFile, fields: Sequence[str] | None) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    body, separator = _lines(text), file.separator
    if not separator or "\n" in separator:
        raise InputError(f"{file.name}: the separator is {separator!r}; set it to the characters between two fields.")
    if fields is None:
        header = body.filter(_WRITTEN).head(1).collect()
        if header.is_empty():
            raise InputError(f"{file.name} is empty ({file.path}); a csv file needs at least its header line.")
        line: str = header.item(0, FILE_RAW)
        if _CONTROL.search(line.replace(separator, "")):
            raise InputError(
                f"{file.name} is no csv file: its header line holds control characters ({line[:40]!r}); unpack it, set "
                "its encoding or format, or end its lines with a line feed."
            )
        fields = split_line(line, separator)
        body = body.filter(pl.col(FILE_LINE) > header.item(0, FILE_LINE))
    # a table's row numbers, and separators at the ends of lines, have no name
    names = tuple(name.strip() or f"column_{place}" for place, name in enumerate(fields, 1))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{file.name} has two columns named {twice[0]!r}; rename one, or name them by fields.")
    if text.quotes and len(separator) == 1:
        body, values, wrong = _split_quoted(body, len(names), separator)
    else:
        body, values, wrong = _split_plain(body, len(names), separator)
    defect = pl.coalesce(pl.col(DEFECT), wrong)
    columns = [value.alias(name) for name, value in zip(names, values, strict=True)]
    return body.select(*columns, FILE_LINE, FILE_RAW, defect.alias(DEFECT)), names


def split_line(line: str, separator: str) -> list[str]:
    """The fields of one line; where the quotes in it make no sense they are characters like any other."""
    if len(separator) > 1 or '"' not in line:
        return line.split(separator)
    try:
        return next(csv.reader([line], delimiter=separator))
    except csv.Error:  # a lone carriage return, a field beyond 128 KB
        return line.split(separator)


def _split_plain(body: pl.LazyFrame, n: int, separator: str) -> tuple[pl.LazyFrame, list[pl.Expr], pl.Expr]:
    """Split at every separator; one field more than declared shows an overlong line."""
    fields = pl.col(FILE_RAW).str.splitn(separator, n + 1)
    split = body.filter(_WRITTEN).with_columns(__fields=fields).unnest("__fields")
    values = [pl.col(f"field_{i}") for i in range(n)]
    wrong = values[-1].is_null() | pl.col(f"field_{n}").is_not_null()
    return split, values, first_reason((wrong, WRONG_FIELDS))


def _split_quoted(body: pl.LazyFrame, n: int, separator: str) -> tuple[pl.LazyFrame, list[pl.Expr], pl.Expr]:
    """Split by one pattern of n fields: group 2i + 1 is a quoted field, group 2i + 2 a bare one."""
    by = re.escape(separator)
    inside = '(?:[^"]|"")*'
    quoted, bare = f'"({inside})"', rf'([^"{by}\n][^{by}\n]*|)'
    record = f"^{by.join([f'(?:{quoted}|{bare})'] * n)}$"
    field = rf'(?:"{inside}"|[^"{by}\n][^{by}\n]*|)'
    opens = f'^(?:{field}{by})*"{inside}$'
    closes = f'^{inside}"(?:{by}{field})*$'
    goes_on = f'^{inside}(?:"(?:{by}{field})*{by}"{inside})?$'
    body = _join_records(body, record, opens, closes, goes_on)
    fields = pl.col(FILE_RAW).str.extract_groups(record)
    split = body.filter(_WRITTEN).with_columns(__fields=fields).unnest("__fields")
    values = [
        pl.coalesce(pl.col(str(2 * i + 1)).str.replace_all('""', '"', literal=True), pl.col(str(2 * i + 2)))
        for i in range(n)
    ]
    wrong = values[0].is_null()
    open_quote = pl.when(wrong).then(FILE_RAW).str.contains(opens)
    return split, values, first_reason((open_quote, OPEN_QUOTE), (wrong, WRONG_FIELDS))


def _join_records(body: pl.LazyFrame, record: str, opens: str, closes: str, goes_on: str) -> pl.LazyFrame:
    """Join the lines of a quoted field that holds line ends; the record has its first line's number.

    Only the lines after one that ends inside a quoted field are looked at. Where no record comes of it (the quote
    is not closed, the wrong thing follows it, the fields are too many) each line is judged for itself.
    """
    openers = body.filter(pl.col(FILE_RAW).str.contains(opens)).select(FILE_LINE).collect(engine="streaming")
    if openers.is_empty():
        return body
    starts = openers[FILE_LINE].sort().to_list()
    near = _ranges([(line, line + _LONGEST_RECORD - 1) for line in starts]).select(FILE_LINE).unique().lazy()
    candidates = (
        body.join(near, on=FILE_LINE, how="semi")
        .filter(pl.col(FILE_RAW).str.contains('"', literal=True))
        .select(
            FILE_LINE,
            pl.col(FILE_RAW).str.contains(closes).alias("closes"),
            pl.col(FILE_RAW).str.contains(goes_on).alias("goes_on"),
        )
        .collect(engine="streaming")
        .sort(FILE_LINE)
    )
    lines, ends, middles = (candidates[name].to_list() for name in (FILE_LINE, "closes", "goes_on"))
    spans: list[tuple[int, int]] = []
    for start in starts:
        if spans and start <= spans[-1][1]:
            continue
        for i in range(bisect_right(lines, start), len(lines)):
            if lines[i] - start >= _LONGEST_RECORD or not (ends[i] or middles[i]):
                break
            if ends[i]:
                spans.append((start, lines[i]))
                break
    members = _ranges(spans)
    joined = (
        body.join(members.lazy(), on=FILE_LINE, how="inner", maintain_order="left")
        .group_by("first", maintain_order=True)
        .agg(pl.col(FILE_RAW).str.join("\n"), pl.col(DEFECT).drop_nulls().first())
        .filter(pl.col(FILE_RAW).str.contains(record))
        .collect()
    )
    used = members.join(joined, on="first", how="semi")
    rest = body.join(used.lazy(), on=FILE_LINE, how="anti", maintain_order="left")
    records = joined.lazy().select(pl.col("first").alias(FILE_LINE), FILE_RAW, DEFECT)
    return pl.concat([rest, records])


def _ranges(spans: Sequence[tuple[int, int]]) -> pl.DataFrame:
    """`first` and FILE_LINE: every line of the spans (first, last)."""
    frame = pl.DataFrame(spans, schema={"first": pl.Int64, "last": pl.Int64}, orient="row")
    lines = pl.int_ranges("first", pl.col("last") + 1).alias(FILE_LINE)
    return frame.select("first", lines).explode(FILE_LINE, empty_as_null=True, keep_nulls=True)


# --- other text -----------------------------------------------------------------------------------


def _sequences(text: TextFile) -> pl.LazyFrame:
    """`user item item ...` a line: one row an event, all with the line's number."""
    words = pl.col(FILE_RAW).str.extract_all(r"\S+")
    items = pl.col("__words").list.slice(1)
    alone = items.list.len() == 0
    return (
        _lines(text)
        .filter(_WRITTEN)
        .with_columns(__words=words)
        .select(
            pl.col("__words").list.first().alias(USER_ID),
            pl.when(~alone).then(items).otherwise(pl.lit([None], dtype=pl.List(pl.String))).alias(ITEM_ID),
            FILE_LINE,
            FILE_RAW,
            pl.coalesce(pl.col(DEFECT), first_reason((alone, WRONG_FIELDS))).alias(DEFECT),
        )
        .explode(ITEM_ID, empty_as_null=True, keep_nulls=True)
    )


def _jsonl(
    file: SourceFile, text: TextFile, scratch: Path, wanted: Sequence[str] | None
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """One JSON object a line, parsed once into a scratch Parquet file; `wanted` keys as strings."""
    lines = _lines(text).filter(_WRITTEN)
    first = lines.head(1).collect()
    if len(first) and first.item(0, FILE_RAW).lstrip().startswith("["):
        raise InputError(f"{file.name} is one JSON array; write one object a line.")
    whole = pl.col(FILE_RAW).str.json_path_match("$").str.starts_with("{") & pl.col(DEFECT).is_null()
    defect = pl.coalesce(pl.col(DEFECT), first_reason((~whole.fill_null(False), NO_RECORD)))
    checked = lines.with_columns(defect.alias(DEFECT))
    objects = pl.when(pl.col(DEFECT).is_null()).then(FILE_RAW)
    if wanted is None:
        table = checked.collect(engine="streaming")
        values = table.select(objects.alias("__object"))["__object"]
        if values.null_count() == len(values):
            return table.lazy(), ()
        try:
            decoded = values.str.json_decode(infer_schema_length=None)
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"{file.name}: the values of one key do not go together ({first_line(error)}); "
                "write each key's values in one form."
            ) from None
        columns = tuple(field.name for field in decoded.dtype.fields)  # type: ignore[attr-defined]
        return table.with_columns(decoded.struct.unnest()).lazy(), columns
    keys = _keys(checked.head(_SAMPLE))
    rare = [key for key in wanted if key not in keys]
    if rare:
        has = [objects.str.json_path_match(_json_path(key)).is_not_null().any().alias(key) for key in rare]
        keys += [
            key for key, there in checked.select(has).collect(engine="streaming").row(0, named=True).items() if there
        ]
    columns = tuple(key for key in wanted if key in keys)
    if not columns:
        return checked, tuple(keys)
    staged = scratch / f"{text.digest[:16]}-{len(list(scratch.iterdir()))}.parquet"
    strings = pl.Struct(dict.fromkeys(columns, pl.String))
    try:
        fast = pl.col(FILE_RAW).str.json_decode(strings)
        lines.with_columns(fast.alias("__object")).unnest("__object").sink_parquet(staged)
    except pl.exceptions.PolarsError:  # some line is broken: look at each
        paths = [objects.str.json_path_match(_json_path(key)).alias(key) for key in columns]
        checked.with_columns(paths).sink_parquet(staged)
    return pl.scan_parquet(staged, glob=False), (*columns, *(key for key in keys if key not in columns))


def _keys(checked: pl.LazyFrame) -> list[str]:
    """The keys of a sample's objects, in order of first appearance."""
    good = checked.filter(pl.col(DEFECT).is_null()).select(FILE_RAW).collect(engine="streaming")
    return list(dict.fromkeys(key for line in good[FILE_RAW] for key in json.loads(line, strict=False)))


def _json_path(key: str) -> str:
    escaped = key.replace("\\", "\\\\").replace("'", "\\'")
    return f"$['{escaped}']"


# --- tables ---------------------------------------------------------------------------------------


def _typed(file: SourceFile, frame: pl.LazyFrame) -> Rows:
    columns = tuple(frame.collect_schema().names())
    _check_names(file, columns)
    numbered = frame.with_row_index(FILE_LINE, offset=1).with_columns(
        pl.col(FILE_LINE).cast(pl.Int64),
        pl.struct(columns).struct.json_encode().alias(FILE_RAW),
        no_reason().alias(DEFECT),
    )
    return Rows(file=file, frame=numbered, columns=columns, digest=digest_file(file))
