"""Start of a Recformer's training: a pre-trained one, a bundle, a language model, or nothing."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Final

import polars as pl
import torch

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.bundles.manifest import MANIFEST
from recsys.bundles.store import find_bundle, measured_bundle
from recsys.errors import InputError, first_line
from recsys.features.device import best_device
from recsys.features.tokens import ItemTokenizer, every_text, train_tokenizer
from recsys.models.recformer.model import MaskedHead, Recformer, Shape
from recsys.models.recformer.weights import ABOUT, from_transformers, load, rebuild, resized
from recsys.settings import RecformerSettings, Settings
from recsys.storage.files import file_aside, write_json
from recsys.storage.remote import is_url

PRETRAINED: Final = "pretrained"  # folder of a warehouse
_BLOCKS: Final = 2  # of a Recformer from nothing


@dataclass(frozen=True, kw_only=True, eq=False)
class Start:
    """An untrained or pre-trained Recformer.

    Attributes
    ----------
    about
        What it is made of, JSON-friendly, for lineage.
    """

    model: Recformer
    head: MaskedHead
    tokenizer: ItemTokenizer
    about: dict[str, Any]


def start(settings: RecformerSettings, catalogues: Iterable[pl.DataFrame], seed: int) -> Start:
    """The model to train, of the size that the settings ask for, and `ready`.

    Parameters
    ----------
    catalogues
        Attributes of items, from which a tokenizer is learnt where the model starts from nothing.
    seed
        Of new weights.

    Raises
    ------
    InputError
        `recformer.init` cannot be read; one sentence.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if settings.init is None:
            found = _from_nothing(settings, catalogues)
        else:
            found = _from(settings.init, settings)
        model = resized(found.model, items=settings.max_items, tokens=settings.max_tokens)
    return replace(found, model=ready(model, settings))


def ready(model: Recformer, settings: RecformerSettings) -> Recformer:
    """The model itself, on the accelerator if there is one, with the parts frozen that the settings freeze."""
    if not settings.embeddings:
        with torch.no_grad():
            model.item_positions.weight.zero_()
            model.types.weight.copy_(model.types.weight[:1].expand_as(model.types.weight).clone())
    model.item_positions.requires_grad_(settings.embeddings)
    model.types.requires_grad_(settings.embeddings)
    # a new token embedding says nothing yet: frozen it would stay noise
    model.words.requires_grad_(settings.train_token_embeddings or settings.init is None)
    model.recompute = settings.recompute
    return model.to(best_device())


def earlier_recformer(settings: Settings) -> Bundle | None:
    """The bundle that `recformer.init` names; None: it names none."""
    if settings.recformer.init is None:
        return None
    folder = _starting(settings.recformer.init)
    return read_bundle(folder, verify=False) if (folder / MANIFEST).is_file() else None


def publish(parent: Path, name: str, folder: Path) -> None:
    """Make a pre-trained folder the newest of its name, in one step: `init` may then leave its hash out."""
    with file_aside(parent / f"{name}.latest.json") as aside:
        write_json(aside, {"path": folder.name})


def _from_nothing(settings: RecformerSettings, catalogues: Iterable[pl.DataFrame]) -> Start:
    texts = chain.from_iterable(every_text(frame, frame.columns) for frame in catalogues)
    tokenizer = train_tokenizer(texts, settings.vocabulary)
    shape = Shape(
        words=tokenizer.size,
        dimensions=settings.dimensions,
        inner=4 * settings.dimensions,
        blocks=settings.layers or _BLOCKS,
        heads=settings.heads,
        tokens=settings.max_tokens,
        items=settings.max_items,
        first=tokenizer.first,
        padding=tokenizer.padding,
        **_choices(settings),
    )
    model = Recformer(shape, dropout=settings.dropout)
    return Start(model=model, head=MaskedHead(shape), tokenizer=tokenizer, about={"init": None})


def _from(init: str, settings: RecformerSettings) -> Start:
    folder = _starting(init)
    if (folder / ABOUT).is_file():
        model, head, tokenizer = load(folder, dropout=settings.dropout)
        return Start(model=model, head=head, tokenizer=tokenizer, about={"init": folder.name})
    if (folder / MANIFEST).is_file():
        bundle = read_bundle(folder)
        if bundle.settings.model.kind != "recformer":
            raise InputError(
                f'recformer.init = {init!r} is a bundle of model.kind = "{bundle.settings.model.kind}"; '
                "name one of a Recformer."
            )
        try:
            model, head, tokenizer = rebuild(bundle.features(), bundle.weights(), dropout=settings.dropout)
        except (RuntimeError, TypeError, ValueError, KeyError) as error:
            raise InputError(
                f"recformer.init = {init!r} cannot be read ({first_line(error)}); train it again."
            ) from None
        return Start(model=model, head=head, tokenizer=tokenizer, about={"init": bundle.label})
    model, head, tokenizer = from_transformers(
        init,
        items=settings.max_items,
        tokens=settings.max_tokens,
        blocks=settings.layers,
        dropout=settings.dropout,
        **_choices(settings),
    )
    return Start(model=model, head=head, tokenizer=tokenizer, about={"init": init})


def _choices(settings: RecformerSettings) -> dict[str, Any]:
    return {
        "window": settings.window,
        "places": settings.positions,
        "apart": settings.cross_item_bias,
        "pooling": settings.pooling,
    }


def _starting(init: str) -> Path:
    """The newest of a name; for a bundle that was refitted on all events the measured one, which it was made of."""
    folder = find_bundle(init) if is_url(init) else _newest(Path(init).expanduser())
    return measured_bundle(folder) if (folder / MANIFEST).is_file() else folder


def _newest(folder: Path) -> Path:
    """The folder itself, or the one that was published last under its name."""
    pointer = folder.with_name(f"{folder.name}.latest.json")
    if folder.is_dir() or not pointer.is_file():
        return folder
    try:
        return folder.parent / str(json.loads(pointer.read_bytes())["path"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{pointer} is damaged; name the pre-trained folder itself as recformer.init.") from None
