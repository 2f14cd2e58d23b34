"""Folders of files that can be made again at any time: made once, found by a key, shared by processes; few are kept.

An artefact is written aside and renamed, so a folder of its name is whole. Sizes and hashes of its files are compared
before it is read: what a disk has damaged, or a loss of power has cut off, is made again. Whoever makes the next one
removes old ones; their files may be mapped into memory by others, who keep what they have mapped.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from recsys.storage.files import folder_aside, sha256, write_json, writing
from recsys.storage.locks import lock_file, locks, shares

Value = TypeVar("Value")

KEPT: Final = 3  # artefacts of a kind
_LIST: Final = "files.json"
_UNREADABLE: Final = (OSError, ValueError, KeyError, TypeError, AttributeError)  # of a list that is lost or damaged


def obtain(
    home: Path, kind: str, key: str, write: Callable[[Path], Mapping[str, Any]], read: Callable[[Path, Any], Value]
) -> Value:
    """The artefact of a key: read, or made and read where it is not there or is damaged.

    Parameters
    ----------
    home
        Folder of all artefacts; is made.
    kind, key
        Name it; the key is the hash of all that it depends on.
    write
        Fills an empty folder; returns facts, JSON-friendly, that are known of it from then on.
    read
        Of a whole folder and its facts; may map files into memory.

    Raises
    ------
    RecsysError
        The disk takes no more.
    """
    folder = home / f"{kind}-{key[:32]}"
    found = _read(folder, read)
    if found is None:
        with writing(f"The prepared data {folder}"):
            home.mkdir(parents=True, exist_ok=True)
            with _lock(home, kind):
                found = _read(folder, read)  # another process may just have made it
                if found is None:
                    _make(folder, write)
                    found = _read(folder, read)
                for old in older(home, kind):
                    remove(old)
    if found is None:
        raise OSError(f"{folder} cannot be read back")
    return found[0]


def older(home: Path, kind: str | None = None) -> list[Path]:
    """Folders of artefacts beyond the newest few of each kind."""
    kinds = {_kind(path) for path in home.glob("[!.]*-*")} if kind is None else {kind}
    found = []
    for name in sorted(kinds):
        folders = sorted(home.glob(f"{name}-*"), key=_used, reverse=True)
        found += folders[KEPT:]
    return found


def remove(folder: Path) -> None:
    """Remove an artefact, unless another process begins to read it at this moment."""
    with contextlib.suppress(OSError), (folder / _LIST).open("a", encoding="utf-8") as file:
        if locks(file):
            shutil.rmtree(folder)


def damaged(home: Path) -> list[Path]:
    """Folders of artefacts whose files are not the ones that were written; all bytes are read."""
    folders = sorted(path for path in home.glob("[!.]*-*") if path.is_dir())
    return [folder for folder in folders if not _is_whole(folder) and folder.is_dir()]  # or it was just removed


def remove_damaged(folder: Path) -> None:
    """Remove a damaged artefact, unless another process has made it again."""
    with _lock(folder.parent, _kind(folder)):
        if folder.is_dir() and not _is_whole(folder):
            shutil.rmtree(folder)


def remove_all(home: Path) -> int:
    """Remove every artefact and what is left of unfinished ones; return their number."""
    if not home.is_dir():
        return 0
    removed = 0
    for kind in {_kind(path) for path in home.iterdir() if path.is_dir()}:
        with _lock(home, kind):  # what is being made is there afterwards
            for folder in (path for path in home.iterdir() if path.is_dir() and _kind(path) == kind):
                shutil.rmtree(folder)
                removed += 1
    return removed


def _kind(folder: Path) -> str:
    return folder.name.lstrip(".").partition("-")[0]


def _lock(home: Path, kind: str) -> contextlib.AbstractContextManager[None]:
    """Wait until no other process makes artefacts of a kind; making one may need those of other kinds."""
    return lock_file(home / f"{kind}.lock", wait=True)


def _make(folder: Path, write: Callable[[Path], Mapping[str, Any]]) -> None:
    with folder_aside(folder.parent, folder.name) as aside:
        facts = write(aside)
        files = {path.name: (path.stat().st_size, sha256(path)) for path in sorted(aside.iterdir())}
        write_json(aside / _LIST, {"facts": facts, "files": files})
        shutil.rmtree(folder, ignore_errors=True)  # damaged, or there would be no need
        aside.rename(folder)


def _read(folder: Path, read: Callable[[Path, Any], Value]) -> tuple[Value] | None:
    """Read a whole artefact; None where there is none."""
    with _facts(folder) as facts:
        return None if facts is None else (read(folder, facts),)


@contextlib.contextmanager
def _facts(folder: Path) -> Iterator[Any]:
    """Return the facts of an artefact, which nobody removes meanwhile; None where it is not there, or damaged."""
    with contextlib.ExitStack() as stack:
        facts = None
        with contextlib.suppress(*_UNREADABLE):
            file = stack.enter_context((folder / _LIST).open(encoding="utf-8"))
            if shares(file):  # else it is being removed
                facts = _told(folder, json.load(file))
        if facts is not None:
            with contextlib.suppress(OSError):  # of another user's
                os.utime(folder)
        yield facts


def _told(folder: Path, told: Any) -> Any:
    """Return the facts of an artefact, as its list tells; None where a file is not as the list says."""
    return told["facts"] if all(_is_as_told(folder / name, *of) for name, of in told["files"].items()) else None


def _is_whole(folder: Path) -> bool:
    try:
        return _told(folder, json.loads((folder / _LIST).read_text(encoding="utf-8"))) is not None
    except _UNREADABLE:
        return False


def _used(folder: Path) -> float:
    """Return the time at which an artefact was last read; 0 where it has gone."""
    try:
        return folder.stat().st_mtime
    except OSError:
        return 0.0


def _is_as_told(path: Path, size: int, digest: str) -> bool:
    return path.stat().st_size == size and sha256(path) == digest
