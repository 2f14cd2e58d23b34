"""Predict the peak memory of a night by step, before its steps begin.

The tables say how large the log and the catalogue are; what a step makes of them is counted, and the constants are
calibrated: `benchmarks/memory.py` prints announced beside measured. A process gives little of what it freed back, so
what a step leaves is carried to the next.

Shapes: N events, U users, V items, A attributes, D width, E width of text vectors.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import polars as pl

from recsys.candidates.base import LogSizes
from recsys.candidates.registry import SOURCES
from recsys.candidates.stage import BLOCK_FLOATS
from recsys.columns import INTERACTIONS, ITEM_ID, ITEMS, USER_ID
from recsys.data.prepare import filter_interactions
from recsys.errors import InputError
from recsys.models.sequential.batches import windows
from recsys.models.sequential.memory import GIB, Sizes, advice, free_on_processor, held_by_process, predict
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions, scan

MIB: Final = 2**20
TEXT_WIDTH: Final = 384  # of an encoder's vectors, which is not loaded for a prediction
TEXT_PROGRAM: Final = 420 * MIB  # transformers, and a small encoder twice: as the library and as we have it
TEXT_BATCH: Final = 100 * MIB
OF_EVENT: Final = 150  # bytes of an event: its row, its codes, and the copies of both that the parts are
OF_ITEM: Final = 300  # bytes of an item: its row of the catalogue, its id, its sentence
MEASURED: Final = 10_000  # validation users on whom the blend is measured
OF_CANDIDATE: Final = 250  # bytes of a candidate: features, context, scores, and their copies in the fit
SHARE_OTHERS: Final = 4 / 7  # of the sources: their candidates are mostly others
BLOCKS: Final = 12  # [b, V] float32 alive while a block of users is scored by the blend
VECTORS: Final = 3  # copies of the item vectors: the model's, the bundle's and the index's
SHARE_KEPT: Final = 0.2  # of what a training took that the process keeps


@dataclass(frozen=True, kw_only=True)
class NightSizes:
    """Sizes that decide a night's memory besides the settings.

    Attributes
    ----------
    lengths
        int64 [U], events of each history.
    items
        V, the catalogue's items that nobody touched included.
    touched
        Items with events.
    values
        Distinct values of all categorical attributes of items together; 0 without.
    attributes
        A.
    text
        E; 0 without text.
    """

    lengths: np.ndarray
    items: int
    touched: int
    values: int = 0
    attributes: int = 0
    text: int = 0

    @classmethod
    def of(cls, settings: Settings, versions: TableVersions) -> NightSizes:
        """Sizes of the tables at these versions; reads their columns once, and holds a number a user."""
        log = filter_interactions(scan(settings.warehouse, INTERACTIONS, versions.interactions), settings.filter)
        lengths = log.group_by(USER_ID).len().select("len").collect(engine="streaming").to_series()
        ids = log.select(ITEM_ID).unique()
        touched = int(ids.select(pl.len()).collect(engine="streaming").item())
        items, values, declared = touched, 0, settings.items
        if declared is not None and versions.items is not None:
            catalogue = scan(settings.warehouse, ITEMS, versions.items)
            everyone = scan(settings.warehouse, INTERACTIONS, versions.interactions).select(ITEM_ID).unique()
            items += int(
                catalogue.join(everyone, on=ITEM_ID, how="anti").select(pl.len()).collect(engine="streaming").item()
            )
            schema = catalogue.collect_schema()
            for name in declared.categorical:
                if name in schema:
                    column = pl.col(name).explode() if isinstance(schema[name], pl.List) else pl.col(name)
                    values += int(catalogue.select(column.n_unique()).collect(engine="streaming").item())
        return cls(
            lengths=lengths.to_numpy().astype(np.int64),
            items=items,
            touched=touched,
            values=values,
            attributes=0 if declared is None else len(declared.categorical) + len(declared.numeric),
            text=TEXT_WIDTH if declared is not None and declared.text and versions.items is not None else 0,
        )


@dataclass(frozen=True, kw_only=True)
class NightMemory:
    """Bytes that the process holds at the peak of each step; 0: the step does not take place."""

    represent: int
    train: int
    blend: int
    evaluate: int
    retrieve: int

    @property
    def peak(self) -> tuple[str, int]:
        """The step that takes most, and its bytes."""
        steps = {field.name: int(getattr(self, field.name)) for field in fields(self)}
        step = max(steps, key=lambda name: steps[name])
        return step, steps[step]

    def __str__(self) -> str:
        step, peak = self.peak
        return f"The night takes about {peak / GIB:.1f} GiB of memory at its peak ({step})."


def training_sizes(settings: Settings, sizes: NightSizes) -> Sizes:
    """Return the sizes that decide the training's memory."""
    starts, ends = windows(
        np.concatenate([[0], np.cumsum(np.maximum(sizes.lengths - 2, 0))]), settings.model.max_length
    )
    model, wanted = settings.model, settings.model.attributes
    rows = (sizes.items + 1) * model.id_lookups * model.ids + sizes.values * model.attribute_lookups * wanted
    return Sizes(
        items=sizes.items,
        rows=model.table_rows or max(rows, 16),
        attributes=sizes.attributes * wanted,
        text=_text_width(settings, sizes) if model.text else 0,
        windows=len(starts),
        length=int((ends - starts).max(initial=0)),
        mixed=len(np.unique(ends - starts)) > 1,
    )


def predict_night(settings: Settings, sizes: NightSizes, held: int) -> NightMemory:
    """The peak of each step in bytes, of a process that holds `held` now."""
    events, model = int(sizes.lengths.sum()), settings.model
    data = OF_EVENT * events + OF_ITEM * sizes.items
    text = 4 * sizes.items * (sizes.text + _text_width(settings, sizes)) if sizes.text else 0
    reads_text = sizes.text and (model.text or settings.blend.text)
    represent = held + (TEXT_PROGRAM + TEXT_BATCH + OF_ITEM * sizes.items if sizes.text else 0)
    held = represent - TEXT_BATCH if sizes.text else held
    begun = held + data + (text if reads_text else 0)
    train = 0
    if model.kind == "bert4rec":
        training = predict(model, settings.train, training_sizes(settings, sizes))
        train = begun + training.peak
        begun += training.program + round(SHARE_KEPT * (training.peak - training.program))
    width = _text_width(settings, sizes) if model.kind == "text" else model.dimensions + 1
    vectors = VECTORS * 4 * sizes.items * width
    tables, blend = 0, 0
    block = BLOCKS * 4 * max(BLOCK_FLOATS, sizes.items)
    if settings.blend.kind != "never":
        log = LogSizes(lengths=sizes.lengths, items=sizes.items, touched=sizes.touched)
        kept, fitting = zip(*(source.memory(log) for source in SOURCES.values()), strict=True)
        tables = sum(kept)
        users = min(MEASURED, len(sizes.lengths))
        others = round(SHARE_OTHERS * len(SOURCES) * settings.blend.candidates)
        candidates = OF_CANDIDATE * users * min(others, sizes.items)
        blend = begun + tables + vectors + max(*fitting, candidates + block)
    else:
        block = 2 * 4 * max(BLOCK_FLOATS, sizes.items)
    served = begun + tables + vectors + block
    return NightMemory(represent=represent, train=train, blend=blend, evaluate=served, retrieve=served)


def check_night(settings: Settings, versions: TableVersions) -> NightMemory:
    """The prediction, if it fits.

    Raises
    ------
    InputError
        It is more than there is; says which settings to change.
    """
    sizes, held, free = NightSizes.of(settings, versions), held_by_process(), free_on_processor()
    memory = predict_night(settings, sizes, held)
    step, peak = memory.peak
    if free is not None and peak - held > free:
        changed = advice(settings.model, settings.train, training_sizes(settings, sizes)) if step == "train" else ()
        if step == "blend":
            changed = ('set blend.kind = "never"',)
        raise InputError(
            f"This night would take about {peak / GIB:.1f} GiB of memory at its peak ({step}), and the process can "
            f"have {(held + free) / GIB:.1f} GiB; {' or '.join(changed) or 'use a machine with more memory'}."
        )
    return memory


def _text_width(settings: Settings, sizes: NightSizes) -> int:
    """Width of the text vectors that the model reads."""
    wanted = settings.text.truncate or sizes.text
    return wanted if settings.text.dimensions is None or settings.text.aligned else settings.text.dimensions
