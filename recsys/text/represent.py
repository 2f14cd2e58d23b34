"""Item sentences to text vectors, kept by content: what has been encoded once is never encoded again.

The table `item_vectors` is keyed by (encoder, hash of the sentence), not by item: an unchanged sentence keeps
its vector, also under another item's id, and another checkpoint never sees it.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from recsys.columns import CONTENT_HASH, ENCODER, ITEM_VECTORS, ITEMS, SENTENCE, VECTOR
from recsys.errors import InputError, RecsysError
from recsys.features.sentences import cleaned, joined, shortened
from recsys.settings import Settings
from recsys.storage.once import let_go
from recsys.storage.remote import is_url
from recsys.storage.warehouse import TableVersions, append, latest_version, scan
from recsys.text.known import KnownEncoder, known, load, remember

if TYPE_CHECKING:
    from recsys.features.text import Encoded, Encoder

_NUMBER = 4.1  # bytes of a stored number of a vector: floats hardly compress, and their hashes take some, too
CHUNK = 8192  # sentences a commit; a kill loses at most this many
ROWS = 262_144  # of the catalogue in memory at once

Progress = Callable[[int, int], None]  # (sentences encoded, sentences to encode as far as the catalogue was read)


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
    shortened
        Items of which an attribute was cut at `text.attribute_words`.
    empty
        Items without any text.
    silent
        Attributes of `items.text` that no item has.
    """

    encoder: str | None
    items: int = 0
    encoded: int = 0
    reused: int = 0
    truncated: int = 0
    shortened: int = 0
    empty: int = 0
    silent: tuple[str, ...] = ()


def represent(settings: Settings, versions: TableVersions, progress: Progress | None = None) -> RepresentReport:
    """Encode the catalogue's new sentences and append their vectors, a commit a chunk; memory holds some rows at once.

    Raises
    ------
    InputError
        The encoder cannot be loaded, or the catalogue lacks an attribute of `items.text`.
    RecsysError
        Another process wrote the table at the same time.
    """
    if settings.items is None or not settings.items.text or versions.items is None:
        return RepresentReport(encoder=None)
    attributes = settings.items.text
    catalogue = text_columns(settings, versions)
    encoder: KnownEncoder | None = None
    loaded = cache(lambda: load(settings))
    version = latest_version(settings.warehouse, ITEM_VECTORS)
    rows_of_all = int(catalogue.select(pl.len()).collect().item())
    counts = dict.fromkeys(("items", "encoded", "reused", "truncated", "shortened", "empty"), 0)
    silent = set(attributes)
    for frame in catalogue.collect_batches(chunk_size=ROWS, maintain_order=True):
        texts = cleaned(frame, attributes, settings.text.attribute_words)
        every = joined(texts, len(frame))
        silent -= {text.name for text in texts if text.kept.null_count() < len(frame)}
        counts["items"] += len(frame)
        counts["shortened"] += shortened(texts)
        counts["empty"] += int((every == "").sum())
        wanted = _hashed(every)
        if wanted.is_empty():
            continue
        encoder = encoder or known(settings, loaded)
        missing = _missing(settings, encoder, wanted, version)
        if len(missing) and loaded().id != encoder.id:  # what was remembered of it is wrong
            let_go("text encoder")
            encoder = remember(settings, loaded())
            missing = _missing(settings, encoder, wanted, version)
        counts["reused"] += len(wanted) - len(missing)
        if len(missing):
            expected = len(missing)
            if not counts["reused"] + counts["encoded"]:  # an encoder's first vectors: the rest lacks them, too
                expected = len(missing) * rows_of_all // counts["items"]
            _need_room(settings, encoder, expected)
        before, total = counts["encoded"], counts["encoded"] + len(missing)
        for start in range(0, len(missing), CHUNK):
            part = missing.slice(start, CHUNK)
            result = encode(
                loaded(),
                part[SENTENCE].to_list(),
                batch_size=settings.text.batch_size,
                progress=_shifted(progress, before + start, total),
            )
            rows = pl.DataFrame(
                {
                    ENCODER: pl.repeat(encoder.id, len(part), eager=True),
                    CONTENT_HASH: part[CONTENT_HASH],
                    VECTOR: pl.Series(result.vectors).cast(pl.List(pl.Float32)),
                }
            )
            version = append(settings.warehouse, ITEM_VECTORS, rows, expected=version)
            counts["truncated"] += int(result.truncated.sum())
            counts["encoded"] += len(part)
    return RepresentReport(
        encoder=None if encoder is None else encoder.id,
        silent=tuple(name for name in attributes if name in silent and counts["items"]),
        **counts,
    )


def text_columns(settings: Settings, versions: TableVersions, *further: str) -> pl.LazyFrame:
    """The attributes of `items.text`, and further columns before them.

    Raises
    ------
    InputError
        The catalogue lacks one of them.
    """
    assert settings.items is not None
    catalogue = scan(settings.warehouse, ITEMS, versions.items)
    columns = catalogue.collect_schema().names()
    for attribute in settings.items.text:
        if attribute not in columns:
            raise InputError(
                f"items.text names the attribute {attribute!r}, which the items of version {versions.items} "
                f"do not have; they have {', '.join(columns)}."
            )
    return catalogue.select(*further, *settings.items.text)


def text_vectors(settings: Settings, sentences: pl.Series) -> np.ndarray:
    """Vectors that `represent` has stored, float32 [n, E], one for each of n sentences; zeros for empty ones.

    Raises
    ------
    InputError
        The encoder cannot be loaded, or sentences have not been encoded with it.
    """
    encoder = known(settings)
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


def _hashed(sentences: pl.Series) -> pl.DataFrame:
    """Distinct sentences that say something, in order of first appearance, with the sha256 of each."""
    distinct = sentences.drop_nulls().unique(maintain_order=True)
    distinct = distinct.filter(distinct != "")
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in distinct]
    return pl.DataFrame({SENTENCE: distinct, CONTENT_HASH: pl.Series(hashes, dtype=pl.String)})


def encode(encoder: Encoder, sentences: Sequence[str], **options: Any) -> Encoded:
    """As `recsys.features.text.encode`."""
    from recsys.features import text  # torch and more, which who encodes nothing is spared

    return text.encode(encoder, sentences, **options)


def _need_room(settings: Settings, encoder: KnownEncoder, vectors: int) -> None:
    """The disk takes so many more vectors; found before hours of encoding.

    Raises
    ------
    RecsysError
        It does not.
    """
    if is_url(settings.warehouse):
        return
    needed = int(vectors * encoder.dimensions * _NUMBER)
    free = shutil.disk_usage(settings.warehouse).free
    if needed > free:
        raise RecsysError(
            f"{vectors:,} text vectors of {encoder.dimensions} numbers take {needed / 1e6:,.0f} MB, and the disk of "
            f"the warehouse {settings.warehouse} has {free / 1e6:,.0f} MB free; free some space, or set text.truncate "
            "to fewer dimensions."
        )


def _missing(settings: Settings, encoder: KnownEncoder, wanted: pl.DataFrame, version: int | None) -> pl.DataFrame:
    """The wanted sentences that the table does not hold for this encoder."""
    held = _held(settings.warehouse, encoder.id, wanted, version, CONTENT_HASH)
    return wanted.join(held, on=CONTENT_HASH, how="anti", maintain_order="left")


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
