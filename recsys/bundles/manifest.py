"""The manifest of a bundle: which files, their hashes, what they must agree on.

Nothing of a bundle is parsed before its bytes were compared with the manifest; see recsys/bundles/bundle.py.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from recsys.errors import InputError
from recsys.storage.files import sha256

# of the folder's layout: raised where an older program would read it wrongly. A program reads its own format and every
# older one; what a format adds, a reader of an older bundle takes as not there.
FORMAT: Final = 2  # 1: every bundle had an index file
MANIFEST: Final = "manifest.json"
CONFIG: Final = "config.json"
VOCABULARY: Final = "vocabulary.parquet"
CATALOGUE: Final = "catalogue.parquet"
FEATURES: Final = "features.json"
WEIGHTS: Final = "weights.safetensors"
ITEM_ARRAYS: Final = "items.safetensors"
INDEX_FILE: Final = "index.faiss"
FILES: Final = (CONFIG, VOCABULARY, CATALOGUE, FEATURES, WEIGHTS, ITEM_ARRAYS)  # that every bundle has
BLEND: Final = "blend"  # the further part that holds the blend of all sources
SHORT: Final = 12  # digits of a hash in names and tables

_KEYS: Final = {
    "bundle",
    "name",
    "kind",
    "vocabulary",
    "items",
    "width",
    "bias_dims",
    "index",
    "files",
    "lineage",
}
_FURTHER: Final = re.compile(r"[a-z][a-z0-9_]*\.safetensors|index\.faiss")  # names of files that only some bundles have
_INDEX_KEYS: Final = frozenset(("factory", "metric", "width", "ntotal", "vocabulary"))


def file_of(part: str) -> str:
    """The file of a further part, such as "blend"; a bundle without it works, one with it has it in its id."""
    return f"{part}.safetensors"


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """sha256 and size of each file of a bundle."""
    further = sorted(path.name for path in folder.iterdir() if path.name not in FILES and _FURTHER.fullmatch(path.name))
    return {
        name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in (*FILES, *further)
    }


def files_of(files: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of a bundle's files, out of what its manifest says of them."""
    return (*FILES, *sorted(name for name in files if name not in FILES))


def bundle_id(files: Mapping[str, Mapping[str, Any]], kind: str) -> str:
    """sha256 (hex) over the files' hashes and the model kind; neither time nor lineage takes part."""
    lines = [kind, *sorted(f"{name} {files[name]['sha256']}" for name in files_of(files))]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def label(name: str, identity: str) -> str:
    """Name of a bundle's folder.

    >>> label("movielens", "0123456789abcdef")
    'movielens-0123456789ab'
    """
    return f"{name}-{identity[:SHORT]}"


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest, with every key that this format has.

    Raises
    ------
    InputError
        Not a bundle's folder, a newer format, or an incomplete manifest.
    """
    if not folder.is_dir():
        hint = "it is a file" if folder.exists() else "there is no such folder"
        raise InputError(f"{folder} is not a bundle: {hint}; name a folder that `recsys train` wrote.")
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{folder} is not a bundle: it has no {MANIFEST}; name a folder that `recsys train` wrote."
        ) from None
    except ValueError:
        raise InputError(f"{path} is not JSON; take a complete copy of the bundle.") from None
    found = manifest.get("format") if isinstance(manifest, dict) else None
    if type(found) is not int or not 1 <= found <= FORMAT:
        newer = type(found) is int and found > FORMAT
        raise InputError(
            f"{path} has format {found!r} and this program reads formats up to {FORMAT}; "
            f"use {'a newer version of the program' if newer else 'a complete copy of the bundle'}, or train again."
        )
    if not _is_complete(manifest):
        raise InputError(f"{path} is incomplete; take a complete copy of the bundle.")
    return dict(manifest)


def checked(folder: Path, manifest: Mapping[str, Any], name: str) -> Path:
    """A file of the bundle, after its size and hash were compared with the manifest.

    Raises
    ------
    InputError
        The file is missing or is not the one that was written.
    """
    file, expected = folder / name, manifest["files"][name]
    if not file.is_file():
        raise InputError(f"The bundle {folder} lacks its file {name}; take a complete copy, or train again.")
    if file.stat().st_size != expected["bytes"] or sha256(file) != expected["sha256"]:
        raise InputError(
            f"The file {name} of the bundle {folder} is not the one that was written (its sha256 differs "
            f"from {MANIFEST}); take a fresh copy, or train again."
        )
    return file


def _is_complete(manifest: Mapping[str, Any]) -> bool:
    try:
        return (
            manifest.keys() >= _KEYS
            and manifest["index"].keys() >= _INDEX_KEYS
            and re.fullmatch(r"[0-9a-f]{64}", manifest["bundle"]) is not None
            and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", manifest["name"]) is not None
            and all(name in FILES or _FURTHER.fullmatch(name) for name in manifest["files"])
            and all(
                isinstance(manifest["files"][name]["sha256"], str) and isinstance(manifest["files"][name]["bytes"], int)
                for name in files_of(manifest["files"])
            )
        )
    except (KeyError, TypeError, AttributeError):
        return False
