"""Tables and bundles: whether each can be opened, has all its files, and with `deep` whether their bytes are sound."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import ArrowException, fs

from recsys.audit.findings import Finding
from recsys.bundles import mirror
from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import MANIFEST, files_of, read_manifest
from recsys.bundles.mirror import address, bundles_folder
from recsys.columns import CANDIDATES
from recsys.errors import InputError, RecsysError, first_line, is_panic
from recsys.settings import Settings
from recsys.storage.addresses import masked
from recsys.storage.delta import data_files, scan_delta
from recsys.storage.intact import check_intact, repair
from recsys.storage.purge import data_files_of_all
from recsys.storage.remote import filesystem, is_url
from recsys.storage.warehouse import SCHEMAS, latest_version, table_path

_LOG: Final = "_delta_log"
_ROWS: Final = 200_000  # read at once


def tables(settings: Settings, *, deep: bool) -> Iterator[Finding]:
    """Every Delta table in the warehouse."""
    root = settings.warehouse
    for name in _folders(root):
        path = masked(table_path(root, name))
        try:
            if latest_version(root, name) is None:
                if rows := data_files_of_all(table_path(root, name)):
                    yield _table(path, f"it has {len(rows)} files of rows and no commit that names them")
                continue
            opened = DeltaTable(table_path(root, name))
            check_intact(opened, table_path(root, name))
            schema = scan_delta(opened).collect_schema()
            wanted = SCHEMAS.get(CANDIDATES if name.startswith(CANDIDATES) else name, {})
            lacking = [column for column in wanted if column not in schema and name != "quarantine"]
            if lacking:
                yield _table(path, f"it has no column {lacking[0]}")
            for file in data_files(opened) if deep else ():
                if said := _unreadable(file):
                    yield _table(path, f"its file {masked(file)} cannot be read ({said})")
        except RecsysError as error:
            yield _table(path, masked(str(error)).partition("; ")[0].rstrip("."))
        except (DeltaError, ArrowException, OSError) as error:
            yield _table(path, f"it cannot be opened ({masked(first_line(error))})")


def bundles(settings: Settings, *, deep: bool) -> Iterator[Finding]:
    """Every bundle of the warehouse, of whatever configuration."""
    parent = bundles_folder(settings.warehouse)
    there = set(mirror.labels(parent))
    for path in sorted(parent / label for label in there):
        if said := _unsound(path, deep=deep):
            yield Finding(
                part="bundle",
                where=address(path),
                what=said,
                advice="copy it from a backup, or train again; `recsys rollback` serves the one before",
                repair=partial(_bring_again, path) if is_url(settings.warehouse) else None,
            )
    for path in sorted(parent.glob("*")):
        if path.is_dir() and not path.name.startswith(".") and path.name not in there:
            if (path / MANIFEST).is_file():
                yield Finding(
                    part="bundle",
                    where=address(path),
                    what="this machine has it, and the store lacks it",
                    advice="upload it with `recsys check --repair`",
                    repair=partial(mirror.upload, path),
                )
            elif not is_url(settings.warehouse):
                yield Finding(
                    part="bundle",
                    where=address(path),
                    what=f"the folder has no {MANIFEST}, so it is no bundle",
                    advice="copy it from a backup, or remove it",
                )


def _table(path: str, what: str) -> Finding:
    return Finding(part="table", where=path, what=what, advice=repair(path))


def _folders(root: str) -> list[str]:
    """Names of the folders in a warehouse that are Delta tables."""
    store, folder = filesystem(root.rstrip("/"))
    inside = store.get_file_info(fs.FileSelector(folder, allow_not_found=True))
    names = sorted(info.base_name for info in inside if info.type == fs.FileType.Directory)
    logs = store.get_file_info([f"{folder}/{name}/{_LOG}" for name in names]) if names else []
    return [name for name, log in zip(names, logs, strict=True) if log.type == fs.FileType.Directory]


def _unreadable(file: str) -> str | None:
    """Why the rows of a Parquet file cannot be read, in words."""
    try:
        for _ in pl.scan_parquet(file, glob=False).collect_batches(chunk_size=_ROWS):
            pass
    except BaseException as error:
        if not isinstance(error, pl.exceptions.PolarsError | OSError) and not is_panic(error):
            raise
        return first_line(error)
    return None


def _unsound(path: Path, *, deep: bool) -> str | None:
    """Why a bundle cannot be used, in words; one that only the store has is not brought here for this."""
    if not path.is_dir():
        return None
    try:
        manifest = read_manifest(path)
        for name in files_of(manifest["files"]):
            size = (path / name).stat().st_size
            if size != manifest["files"][name]["bytes"]:
                return f"its file {name} has {size:,} bytes and was written with {manifest['files'][name]['bytes']:,}"
        if deep:
            read_bundle(path)
    except FileNotFoundError as error:
        return f"its file {Path(str(error.filename)).name} is missing"
    except InputError as error:
        return str(error).partition("; ")[0].rstrip(".")
    return None


def _bring_again(path: Path) -> None:
    """Replace this machine's copy of a bundle by the store's."""
    shutil.rmtree(path)
    if not mirror.is_there(path):
        raise RecsysError(f"The store has no bundle {address(path)}.")
