"""Files to rows: a reader yields the file's columns as they came, each row with its line and, if broken, why.

Text is scanned as lines and split by expressions, so that a line with the wrong number of fields or with
bytes that are not the declared encoding is told by its exact number and quoted as it came. Fields of text
formats are strings; what they mean is decided by `recsys.ingestion.contracts`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from recsys.columns import ITEM_ID, USER_ID
from recsys.errors import InputError, first_line, no_panic
from recsys.reading.databases import spool
from recsys.reading.delimited import WRITTEN, split_rows
from recsys.reading.headers import without_types
from recsys.reading.json_lines import read_all, read_wanted
from recsys.reading.json_object import read_object
from recsys.reading.reasons import (
    BAD_BYTES,
    DEFECT,
    FILE_LINE,
    FILE_RAW,
    REASONS,
    WRONG_FIELDS,
    first_reason,
    no_reason,
)
from recsys.reading.sources import SourceFile, TextFile, digest_file, read_text
from recsys.reading.watermark import Watermark
from recsys.settings import SourceSettings
from recsys.storage.delta import scan_delta

_NOTHING: Final = hashlib.sha256(b"").hexdigest()
_PARTITION: Final = re.compile(r"(?<=[/\\])([^/\\=]+)=([^/\\]*)(?=[/\\])")  # a folder named column=value
_NULL_PARTITION: Final = "__HIVE_DEFAULT_PARTITION__"


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
    empty: bool = False  # no byte, or empty lines alone: there are no columns either
    size: int | None = None  # bytes of the content; text formats only
    open_end: bool = False  # the last line has no line end
    prefixes: Mapping[int, tuple[str, bytes]] = field(default_factory=dict)  # see TextFile
    newest: Watermark | None = None  # of a database's watermark column
    partial: bool = False  # rows from a watermark on alone


def read_rows(
    file: SourceFile,
    settings: SourceSettings,
    scratch: Path,
    wanted: Sequence[str] | None = None,
    marks: Collection[int] = (),
    ids: Collection[str] = (),
    since: Watermark | None = None,
) -> Rows:
    """One file's rows, lazily; temporary copies lie in `scratch` for as long as the rows are used.

    Parameters
    ----------
    wanted
        Columns to read where that saves time (jsonl); None: all, with their own types.
    marks
        See `read_text`.
    ids
        Columns that hold ids: of JSON they are read as text, and those that are not exact are defects.
    since
        The value of the settings' watermark column at which the rows of a database begin; None: all.

    Raises
    ------
    InputError
        The file cannot be read in this format, or its header is wrong.
    RecsysError
        A database cannot be reached; it may be the next time.
    """
    columns: tuple[str, ...]
    if file.database is not None:
        return _from_database(file, settings, scratch, wanted, since)
    with reading(file):
        if file.format in ("parquet", "delta"):
            return _table(file)
        text = read_text(file, settings.encoding, scratch, marks)
        if file.format != "json" and _lines(text).filter(WRITTEN).head(1).collect().is_empty():
            return _no_rows(file, text.digest, text.size)
        if file.format == "sequences":
            frame, columns = _sequences(text), (USER_ID, ITEM_ID)
        elif file.format == "json":
            frame, columns = read_object(file, text)
        elif file.format == "jsonl":
            frame, columns = _jsonl(file, text, scratch, wanted, ids)
        else:
            frame, columns = without_types(*split_rows(file, _lines(text), text, settings.fields), settings)
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


def _no_rows(file: SourceFile, digest: str, size: int | None = None) -> Rows:
    frame = pl.LazyFrame(schema={FILE_LINE: pl.Int64, FILE_RAW: pl.String, DEFECT: pl.String})
    return Rows(file=file, frame=frame, columns=(), digest=digest, empty=True, size=size)


@contextmanager
def reading(file: SourceFile) -> Iterator[None]:
    """Turn what polars and deltalake say about a file, and their panics, into one sentence."""
    sentence = f"{file.name} cannot be read as {file.format} ({file.path})"
    try:
        with no_panic(sentence, InputError):
            yield
    except (pl.exceptions.PolarsError, DeltaError, OSError) as error:
        raise InputError(f"{sentence}: {first_line(error)}.") from None


def _lines(text: TextFile) -> pl.LazyFrame:
    """FILE_LINE, FILE_RAW and DEFECT (bad bytes) of every line that the digest is of."""
    lines = pl.scan_lines(
        text.path, name=FILE_RAW, n_rows=text.lines, row_index_name=FILE_LINE, row_index_offset=1, glob=False
    )
    bad = pl.Series(text.bad_lines, dtype=pl.Int64)
    defect = first_reason((pl.col(FILE_LINE).is_in(bad.implode()), BAD_BYTES)) if len(bad) else no_reason()
    return lines.select(pl.col(FILE_LINE).cast(pl.Int64), FILE_RAW, defect.alias(DEFECT))


# --- other text -----------------------------------------------------------------------------------


def _sequences(text: TextFile) -> pl.LazyFrame:
    """`user item item ...` a line: one row an event, all with the line's number."""
    words = pl.col(FILE_RAW).str.extract_all(r"\S+")
    items = pl.col("__words").list.slice(1)
    alone = items.list.len() == 0
    first = _lines(text).filter(WRITTEN & ~pl.col(FILE_RAW).str.contains(r"^\s*#(\s|$)")).head(1).collect()
    start = first.item(0, FILE_LINE) if len(first) else 0  # comments stand before the first user
    return (
        _lines(text)
        .filter(WRITTEN & (pl.col(FILE_LINE) >= start))
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
    file: SourceFile, text: TextFile, scratch: Path, wanted: Sequence[str] | None, ids: Collection[str]
) -> tuple[pl.LazyFrame, tuple[str, ...]]:
    """One JSON object a line; `wanted` keys as text."""
    lines = _lines(text).filter(WRITTEN)
    first = lines.head(1).collect()
    if len(first) and first.item(0, FILE_RAW).lstrip().startswith("["):
        raise InputError(f"{file.name} is one JSON array; write one object a line.")
    if wanted is None:
        return read_all(file.name, lines, ids)
    staged = scratch / f"{text.digest[:16]}-{len(list(scratch.iterdir()))}.parquet"
    return read_wanted(lines, staged, wanted, ids)


# --- tables ---------------------------------------------------------------------------------------


def _table(file: SourceFile) -> Rows:
    digest = digest_file(file)  # says in our words that there is no table
    if file.format == "parquet" and digest == _NOTHING:
        return _no_rows(file, digest)
    frame = scan_table(file.path, file.format)
    columns = tuple(frame.collect_schema().names())
    _check_names(file, columns)
    return Rows(file=file, frame=_numbered(frame, columns, no_reason()), columns=columns, digest=digest)


def _numbered(frame: pl.LazyFrame, columns: Sequence[str], defect: pl.Expr) -> pl.LazyFrame:
    """FILE_LINE, FILE_RAW and DEFECT beside the columns of a table."""
    return frame.with_row_index(FILE_LINE, offset=1).with_columns(
        pl.col(FILE_LINE).cast(pl.Int64),
        pl.struct(columns).struct.json_encode().alias(FILE_RAW),
        defect.alias(DEFECT),
    )


def _from_database(
    file: SourceFile, settings: SourceSettings, scratch: Path, wanted: Sequence[str] | None, since: Watermark | None
) -> Rows:
    path = scratch / f"database-{len(list(scratch.iterdir()))}.parquet"
    spooled = spool(file, settings, path, wanted=wanted, watermark=settings.watermark, since=since)
    _check_names(file, [name for name in spooled.columns if name != DEFECT])
    with reading(file):
        frame = scan_table(str(path), "parquet")
        own = [name for name in frame.collect_schema().names() if name != DEFECT]
        told = pl.col(DEFECT).cast(REASONS) if DEFECT in frame.collect_schema() else no_reason()
        numbered = _numbered(frame, own, told)
    return Rows(
        file=file,
        frame=numbered,
        columns=spooled.columns,
        digest=spooled.digest,
        newest=spooled.newest,
        partial=since is not None,
    )


def scan_table(path: str, form: str) -> pl.LazyFrame:
    """A Parquet file or a Delta table, lazily.

    Folders named `column=value` above a Parquet file are columns of text, as written: user_id=007 is not user_id=7.
    """
    if form == "delta":
        return _with_strings(scan_delta(DeltaTable(path)))
    values = {unquote(name): unquote(value) for name, value in _PARTITION.findall(path)}
    partitions = [
        pl.lit(None if value == _NULL_PARTITION else value, dtype=pl.String).alias(name)
        for name, value in values.items()
    ]
    frame = pl.scan_parquet(path, glob=False, hive_partitioning=False).with_columns(partitions)
    schema = frame.collect_schema()
    lengths, raw = ([name for name, dtype in schema.items() if dtype == kind] for kind in (pl.Duration, pl.Binary))
    words = pl.col(raw).map_batches(_words, return_dtype=pl.String, is_elementwise=True)
    # polars casts neither of them to text
    return _with_strings(frame.with_columns(pl.col(lengths).dt.to_string("iso"), words))


def _with_strings(frame: pl.LazyFrame) -> pl.LazyFrame:
    """Categories (pandas' `category`) as the strings that they stand for, inside lists and objects, too."""
    given = frame.collect_schema()
    plain = {name: _string_type(dtype) for name, dtype in given.items()}
    return frame.with_columns(pl.col(name).cast(dtype) for name, dtype in plain.items() if dtype != given[name])


def _string_type(dtype: Any) -> Any:
    if dtype in (pl.Categorical, pl.Enum):
        return pl.String()
    if isinstance(dtype, pl.List):
        return pl.List(_string_type(dtype.inner))
    if isinstance(dtype, pl.Struct):
        return pl.Struct({field.name: _string_type(field.dtype) for field in dtype.fields})
    return dtype


def _words(values: pl.Series) -> pl.Series:
    """Bytes as the UTF-8 text that old writers mean by them; null for what is none, such as pictures."""
    texts = []
    for value in values:
        try:
            texts.append(None if value is None else value.decode())
        except UnicodeDecodeError:
            texts.append(None)
    return pl.Series(values.name, texts, dtype=pl.String)
