"""Sources as a configuration declares them, looked at before anything is written: are files and columns there?"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import polars as pl

from recsys.columns import ITEM_ID, USER_ID
from recsys.ingestion.checking import id_columns, open_file, wanted
from recsys.ingestion.contracts import check_timezone
from recsys.ingestion.id_map import id_map_source
from recsys.ingestion.ingest import files_of
from recsys.ingestion.provenance import declared
from recsys.reading.id_lists import read_ids
from recsys.reading.readers import read_rows
from recsys.reading.sources import SourceFile, find_files
from recsys.reading.times import check_formats
from recsys.reading.unpack import FAILURES, read_blocks
from recsys.settings import AttributedSettings, IdListSettings, Settings, SourceSettings
from recsys.settings.database import Queried, is_server
from recsys.storage.remote import is_url

_HEAD: Final = 1 << 16  # bytes of a CSV file that are looked at
_OF_BYTES: Final = ("utf-8", "utf8", "latin-1", "latin1", "iso-8859-1", "ascii", "cp1252")  # cut at a line feed, sound


def check_sources(settings: Settings) -> None:
    """Look whether what a configuration reads is on this machine, with the columns that it names; stores are not asked.

    Raises
    ------
    InputError
        A file or a column is not there, or the name of a time zone or the form of a time is wrong.
    """
    check_timezone(settings.interactions.timezone)
    check_formats(settings.interactions.time_formats)
    with TemporaryDirectory(prefix="recsys-") as scratch:
        for table, section in declared(settings).items():
            if _is_here(section, settings):
                _check_columns(table, section, files_of(table, section, settings.data_root)[0], Path(scratch))
            ids = section.id_map if isinstance(section, AttributedSettings) else None
            if ids is not None and _is_here(ids, settings):
                find_files(f"{table}.id_map", id_map_source(ids), settings.data_root)


def check_lists(settings: Settings) -> None:
    """Read the lists of ids that rules and `retrieve.users` name, where they are on this machine.

    Raises
    ------
    InputError
        A list is not there, or cannot be read.
    """
    for key, given, usual in _lists(settings):
        if not is_url(given if isinstance(given, str) else given.source) and not is_url(settings.data_root):
            read_ids(given, key, settings.data_root, usual)


def _lists(settings: Settings) -> Iterator[tuple[str, str | IdListSettings, str]]:
    """The key, the place and the usual column of each list of ids."""
    if settings.retrieve.users is not None:
        yield "retrieve.users", settings.retrieve.users, USER_ID
    for name, rule in settings.rules.by_name.items():
        items = getattr(rule, "items", None)
        if isinstance(items, str | IdListSettings):
            yield f"rules.{name}.items", items, ITEM_ID


def _check_columns(table: str, section: SourceSettings, file: SourceFile, scratch: Path) -> None:
    head = None if section.from_database else _head(file, section, scratch)
    if head is not None:
        rows = read_rows(head, section, scratch, wanted(table, section), (), id_columns(table, section))
        if not rows.empty:
            open_file(table, section, rows)


def _is_here(section: Queried, settings: Settings) -> bool:
    places = section.sources
    return not any(map(is_url, (settings.data_root, *places))) and not any(map(is_server, places))


def _head(file: SourceFile, section: SourceSettings, scratch: Path) -> SourceFile | None:
    """A small file with the columns of a large one; None where only a whole reading can tell them."""
    copy = scratch / "head"
    if file.format == "parquet":
        partitions = [part for part in Path(file.path).parts[:-1] if "=" in part]  # folders that stand for columns
        copy = scratch.joinpath(*partitions, "head")
        copy.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError, pl.exceptions.PolarsError):  # the reading says it better
            pl.DataFrame(schema=pl.read_parquet_schema(file.path)).clear(1).write_parquet(copy)
            return replace(file, path=str(copy))
    if file.format != "csv" or section.encoding.lower() not in _OF_BYTES:
        return None
    with contextlib.suppress(*FAILURES):
        content = next(read_blocks(file.path, _HEAD), b"")
        whole = len(content) < _HEAD
        copy.write_bytes(content if whole else content[: content.rfind(b"\n") + 1])
        return replace(file, path=str(copy)) if copy.stat().st_size else None
    return None
