"""Bundles as earlier versions of the program wrote them stay readable; newer ones are refused in a sentence."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import polars as pl
import pytest
import safetensors.numpy
import safetensors.torch
import torch

from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import MANIFEST, describe_files
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.models.sequential.bert4rec import SequenceEncoder
from recsys.serving.recommender import open_bundle
from recsys.settings import ModelSettings

# [model] as format 1 was first written: the keys of the sequence model, whatever the kind
MODEL: dict[str, Any] = {
    "attribute_lookups": 2,
    "attributes": True,
    "blocks": 1,
    "context": [],
    "dimensions": 8,
    "distance_bias": False,
    "dropout": 0.1,
    "experts": 4,
    "feed_forward": "gelu",
    "feed_forward_multiple": 4,
    "gated": False,
    "head": False,
    "heads": 1,
    "id_dropout": 0.1,
    "id_lookups": 2,
    "ids": True,
    "item_bias": True,
    "kind": "bert4rec",
    "max_length": 6,
    "norm_first": True,
    "objective": "cloze",
    "recency_mean": False,
    "repeats": False,
    "rotary": True,
    "table_rows": None,
    "temperature": 0.07,
    "text": True,
    "text_adapter": "linear",
    "user_attributes": True,
}
IDS = (30, 10, 20, 40)


def write_old(root: Path, model: dict[str, Any]) -> Path:
    """A bundle of format 1, file by file, by libraries alone."""
    settings = {
        "name": "tiny",
        "interactions": {"source": "log.csv"},
        "items": {"source": "items.csv", "text": ["title"]},
        "model": model,
    }
    kind, biases = model["kind"], int(model["kind"] == "bert4rec")
    vectors = np.random.default_rng(0).normal(size=(len(IDS) + 1, 8 + biases)).astype(np.float32)
    vectors[0] = 0
    weights = {}
    if biases:
        torch.manual_seed(0)
        encoder = SequenceEncoder(ModelSettings.model_validate({k: v for k, v in model.items() if k != "repeats"}))
        weights = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    folder = root / "old"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(settings))
    (folder / "features.json").write_text("{}")
    items = pl.Series("item_id", IDS)
    vocabulary = Vocabulary(items)
    vocabulary.write(folder / "vocabulary.parquet")
    pl.DataFrame({"item_id": items, "title": ["a", "b", "c", "d"]}).write_parquet(folder / "catalogue.parquet")
    safetensors.torch.save_file(weights, folder / "weights.safetensors")
    allowed = np.arange(len(IDS) + 1) > 0
    safetensors.numpy.save_file({"vectors": vectors, "allowed": allowed}, folder / "items.safetensors")
    index = faiss.IndexIDMap2(faiss.IndexFlatIP(vectors.shape[1]))
    index.add_with_ids(vectors[1:], np.arange(1, len(IDS) + 1))
    faiss.write_index(index, str(folder / "index.faiss"))
    files = describe_files(folder)
    lines = [kind, *sorted(f"{name} {of['sha256']}" for name, of in files.items())]
    manifest = {
        "format": 1,
        "bundle": hashlib.sha256("\n".join(lines).encode()).hexdigest(),
        "name": "tiny",
        "kind": kind,
        "created_at": "2026-11-01T00:00:00+00:00",
        "vocabulary": vocabulary.digest,
        "items": len(IDS),
        "width": vectors.shape[1],
        "bias_dims": biases,
        "index": {
            "factory": "IDMap2,Flat",
            "metric": "inner_product",
            "width": vectors.shape[1],
            "ntotal": len(IDS),
            "vocabulary": vocabulary.digest,
        },
        "files": files,
        "lineage": {"seed": 0},
    }
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return folder


@pytest.mark.parametrize("kind", ["bert4rec", "text"])
def test_an_old_bundle_is_opened_and_answers(tmp_path: Path, kind: str) -> None:
    served = open_bundle(write_old(tmp_path, MODEL | {"kind": kind}))
    assert served.bundle.kind == served.bundle.settings.model.kind == kind
    assert {row["item_id"] for row in served.recommend([30, 20], 9)} == {10, 40}
    assert {row["item_id"] for row in served.similar(30, 9)} <= {10, 20, 40}


def test_one_without_the_newest_keys_means_what_it_was_trained_with(tmp_path: Path) -> None:
    """`experts` is of an adapter that it does not have; `rotary` and the head were what they were."""
    older = {key: value for key, value in MODEL.items() if key not in ("experts", "text_adapter", "rotary", "head")}
    folder = write_old(tmp_path, dict(ModelSettings.unsaid) | older | {"temperature": None})
    tree = json.loads((folder / "config.json").read_text())
    tree["model"] = {key: value for key, value in tree["model"].items() if key not in ("rotary", "head", "experts")}
    (folder / "config.json").write_text(json.dumps(tree))
    reseal(folder)
    served = open_bundle(folder)
    model = served.bundle.settings.model
    assert isinstance(model, ModelSettings)
    assert (model.rotary, model.head, model.experts) == (False, True, 4)
    assert len(served.recommend([30], 3)) == 3


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (3, r"has format 3 and this program reads formats up to 2; use a newer version of the program, or train again"),
        (0, r"has format 0 .*use a complete copy"),
        ("1", r"has format '1' "),
        (True, r"has format True "),
        (None, r"has format None "),
    ],
)
def test_a_format_that_this_program_does_not_know_is_a_sentence(tmp_path: Path, found: Any, message: str) -> None:
    folder = write_old(tmp_path, MODEL)
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(manifest | {"format": found}))
    with pytest.raises(InputError, match=message):
        read_bundle(folder)


@pytest.mark.parametrize("name", ["../../secret.safetensors", "Evil.safetensors", "program.pickle"])
def test_a_manifest_cannot_name_files_elsewhere(tmp_path: Path, name: str) -> None:
    folder = write_old(tmp_path, MODEL)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 1}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(InputError, match="is incomplete"):
        read_bundle(folder)


def test_weights_are_loaded_when_they_are_asked_for(tmp_path: Path) -> None:
    """An answer needs the encoder's alone: a large table stays on the disk."""
    bundle = read_bundle(write_old(tmp_path, MODEL))
    weights = bundle.weights()
    assert len(weights) == len(list(weights)) > 3
    for name, value in safetensors.torch.load_file(bundle.path / "weights.safetensors").items():
        assert torch.equal(weights[name], value)
    with pytest.raises(KeyError):
        weights["nothing"]


def reseal(folder: Path) -> None:
    """A manifest that fits files which were changed."""
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"] = describe_files(folder)
    lines = [manifest["kind"], *sorted(f"{name} {of['sha256']}" for name, of in manifest["files"].items())]
    manifest["bundle"] = hashlib.sha256("\n".join(lines).encode()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
