"""Delimited text to columns: lines split by expressions, each with its number and, if broken, why.

A quoted field follows RFC 4180 where the separator is one character: it may hold separators, line ends and doubled
quotes. With a longer separator ("::") a quote is a character like any other. Blanks after a separator are skipped,
unless the separator is a blank.
"""

from __future__ import annotations

import csv
import re
from bisect import bisect_right
from collections.abc import Sequence
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Final

import polars as pl

from recsys.errors import InputError
from recsys.reading.reasons import DEFECT, FILE_LINE, FILE_RAW, HEADER_AGAIN, OPEN_QUOTE, WRONG_FIELDS, first_reason
from recsys.reading.sources import SourceFile, TextFile

WRITTEN: Final = pl.col(FILE_RAW) != ""  # an empty line is no row
_LONGEST_RECORD: Final = 1000  # lines that one quoted field may span; a stray quote swallows no more than these
_LONGEST_PREAMBLE: Final = 100  # lines before the header
_CONTROL: Final = re.compile(r"[\x00-\x08\x0e-\x1f\r]")
_STATED: Final = re.compile(r'(?i)"?sep=(.+?)"?')


def split_rows(
    file: SourceFile, body: pl.LazyFrame, text: TextFile, fields: Sequence[str] | None
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """The rows of a delimited file, and its columns' names.

    Parameters
    ----------
    body
        FILE_LINE, FILE_RAW and DEFECT of every line; one of them at least is not empty.
    text
        The file that they come from.
    fields
        The columns' names; None: the first line has them.

    Raises
    ------
    InputError
        The separator or the header line is none.
    """
    separator = file.separator
    if not separator or "\n" in separator:
        raise InputError(f"{file.name}: the separator is {separator!r}; set it to the characters between two fields.")
    head = body.filter(WRITTEN).head(_LONGEST_PREAMBLE).collect()
    lines = head[FILE_RAW].to_list()
    stated = stated_separator(lines[0])
    if stated is not None and stated != separator:
        raise InputError(
            f"{file.name} says in its first line that its separator is {stated!r}, and separator = {separator!r}; "
            "correct the setting, or take the line out."
        )
    before = preamble(lines, separator)
    if fields is None:
        line = lines[before]
        if _CONTROL.search(line.replace(separator, "")):
            raise InputError(
                f"{file.name} is no csv file: its header line holds control characters ({line[:40]!r}); unpack it, set "
                "its encoding or format, or end its lines with a line feed."
            )
        fields = split_line(line, separator)
        before += 1
        if len(fields) > 1 and _comes_again(text.path, line):
            again = first_reason((pl.col(FILE_RAW) == line, HEADER_AGAIN))
            body = body.with_columns(pl.coalesce(pl.col(DEFECT), again).alias(DEFECT))
    if before:
        body = body.filter(pl.col(FILE_LINE) > head[FILE_LINE][before - 1])
    # a table's row numbers, and separators at the ends of lines, have no name
    names = tuple(name.strip() or f"column_{place}" for place, name in enumerate(fields, 1))
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(f"{file.name} has two columns named {twice[0]!r}; rename one, or name them by fields.")
    if text.quotes and len(separator) == 1:
        body, values, wrong = _split_quoted(body, len(names), separator)
    else:
        body, values, wrong = _split_plain(body, len(names), separator, text.padded)
    defect = pl.coalesce(pl.col(DEFECT), wrong)
    columns = [value.alias(name) for name, value in zip(names, values, strict=True)]
    return body.select(*columns, FILE_LINE, FILE_RAW, defect.alias(DEFECT)), names


def _comes_again(path: Path, line: str) -> bool:
    """Return whether a second line of a UTF-8 file begins like this one, by its bytes and not row by row."""
    with path.open("rb") as file, mmap(file.fileno(), 0, access=ACCESS_READ) as content:
        written = line.encode()
        return content.find(b"\n" + written, content.find(written) + 1) >= 0


def stated_separator(line: str) -> str | None:
    """The separator that a spreadsheet's first line names (`sep=;`); None where the line says something else."""
    found = _STATED.fullmatch(line)
    return None if found is None else found[1]


def preamble(lines: Sequence[str], separator: str) -> int:
    """Count the first lines that stand before the header: `sep=;`, and comments.

    A comment begins with `#` and has another number of fields than the first line that begins otherwise: a header
    or an id may begin with `#`, too.

    >>> preamble(["sep=,", "# exported today", "user,item", "1,2"], ",")
    2
    >>> preamble(["#user,item", "1,2"], ",")
    0
    """
    start = 1 if lines and stated_separator(lines[0]) is not None and len(lines) > 1 else 0
    table = next((line for line in lines[start:] if not line.startswith("#")), None)
    if table is None:
        return start
    usual = len(split_line(table, separator))
    while lines[start].startswith("#") and len(split_line(lines[start], separator)) != usual:
        start += 1
    return start


def split_line(line: str, separator: str) -> list[str]:
    """The fields of one line; where the quotes in it make no sense they are characters like any other."""
    if len(separator) == 1 and '"' in line:
        try:
            return next(csv.reader([line], delimiter=separator, skipinitialspace=separator != " "))
        except csv.Error:  # a lone carriage return, a field beyond 128 KB
            pass
    fields = line.split(separator)
    return fields if separator == " " else [field.lstrip(" ") for field in fields]


def _split_plain(
    body: pl.LazyFrame, n: int, separator: str, padded: bool
) -> tuple[pl.LazyFrame, list[pl.Expr], pl.Expr]:
    """Split at every separator; one field more than declared shows an overlong line."""
    fields = pl.col(FILE_RAW).str.splitn(separator, n + 1)
    split = body.filter(WRITTEN).with_columns(__fields=fields).unnest("__fields")
    values = [pl.col(f"field_{i}") for i in range(n)]
    wrong = values[-1].is_null() | pl.col(f"field_{n}").is_not_null()
    if padded and separator != " ":
        values = [value.str.strip_chars_start(" ") for value in values]
    return split, values, first_reason((wrong, WRONG_FIELDS))


def _split_quoted(body: pl.LazyFrame, n: int, separator: str) -> tuple[pl.LazyFrame, list[pl.Expr], pl.Expr]:
    """Split by one pattern of n fields: group 2i + 1 is a quoted field, group 2i + 2 a bare one."""
    by = re.escape(separator)
    blank = "" if separator == " " else " "
    gap = f"{blank}*" if blank else ""
    inside = '(?:[^"]|"")*'
    quoted, bare = f'"({inside})"', rf'([^"{blank}{by}\n][^{by}\n]*|)'
    record = f"^{by.join([f'{gap}(?:{quoted}|{bare})'] * n)}$"
    field = rf'{gap}(?:"{inside}"|[^"{blank}{by}\n][^{by}\n]*|)'
    opens = f'^(?:{field}{by})*{gap}"{inside}$'
    closes = f'^{inside}"(?:{by}{field})*$'
    goes_on = f'^{inside}(?:"(?:{by}{field})*{by}{gap}"{inside})?$'
    body = _join_records(body, record, opens, closes, goes_on)
    fields = pl.col(FILE_RAW).str.extract_groups(record)
    split = body.filter(WRITTEN).with_columns(__fields=fields).unnest("__fields")
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
