"""Bundles of a warehouse in an object store, and the folder of this machine that mirrors them.

A bundle is read from files, so it is always opened from a folder. A bundle that is written goes into the mirror, and
then object by object into the store, its manifest last: half an upload is no bundle. One that is asked for and is not
in the mirror is downloaded, every file compared with its hash. Each mirror notes its store's address, so that a
bundle's folder is enough to know where else it lies.

For a local warehouse the same functions work on its own folder.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from recsys.bundles.manifest import MANIFEST, files_of, read_manifest
from recsys.errors import InputError, RecsysError
from recsys.runs import local_folder
from recsys.storage.addresses import masked
from recsys.storage.files import file_aside, folder_aside, move_into_place, remove_folder, sha256, write_json, writing
from recsys.storage.remote import is_url

BUNDLES: Final = "bundles"
ORIGIN: Final = "origin.json"  # in a mirror: the address of what it mirrors
POINTER: Final = ".latest.json"  # after a bundle's name


def bundles_folder(root: str | Path) -> Path:
    """The folder that a warehouse's bundles are opened from; for a URL the mirror, which is made."""
    folder = local_folder(root) / BUNDLES
    if is_url(str(root)):
        _mirror(folder, f"{str(root).rstrip('/')}/{BUNDLES}")
    return folder


def local_path(bundle: str | Path) -> Path:
    """The folder that a bundle is opened from: itself, or for a URL the one in the mirror, there or not."""
    text = str(bundle).rstrip("/")
    if not is_url(text):
        return Path(bundle)
    parent, _, name = text.rpartition("/")
    root = parent.removesuffix(f"/{BUNDLES}")
    folder = local_folder(root) / BUNDLES
    _mirror(folder, parent)
    return folder / name


def address(path: str | Path) -> str:
    """The place that people know a bundle by: its URL where the folder is in a mirror, else the folder."""
    origin = _origin(Path(path).parent)
    return str(path) if origin is None else f"{masked(origin)}/{Path(path).name}"


def warehouse_of(path: str | Path) -> str:
    """The folder or URL of the warehouse that a bundle lies in."""
    origin = _origin(Path(path).resolve().parent)
    return str(Path(path).resolve().parents[1]) if origin is None else origin.removesuffix(f"/{BUNDLES}")


def shared_path(path: str | Path) -> str:
    """The place that other machines open a bundle by: its URL where the folder is in a mirror, else the whole path."""
    path = Path(path).absolute()
    origin = _origin(path.parent)
    return str(path) if origin is None else f"{origin}/{path.name}"


def is_there(path: str | Path) -> bool:
    """Return whether a bundle is there; from a store it is downloaded.

    Raises
    ------
    RecsysError
        The store does not answer, or the bundle in it is damaged.
    """
    path = Path(path)
    origin = _origin(path.parent)
    if (path / MANIFEST).is_file() or origin is None:
        return path.is_dir()
    with _store(origin) as store:
        return _download(store, path, f"{masked(origin)}/{path.name}")


def upload(path: Path) -> None:
    """Bring a bundle of a mirror into its store, the manifest last; what is there already is left as it is.

    Raises
    ------
    RecsysError
        The store does not take it; the next call goes on.
    """
    origin = _origin(path.parent)
    if origin is None:
        return
    from recsys.storage import objects

    manifest = read_manifest(path)
    with _store(origin) as store:
        held = objects.sizes(store, f"{path.name}/")
        for name in files_of(manifest["files"]):
            if held.get(f"{path.name}/{name}") != manifest["files"][name]["bytes"]:
                objects.upload(store, f"{path.name}/{name}", path / name)
        there = objects.read(store, f"{path.name}/{MANIFEST}")
        if there is None or _files(there[0]) != manifest["files"]:
            objects.upload(store, f"{path.name}/{MANIFEST}", path / MANIFEST)


def adopt(parent: Path, path: Path) -> Path:
    """A bundle as one of a warehouse in a store, copied from a folder elsewhere if need be; local ones stay."""
    if _origin(parent) is None or path.resolve().parent == parent.resolve():
        return path
    manifest = read_manifest(path)
    target = parent / f"{manifest['name']}-{manifest['bundle'][:12]}"
    if not target.exists():
        with folder_aside(parent, target.name) as aside:
            for name in (*files_of(manifest["files"]), MANIFEST):
                (aside / name).write_bytes((path / name).read_bytes())
            move_into_place(aside, target)
    return target


def remove(path: Path) -> None:
    """Delete a bundle, in its store too, the manifest first: half a removal is no bundle.

    Raises
    ------
    RecsysError
        The store does not answer; the next call goes on.
    """
    origin = _origin(path.parent)
    if origin is not None:
        from recsys.storage import objects

        with _store(origin) as store:
            for name in (f"{path.name}/{MANIFEST}", *objects.sizes(store, f"{path.name}/")):
                objects.delete(store, name)
    if path.is_dir():
        remove_folder(path)


def labels(parent: Path) -> list[str]:
    """Names of the bundles in a folder or its store, ascending."""
    origin = _origin(parent)
    if origin is not None:
        from recsys.storage import objects

        with _store(origin) as store:
            return objects.folders(store)
    return sorted(other.name for other in parent.glob("*") if (other / MANIFEST).is_file())


def read_pointer(parent: Path, name: str) -> bytes | None:
    """The pointer to the newest bundle of a name; None where there is none."""
    origin = _origin(parent)
    if origin is None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return (parent / f"{name}{POINTER}").read_bytes()
        return None
    from recsys.storage import objects

    with _store(origin) as store:
        found = objects.read(store, f"{name}{POINTER}")
    return None if found is None else found[0]


def write_pointer(parent: Path, name: str, value: dict[str, Any]) -> None:
    """Replace the pointer of a name in one step.

    Raises
    ------
    RecsysError
        It cannot be written, or another machine has replaced it in the meantime.
    """
    origin, pointer = _origin(parent), parent / f"{name}{POINTER}"
    if origin is None:
        with writing(f"The pointer {pointer} to the newest bundle"), file_aside(pointer) as aside:
            write_json(aside, value)
        return
    from recsys.storage import objects

    content = json.dumps(value, indent=2, ensure_ascii=False).encode() + b"\n"
    with _store(origin) as store:
        found = objects.read(store, pointer.name)
        if not objects.replace(store, pointer.name, content, None if found is None else found[1]):
            raise RecsysError(
                f"Another process has replaced {masked(origin)}/{pointer.name} in the meantime; run the command again."
            )


def _mirror(folder: Path, url: str) -> None:
    """Make a folder the mirror of a URL."""
    if _origin(folder) != url:
        with writing(f"The folder {folder} for bundles of {masked(url)}"):
            folder.mkdir(parents=True, exist_ok=True)
            with file_aside(folder / ORIGIN) as aside:
                write_json(aside, {"url": url})


def _origin(folder: Path) -> str | None:
    """The URL that a folder mirrors; None: it is no mirror."""
    try:
        return str(json.loads((folder / ORIGIN).read_bytes())["url"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


@contextlib.contextmanager
def _store(origin: str) -> Iterator[Any]:
    from recsys.storage import objects

    with objects.opened(origin, f"The bundles in {masked(origin)} cannot be reached") as store:
        yield store


def _files(manifest: bytes) -> Any:
    try:
        return json.loads(manifest)["files"]
    except (ValueError, KeyError, TypeError):
        return None


def _download(store: Any, path: Path, url: str) -> bool:
    """Bring a bundle from its store into the mirror; False: it is not there."""
    from recsys.storage import objects

    found = objects.read(store, f"{path.name}/{MANIFEST}")
    if found is None:
        return False
    with writing(f"The bundle {url} in {path.parent}"), folder_aside(path.parent, path.name) as aside:
        (aside / MANIFEST).write_bytes(found[0])
        files = read_manifest(aside)["files"]
        for name in files_of(files):
            try:
                objects.download(store, f"{path.name}/{name}", aside / name)
            except FileNotFoundError:
                raise InputError(f"The bundle {url} lacks its file {name}; upload it again, or train again.") from None
            if sha256(aside / name) != files[name]["sha256"]:
                raise InputError(
                    f"The file {name} of the bundle {url} is not the one that was written (its sha256 differs from "
                    f"{MANIFEST}); remove the bundle's objects, and train again."
                )
        move_into_place(aside, path)
    return True
