"""Texts of a warehouse's items that its configurations read: which vectors are needed, and by whom.

A configuration that represents its items notes its attributes and its encoder beside the vectors, in a small file of
its own that is written where something of it has changed. So whoever cleans up knows the needs of all configurations.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from pyarrow import fs

from recsys.columns import CONTENT_HASH, ENCODER, ITEM_VECTORS, ITEMS
from recsys.features.sentences import sentences
from recsys.settings import Settings
from recsys.storage.addresses import masked
from recsys.storage.files import file_aside, write_json, writing
from recsys.storage.remote import filesystem, is_url, reaching
from recsys.storage.warehouse import scan, table_path
from recsys.text.hashes import hashed

_PREFIX: Final = "_texts_of_"  # Delta's clean-up leaves names that begin with an underscore alone
ROWS: Final = 262_144  # of the catalogue in memory at once


@dataclass(frozen=True, kw_only=True)
class Use:
    """The texts that a configuration reads, and the encoder that it reads them with.

    Attributes
    ----------
    encoder
        Its id.
    attributes
        Of items, in their order.
    words
        Most words of an attribute.
    """

    encoder: str
    attributes: tuple[str, ...]
    words: int | None


def use_of(settings: Settings, encoder: str) -> Use:
    """Return the use of a configuration, which reads texts with an encoder of this id."""
    assert settings.items is not None
    return Use(encoder=encoder, attributes=tuple(settings.items.text), words=settings.text.attribute_words)


def note_use(settings: Settings, encoder: str) -> None:
    """Note what a configuration reads; where that is noted already, nothing is written."""
    path = table_path(settings.warehouse, ITEM_VECTORS)
    name, use = f"{_PREFIX}{settings.name}.json", use_of(settings, encoder)
    store, folder = filesystem(path)
    if _read(store, f"{folder}/{name}") == use:
        return
    with writing(f"The note {path}/{name}"), reaching(path, f"The note {masked(path)}/{name} cannot be written"):
        if is_url(path):
            with store.open_output_stream(f"{folder}/{name}") as stream:
                stream.write(json.dumps(asdict(use)).encode())
        else:
            with file_aside(Path(path) / name) as aside:
                write_json(aside, asdict(use))


def uses(root: str) -> dict[str, tuple[Use | None, datetime]]:
    """Return what each configuration of a warehouse reads, by its name, and since when; None: it cannot be read."""
    store, folder = filesystem(table_path(root, ITEM_VECTORS))
    found: dict[str, tuple[Use | None, datetime]] = {}
    for info in store.get_file_info(fs.FileSelector(folder, allow_not_found=True)):
        if info.base_name.startswith(_PREFIX) and info.base_name.endswith(".json"):
            name = info.base_name.removeprefix(_PREFIX).removesuffix(".json")
            since = datetime.fromtimestamp(info.mtime_ns / 1e9, UTC)
            found[name] = (_read(store, info.path), since)
    return found


def needed(root: str, version: int, wanted: Sequence[Use]) -> pl.DataFrame | None:
    """Return encoder and hash of each text that items of a version have; None: they lack an attribute that is read."""
    items = scan(root, ITEMS, version)
    columns = items.collect_schema().names()
    if any(attribute not in columns for use in wanted for attribute in use.attributes):
        return None
    parts = [pl.DataFrame(schema={ENCODER: pl.String(), CONTENT_HASH: pl.String()})]
    for use in wanted:
        parts += [
            part.select(pl.lit(use.encoder).alias(ENCODER), CONTENT_HASH)
            for part in _hashes(items.select(list(use.attributes)), use)
        ]
    return pl.concat(parts).unique()


def _hashes(items: pl.LazyFrame, use: Use) -> Iterator[pl.DataFrame]:
    for frame in items.collect_batches(chunk_size=ROWS):
        yield hashed(sentences(frame, use.attributes, words=use.words))


def _read(store: fs.FileSystem, file: str) -> Use | None:
    try:
        with store.open_input_stream(file) as stream:
            told: Mapping[str, Any] = json.loads(stream.read())
        return Use(encoder=told["encoder"], attributes=tuple(told["attributes"]), words=told["words"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
