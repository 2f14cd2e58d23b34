"""A catalogue's tokens, made once and kept in the warehouse under the hash of all that decides them."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
import polars as pl
import safetensors.numpy
from safetensors import SafetensorError

from recsys.columns import ITEM_ID, ITEMS
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.features.tokens import ItemTokenizer, ItemTokens, content_hash, tokenise
from recsys.runs import local_folder
from recsys.settings import Settings
from recsys.storage.files import file_aside
from recsys.storage.warehouse import TableVersions, scan

FOLDER: Final = "tokens"  # in the warehouse
KEPT: Final = 8  # files; the ones that were used last


def item_attributes(settings: Settings, versions: TableVersions, vocabulary: Vocabulary) -> pl.DataFrame:
    """The attributes of `items.text`, V rows in the order of codes; nulls where the catalogue lacks an item.

    Raises
    ------
    InputError
        The catalogue was not ingested, or lacks an attribute.
    """
    wanted = settings.items.text if settings.items is not None else ()
    if versions.items is None:
        raise InputError(f"The warehouse {settings.warehouse} holds no items to read; run `recsys ingest` first.")
    catalogue = scan(settings.warehouse, ITEMS, versions.items)
    columns = catalogue.collect_schema().names()
    for name in wanted:
        if name not in columns:
            raise InputError(
                f"items.text names the attribute {name!r}, which the items of version {versions.items} "
                f"do not have; they have {', '.join(columns)}."
            )
    known = catalogue.select(ITEM_ID, *wanted).collect()
    rows = pl.DataFrame({ITEM_ID: vocabulary.items})
    return rows.join(known, on=ITEM_ID, how="left", maintain_order="left").select(wanted)


def catalogue_tokens(
    warehouse: str, frame: pl.DataFrame, attributes: Sequence[str], tokenizer: ItemTokenizer, attribute_tokens: int
) -> ItemTokens:
    """The tokens of a catalogue: those kept under the hash of (texts, tokenizer, settings), else new ones, then kept.

    Raises
    ------
    InputError
        An attribute has no text.
    """
    try:
        key = content_hash(frame, attributes, tokenizer, attribute_tokens)
        path = local_folder(warehouse) / FOLDER / f"{key[:32]}.safetensors"
        kept = _read(path)
        if kept is not None:
            return kept
        made = tokenise(frame, attributes, tokenizer, attribute_tokens)
    except ValueError as error:
        raise InputError(f"items.text: {error}.") from None
    with contextlib.suppress(OSError):  # what cannot be kept is made again
        _write(path, made)
    return made


def _read(path: Path) -> ItemTokens | None:
    try:
        arrays = safetensors.numpy.load_file(path)
        path.touch()
        return ItemTokens(
            tokens=arrays["tokens"],
            types=arrays["types"],
            offsets=arrays["offsets"],
            truncated=int(arrays["truncated"][0]),
        )
    except (OSError, SafetensorError, KeyError):
        return None


def _write(path: Path, made: ItemTokens) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"tokens": made.tokens, "types": made.types, "offsets": made.offsets}
    with file_aside(path) as aside:
        safetensors.numpy.save_file(arrays | {"truncated": np.array([made.truncated])}, aside)
    files = sorted(path.parent.glob("*.safetensors"), key=lambda file: file.stat().st_mtime)
    for old in files[:-KEPT]:
        old.unlink(missing_ok=True)
