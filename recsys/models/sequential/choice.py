"""Choices that a configuration leaves to the program: the loss, by the size of the catalogue, and the precision.

bf16 halves what is moved and doubles the rate of products, but each product of a new shape first has its kernel made,
and where a step is many small products that costs more than it saves. Which is faster is timed on the training's own
model and batch, once for a machine and a shape: the warehouse remembers it, so that the same training repeats its
weights. A training too short for that goes by its width.
"""

from __future__ import annotations

import contextlib
import json
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from recsys.features.precision import amx, native_bf16
from recsys.settings import ModelSettings, TrainSettings
from recsys.storage.files import file_aside, write_json

LARGE: Final = 50_000  # items from which a softmax over all of them costs more than the rest of a step
NARROW: Final = 128  # width below which matrix units (AMX) gain less by products than their kernels cost
STEPS: Final = 500  # at least, of a training whose first steps are worth timing: twice two each and two to warm up
GAIN: Final = 0.97  # of fp32's time is what bf16 may take at most
MEMORY: Final = "precision.json"  # in the folder of a warehouse's run states


def chosen_loss(settings: TrainSettings, items: int) -> str:
    """The loss that a training over so many items has."""
    if settings.loss != "auto":
        return settings.loss
    return "sampled" if items >= LARGE else "full"


def learns_by_row(settings: TrainSettings, items: int) -> bool:
    """Return whether a step changes only those parameters of items that it reads: of a large catalogue, few."""
    return items >= LARGE and chosen_loss(settings, items) != "full"


def decided(settings: TrainSettings, items: int) -> TrainSettings:
    """The settings with the loss chosen."""
    return settings.model_copy(update={"loss": chosen_loss(settings, items)})


def precision_by_width(width: int) -> str:
    """The precision of a short training on this processor."""
    return "bf16" if native_bf16() and not (amx() and width < NARROW) else "fp32"


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A precision and the sentence that says why; None where the configuration asked for it."""

    precision: str
    reason: str | None = None


def choose_precision(
    settings: TrainSettings,
    model: ModelSettings,
    shape: Mapping[str, int],
    steps: int,
    folder: Path,
    seconds: Callable[[], Mapping[str, float]],
) -> Choice:
    """Choose the precision of a training on a processor.

    Parameters
    ----------
    shape
        What the time of a step depends on besides the model: windows of a batch, their length, items.
    steps
        That are planned.
    folder
        Where the answers of earlier trainings are kept.
    seconds
        Times a step in "bf16" and "fp32".
    """
    if settings.precision != "auto":
        return Choice(precision=settings.precision)
    if not native_bf16():
        return Choice(precision="fp32", reason="Training computes in fp32: this processor has no bf16 of its own.")
    if steps < STEPS:
        precision = precision_by_width(model.dimensions)
        why = f"{steps:,} steps are too few to time, and the model is {model.dimensions} wide"
        return Choice(precision=precision, reason=f"Training computes in {precision}: {why}.")
    key = json.dumps([*_machine(), settings.loss, *sorted(shape.items()), *_network(model)])
    known = _read(folder / MEMORY)
    if key not in known:
        found = seconds()
        faster = "bf16" if found["bf16"] <= GAIN * found["fp32"] else "fp32"
        known[key] = {"precision": faster, **{name: round(1000 * value, 1) for name, value in found.items()}}
        with contextlib.suppress(OSError):  # a disk that is full will be told of by what matters
            folder.mkdir(parents=True, exist_ok=True)
            with file_aside(folder / MEMORY) as aside:
                write_json(aside, known)
    of = known[key]
    why = f"a step takes {of['bf16']:g} ms in bf16 and {of['fp32']:g} ms in fp32, as timed once on this machine"
    return Choice(precision=of["precision"], reason=f"Training computes in {of['precision']}: {why}.")


def loss_reason(settings: TrainSettings, items: int) -> str | None:
    """Say that the catalogue's size chose a sample; None where the configuration did, or the full softmax stays."""
    if settings.loss != "auto" or items < LARGE:
        return None
    return (
        f'Training asks against a sample of the catalogue (train.loss = "sampled"), which has {items:,} items: from '
        f"{LARGE:,} on a softmax over all of them costs more than the rest."
    )


def _machine() -> tuple[Any, ...]:
    """Return what the time of a step depends on besides the training."""
    name = platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return name, amx(), torch.get_num_threads(), torch.__version__


def _network(model: ModelSettings) -> tuple[Any, ...]:
    return (
        model.dimensions,
        model.blocks,
        model.heads,
        model.feed_forward,
        model.feed_forward_multiple,
        model.gated,
        model.rotary,
        model.distance_bias,
        model.objective,
    )


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError):
        found = json.loads(path.read_text())
        if isinstance(found, dict):
            return {
                key: of
                for key, of in found.items()
                if isinstance(of, dict) and {"precision", "bf16", "fp32"} <= set(of) and of["precision"] in of
            }
    return {}
