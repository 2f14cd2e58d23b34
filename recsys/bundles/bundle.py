"""A bundle: everything that a run learned, in one immutable folder named after its content.

`<warehouse>/bundles/<name>-<first 12 digits of the id>/` holds

    manifest.json         format, id, sha256 and size of every file, what the index is, lineage
    config.json           the settings, without credentials
    vocabulary.parquet    item_id, code
    catalogue.parquet     item_id, title, ...: row i belongs to code i + 1
    features.json         declaration of the features of items, users and events, bucket edges, the way of hashing
    weights.safetensors   the model
    items.safetensors     vectors float32 [V + 1, D], allowed bool [V + 1]
    index.faiss           the allowed items under their codes
    blend.safetensors     where validation was for it: the neighbour tables and the weights of the blend

The id is the sha256 of the files' hashes and the model kind; time and lineage do not change it. Loading needs
no interactions and runs no code from the files: no pickle, and every file is compared with its hash before a
library parses it. Parts of different bundles refuse to work together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import polars as pl
import safetensors.numpy
import safetensors.torch
import torch
from safetensors import SafetensorError

from recsys.bundles.manifest import (
    BLEND,
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
    files_of,
    label,
    read_manifest,
)
from recsys.columns import ITEM_ID, PADDING
from recsys.data.feature_encoders import Encoders, check_declared
from recsys.data.sequences import HistoryVectors, Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.features.hashing import HASHING
from recsys.features.precision import activation_dtype
from recsys.models.queries import Queries
from recsys.models.repeats import STEP
from recsys.ranking.blend import Blended
from recsys.retrieval.index import METRIC, ItemIndex, read_index
from recsys.settings import Settings
from recsys.settings.read import parse_settings

REPEATS: Final = "encoder.repeats.weight"  # among the weights
# Settings of the model that a bundle may lack, being older than they are, and whose default now is not what it was
# trained with. Any other setting that it lacks has today's default, which a new setting must choose so that it changes
# nothing; weights that do not fit are refused as they are loaded.
UNSAID: Final[Mapping[str, Any]] = {"rotary": False, "head": True, "temperature": None}
# columns of an item vector that are its output bias, the last ones
BIAS_DIMS: Final = {"bert4rec": 1, "text": 0, "recformer": 0}


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
    def id(self) -> str:
        """sha256 (hex) of the content."""
        return str(self.manifest["bundle"])

    @property
    def label(self) -> str:
        """`<name>-<id12>`: the folder's name when it was written, also where a copy is called otherwise."""
        return label(self.settings.name, self.id)

    @property
    def index_id(self) -> str:
        """First digits of the index file's sha256."""
        return str(self.manifest["files"][INDEX_FILE]["sha256"])[:SHORT]

    @property
    def bias_dims(self) -> int:
        """How many of the last columns of `vectors` are output biases, no part of an item's meaning."""
        return int(self.manifest["bias_dims"])

    def features(self) -> dict[str, Any]:
        """What the model was told about items, users and events."""
        return dict(json.loads(checked(self.path, self.manifest, FEATURES).read_bytes()))

    def weights(self) -> dict[str, torch.Tensor]:
        """The model's tensors by name."""
        path = checked(self.path, self.manifest, WEIGHTS)
        return dict(safetensors.torch.load_file(path))

    def index(self) -> ItemIndex:
        """The FAISS index, opened at the first call, after its hash was compared with the manifest."""
        return self._index

    @cached_property
    def _index(self) -> ItemIndex:
        path = checked(self.path, self.manifest, INDEX_FILE)
        return read_index(path, self.vectors, self.allowed)

    @cached_property
    def blended(self) -> Blended | None:
        """The neighbour sources and the blend of all sources; None where the model's vectors serve alone."""
        if BLEND not in self.manifest["files"]:
            return None
        path = checked(self.path, self.manifest, BLEND)
        with _parsing(self.path):
            return Blended.from_tensors(safetensors.numpy.load_file(path), self.features()["blend"])

    @cached_property
    def repeats(self) -> np.ndarray | None:
        """float32 [L], added to the scores of the history's own items by steps back; None: nothing is."""
        model = self.settings.model
        return STEP * self.weights()[REPEATS].numpy() if model.repeats and model.kind != "text" else None

    @cached_property
    def encoders(self) -> Encoders:
        """What its features were encoded with in training."""
        if self.settings.model.kind != "bert4rec":
            return Encoders()
        declared = self.features()
        with _parsing(self.path):
            return Encoders.from_dict(declared)

    def check_features(self, settings: Settings) -> None:
        """Refuse tables whose features are not declared as those that the model was trained with.

        Raises
        ------
        InputError
            Names the feature and what to do.
        """
        if self.settings.model.kind != "bert4rec":
            return
        hashing = self.features().get("hashing", HASHING)
        if hashing != HASHING:
            raise InputError(
                f"The bundle {self.path} hashes values in another way ({hashing}) than this program ({HASHING}); train "
                "again, or use the program's version that wrote it."
            )
        check_declared(self.encoders, settings, self.settings.model)

    def encode(self, histories: Sequences) -> np.ndarray:
        """float32 [U, D]: vectors of histories, with what they tell of their users and events."""
        return of_histories(self.queries, self.encoders)(histories)

    @cached_property
    def queries(self) -> Queries:
        """`(items int32 [N], offsets int64 [U + 1]) -> float32 [U, D]`: vectors of histories.

        A model that reads more than items takes it as third argument, or as missing; `encode` gives it.
        """
        with _parsing(self.path):  # weights of another version of the model, for instance
            return query_encoder(self.settings, self.features(), self.weights(), self.vectors)


def query_encoder(
    settings: Settings, features: Mapping[str, Any], weights: Mapping[str, torch.Tensor], vectors: np.ndarray
) -> Queries:
    """What a bundle of these parts makes query vectors with; see `recsys.bundles.store.write_bundle`."""
    if settings.model.kind == "text":
        from recsys.models.text import model as text

        return text.load_encoder(settings.model, weights, vectors)
    if settings.model.kind == "recformer":
        from recsys.models.recformer import encode as recformer_encode

        return recformer_encode.load_encoder(features, weights, activation_dtype(settings.train.precision))
    from recsys.models.sequential import bert4rec

    side = Encoders.from_dict(features).side_features()
    return bert4rec.load_encoder(settings.model, weights, vectors, activation_dtype(settings.train.precision), side)


def of_histories(queries: Queries, encoders: Encoders) -> HistoryVectors:
    """Queries of histories together with what these tell besides their items, where the model reads it."""

    def encoded(histories: Sequences) -> np.ndarray:
        side = encoders.side(histories)
        more = () if side is None else (side,)
        return queries(histories.items, histories.offsets, *more)

    return encoded


def read_bundle(path: str | Path, verify: bool = True) -> Bundle:
    """Open a bundle.

    Parameters
    ----------
    path
        Its folder.
    verify
        Compare every file with its hash now. Without it, the large files (weights, index) are compared when
        they are first used; no file is ever parsed before it was compared.

    Raises
    ------
    InputError
        Not a bundle, an unknown format, a file that is missing or changed, or parts of different bundles.
    """
    path = Path(path)
    manifest = read_manifest(path)
    for name in files_of(manifest["files"]) if verify else (CONFIG, VOCABULARY, CATALOGUE, ITEM_ARRAYS):
        checked(path, manifest, name)
    with _parsing(path):
        tree = json.loads((path / CONFIG).read_bytes())
        tree["model"] = UNSAID | tree.get("model", {})
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
def _parsing(path: Path) -> Iterator[None]:
    """What a library says about a file whose hash is right becomes one sentence."""
    try:
        yield
    except (pl.exceptions.PolarsError, SafetensorError, ValueError, KeyError, OSError, RuntimeError) as error:
        lines = [line.strip() for line in str(error).splitlines()] or [type(error).__name__]
        reason = " ".join(lines[:2]).rstrip(". ")  # torch names the weight in its second line
        raise InputError(f"The bundle {path} cannot be read: {reason}; train again.") from None
