"""Predict the peak memory of a training before it begins.

What a tensor takes is counted; how many tensors of a kind are alive at the worst moment of a step is calibrated
(tests/recsys/models/sequential/test_memory.py compares with processes that train). Neither loss holds the scores of a
whole batch, so no term is labels x catalogue.

Shapes: P weights, V items, D width, H heads, B windows of L events in a batch, Q questions asked of each.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
import torch

from recsys.errors import InputError
from recsys.features.device import best_device, is_accelerator
from recsys.features.precision import activation_dtype
from recsys.machine import GIB
from recsys.models.sequential.bert4rec import ITEMS_AT_ONCE, SequenceEncoder
from recsys.models.sequential.choice import decided, learns_by_row
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.losses import OWN_NEGATIVES, ROWS_AT_LEAST, SHARED_NEGATIVES, scores_at_once
from recsys.models.sequential.side import SideFeatures
from recsys.settings import ModelSettings, TrainSettings

PROGRAM: Final = 110 * 2**20  # bytes: code that the first step loads

# tensors alive at the worst moment
OF_WEIGHTS: Final = 5  # themselves, gradients, two moments, the best so far
OF_ROWS: Final = 2  # where rows learn alone: themselves and the best so far
OF_ROW: Final = 2  # numbers a row: its running sum, and the step that it is as of
OF_VECTORS: Final = 1.5  # [V, D] of a validation: the items' vectors, and again in bf16
OF_ITEM_TABLE: Final = 2  # [V, D] for one channel of the item tower
OF_CHANNEL: Final = 5  # [V, D] for each further channel
OF_TOKEN: Final = 16  # [B, L, D]: embedding and the last block's keys and values
OF_BLOCK: Final = 28  # [B, L, D] for each block but the last; a gated one keeps 6 more
OF_QUESTION: Final = 30  # [B, Q, D]: the last block
OF_GATE: Final = 6
OF_SIDE: Final = 4  # [B, L, look-ups x width of the table]: rows, twice over, and their gradient
OF_ATTENTION: Final = 2  # [B, H, L, L] besides the one that each block keeps
OF_SCORES: Final = 3  # of a chunk of the full softmax
OF_HOLES: Final = 3.0  # activations of batches of many lengths: a block rarely fits where another one was


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """Sizes that the memory depends on besides the settings.

    Attributes
    ----------
    items
        V.
    rows
        Of the multiplexed table.
    attributes
        Of items.
    text
        Width of the text vectors; 0 without text.
    windows, length
        Training windows, and the events of the longest.
    mixed
        Windows differ in length.
    lookups
        Of all attributes of items together; None: as many of each as `model.attribute_lookups`.
    side_lookups
        Of the user's attributes and of an event's context together.
    """

    items: int
    rows: int
    attributes: int
    text: int
    windows: int
    length: int
    mixed: bool = False
    lookups: int | None = None
    side_lookups: int = 0

    @classmethod
    def of(cls, features: ItemFeatures, rows: int, lengths: np.ndarray, side: SideFeatures | None = None) -> Sizes:
        """Sizes of a catalogue, of training windows by their lengths [W] and of what is known besides."""
        return cls(
            items=features.size - 1,
            rows=rows,
            attributes=len(features.attributes),
            text=0 if features.text is None else features.text.shape[1],
            windows=len(lengths),
            length=int(lengths.max(initial=0)),
            mixed=len(np.unique(lengths)) > 1,
            lookups=sum(attribute.feature.lookups for attribute in features.attributes.values()),
            side_lookups=0 if side is None else side.lookups,
        )


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes that a training adds to what the process holds already."""

    weights: int  # with gradients, optimizer and copies
    catalogue: int  # item vectors and what they are made of
    encoder: int  # activations of a batch
    holes: int  # of the heap between them
    scores: int  # of a chunk, or against the negatives
    program: int = PROGRAM

    @property
    def peak(self) -> int:
        """All together."""
        return sum(asdict(self).values())


def predict(model: ModelSettings, train: TrainSettings, sizes: Sizes) -> Memory:
    """The peak of a training in bytes by what takes them; calibrated on a CPU."""
    number = activation_dtype(train.precision, best_device()).itemsize  # bytes of an activation
    D, H, V = model.dimensions, model.heads, sizes.items
    L = min(sizes.length, model.max_length)
    B = min(train.batch_size, sizes.windows)
    asks_everywhere = model.objective == "next-item" or train.next_item_share > 0  # in the epochs that cost most
    Q = L if asks_everywhere else max(1, round(L * train.mask_probability))
    blocks = max(1, model.blocks)  # none is taken for one: too much rather than too little
    channels = int(model.ids) + sizes.attributes + bool(sizes.text)

    by_row = learns_by_row(train, V)
    train = decided(train, V)
    own, shared = train.negatives or OWN_NEGATIVES, train.negatives or SHARED_NEGATIVES
    drawn = {"full": V, "sampled": shared, "gbce": B * own}[train.loss]
    known = V if train.loss == "full" else min(V, B * (L + Q) + drawn)
    block = OF_BLOCK + OF_GATE * model.gated
    states = B * L * (OF_TOKEN + block * (blocks - 1)) + B * Q * (OF_QUESTION + OF_GATE * model.gated)
    square, wide = B * H * L * L, B * H * Q * L
    attention = square * (blocks - 1) + wide + OF_ATTENTION * (square if blocks > 1 else wide)
    if model.distance_bias:
        attention += square * blocks
    if train.loss == "gbce":
        scores = B * Q * own * (2 * number + 6) + 2 * B * own * D * number
    else:
        against = V if train.loss == "full" else min(V, B * Q + shared)
        scores = OF_SCORES * number * max(scores_at_once(best_device()), ROWS_AT_LEAST * against)
        scores = min(scores, OF_SCORES * number * B * Q * against)
    encoder = number * (D * states + attention)
    encoder += 4 * OF_SIDE * B * L * sizes.side_lookups * (D // model.id_lookups)
    of_item = OF_ITEM_TABLE + OF_CHANNEL * (channels - 1)
    # of a validation, which makes a small catalogue's vectors in one piece
    at_once = min(V, ITEMS_AT_ONCE) * (OF_ITEM_TABLE + OF_CHANNEL * (channels - 1) // 2 if by_row else of_item // 2)
    validated = round(OF_VECTORS * V) + at_once if V > ITEMS_AT_ONCE else V * (OF_ITEM_TABLE + of_item) // 2
    return Memory(
        weights=_weights(model, train, sizes, by_row=by_row),
        catalogue=4 * D * max(known * of_item, validated) + 8 * V * model.id_lookups * model.ids,
        encoder=encoder,
        holes=round(OF_HOLES * encoder) if sizes.mixed and not is_accelerator(best_device()) else 0,
        scores=scores,
    )


def _weights(model: ModelSettings, train: TrainSettings, sizes: Sizes, *, by_row: bool) -> int:
    """Bytes of weights and all that is kept of each, counted without making them."""
    with torch.device("meta"):
        encoder = sum(parameter.numel() for parameter in SequenceEncoder(model).parameters())
    width = model.dimensions // model.id_lookups
    rows = sizes.rows if model.ids or sizes.attributes or sizes.side_lookups else 0
    lookups = sizes.attributes * model.attribute_lookups if sizes.lookups is None else sizes.lookups
    maps = model.dimensions * ((lookups + sizes.side_lookups) * width + sizes.text)
    of_items = rows * width + sizes.items + 1
    averaged = bool(train.average_decay)
    if not by_row:
        return 4 * (OF_WEIGHTS + averaged) * (encoder + maps + of_items)
    kept = (OF_ROWS + averaged) * of_items + OF_ROW * (rows + sizes.items + 1)
    return 4 * ((OF_WEIGHTS + averaged) * (encoder + maps) + kept)


def check_memory(model: ModelSettings, train: TrainSettings, sizes: Sizes, free: int | None) -> Memory:
    """The prediction, if it fits.

    Parameters
    ----------
    free
        Bytes, from `recsys.machine.free_memory`; None: unknown, everything fits.

    Raises
    ------
    InputError
        It does not; says the peak, what is free and which settings to change.
    """
    memory = predict(model, train, sizes)
    if free is None or memory.peak <= free:
        return memory
    useful = advice(model, train, sizes)
    raise InputError(
        f"This training would take about {memory.peak / GIB:.1f} GiB of memory at its peak, and {free / GIB:.1f} GiB "
        f"are free; {' or '.join(useful) or 'use a machine with more memory'}."
    )


def advice(model: ModelSettings, train: TrainSettings, sizes: Sizes) -> tuple[str, ...]:
    """Return settings that save at least a tenth of a training's memory, the most useful first."""
    peak = predict(model, train, sizes).peak
    gains: dict[str, dict[str, dict[str, object]]] = {
        f"lower train.batch_size = {train.batch_size}": {"train": {"batch_size": max(1, train.batch_size // 2)}},
        f"lower model.max_length = {model.max_length}": {"model": {"max_length": max(2, model.max_length // 2)}},
        'set train.loss = "sampled"': {"train": {"loss": "sampled"}},
    }
    if model.dimensions % (4 * model.heads) == 0:
        gains[f"lower model.dimensions = {model.dimensions}"] = {"model": {"dimensions": model.dimensions // 2}}
    peaks = {
        name: predict(
            model.model_copy(update=change.get("model")), train.model_copy(update=change.get("train")), sizes
        ).peak
        for name, change in gains.items()
    }
    return tuple(sorted((name for name in peaks if peaks[name] < 0.9 * peak), key=lambda name: peaks[name]))
