"""All that recformer_accelerator.py trains and measures on, in one file: it crosses to a machine with an accelerator.

Tokens and histories of the shops, Scientific's split, and the language model in float16; no data set and no hub is
needed there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import common
import numpy as np
import polars as pl
import torch

from recsys.data.prepare import prepare
from recsys.data.sequences import Sequences
from recsys.data.splits import HeldOut
from recsys.features.tokens import ItemTokenizer, ItemTokens
from recsys.ingestion.ingest import ingest
from recsys.models.recformer.catalogue_tokens import catalogue_tokens, item_attributes
from recsys.models.recformer.model import MaskedHead, Recformer, Shape
from recsys.models.recformer.pretrain import Corpus
from recsys.models.recformer.pretrain_catalogues import read_corpora
from recsys.models.recformer.start import Start
from recsys.settings.pretrain import load_pretrain_settings
from recsys.settings.read import load_settings

PRETRAIN, NIGHT = "recformer-pretrain", "scientific-recformer"  # in configs/


@dataclass(frozen=True, kw_only=True, eq=False)
class Packed:
    """The untrained model, the shops to pre-train on (`held_out`: by name, to look at), and Scientific."""

    begun: Start
    corpora: Mapping[str, Corpus]
    held_out: tuple[str, ...]
    catalogue: ItemTokens
    train: Sequences
    validation: HeldOut
    test: HeldOut


def gather(data: Path, warehouse: str, overrides: Sequence[str]) -> Packed:
    """From the data folders; `overrides` as of `recsys pretrain`."""
    shops = load_pretrain_settings(
        common.ROOT / "configs" / f"{PRETRAIN}.toml", [f"data_root={data}", f"warehouse={warehouse}", *overrides]
    )
    versions = {name: ingest(shops.catalogue(name)).versions for name in shops.catalogues}
    begun, corpora, _ = read_corpora(shops, versions)
    night = load_settings(
        common.ROOT / "configs" / f"{NIGHT}.toml",
        [f"data_root={data / 'recformer-scientific'}", f"warehouse={warehouse}/scientific"],
    )
    assert night.items is not None
    tables = ingest(night).versions
    dataset = prepare(night, tables)
    frame = item_attributes(night, tables, dataset.vocabulary)
    tokens = shops.recformer.attribute_tokens  # as pre-training reads them
    return Packed(
        begun=begun,
        corpora=corpora,
        held_out=tuple(name for name, shop in shops.catalogues.items() if shop.held_out),
        catalogue=catalogue_tokens(night.warehouse, frame, night.items.text, begun.tokenizer, tokens),
        train=dataset.split.train,
        validation=dataset.split.validation,
        test=dataset.split.test,
    )


def write(packed: Packed, path: Path) -> None:
    """One file, compressed."""
    arrays: dict[str, np.ndarray] = {}
    for name, corpus in packed.corpora.items():
        arrays |= _named(f"corpora/{name}/tokens", _parts(corpus.tokens))
        arrays |= {f"corpora/{name}/items": corpus.items, f"corpora/{name}/offsets": corpus.offsets}
    arrays |= _named("catalogue", _parts(packed.catalogue))
    for name, sequences in _histories(packed):
        arrays |= {f"{name}/items": sequences.items, f"{name}/offsets": sequences.offsets}
    for name in ("validation", "test"):
        arrays[f"{name}/targets"] = getattr(packed, name).targets
    tokenizer, model = packed.begun.tokenizer, packed.begun.model
    weights = {name: value.detach().cpu().half().numpy() for name, value in model.state_dict().items()}
    arrays |= _named("weights", weights)
    about = {"shape": asdict(model.shape), "tokenizer": tokenizer.to_tree(), "held_out": packed.held_out}
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), dtype=np.uint8)
    with path.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def read(path: Path) -> Packed:
    """Report of `write`."""
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    about: dict[str, Any] = json.loads(arrays["about"].tobytes())
    shape = Shape(**about["shape"])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the head for masked words, which MiniLM does not bring
        model, head = Recformer(shape), MaskedHead(shape)
    weights = _under("weights", arrays)
    model.load_state_dict({name: torch.from_numpy(value.astype(np.float32)) for name, value in weights.items()})
    names = sorted({name.split("/")[1] for name in arrays if name.startswith("corpora/")})

    def histories(name: str) -> Sequences:
        of = _under(name, arrays)
        users = pl.Series(np.arange(len(of["offsets"]) - 1))
        return Sequences(users=users, items=of["items"], offsets=of["offsets"])

    return Packed(
        begun=Start(model=model, head=head, tokenizer=ItemTokenizer.from_tree(about["tokenizer"]), about={}),
        corpora={
            name: Corpus.of(
                ItemTokens(**_under(f"corpora/{name}/tokens", arrays)),
                arrays[f"corpora/{name}/items"],
                arrays[f"corpora/{name}/offsets"],
            )
            for name in names
        },
        held_out=tuple(about["held_out"]),
        catalogue=ItemTokens(**_under("catalogue", arrays)),
        train=histories("train"),
        validation=HeldOut(histories=histories("validation"), targets=arrays["validation/targets"]),
        test=HeldOut(histories=histories("test"), targets=arrays["test/targets"]),
    )


def _histories(packed: Packed) -> Iterator[tuple[str, Sequences]]:
    yield "train", packed.train
    for name in ("validation", "test"):
        yield name, getattr(packed, name).histories


def _parts(tokens: ItemTokens) -> dict[str, np.ndarray]:
    return {field.name: getattr(tokens, field.name) for field in fields(tokens) if field.name != "truncated"}


def _named(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {f"{prefix}/{name}": value for name, value in arrays.items()}


def _under(prefix: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.removeprefix(f"{prefix}/"): value for name, value in arrays.items() if name.startswith(f"{prefix}/")}
