"""A bundle: everything that a run learned, in one immutable folder named after its content.

`<warehouse>/bundles/<name>-<first 12 digits of the id>/` holds

    manifest.json         format, id, sha256 and size of every file, what the index is, lineage
    config.json           the settings, without credentials
    vocabulary.parquet    item_id, code
    catalogue.parquet     item_id, title, ...: row i belongs to code i + 1
    features.json         declaration of the features of items, users and events, bucket edges, the way of hashing
    weights.safetensors   the model
    items.safetensors     vectors float32 [V + 1, D], allowed bool [V + 1]
    index.faiss           where the search is approximate, and in older bundles: the allowed items under their codes
    blend.safetensors     where validation was for it: the neighbour tables and the weights of the blend
    fallback.safetensors  what sells now, for histories of which the model says nothing
    ...                   other further parts, each a safetensors file and an entry of features.json

A bundle stores and knows no model: `recsys.serving` makes a recommender of its parts and answers. The id is the sha256
of the files' hashes and the model kind; time and lineage do not change it. Loading needs no interactions and runs no
code from the files: no pickle, and every file is compared with its hash before a library parses it. Parts of different
bundles refuse to work together.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from recsys.bundles.manifest import (
    CATALOGUE,
    CONFIG,
    FEATURES,
    INDEX_FILE,
    ITEM_ARRAYS,
    SHORT,
    VOCABULARY,
    WEIGHTS,
    bundle_id,
    checked,
    file_of,
    files_of,
    label,
    read_manifest,
)
from recsys.bundles.mapped import read_arrays
from recsys.bundles.mirror import address, is_there, local_path
from recsys.columns import ITEM_ID, PADDING
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.retrieval.factory import EXACT
from recsys.retrieval.index import METRIC, ItemIndex, build_index
from recsys.retrieval.stored import read_index
from recsys.settings import Settings
from recsys.settings.model import as_trained
from recsys.settings.read import parse_settings

if TYPE_CHECKING:
    import torch  # seconds, which who reads no weights is spared


@dataclass(frozen=True, kw_only=True, eq=False)
class Bundle:
    """An opened bundle; V items, D width.

    Attributes
    ----------
    path
        Its folder.
    manifest
        What `manifest.json` says.
    settings
        The settings it was trained with.
    vocabulary
        Codes 1 to V.
    catalogue
        V rows, row `i` belongs to code `i + 1`: `item_id`, `title`, ...
    vectors
        float32 [V + 1, D], row 0 is padding; the last `bias_dims` columns are output biases.
    allowed
        bool [V + 1]: items that may be recommended.
    """

    path: Path
    manifest: Mapping[str, Any]
    settings: Settings
    vocabulary: Vocabulary
    catalogue: pl.DataFrame
    vectors: np.ndarray
    allowed: np.ndarray

    @property
    def place(self) -> str:
        """The folder or URL that people know it by."""
        return address(self.path)

    @property
    def id(self) -> str:
        """sha256 (hex) of the content."""
        return str(self.manifest["bundle"])

    @property
    def kind(self) -> str:
        """The kind of model that its parts are of."""
        return str(self.manifest["kind"])

    @property
    def label(self) -> str:
        """`<name>-<id12>`: the folder's name when it was written, also where a copy is called otherwise."""
        return label(self.settings.name, self.id)

    @property
    def index_id(self) -> str:
        """First digits of the sha256 of what is searched: the index file's, or that of the vectors."""
        files = self.manifest["files"]
        return str(files[INDEX_FILE if INDEX_FILE in files else ITEM_ARRAYS]["sha256"])[:SHORT]

    @property
    def bias_dims(self) -> int:
        """Number of the last columns of `vectors` that are output biases, no part of an item's meaning."""
        return int(self.manifest["bias_dims"])

    def features(self) -> dict[str, Any]:
        """Declaration of what the model knows about items, users and events."""
        return dict(json.loads(checked(self.path, self.manifest, FEATURES).read_bytes()))

    def weights(self) -> Mapping[str, torch.Tensor]:
        """The model's tensors by name; each is loaded when it is asked for, after the file's hash was compared."""
        return StoredTensors(checked(self.path, self.manifest, WEIGHTS))

    def has(self, name: str) -> bool:
        """Return whether it holds a further part."""
        return file_of(name) in self.manifest["files"]

    def part(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a further part, such as "blend"; None: this bundle has none. Nobody may write into them."""
        if not self.has(name):
            return None
        path = checked(self.path, self.manifest, file_of(name))
        with parsing(self.path):
            return read_arrays(path)

    def index(self) -> ItemIndex:
        """The search, opened at the first call; a file of FAISS after its hash was compared with the manifest."""
        return self._index

    @cached_property
    def _index(self) -> ItemIndex:
        if INDEX_FILE not in self.manifest["files"]:
            return build_index(self.vectors, self.allowed)
        path = checked(self.path, self.manifest, INDEX_FILE)
        return read_index(path, self.vectors, self.allowed, self.manifest["index"])


class StoredTensors(Mapping[str, "torch.Tensor"]):
    """The tensors of a safetensors file, each loaded when it is asked for: an answer needs few of them."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with safe_open(path, framework="np") as file:
            self._names = tuple(file.keys())

    def __getitem__(self, name: str) -> torch.Tensor:
        if name not in self._names:
            raise KeyError(name)
        with safe_open(self._path, framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def read_bundle(path: str | Path, verify: bool = True) -> Bundle:
    """Open a bundle.

    Parameters
    ----------
    path
        Its folder, or its URL in an object store.
    verify
        Compare every file with its hash now. Without it, the large files (weights, index) are compared when
        they are first used; no file is ever parsed before it was compared.

    Raises
    ------
    InputError
        Not a bundle, a newer format, a kind of model that is not known, a file that is missing or changed, or parts of
        different bundles.
    """
    path = local_path(path)
    is_there(path)  # brings it here
    manifest = read_manifest(path)
    for name in files_of(manifest["files"]) if verify else (CONFIG, VOCABULARY, CATALOGUE, ITEM_ARRAYS):
        checked(path, manifest, name)
    with parsing(path):
        tree = json.loads((path / CONFIG).read_bytes())
        tree["model"] = as_trained(tree.get("model", {}))
        with warnings.catch_warnings():  # an older bundle has the names of its time
            warnings.simplefilter("ignore", FutureWarning)
            settings = parse_settings(tree, where=str(path / CONFIG))
        vocabulary = Vocabulary.read(path / VOCABULARY)
        catalogue = pl.read_parquet(path / CATALOGUE)
        arrays = safetensors.numpy.load_file(path / ITEM_ARRAYS)
        vectors, allowed = arrays["vectors"], arrays["allowed"]
        check_shapes(vocabulary, catalogue, vectors, allowed)
    described = manifest["index"]
    for what, found, expected in (
        ("the id", manifest["bundle"], bundle_id(manifest["files"], manifest["kind"])),
        ("the name", manifest["name"], settings.name),
        ("the model kind", settings.model.kind, manifest["kind"]),
        ("the vocabulary's digest", vocabulary.digest, manifest["vocabulary"]),
        ("the number of items", vocabulary.size, manifest["items"]),
        ("the width of the vectors", vectors.shape[1], manifest["width"]),
        ("the vocabulary of the index", described["vocabulary"], vocabulary.digest),
        ("the metric of the index", described["metric"], METRIC),
        ("the width of the index", described["width"], vectors.shape[1]),
        ("the number of items of the index", described["ntotal"], int(allowed.sum())),
        ("whether the search is exact", INDEX_FILE not in manifest["files"], described["factory"] == EXACT),
    ):
        if found != expected:
            raise InputError(
                f"{path} mixes parts of different bundles: {what} is {found} where {expected} belongs; "
                "use a bundle as it was written, or train again."
            )
    return Bundle(
        path=path,
        manifest=manifest,
        settings=settings,
        vocabulary=vocabulary,
        catalogue=catalogue,
        vectors=vectors,
        allowed=allowed,
    )


def check_shapes(vocabulary: Vocabulary, catalogue: pl.DataFrame, vectors: np.ndarray, allowed: np.ndarray) -> None:
    """Raise ValueError where the parts of a bundle do not fit each other."""
    rows = vocabulary.size + 1
    if vectors.ndim != 2 or vectors.dtype != np.float32 or allowed.dtype != np.bool_:
        raise ValueError(f"vectors must be float32 [V + 1, D], allowed bool, not {vectors.dtype}, {allowed.dtype}")
    if len(vectors) != rows or allowed.shape != (rows,) or len(catalogue) != vocabulary.size:
        raise ValueError(
            f"{len(vectors)} vectors, {len(allowed)} flags and {len(catalogue)} catalogue rows "
            f"do not fit a vocabulary of {vocabulary.size} items"
        )
    if allowed[PADDING] or vectors[PADDING].any():
        raise ValueError("row 0 stands for no item: its vector is zero and it may not be recommended")
    if not catalogue[ITEM_ID].equals(vocabulary.items, check_names=False):
        raise ValueError("the catalogue's rows are not in the vocabulary's order")


@contextmanager
def parsing(path: Path) -> Iterator[None]:
    """Turn the error of a library or a model about sound files of a bundle into one sentence."""
    try:
        yield
    except (pl.exceptions.PolarsError, SafetensorError, ValueError, KeyError, OSError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        reason = " ".join(lines[:2]).rstrip(". ")  # torch names the weight in its second line
        raise InputError(f"The bundle {path} cannot be read: {reason}; train again.") from None
