"""Item sentences to text vectors, kept by content: what has been encoded once is never encoded again.

The table `item_vectors` is keyed by (encoder, hash of the sentence), not by item: an unchanged sentence keeps
its vector, also under another item's id, and another checkpoint never sees it.
"""

from __future__ import annotations

import shutil
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from recsys.columns import CONTENT_HASH, ENCODER, ITEM_VECTORS, ITEMS, SENTENCE, VECTOR
from recsys.compute.choice import engine_of
from recsys.errors import InputError, RecsysError
from recsys.features.sentences import cleaned, joined, shortened
from recsys.settings import Settings
from recsys.storage.once import let_go
from recsys.storage.remote import is_url
from recsys.storage.warehouse import TableVersions, append, latest_version, scan
from recsys.text import mapped
from recsys.text.encoding import Encoding
from recsys.text.hashes import hashed
from recsys.text.known import KnownEncoder, known, load, remember
from recsys.text.uses import ROWS, note_use

if TYPE_CHECKING:
    from recsys.features.text import Encoder

_NUMBER = 4.1  # bytes of a stored number of a vector: floats hardly compress, and their hashes take some, too
CHUNK = 8192  # sentences a commit; a kill loses at most this many
_COUNTS = ("items", "encoded", "reused", "truncated", "shortened", "empty")  # as a report has them

Progress = Callable[[int, int], None]  # (sentences encoded, sentences to encode as far as the catalogue was read)


@dataclass(frozen=True, kw_only=True)
class RepresentReport:
    """Report of a night's representation; JSON-friendly.

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
    return _Represented(settings, text_columns(settings, versions), progress).stored()


@dataclass(eq=False)
class _Represented:
    """A representation under way."""

    settings: Settings
    catalogue: pl.LazyFrame  # the attributes of the text
    progress: Progress | None
    encoder: KnownEncoder | None = None
    version: int | None = None  # of the table of vectors
    counts: Counter[str] = field(default_factory=Counter)
    silent: set[str] = field(default_factory=set)
    waiting: deque[pl.DataFrame] = field(default_factory=deque)  # chunks under way, in their order

    def stored(self) -> RepresentReport:
        """Encode and append what the table lacks."""
        warehouse = self.settings.warehouse
        self.version = latest_version(warehouse, ITEM_VECTORS)
        attributes = self.catalogue.collect_schema().names()
        self.silent = set(attributes)
        loaded = cache(lambda: load(self.settings.text))
        encoding = Encoding(self.settings.text, loaded, lambda done, _: self._tell(done))
        for result in engine_of(self.settings).map(encoding, self._chunks(loaded)):
            part = self.waiting.popleft()
            rows = pl.DataFrame(
                {
                    ENCODER: pl.repeat(self._known(loaded).id, len(part), eager=True),
                    CONTENT_HASH: part[CONTENT_HASH],
                    VECTOR: pl.Series(result.vectors).cast(pl.List(pl.Float32)),
                }
            )
            self.version = append(warehouse, ITEM_VECTORS, rows, expected=self.version)
            self.counts["truncated"] += int(result.truncated.sum())
            self.counts["encoded"] += len(part)
            self._tell(0)
        if self.encoder is not None:
            note_use(self.settings, self.encoder.id)
        return RepresentReport(
            encoder=None if self.encoder is None else self.encoder.id,
            silent=tuple(name for name in attributes if name in self.silent and self.counts["items"]),
            **{name: self.counts[name] for name in _COUNTS},
        )

    def _chunks(self, loaded: Callable[[], Encoder]) -> Iterator[pl.DataFrame]:
        """Sentences that the table lacks and that are not under way, each once, in order of first appearance."""
        counts, attributes = self.counts, self.catalogue.collect_schema().names()
        rows_of_all = int(self.catalogue.select(pl.len()).collect().item())
        for frame in self.catalogue.collect_batches(chunk_size=ROWS, maintain_order=True):
            texts = cleaned(frame, attributes, self.settings.text.attribute_words)
            every = joined(texts, len(frame))
            self.silent -= {text.name for text in texts if text.kept.null_count() < len(frame)}
            counts["items"] += len(frame)
            counts["shortened"] += shortened(texts)
            counts["empty"] += int((every == "").sum())
            wanted = hashed(every)
            if wanted.is_empty():
                continue
            missing = self._missing(wanted, loaded)
            if len(missing) and loaded().id != self._known(loaded).id:  # what was remembered of it is wrong
                let_go("text encoder")
                self.encoder = remember(self.settings, loaded())
                missing = self._missing(wanted, loaded)
            counts["reused"] += len(wanted) - len(missing)
            if len(missing):
                expected = len(missing)
                if not counts["reused"] + counts["wanted"]:  # an encoder's first vectors: the rest lacks them, too
                    expected = len(missing) * rows_of_all // counts["items"]
                _need_room(self.settings, self._known(loaded), expected)
            counts["wanted"] += len(missing)
            for part in missing.iter_slices(CHUNK):
                self.waiting.append(part)
                yield part

    def _missing(self, wanted: pl.DataFrame, loaded: Callable[[], Encoder]) -> pl.DataFrame:
        """The wanted sentences that the table does not hold for this encoder, and that are not under way."""
        held = _held(self.settings.warehouse, self._known(loaded).id, wanted, self.version, CONTENT_HASH)
        for known_already in (held, *self.waiting):
            wanted = wanted.join(known_already, on=CONTENT_HASH, how="anti", maintain_order="left")
        return wanted

    def _known(self, loaded: Callable[[], Encoder]) -> KnownEncoder:
        self.encoder = self.encoder or known(self.settings, loaded)
        return self.encoder

    def _tell(self, done: int) -> None:
        """Tell the progress: what is in the table, and so many sentences of a chunk that is under way."""
        if self.progress is not None:
            self.progress(self.counts["encoded"] + done, self.counts["wanted"])


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
    """Vectors that `represent` has stored, [n, E], one for each of n sentences; zeros for empty ones.

    They are float32 in memory, or float16 mapped from a file where there are many; see `recsys.text.mapped`.

    Raises
    ------
    InputError
        The encoder cannot be loaded, or sentences have not been encoded with it.
    """
    encoder = known(settings)
    wanted = hashed(sentences)
    version = latest_version(settings.warehouse, ITEM_VECTORS)
    if len(sentences) >= mapped.LEAST:

        def batches() -> Iterator[pl.DataFrame]:
            _check_held(settings, encoder, wanted, _held(settings.warehouse, encoder.id, wanted, version, CONTENT_HASH))
            every = scan(settings.warehouse, ITEM_VECTORS, version).filter(pl.col(ENCODER) == encoder.id)
            return every.select(CONTENT_HASH, VECTOR).collect_batches(chunk_size=mapped.AT_ONCE)

        return mapped.mapped_vectors(settings.warehouse, encoder, sentences, wanted, batches)
    held = _held(settings.warehouse, encoder.id, wanted, version, CONTENT_HASH, VECTOR)
    _check_held(settings, encoder, wanted, held)
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


def _check_held(settings: Settings, encoder: KnownEncoder, wanted: pl.DataFrame, held: pl.DataFrame) -> None:
    if len(held) < len(wanted):
        raise InputError(
            f"{len(wanted) - len(held)} of {len(wanted)} item sentences have no vector of the text encoder "
            f"{encoder.model} ({encoder.id}, {encoder.precision}) in the warehouse {settings.warehouse}; "
            "run `recsys represent` first."
        )


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


def _held(root: str, encoder: str, wanted: pl.DataFrame, version: int | None, *columns: str) -> pl.DataFrame:
    """Return the wanted sentences that the table holds for this encoder, a row each, by hash."""
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
