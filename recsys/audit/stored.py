"""Tables, bundles, prepared data: whether each is there with all its files, and with `deep` whether bytes are sound."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import polars as pl
from deltalake import DeltaTable
from deltalake.exceptions import DeltaError
from pyarrow import ArrowException, fs

from recsys.audit.findings import Finding
from recsys.audit.needed import Need, needed
from recsys.audit.restoring import bring_again, can_restore, restore
from recsys.bundles import mirror
from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import MANIFEST, files_of, read_manifest
from recsys.bundles.mirror import address, bundles_folder
from recsys.columns import CANDIDATES
from recsys.data.log import home_of
from recsys.errors import InputError, RecsysError, first_line, is_panic
from recsys.retention.kept import is_own, named_elsewhere
from recsys.settings import Settings
from recsys.storage import artefacts
from recsys.storage.addresses import masked
from recsys.storage.delta import data_files, scan_delta
from recsys.storage.intact import check_intact, repair
from recsys.storage.purge import data_files_of_all
from recsys.storage.remote import filesystem, is_url
from recsys.storage.warehouse import SCHEMAS, latest_version, table_path
from recsys.tracking.store import Store

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
                    many = "1 file" if len(rows) == 1 else f"{len(rows)} files"
                    yield _table(path, f"it has {many} of rows, and no commit names what is in it")
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


def bundles(settings: Settings, store: Store | None, *, deep: bool) -> Iterator[Finding]:
    """Every bundle of the warehouse, of whatever configuration, and those that the configuration needs and lacks.

    Parameters
    ----------
    store
        MLflow's, which may have a second copy; None: it does not answer.
    """
    parent = bundles_folder(settings.warehouse)
    there = set(mirror.labels(parent))
    needs = needed(settings)
    for label in sorted(needs):
        if label not in there and not (parent / label).is_dir():
            lost = _broken(settings, store, parent / label, "it is gone", needs)
            if lost.repair or needs[label] != "pointed to":  # else the pointer is what is wrong
                yield lost
    for path in sorted(parent / label for label in there):
        if said := _unsound(path, deep=deep):
            yield _broken(settings, store, path, said, needs)
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
                yield _broken(settings, store, path, f"the folder has no {MANIFEST}, so it is no bundle", needs)


def prepared(settings: Settings) -> Iterator[Finding]:
    """Prepared data whose bytes are others than were written; a step that needs them makes them again."""
    for folder in artefacts.damaged(home_of(settings.warehouse)):
        yield Finding(
            part="prepared data",
            where=str(folder),
            what="its files are not the ones that were written",
            advice="remove it with `recsys check --repair`, or the next step that reads it makes it again",
            repair=partial(artefacts.remove_damaged, folder),
        )


def _broken(settings: Settings, store: Store | None, path: Path, what: str, needs: Mapping[str, Need]) -> Finding:
    """A damaged or lost bundle, with the way that brings it back."""
    repair: Callable[[], None] | None = None
    advice = _without_copy(settings, path.name, needs)
    if is_url(settings.warehouse) and path.is_dir():
        repair, advice = partial(bring_again, path), "take the store's copy with `recsys check --repair`"
    elif store is None:
        advice = "check again when MLflow answers, which may have a copy, or make another with `recsys run`"
    elif can_restore(path, store):
        repair, advice = partial(restore, path, store), "take MLflow's copy with `recsys check --repair`"
    return Finding(part="bundle", where=address(path), what=what, advice=advice, repair=repair)


def _without_copy(settings: Settings, label: str, needs: Mapping[str, Need]) -> str:
    """Advice for a bundle of which no whole copy is left."""
    need = needs.get(label)
    if need == "rollback":
        return (
            "no whole copy is left, so a rollback cannot serve it; it is not served now: do another night, or nothing"
        )
    if need is None and is_own(settings, label) and label not in named_elsewhere(settings):
        return "no whole copy is left; it is not served, so do nothing, or make another with `recsys run`"
    return "no whole copy is left: serve the one before with `recsys rollback`, or make another with `recsys run`"


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
