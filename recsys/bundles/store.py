"""Folders of bundles: written whole or not at all, and the pointer to the newest of each name.

See recsys/bundles/bundle.py for what is in one, and recsys/bundles/mirror.py for warehouses in an object store.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import polars as pl

from recsys.bundles import mirror
from recsys.bundles.manifest import (
    CATALOGUE,
    CONFIG,
    FEATURES,
    FORMAT,
    INDEX_FILE,
    ITEM_ARRAYS,
    MANIFEST,
    VOCABULARY,
    WEIGHTS,
    bundle_id,
    describe_files,
    file_of,
    label,
    read_manifest,
)
from recsys.bundles.mirror import BUNDLES, address, bundles_folder
from recsys.errors import InputError, RecsysError
from recsys.settings import Settings
from recsys.storage.addresses import masked
from recsys.storage.files import folder_aside, move_into_place, write_json, writing

if TYPE_CHECKING:
    import torch

    from recsys.data.vocabulary import Vocabulary
    from recsys.retrieval.index import ItemIndex

__all__ = ["BUNDLES", "REFIT", "find_bundle", "latest_bundle", "measured_bundle", "publish_bundle", "write_bundle"]

REFIT: Final = "refit"  # in the lineage of a bundle that was fitted on all events: how, and which one was measured
LIBRARIES: Final = ("torch", "numpy", "polars", "faiss-cpu", "safetensors", "transformers")


class Part(Protocol):
    """Something that a bundle keeps beside its model, such as a blend of sources."""

    def declaration(self) -> dict[str, Any]:
        """JSON-friendly: what the tensors are, under the part's name in features.json."""

    def to_tensors(self) -> Mapping[str, np.ndarray]:
        """Arrays by name, in a file of the part's name."""


def write_bundle(
    root: str | Path,
    *,
    settings: Settings,
    vocabulary: Vocabulary,
    catalogue: pl.DataFrame,
    features: Mapping[str, Any],
    weights: Mapping[str, torch.Tensor | np.ndarray],
    vectors: np.ndarray,
    allowed: np.ndarray,
    lineage: Mapping[str, Any],
    bias_dims: int = 0,
    more: Mapping[str, Part] | None = None,
    index: ItemIndex | None = None,
) -> Path:
    """Write a bundle under a warehouse: aside, synchronised to disk, then renamed; for a URL then uploaded.

    A kill leaves no bundle, never half of one. Where the same content is there already, that folder stays as
    it is, with the manifest of its first writing; should it be damaged, it is replaced.

    Parameters
    ----------
    root
        The warehouse, a folder or a URL.
    catalogue
        V rows in the vocabulary's order: `item_id` and what people want to see.
    features
        JSON-friendly: what the model must know besides its tensors.
    weights
        The model's tensors by name.
    vectors, allowed
        float32 [V + 1, D] and bool [V + 1].
    lineage
        JSON-friendly: table versions, data digest, encoder id, ... Library versions and the seed are added.
    bias_dims
        How many of the last columns of `vectors` are output biases.
    more
        Further parts by name, such as "blend"; letters, digits and underscores.
    index
        How these vectors are searched; None: exactly.

    Returns
    -------
    Path
        The bundle's folder; for a URL the one that mirrors it.

    Raises
    ------
    RecsysError
        Vectors that are not finite, no item that may be recommended, or a disk or store that takes no bundle.
    """
    # here, with torch and FAISS behind them: most who look for a bundle write none
    import safetensors.numpy
    import safetensors.torch
    import torch

    from recsys.bundles.bundle import check_shapes
    from recsys.retrieval.index import build_index
    from recsys.retrieval.stored import described, write_index

    check_shapes(vocabulary, catalogue, vectors, allowed)
    parent = bundles_folder(root)
    with writing(f"A bundle in {parent}"), folder_aside(parent, settings.name) as aside:
        write_json(aside / CONFIG, _without_credentials(settings.model_dump(mode="json")), sort=True)
        vocabulary.write(aside / VOCABULARY)
        catalogue.write_parquet(aside / CATALOGUE)
        further = more or {}
        write_json(aside / FEATURES, {**features, **{name: part.declaration() for name, part in further.items()}})
        for name, part in further.items():
            safetensors.numpy.save_file(dict(part.to_tensors()), aside / file_of(name))
        tensors = {name: torch.as_tensor(value).detach().cpu() for name, value in weights.items()}
        tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}  # none shared
        safetensors.torch.save_file(tensors, aside / WEIGHTS)
        arrays = {"vectors": np.ascontiguousarray(vectors), "allowed": np.ascontiguousarray(allowed)}
        safetensors.numpy.save_file(arrays, aside / ITEM_ARRAYS)
        exact = build_index(vectors, allowed)
        items = exact if index is None else index
        if not items.exact:
            write_index(items, aside / INDEX_FILE)
        files = describe_files(aside)
        manifest = {
            "format": FORMAT,
            "bundle": bundle_id(files, settings.model.kind),
            "name": settings.name,
            "kind": settings.model.kind,
            "created_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "vocabulary": vocabulary.digest,
            "items": vocabulary.size,
            "width": vectors.shape[1],
            "bias_dims": bias_dims,
            "index": described(items) | {"vocabulary": vocabulary.digest},
            "files": files,
            "lineage": {"seed": settings.seed, "libraries": _library_versions(), **lineage},
        }
        write_json(aside / MANIFEST, manifest)
        path = _move_into_place(aside, parent / label(settings.name, str(manifest["bundle"])))
    mirror.upload(path)
    return path


def publish_bundle(root: str | Path, path: str | Path) -> Path:
    """Make a bundle the latest of its name: `bundles/<name>.latest.json`, replaced in one step.

    Returns
    -------
    Path
        The bundle's folder: of one from elsewhere, and a warehouse in an object store, its copy there.

    Raises
    ------
    RecsysError
        The pointer cannot be written, or another machine has replaced it in the meantime.
    """
    parent = bundles_folder(root)
    path = mirror.adopt(parent, Path(path))
    mirror.upload(path)
    manifest = read_manifest(path)
    folder = os.path.relpath(path.resolve(), parent.resolve())
    mirror.write_pointer(parent, str(manifest["name"]), {"path": Path(folder).as_posix(), "bundle": manifest["bundle"]})
    return path


def latest_bundle(root: str | Path, name: str) -> Path:
    """Folder of the bundle that was published last under a name; from a store it is downloaded.

    Raises
    ------
    InputError
        None was, or it is gone.
    """
    return _latest(bundles_folder(root), name)


def _latest(parent: Path, name: str) -> Path:
    content = mirror.read_pointer(parent, name)
    if content is None:
        raise InputError(f"There is no bundle {name!r} in {_shown(parent)}; run `recsys train` first.")
    pointer = address(parent / f"{name}{mirror.POINTER}")
    try:
        path = parent / json.loads(content)["path"]
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{pointer} is damaged; train again, or name a bundle's folder.") from None
    if not mirror.is_there(path):
        raise InputError(f"{pointer} points to {address(path)}, which is gone; train again, or name another bundle.")
    return path


def find_bundle(path: str | Path) -> Path:
    """Folder of a bundle that somebody named: the folder itself, or without its hash the newest of that name.

    A URL of an object store is named in the same way; what it names is downloaded.

    >>> find_bundle("warehouse/bundles/shop")  # doctest: +SKIP
    PosixPath('warehouse/bundles/shop-1a2b3c4d5e6f')

    Raises
    ------
    InputError
        There is neither; names the ones that are there.
    """
    path = mirror.local_path(path)
    if path.exists() or mirror.is_there(path):
        return path
    if mirror.read_pointer(path.parent, path.name) is not None:
        return _latest(path.parent, path.name)
    there, named = mirror.labels(path.parent), address(path)
    if not there:
        raise InputError(f"There is no bundle {named}, and no other one beside it; name a folder that a run wrote.")
    near = difflib.get_close_matches(path.name, there, n=1, cutoff=0.0)[0]
    raise InputError(f"There is no bundle {named}; did you mean {address(path.with_name(near))}?")


def _shown(parent: Path) -> str:
    """A folder of bundles as people know it."""
    return address(parent / "x").rpartition("/")[0]


def passed_on(path: str | Path) -> str | None:
    """Say in a sentence which bundle is measured in a refitted one's place; None: the bundle itself is.

    Raises
    ------
    InputError
        As `measured_bundle`.
    """
    measured = measured_bundle(path)
    if measured == Path(path):
        return None
    return f"{Path(path).name} was fitted on all events; the figures are of {measured.name}, which it was made of."


def measured_bundle(path: str | Path) -> Path:
    """Return the folder of the bundle whose figures are those of a bundle: itself, unless it was refitted.

    A refitted bundle knows the events that every split holds out, so nothing can be measured with it; what it was
    made of lies beside it.

    Raises
    ------
    InputError
        Not a bundle, or what it was made of is gone.
    """
    path = Path(path)
    refitted = read_manifest(path)["lineage"].get(REFIT)
    if refitted is None:
        return path
    measured = path.resolve().parent / str(refitted["measured"])
    if not (mirror.is_there(measured) and (measured / MANIFEST).is_file()):
        raise InputError(
            f"The bundle {address(path)} was fitted on all events, those of the test part too, so nothing can be "
            f"measured with it; the bundle that was measured, {address(measured)}, is gone: train again with "
            "`recsys train CONFIG`."
        )
    return path.parent / measured.name


def _move_into_place(aside: Path, target: Path) -> Path:
    """Rename; a sound folder of the same content stays, a damaged one is replaced."""
    from recsys.bundles.bundle import read_bundle

    if target.exists():
        try:
            read_bundle(target)
            return target
        except RecsysError:
            with folder_aside(target.parent, target.name) as damaged:
                target.rename(damaged / "damaged")
    move_into_place(aside, target)
    return target


def _without_credentials(value: Any) -> Any:
    """The settings with every address masked: a bundle travels further than a configuration."""
    if isinstance(value, dict):
        return {key: _without_credentials(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_without_credentials(inner) for inner in value]
    return masked(value) if isinstance(value, str) else value


def _library_versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
