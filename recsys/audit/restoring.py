"""Bring a damaged bundle's files back from a second copy: its store's, or MLflow's. What is sound stays as it is."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from recsys.bundles import mirror
from recsys.bundles.manifest import MANIFEST, SHORT, bundle_id, files_of, read_manifest
from recsys.bundles.mirror import address
from recsys.errors import InputError, RecsysError
from recsys.storage.files import file_aside, folder_aside, move_into_place, sha256, writing
from recsys.tracking.copies import bring, copies_of
from recsys.tracking.store import Store


def broken_files(path: Path, manifest: Mapping[str, Any], *, deep: bool) -> list[str]:
    """Files of a bundle that are lost or of another size, and with `deep` those whose bytes are others."""
    return [name for name in files_of(manifest["files"]) if not _is_whole(path / name, manifest["files"][name], deep)]


def can_restore(path: Path, store: Store) -> bool:
    """Return whether MLflow has a whole copy of each broken file; a second name of a damaged one is none."""
    return _with_copies(path, store) is not None


def restore(path: Path, store: Store) -> None:
    """Bring a bundle's broken files back from MLflow's copy, each replaced in one step once its hash was compared.

    One that its store lacks, too, is uploaded.

    Raises
    ------
    RecsysError
        The copy is not whole, or the disk refused.
    """
    if _with_copies(path, store, write=True) is None:
        raise RecsysError(f"MLflow has no whole copy of the bundle {address(path)} any more.")
    mirror.upload(path)


def bring_again(path: Path) -> None:
    """Replace this machine's copy of a bundle by its store's; where the store has none, it stays.

    Raises
    ------
    RecsysError
        The store does not answer, or lacks the bundle.
    """
    with folder_aside(path.parent, path.name) as aside:
        path.rename(aside / path.name)
        try:
            found = mirror.is_there(path)
        except BaseException:
            _put_back(aside / path.name, path)
            raise
        if not found:
            _put_back(aside / path.name, path)
            raise RecsysError(f"The store has no bundle {address(path)}.")


def _put_back(aside: Path, path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    aside.rename(path)


def _with_copies(path: Path, store: Store, *, write: bool = False) -> str | None:
    """Return the place of MLflow's copy that has all that is broken; with `write` take it from there."""
    for place in copies_of(store, path.name):
        with TemporaryDirectory(prefix="recsys-bundle-") as folder:
            manifest = _manifest(path, store, place, Path(folder))
            if manifest is None:
                continue
            files = manifest["files"]
            broken = broken_files(path, manifest, deep=True)
            found = {name: bring(store, place, path.name, name, Path(folder)) for name in broken}
            if not all(of is not None and _is_whole(of, files[name], True) for name, of in found.items()):
                continue
            if write:
                if not (path / MANIFEST).is_file():  # last: without it a folder is no bundle
                    found[MANIFEST] = bring(store, place, path.name, MANIFEST, Path(folder))
                _put(path, {name: Path(str(of)) for name, of in found.items()})
            return place
    return None


def _put(path: Path, files: Mapping[str, Path]) -> None:
    """Copy files into a bundle's folder, each in one step; a folder that is gone comes whole."""
    if path.is_dir():
        for name, of in files.items():
            with writing(f"The file {path / name}"), file_aside(path / name) as aside:
                shutil.copyfile(of, aside)
        return
    with writing(f"The bundle {path}"), folder_aside(path.parent, path.name) as folder:
        for name, of in files.items():
            shutil.copyfile(of, folder / name)
        move_into_place(folder, path)


def _manifest(path: Path, store: Store, place: str, folder: Path) -> dict[str, Any] | None:
    """Return the bundle's own manifest, or the copy's where it is lost; its id must be that of the folder's name."""
    here: Path | None = path
    if not (path / MANIFEST).is_file():
        copy = bring(store, place, path.name, MANIFEST, folder)
        here = None if copy is None else copy.parent
    try:
        manifest = None if here is None else read_manifest(here)
    except InputError:
        return None
    whole = manifest and bundle_id(manifest["files"], manifest["kind"])[:SHORT] == path.name.rpartition("-")[2]
    return manifest if whole else None


def _is_whole(file: Path, told: Mapping[str, Any], deep: bool) -> bool:
    try:
        return file.stat().st_size == told["bytes"] and not (deep and sha256(file) != told["sha256"])
    except OSError:
        return False
