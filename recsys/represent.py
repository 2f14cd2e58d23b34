"""Item sentences to text vectors, kept by content: what has been encoded once is never encoded again.

The table `item_vectors` is keyed by (encoder, hash of the sentence), not by item: an unchanged sentence keeps
its vector, also under another item's id, and another checkpoint never sees it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import polars as pl

from features.sentences import sentences
from features.text import Encoder, EncoderError, encode, load_encoder
from recsys.columns import CONTENT_HASH, ENCODER, ITEM_VECTORS, ITEMS, SENTENCE, VECTOR
from recsys.config import Settings
from recsys.data.warehouse import TableVersions, append, latest_version, scan
from recsys.errors import InputError

CHUNK = 8192  # sentences a commit; a kill loses at most this many

Progress = Callable[[int, int], None]  # (sentences encoded, sentences to encode)


@dataclass(frozen=True, kw_only=True)
class RepresentReport:
    """What a night's representation did; JSON-friendly.

    Attributes
    ----------
    encoder
        Identity of the encoder; None where the configuration or the warehouse has no text.
    items
        Items of the catalogue.
    encoded, reused
        Distinct sentences that were encoded now, and that the warehouse already held.
    truncated
        Of those encoded now, the sentences that were cut at `text.max_tokens`.
    empty
        Items without any text.
    """

    encoder: str | None
    items: int = 0
    encoded: int = 0
    reused: int = 0
    truncated: int = 0
    empty: int = 0


def represent(settings: Settings, versions: TableVersions, progress: Progress | None = None) -> RepresentReport:
    """Encode the catalogue's new sentences and append their vectors, a commit a chunk.

    Raises
    ------
    InputError
        The encoder cannot be loaded, or the catalogue lacks an attribute of `items.text`.
    RecsysError
        Another process wrote the table at the same time.
    """
    if settings.items is None or not settings.items.text or versions.items is None:
        return RepresentReport(encoder=None)
    catalogue = scan(settings.warehouse, ITEMS, versions.items)
    columns = catalogue.collect_schema().names()
    for attribute in settings.items.text:
        if attribute not in columns:
            raise InputError(
                f"items.text names the attribute {attribute!r}, which the items of version {versions.items} "
                f"do not have; they have {', '.join(columns)}."
            )
    every = sentences(catalogue.select(settings.items.text).collect(), settings.items.text)
    wanted = _hashed(every)
    if wanted.is_empty():
        return RepresentReport(encoder=None, items=len(every), empty=len(every))
    encoder = _load(settings)
    version = latest_version(settings.warehouse, ITEM_VECTORS)
    held = _held(settings.warehouse, encoder.id, wanted, version, CONTENT_HASH)
    missing = wanted.join(held, on=CONTENT_HASH, how="anti", maintain_order="left")
    truncated = 0
    for start in range(0, len(missing), CHUNK):
        part = missing.slice(start, CHUNK)
        result = encode(
            encoder,
            part[SENTENCE].to_list(),
            batch_size=settings.text.batch_size,
            progress=_shifted(progress, start, len(missing)),
        )
        truncated += int(result.truncated.sum())
        rows = pl.DataFrame(
            {
                ENCODER: pl.repeat(encoder.id, len(part), eager=True),
                CONTENT_HASH: part[CONTENT_HASH],
                VECTOR: pl.Series(result.vectors).cast(pl.List(pl.Float32)),
            }
        )
        version = append(settings.warehouse, ITEM_VECTORS, rows, expected=version)
    return RepresentReport(
        encoder=encoder.id,
        items=len(every),
        encoded=len(missing),
        reused=len(wanted) - len(missing),
        truncated=truncated,
        empty=int((every == "").sum()),
    )


def text_vectors(settings: Settings, sentences: pl.Series) -> np.ndarray:
    """Vectors that `represent` has stored, float32 [n, E], one for each of n sentences; zeros for empty ones.

    Raises
    ------
    InputError
        The encoder cannot be loaded, or sentences have not been encoded with it.
    """
    encoder = _load(settings)
    wanted = _hashed(sentences)
    version = latest_version(settings.warehouse, ITEM_VECTORS)
    held = _held(settings.warehouse, encoder.id, wanted, version, CONTENT_HASH, VECTOR)
    if len(held) < len(wanted):
        raise InputError(
            f"{len(wanted) - len(held)} of {len(wanted)} item sentences have no vector of the text encoder "
            f"{encoder.model} ({encoder.id}, {encoder.precision}) in the warehouse {settings.warehouse}; "
            "run `recsys represent` first."
        )
    table = np.zeros((len(held) + 1, encoder.dimensions), dtype=np.float32)  # the last row: no sentence
    table[:-1] = held[VECTOR].explode().to_numpy().reshape(len(held), encoder.dimensions)
    place = held.select(CONTENT_HASH).with_row_index("row").join(wanted, on=CONTENT_HASH)
    rows = (
        sentences.alias(SENTENCE)
        .to_frame()
        .join(place, on=SENTENCE, how="left", maintain_order="left")["row"]
        .cast(pl.Int64)
        .fill_null(len(held))
    )
    return table[rows.to_numpy()]


def _load(settings: Settings) -> Encoder:
    try:
        return load_encoder(settings.text.model, max_tokens=settings.text.max_tokens)
    except EncoderError as error:
        raise InputError(str(error)) from error


def _hashed(sentences: pl.Series) -> pl.DataFrame:
    """Distinct sentences that say something, in order of first appearance, with the sha256 of each."""
    distinct = sentences.drop_nulls().unique(maintain_order=True)
    distinct = distinct.filter(distinct != "")
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in distinct]
    return pl.DataFrame({SENTENCE: distinct, CONTENT_HASH: pl.Series(hashes, dtype=pl.String)})


def _held(root: str, encoder: str, wanted: pl.DataFrame, version: int | None, *columns: str) -> pl.DataFrame:
    """Of the wanted sentences those that the table holds for this encoder, a row each, by hash."""
    if version is None:
        schema = {CONTENT_HASH: pl.String(), VECTOR: pl.List(pl.Float32)}
        return pl.DataFrame(schema=schema).select(columns)
    return (
        scan(root, ITEM_VECTORS, version)
        .filter(pl.col(ENCODER) == encoder)
        .select(columns)
        .join(wanted.lazy().select(CONTENT_HASH), on=CONTENT_HASH, how="semi")
        .collect(engine="streaming")
        .unique(CONTENT_HASH, keep="any")
        .sort(CONTENT_HASH)
    )


def _shifted(progress: Progress | None, start: int, total: int) -> Progress | None:
    return None if progress is None else lambda done, _: progress(start + done, total)
