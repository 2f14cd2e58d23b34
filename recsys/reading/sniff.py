"""Look at a file's first megabytes: format, separator, encoding, header; and its first rows."""

from __future__ import annotations

import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

import polars as pl

from recsys.errors import InputError
from recsys.reading.column_names import means
from recsys.reading.delimited import preamble, split_line, stated_separator
from recsys.reading.headers import header_types
from recsys.reading.literals import with_lists
from recsys.reading.readers import read_rows, reading, scan_table
from recsys.reading.reasons import DEFECT
from recsys.reading.sources import SourceFile, expand_url, is_glob, unreadable
from recsys.reading.unpack import FAILURES, read_blocks, refuse_archive
from recsys.settings import Format, SourceSettings
from recsys.storage.remote import is_url

SAMPLE_BYTES: Final = 8 << 20  # of a text file, unpacked
SAMPLE_ROWS: Final = 200_000  # of a Parquet file or a Delta table
_LINES: Final = 1000  # that decide on the separator
_COLUMNS: Final = 1000  # more than these are keys of one object, not columns
_CONSISTENT: Final = 0.95  # share of the lines that must have the usual number of fields
_SEPARATORS: Final = ("::", "\t", ",", ";", "|")
_TRIED: Final = 100  # files of a pattern that may be empty before one that is looked at
_OF_WINDOWS: Final = re.compile(rb"[\x80-\x9f]")  # signs of cp1252, control characters of latin-1
_OF_BYTES: Final = ("utf-8", "latin-1", "cp1252", "cp850")  # every byte that does not decode can be told
_OF_DOS: Final = bytes([*range(0x80, 0xA6), 0xB5, 0xB6, 0xB7, 0xC6, 0xC7, 0xE1])  # letters of cp850
_STRAY: Final = 0.01  # share of the lines with accents that a few lost bytes may spoil
_ACCENTED: Final = re.compile(r"[^\s;,|\"]*[^\x00-\x7f]+[^\s;,|\"]*")
_BINARY: Final = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
_NUMBER: Final = re.compile(r"[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?")
_NUMBERS: Final = rf"^\s*(?:{_NUMBER.pattern})\s*$"
_TIME: Final = re.compile(r"\d{4}[-./]\d{1,2}[-./]\d{1,2}([ T].*)?|\d{1,2}[-./]\d{1,2}[-./]\d{2,4}(,? .*)?")
_KNOWN_NAME: Final = re.compile(r"(?i).*(id|_?key|asin|sku|user|item|title|timestamp|name)")
_NAME: Final = re.compile(r"([^\W\d][^\n]{,60})?")  # a table's row numbers have an empty one
_DIGIT: Final = re.compile(r"\d")
_LONGEST: Final = 100  # lines that one quoted field may span here


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """The first rows of a file, and how to read it."""

    path: str  # as given: a file, a glob, a folder that is a Delta table, a URL
    format: Format
    separator: str
    encoding: str
    header: bool  # csv: the first line names the columns
    frame: pl.DataFrame  # the file's own columns; those of a file without a header line are named column_1, ...
    complete: bool  # these are all rows
    rejected: dict[str, int]  # rows that ingest would not read: reason -> how many
    looked_at: int  # rows, also those that ingest would not read
    total: int | None = None  # rows of the file that was looked at; None: not known
    files: int = 1  # of the pattern, of which one was looked at
    doubts: tuple[str, ...] = ()  # sentences about how the file is read that are worth a look
    text: str | None = None  # what was looked at; text formats only
    types: Mapping[str, str] = field(default_factory=dict)  # of columns whose header states one

    @property
    def named(self) -> bool:
        """Return whether the file itself names its columns."""
        return self.header or self.format in ("jsonl", "sequences")

    @property
    def part(self) -> str:
        """The rows that were looked at, as they go into a sentence; empty where they are all."""
        if self.complete:
            return ""
        what = "interactions" if self.format == "sequences" else "rows"
        first = f"the first {self.looked_at:,}"
        if self.total is not None:
            first = f"the {self.total:,}" if self.looked_at == self.total else f"{first} of {self.total:,}"
        return f"{first} {what}" + (f" of one of {self.files:,} files" if self.files > 1 else "")


def take_sample(path: str, *, limit: int = SAMPLE_BYTES) -> Sample:
    """Look at the first `limit` bytes of a file (or the first rows of a Parquet file or a Delta table).

    Raises
    ------
    InputError
        The file is missing, empty, binary, or its fields cannot be told apart.
    """
    found = files_of(path)
    for place, first in enumerate(found[:_TRIED], 1):
        try:
            sample = _take(path, first, limit)
        except NothingInside:
            if place == len(found[:_TRIED]):
                raise
        else:
            return sample if len(found) == 1 else replace(sample, complete=False, files=len(found))
    raise AssertionError


class NothingInside(InputError):
    """A file without rows, beside which another one of the pattern may have some."""


def _take(path: str, first: str, limit: int) -> Sample:
    if (Path(first) / "_delta_log").is_dir():
        return _typed_sample(path, first, "delta")
    head, complete = _head(first, limit)
    if not head.strip():
        raise NothingInside(f"{path} is empty; there is nothing to look at.")
    if head.startswith(b"PAR1"):
        return _typed_sample(path, first, "parquet")
    encoding = _encoding(path, head)
    # bytes that are not the encoding's stay what they are, for the readers to find
    text = head.decode(encoding, "surrogateescape" if encoding in _OF_BYTES else "replace")
    if not complete:
        text = text[: text.rfind("\n") + 1]
    text = text.removeprefix("\ufeff")
    lines = [line for line in text.split("\n")[:_LINES] if line.strip("\r")]
    if not lines:
        raise InputError(f"{path} has no line end in its first {limit >> 20} MB; that is no log that recsys reads.")
    if "\r" in lines[0].rstrip("\r"):
        raise InputError(f"{path} ends its lines with a carriage return alone; write line feeds and look again.")
    lines = [line.rstrip("\r") for line in lines]
    kind, separator, header = _shape(path, lines)
    columns = None
    if kind == "csv" and not header:
        line = lines[preamble(lines, separator)]
        columns = tuple(f"column_{i}" for i in range(1, len(split_line(line, separator)) + 1))
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch) / "sample.txt"
        write_sample(copy, text)
        file = SourceFile(name=path, path=str(copy), format=kind, separator=separator)
        source = SourceSettings(source=path, format=kind, separator=separator, fields=columns)
        rows = read_rows(file, source, Path(scratch))
        if len(rows.columns) > _COLUMNS:
            raise InputError(f"{path} is one JSON object of {len(rows.columns)} keys; write one object a line.")
        with reading(file):
            frame = rows.frame.select(*rows.columns, pl.col(DEFECT).cast(pl.String)).collect()
    if frame.is_empty():
        raise NothingInside(f"{path} has a header line and no rows; there is nothing to look at.")
    if frame[DEFECT].null_count() == 0:
        raise InputError(f"{path} has no row that can be read as {kind}: {frame[DEFECT][0]}.")
    sound = frame.filter(pl.col(DEFECT).is_null()).drop(DEFECT)
    return Sample(
        path=path,
        format=kind,
        separator=separator,
        encoding=encoding,
        header=header,
        text=text,
        types=header_types(split_line(lines[preamble(lines, separator)].rstrip("\r"), separator)) if header else {},
        frame=with_lists(sound) if kind == "csv" else sound,
        complete=complete,
        rejected=dict(frame[DEFECT].drop_nulls().value_counts(sort=True).iter_rows()),
        looked_at=len(frame),
        total=len(frame) if complete else None,
        doubts=_doubts(path, encoding, text),
    )


def write_sample(path: Path, text: str) -> None:
    """Write a sample's text as UTF-8; the bytes that its encoding does not know as they came."""
    path.write_text(text, encoding="utf-8", errors="surrogateescape", newline="")


def share(flags: pl.Series) -> float:
    """Share of trues; nulls count as false, and 0 where there is nothing."""
    return float(flags.fill_null(False).to_numpy().mean()) if len(flags) else 0.0


def looks_numeric(values: pl.Series) -> bool:
    """Return whether (nearly) every value is a number or is written as one."""
    if values.dtype.is_numeric():
        return True
    return values.dtype == pl.String and share(values.drop_nulls().str.contains(_NUMBERS)) > _CONSISTENT


def comma_decimals(values: pl.Series) -> bool | None:
    """Return whether numbers have a comma before the fraction; None where it may as well stand between thousands."""
    if values.dtype != pl.String:
        return False
    text = values.drop_nulls().str.strip_chars()
    commas = text.filter(text.str.contains(",", literal=True))
    if not len(commas):
        return False
    if text.str.contains(".", literal=True).any():
        return None
    thousands = commas.str.contains(r"^[+-]?[1-9]\d{0,2},\d{3}$").all()
    large = text.str.contains(r"^[+-]?\d{4,}").any()
    return None if thousands and not large else True


def point_thousands(sample: Sample, values: pl.Series) -> str | None:
    """A number whose point may as well stand between thousands, where a comma can be the decimal sign; None: none.

    Three digits follow every point, and no number of four digits is written without one.
    """
    if values.dtype != pl.String or sample.format != "csv" or sample.separator == ",":
        return None
    text = values.drop_nulls().str.strip_chars()
    points = text.filter(text.str.contains(".", literal=True))
    if not len(points) or text.str.contains(r",|^[+-]?\d{4,}").any():
        return None
    return str(points[0]) if points.str.contains(r"^[+-]?[1-9]\d{0,2}\.\d{3}$").all() else None


def known_share(ids: pl.Series, among: pl.Series) -> float:
    """Share of the distinct ids that another column holds; numbers are compared as they are written."""
    distinct = ids.drop_nulls().unique().cast(pl.String)
    return share(distinct.is_in(among.cast(pl.String).implode()))


def files_of(path: str) -> list[str]:
    """The file, the Delta table, or the files of a pattern."""
    if is_url(path):
        return _files_of_url(path)
    if Path(path).is_file() or (Path(path) / "_delta_log").is_dir():
        return [path]
    if Path(path).is_dir():
        raise InputError(f"{path} is a folder; name a file in it, or a pattern in quotes such as '{path}/*.csv'.")
    folder = Path(path).anchor or "."
    found = sorted(match for match in Path(folder).glob(str(Path(path).relative_to(folder))) if match.is_file())
    if not found:
        raise InputError(f"There is no file {path} (looked in {Path.cwd()}).")
    return [str(match) for match in found]


def _files_of_url(url: str) -> list[str]:
    found = expand_url(url, url)
    if not found:
        raise InputError(f"There is no file {url}.")
    if found != [url] and not is_glob(url.partition("://")[2]):
        raise InputError(
            f"{url} is a folder; name a file in it, or a pattern in quotes such as '{url.rstrip('/')}/*.csv'."
        )
    return found


def _head(path: str, limit: int) -> tuple[bytes, bool]:
    """The first bytes, unpacked, and whether they are all."""
    refuse_archive(path)
    try:
        blocks, size = [], 0
        for block in read_blocks(path, 1 << 20):
            blocks.append(block)
            size += len(block)
            if size > limit:
                break
    except FAILURES as error:
        raise unreadable(path, path, error) from None
    return b"".join(blocks)[:limit], size <= limit


def _encoding(path: str, head: bytes) -> str:
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "utf-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "utf-16"
    start = head[:65536]
    for codec, zeros in (("utf-16-le", start[1::2]), ("utf-16-be", start[::2])):
        if start.count(b"\0") > 0.9 * zeros.count(b"\0") > 0.36 * len(start):
            return codec  # as some databases write it, without a mark
    if _BINARY.search(start):
        raise InputError(f"{path} is not text, Parquet or a Delta table; export it as csv, jsonl or Parquet.")
    accented = [line for line in head.split(b"\n")[:-1] or [head] if not line.isascii()]
    # a broken line among sound accents is a defect; accents that hardly ever decode are another encoding
    if sum(not _decodes(line) for line in accented) <= 0.5 * len(accented):
        return "utf-8"
    if not _OF_WINDOWS.search(head):
        return "latin-1"
    broken = sum(not _decodes(line, "cp1252") for line in accented)
    if not broken:
        return "cp1252"
    signs = b"".join(accented).translate(None, bytes(range(128)))
    if len(signs.translate(None, _OF_DOS)) <= (1 - _CONSISTENT) * len(signs):
        return "cp850"
    if broken > _STRAY * len(accented):
        raise InputError(
            f"{path} is neither UTF-8 nor Windows' cp1252 nor cp850: {broken:,} of {len(accented):,} lines with other "
            "letters than ASCII's have bytes that cp1252 does not know; export it as UTF-8, or write the configuration "
            "by hand with its encoding (gb18030, shift_jis, ...)."
        )
    return "cp1252"


def _doubts(path: str, encoding: str, text: str) -> tuple[str, ...]:
    """Return the first accented words in a guessed encoding as a question: only a reader can tell it."""
    words = _ACCENTED.findall(text) if encoding in ("latin-1", "cp1252", "cp850") else []
    words = [word for word in words if word.isprintable()] or words
    if not words:
        return ()
    shown = ", ".join(repr(word) for word in list(dict.fromkeys(words))[:3])
    return (
        f"{path} is not UTF-8 and read as {encoding}: {shown}; where that is wrong, set its encoding "
        f"({'cp1252' if encoding == 'cp850' else 'cp850'}, ...).",
    )


def _decodes(line: bytes, encoding: str = "utf-8") -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _shape(path: str, lines: list[str]) -> tuple[Format, str, bool]:
    """(format, separator, whether the first line is a header)."""
    start = lines[0].lstrip()
    if start.startswith("{"):
        return "jsonl", ",", False
    if start.startswith("["):
        raise InputError(f"{path} is one JSON array; write one object a line.")
    stated = stated_separator(lines[0])
    if stated is not None and len(lines) > 1:
        return "csv", stated, _has_header([split_line(line, stated) for line in lines[preamble(lines, stated) :]])
    every, lines = lines, [line for line in lines if not line.startswith("#")] or lines
    best, separator = _separate(lines)
    if not separator:
        joined = _join_quoted(lines)
        best, separator = _separate(joined)
        if separator:
            every = lines = joined
    words = [len(line.split()) for line in lines]
    if separator in ("", "\t") and best <= 2 and _are_sequences(lines, words):
        return "sequences", ",", False
    if not separator:
        usual, share = _fields(lines, " ")
        if share < _CONSISTENT or usual < 2:
            shown = lines[0][:60]
            raise InputError(
                f"{path}: its lines have no number of fields in common, whatever the separator (the first is "
                f"{shown!r}); export it as csv, jsonl or Parquet."
            )
        separator = " "
    table = every[preamble(every, separator) :]
    cells = [split_line(line, separator) for line in table]
    header = _has_header(cells)
    if table[0].startswith("# ") and (not header or _has_header(cells[1:])):  # names below it are the header
        raise InputError(f"{path} begins with {table[0][:60]!r}, which reads like a row; take that line out.")
    return "csv", separator, header


def _separate(lines: list[str]) -> tuple[int, str]:
    """(fields a line, separator) that nearly all lines agree on, the most fields; (1, "") where they do not."""
    best, separator = 1, ""
    for candidate in _SEPARATORS:
        usual, share = _fields(lines, candidate)
        if share >= _CONSISTENT and usual > best:
            best, separator = usual, candidate
    return best, separator


def _join_quoted(lines: list[str]) -> list[str]:
    """Lines of one quoted field as one: those from an odd number of quotes to the next odd number."""
    records: list[str] = []
    opened = 0  # lines in the record that is open
    for line in lines:
        odd = line.count('"') % 2 == 1
        if 0 < opened < _LONGEST:
            records[-1] += "\n" + line
            opened = 0 if odd else opened + 1
        else:
            records.append(line)
            opened = 1 if odd else 0
    return records


def _fields(lines: list[str], separator: str) -> tuple[int, float]:
    """The usual number of fields, and the share of the lines that have it."""
    counts = Counter(len(split_line(line, separator)) for line in lines)
    usual, times = counts.most_common(1)[0]
    return usual, times / len(lines)


def _are_sequences(lines: list[str], words: list[int]) -> bool:
    """`user item item ...`: plain ids (no prose), of a number that differs from line to line."""
    plain = sum(bool(re.fullmatch(r"[\w.-]+(\s+[\w.-]+)+\s*", line)) for line in lines)
    ids = sum(any(character.isdigit() for character in word) for line in lines for word in line.split())
    return plain >= _CONSISTENT * len(lines) and max(words) > 3 and len(set(words)) > 1 and ids > 0.5 * sum(words)


def _has_header(rows: list[list[str]]) -> bool:
    """Names in the first line: words that do not come again below, known ones or above numbers or times."""
    if not rows:
        return False
    first = [cell.strip() for cell in rows[0]]
    first[0] = first[0].lstrip("# ")  # "#user_id" is a name
    rest = [row for row in rows[1:] if len(row) == len(rows[0]) and row != rows[0]]  # exports put together repeat it
    if not any(first) or not all(_NAME.fullmatch(cell) for cell in first):
        return False
    if any(_KNOWN_NAME.fullmatch(cell) or means(cell) for cell in first) and all(
        not cell or cell not in {row[i].strip() for row in rest} for i, cell in enumerate(first)
    ):
        return True
    if len(set(first)) < len(first):
        return False
    below = [[row[i].strip() for row in rest] for i in range(len(first))]
    return any(
        _mostly(column, lambda cell: bool(_NUMBER.fullmatch(cell) or _TIME.fullmatch(cell)))
        or (not _DIGIT.search(name) and _mostly(column, lambda cell: bool(_DIGIT.search(cell))))
        for name, column in zip(first, below, strict=True)
    )


def _mostly(cells: Sequence[str], rule: Callable[[str], bool]) -> bool:
    """Return whether nearly all cells that hold something follow a rule."""
    there = [cell for cell in cells if cell]
    return len(there) > 0 and sum(map(rule, there)) >= _CONSISTENT * len(there)


def _typed_sample(path: str, first: str, kind: Format) -> Sample:
    with reading(SourceFile(name=path, path=first, format=kind, separator=",")):
        table = scan_table(first, kind)
        rows = table.head(SAMPLE_ROWS).collect()
        total = table.select(pl.len()).collect().item()
    if rows.is_empty():
        raise NothingInside(f"{path} is empty; there is nothing to look at.")
    return Sample(
        path=path,
        format=kind,
        separator=",",
        encoding="utf-8",
        header=True,
        frame=rows,
        complete=len(rows) == total,
        rejected={},
        looked_at=len(rows),
        total=total,
    )
