"""From the declared sources to files: paths, globs and URLs, the format, the digest, and text as clean UTF-8.

Text files are read once from end to end: that pass takes the digest and finds the lines whose bytes are not
the declared encoding. A local UTF-8 file is then scanned where it lies; every other one (another encoding,
bad bytes, compressed, remote) is first written as UTF-8 into a scratch folder, with the same lines.
"""

from __future__ import annotations

import codecs
import difflib
import encodings.aliases
import hashlib
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, cast

import pyarrow as pa
import pyarrow.fs
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError

from recsys.errors import InputError, RecsysError, first_line
from recsys.reading.databases import Database, kind_of_file, rows_of, server_of
from recsys.reading.unpack import FAILURES, is_packed, read_blocks, refuse_archive, without_packing
from recsys.settings import Format, SourceSettings
from recsys.settings.database import is_server
from recsys.storage.addresses import HIDDEN, masked
from recsys.storage.remote import fail, filesystem, is_url

Server = Literal["postgresql", "snowflake", "bigquery"]

_BLOCK: Final = 4 << 20  # bytes read at a time
_FORMATS: Final[dict[str, Format]] = {
    ".csv": "csv",
    ".tsv": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
_DATABASES: Final[dict[str, Format | None]] = {
    ".sqlite": "sqlite",
    ".sqlite3": "sqlite",
    ".duckdb": "duckdb",
    ".db": None,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFile:
    """One file (or one Delta table, or the rows of one database) of a source."""

    name: str  # as declared or found, relative to the data root where it was declared so; without secrets
    path: str  # full local path, or URL; without secrets
    format: Format | Server
    separator: str
    database: Database | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class TextFile:
    """A text file as UTF-8 without a byte order mark."""

    path: Path
    digest: str  # sha256 (hex) of the content as it came, unpacked
    size: int  # bytes of that content
    bad_lines: tuple[int, ...]  # from 1: lines whose bytes are not the declared encoding; shown as \xe9
    quotes: bool  # there is a " in it
    padded: bool  # a blank may stand after a separator or begin a line
    open_end: bool  # the last line has no line end: perhaps the file was cut off
    prefixes: Mapping[int, tuple[str, bytes]]  # of shorter lengths asked for: sha256 (hex), the byte that follows
    lines: int | None  # that the digest is of: a file may grow while it is read; None: a copy, which does not


@dataclass(kw_only=True, slots=True)
class _Lines:
    """Lines of a text, as they are decoded."""

    count: int = 0
    bad: list[int] = field(default_factory=list)  # from 1: those that do not decode


class MissingSource(InputError):
    """A local file that a configuration names and that does not exist."""

    def __init__(self, message: str, path: Path) -> None:
        super().__init__(message)
        self.path = path


def find_files(section: str, settings: SourceSettings, data_root: str) -> list[SourceFile]:
    """The files of a source, in the order declared; those of a glob or folder in the order of their paths.

    Raises
    ------
    InputError
        Nothing lies there, a glob matches nothing, or a file's ending does not tell its format.
    """
    files = []
    for declared in settings.sources:
        if is_server(declared):
            files.append(_server(section, settings, declared))
            continue
        for name, path in _expand(section, declared, data_root, settings.format):
            kind = settings.format or _guess(section, name, path)
            if settings.from_database:
                files.append(_database_file(section, settings, name, path, kind))
                continue
            tabs = settings.format is None and settings.separator == "," and _ending(name) == ".tsv"
            separator = "\t" if tabs else settings.separator
            files.append(SourceFile(name=name, path=path, format=kind, separator=separator))
    return files


def _server(section: str, settings: SourceSettings, declared: str) -> SourceFile:
    kind, shown = server_of(declared, section)
    database = Database(key=section, address=declared)
    return SourceFile(
        name=f"{shown}: {rows_of(settings)}", path=shown, format=cast(Server, kind), separator="", database=database
    )


def _database_file(section: str, settings: SourceSettings, name: str, path: str, kind: Format) -> SourceFile:
    if is_url(path):
        raise InputError(f"{section}.source = {name!r} is a URL; a database of {kind} is read from a local file.")
    database = Database(key=section, address=path)
    return SourceFile(name=f"{name}: {rows_of(settings)}", path=path, format=kind, separator="", database=database)


def origins(settings: SourceSettings, data_root: str) -> list[str]:
    """Return the declared sources as full paths and URLs without secrets; of a database with the table or query."""
    if not settings.from_database:
        return [resolve(source, data_root) for source in settings.sources]
    places = [masked(source) if is_server(source) else resolve(source, data_root) for source in settings.sources]
    return [f"{place.replace(f'{HIDDEN}@', '')}: {rows_of(settings)}" for place in places]


def resolve(declared: str, data_root: str) -> str:
    """Full path or URL of a path relative to the data root."""
    if is_url(declared):
        return declared
    if is_url(data_root):
        return f"{data_root.rstrip('/')}/{declared}"
    return str((Path(data_root) / declared).absolute())


def read_text(file: SourceFile, encoding: str, scratch: Path, marks: Collection[int] = ()) -> TextFile:
    """Digest a text file and make it readable as UTF-8; see the module's head.

    Parameters
    ----------
    marks
        (bytes) lengths at which the digest so far is taken too, to see whether it continues a known file.

    Raises
    ------
    InputError
        The file cannot be read, or Python does not know the encoding.
    """
    codec = _codec(file.name, encoding)
    local = not is_url(file.path) and not is_packed(file.path)
    if local and codec == "utf-8":
        text = _digest_text(file, codec, Path(file.path), None, marks)
        if text is not None:
            return text
    copy = scratch / f"{hashlib.sha256(file.path.encode()).hexdigest()[:16]}.txt"
    text = _digest_text(file, codec, copy, copy, marks)
    assert text is not None
    return text


def digest_file(file: SourceFile) -> str:
    """sha256 (hex) of a file's bytes; of a Delta table: of its version and the names of its data files."""
    digest = hashlib.sha256()
    if file.format == "delta":
        try:
            table = DeltaTable(file.path)
            parts = [str(table.version()), *sorted(Path(uri).name for uri in table.file_uris())]
        except (DeltaError, OSError) as error:
            raise unreadable(file.name, file.path, error) from None
        digest.update("\n".join(parts).encode())
    else:
        for block in _blocks(file):
            digest.update(block)
    return digest.hexdigest()


def _expand(section: str, declared: str, data_root: str, kind: Format | None) -> Iterator[tuple[str, str]]:
    """(name, path) of the files that one declared source stands for."""
    full = resolve(declared, data_root)
    if kind == "delta":
        yield declared, full
        return
    found: list[tuple[str, str]]
    if is_url(full):
        found = [(path, path) for path in expand_url(declared, full)]
    else:
        path = Path(full)
        if path.is_file() or (path / "_delta_log").is_dir():
            yield declared, full
            return
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
            paths = inside if kind else [p for p in inside if _ending(p.name) in _FORMATS]
        elif is_glob(declared):
            paths = sorted(p for p in Path(path.anchor).glob(str(path.relative_to(path.anchor))) if p.is_file())
        else:
            raise MissingSource(
                f"There is no {declared} for {section}.source; looked at {full}: "
                f"correct the path or data_root = {data_root!r}.",
                path,
            )
        root = Path(data_root).absolute()
        relative = not Path(declared).is_absolute()
        found = [(str(p.relative_to(root)) if relative and p.is_relative_to(root) else str(p), str(p)) for p in paths]
    if not found:
        raise InputError(f"{section}.source = {declared!r} matches no file; looked at {full}.")
    yield from found


def expand_url(declared: str, url: str) -> list[str]:
    """The files that a URL names: itself, those of a glob, or those of a folder; ascending.

    Raises
    ------
    InputError
        There is no such bucket, or access is denied.
    RecsysError
        The store cannot be reached; its cause says that this may pass.
    """
    rest = url.partition("://")[2]
    try:
        base = url.split("*")[0].split("?")[0].rpartition("/")[0] if is_glob(rest) else url
        store, inside = filesystem(base)
        info = store.get_file_info(inside)
        if info.type == pyarrow.fs.FileType.File:
            return [url]
        bucket = inside.partition("/")[0]
        if url.startswith("s3") and store.get_file_info(bucket).type == pyarrow.fs.FileType.NotFound:
            raise InputError(
                f"The source {declared} cannot be reached: there is no bucket {bucket!r}; correct its name."
            )
        selector = pyarrow.fs.FileSelector(inside, recursive=True, allow_not_found=True)
        files = [f.path for f in store.get_file_info(selector) if f.type == pyarrow.fs.FileType.File]
    except (OSError, pa.ArrowException, ValueError) as error:
        fail(f"The source {declared} cannot be reached", error)
    prefix = base.removesuffix(inside)  # what a path of the store lacks to be a URL
    urls = sorted(f"{prefix}{path}" for path in files)
    if is_glob(rest):
        pattern = re.compile(_glob_pattern(url))
        return [found for found in urls if pattern.fullmatch(found)]
    return [found for found in urls if not _hidden(Path(found.removeprefix(url)))]


def _glob_pattern(glob: str) -> str:
    """A regular expression: `**/` any folders, `*` and `?` anything but a slash, `[...]` one of these."""
    meaning = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^\]]+\])", glob)
    return "".join(meaning.get(p) or (p.replace("[!", "[^") if p.startswith("[") else re.escape(p)) for p in parts)


def _guess(section: str, name: str, path: str) -> Format:
    if not is_url(path) and (Path(path) / "_delta_log").is_dir():
        return "delta"
    kind = _FORMATS.get(_ending(name)) or _DATABASES.get(_ending(name))
    if kind is None and _ending(name) in _DATABASES and not is_url(path):
        kind = cast("Format | None", kind_of_file(Path(path)))
        if kind is None:
            raise InputError(f"{name} is a database neither of SQLite nor of DuckDB ({path}); check {section}.source.")
    refuse_archive(name)
    if kind is None:
        raise InputError(
            f'{name}: its ending does not tell the format; set {section}.format to "csv" (with separator '
            'and, without a header line, fields), "jsonl", "json", "parquet", "delta" or "sequences".'
        )
    return kind


def _ending(name: str) -> str:
    return Path(without_packing(name)).suffix.lower()


def _hidden(path: Path) -> bool:
    return any(part.startswith((".", "_")) for part in path.parts)


def is_glob(path: str) -> bool:
    """Return whether a path is a pattern of files."""
    return any(character in path for character in "*?[")


def _codec(name: str, encoding: str) -> str:
    try:
        codec = codecs.lookup(encoding).name
    except LookupError:
        known = sorted({*encodings.aliases.aliases, *encodings.aliases.aliases.values(), "utf-8", "latin-1"})
        near = difflib.get_close_matches(encoding.lower(), known, n=1, cutoff=0.0)[0]
        raise InputError(f"{name}: there is no encoding {encoding!r}; did you mean {near!r}?") from None
    try:
        "".encode(codec)
    except LookupError:  # base64 and its like
        raise InputError(f"{name}: {encoding!r} is no encoding of text; set utf-8, latin-1 or what it is.") from None
    return "utf-8" if codec == "utf-8-sig" else codec


def _blocks(file: SourceFile) -> Iterator[bytes]:
    """The file's content in blocks; text is unpacked, of a table the digest is of what lies there."""
    try:
        yield from read_blocks(file.path, _BLOCK, unpack=file.format not in ("parquet", "delta"))
    except FAILURES as error:
        raise unreadable(file.name, file.path, error) from None


def _digest_text(
    file: SourceFile, codec: str, path: Path, copy: Path | None, marks: Collection[int]
) -> TextFile | None:
    """Digest and check a text; write it as UTF-8 to `copy`. None: it needs a copy and none was asked for."""
    digest, size, quotes, last = hashlib.sha256(), 0, False, b"\n"
    padded = not _line_safe(codec)  # blocks are no whole lines: a blank after a separator may begin one
    lines = _Lines()
    prefixes: dict[int, tuple[str, bytes]] = {}
    output: Any = copy.open("wb") if copy else None

    def watched() -> Iterator[bytes]:
        nonlocal size, last
        for block in _blocks(file):
            start = 0
            for mark in sorted(mark - size for mark in marks if size <= mark < size + len(block)):
                digest.update(block[start:mark])
                prefixes[size + mark] = (digest.copy().hexdigest(), block[mark : mark + 1])
                start = mark
            digest.update(block[start:])
            size += len(block)
            last = block[-1:]
            yield block

    try:
        decoded = _decode_lines(watched(), codec, lines) if _line_safe(codec) else _decode(file, watched(), codec)
        first = True
        for text in decoded:
            if first and text.startswith("\ufeff"):
                text = text[1:]
                if output is None:
                    return None
            first = False
            if lines.bad and output is None:
                return None
            quotes = quotes or '"' in text
            padded = padded or text.startswith(" ") or f"{file.separator} " in text or "\n " in text
            if output is not None:
                output.write(text.encode("utf-8", "replace"))
    finally:
        if output is not None:
            output.close()
    return TextFile(
        path=path,
        digest=digest.hexdigest(),
        size=size,
        bad_lines=tuple(lines.bad),
        quotes=quotes,
        padded=padded,
        open_end=last not in (b"\n", b""),
        prefixes=prefixes,
        lines=lines.count if copy is None else None,
    )


def _line_safe(codec: str) -> bool:
    """Return whether a line end is the byte 10 and nothing else is, so that lines decode one by one."""
    return "\n,0".encode(codec, "replace") == b"\n,0"


def _decode_lines(blocks: Iterator[bytes], codec: str, lines: _Lines) -> Iterator[str]:
    """Whole lines as text; `lines` counts them, and holds the numbers of those that do not decode."""
    rest = b""
    for block in blocks:
        head, newline, tail = block.rpartition(b"\n")
        whole, rest = (rest + head + newline, tail) if newline else (b"", rest + tail)
        if whole:
            yield _decode_block(whole, codec, lines)
            lines.count += whole.count(b"\n")
    if rest:
        yield _decode_block(rest, codec, lines)
        lines.count += 1


def _decode_block(block: bytes, codec: str, lines: _Lines) -> str:
    try:
        return block.decode(codec)
    except UnicodeError:
        texts = []
        # only this block, only when it has a defect
        for number, raw in enumerate(block.split(b"\n"), start=lines.count + 1):
            try:
                texts.append(raw.decode(codec))
            except UnicodeError:
                texts.append(raw.decode(codec, "backslashreplace"))
                lines.bad.append(number)
        return "\n".join(texts)


def _decode(file: SourceFile, blocks: Iterator[bytes], codec: str) -> Iterator[str]:
    """Text of an encoding whose line ends are not one byte (utf-16): a bad byte spoils all that follow."""
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for block in blocks:
            yield decoder.decode(block)
        yield decoder.decode(b"", final=True)
    except UnicodeError as error:
        raise InputError(f"{file.name} is not {codec}: {first_line(error)}; set its encoding.") from None


def unreadable(name: str, path: str, error: Exception) -> RecsysError:
    """The error that a file cannot be read; of a store one that may pass, unless it does not have the file."""
    passing = isinstance(error, OSError) and not isinstance(error, FileNotFoundError | PermissionError)
    if is_url(path) and passing:
        fail(f"{name} cannot be read", error)
    return InputError(f"{name} cannot be read{f' ({path})' if path != name else ''}: {first_line(error)}.")
