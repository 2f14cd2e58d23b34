"""The predicted peak is near the real one, and a training that would not fit says so before it begins."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.errors import InputError
from recsys.features.declaration import Feature
from recsys.machine import GIB
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.models.sequential.build import table_rows
from recsys.models.sequential.item_tower import Attribute, ItemFeatures
from recsys.models.sequential.loop import train
from recsys.models.sequential.memory import Sizes, check_memory, predict
from recsys.settings import ModelSettings, TrainSettings

WITHIN = 1.5  # factor between prediction and measurement, either way; where it was calibrated it is 1.25
SMALL = Sizes(items=3000, rows=6000, attributes=0, text=0, windows=10_000, length=200)

SHAPES: dict[str, dict[str, Any]] = {
    "wide batch": {"items": 3000, "batch": 256, "length": 200},
    "large catalogue": {"items": 300_000, "batch": 16, "length": 20},
    "large catalogue, full": {"items": 100_000, "batch": 16, "length": 20, "train": {"loss": "full"}},
    "binary": {"items": 300_000, "batch": 16, "length": 20, "train": {"loss": "gbce"}},
    "attributes and text": {"items": 100_000, "batch": 16, "length": 20, "values": 1000, "text": 256},
    "float32": {"items": 3000, "batch": 128, "length": 200, "train": {"precision": "fp32"}},
    "deep": {"items": 3000, "batch": 128, "length": 200, "model": {"blocks": 4, "distance_bias": True}},
    "next item": {"items": 3000, "batch": 256, "length": 200, "model": {"objective": "next-item"}},
    "many negatives": {"items": 3000, "batch": 256, "length": 100, "train": {"loss": "sampled", "negatives": 2000}},
    "averaged": {"items": 300_000, "batch": 16, "length": 20, "train": {"loss": "sampled", "average_decay": 0.9}},
    "many lengths": {"items": 3000, "batch": 64, "length": 200, "mixed": True, "model": {"dimensions": 128}},
    "many lengths, wide batch": {"items": 3000, "batch": 256, "length": 200, "mixed": True},
    "a million items": {"items": 1_000_000, "batch": 64, "length": 50},
}
QUICK = ("wide batch", "large catalogue", "attributes and text")


def resident(key: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most (VmHWM)."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(lines[key].split()[0])


def measure(
    items: int, batch: int, length: int, values: int = 0, text: int = 0, mixed: bool = False, **settings: dict[str, Any]
) -> tuple[int, int]:
    """Predicted and measured peak of three steps, or of many whose histories differ in length, and a validation."""
    torch.set_num_threads(1)
    model_settings = ModelSettings(**{"max_length": length, "dimensions": 64} | settings.get("model", {}))
    train_settings = TrainSettings(
        **{"epochs": 1, "batch_size": batch, "evaluate_every": 1, "average_decay": 0.0, "next_item_share": 0.0}
        | settings.get("train", {})
    )
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, length + 1, 120 * batch) if mixed else np.full(3 * batch, length)
    codes = rng.integers(1, items + 1, lengths.sum()).astype(np.int32)
    attributes = {}
    if values:
        hashes = rng.integers(0, 2**62, values)[rng.integers(0, values, items)]
        attributes["kind"] = Attribute(
            feature=Feature(name="kind", lookups=model_settings.attribute_lookups, kind="multi"),
            hashes=torch.from_numpy(hashes),
            offsets=torch.arange(-1, items + 1).clamp(min=0),
        )
    features = ItemFeatures(
        id_hashes=torch.from_numpy(rng.integers(0, 2**62, items + 1)),
        trained=torch.ones(items + 1, dtype=torch.bool),
        attributes=attributes,
        text=torch.randn(items + 1, text) if text else None,
    )
    before = resident("VmRSS")
    rows = table_rows(features, model_settings)
    model = Bert4Rec(features, model_settings, rows)
    train(
        model,
        codes,
        np.concatenate([[0], lengths.cumsum()]),
        train_settings,
        seed=0,
        max_length=length,
        validate=lambda model: {"norm": float(np.abs(model.item_vectors()[0]).sum())},
        primary="norm",
    )
    sizes = Sizes.of(features, rows, lengths)
    return predict(model_settings, train_settings, sizes).peak, resident("VmHWM") - before


@pytest.mark.integration
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux says what a process held at most")
@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in SHAPES]
)
def test_the_prediction_is_near_what_a_process_takes(name: str) -> None:
    # glibc's heap keeps up to twice what is in use where every step asks for the same sizes, by how the processor's
    # kernels ask between; where lengths are mixed, as in logs, that is in the prediction
    heap = {} if SHAPES[name].get("mixed") else {"MALLOC_TOP_PAD_": "0"}
    predicted = measured = 0
    for _ in range(2):  # from a process that waits long for its turn the kernel may take pages back: once more, then
        done = subprocess.run(
            [sys.executable, __file__, json.dumps(SHAPES[name])],
            env=os.environ | heap,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        predicted, measured = json.loads(done.stdout)
        if 1 / WITHIN < predicted / measured < WITHIN:
            break
    assert 1 / WITHIN < predicted / measured < WITHIN, f"{predicted / 2**20:.0f} against {measured / 2**20:.0f} MiB"


def peak(sizes: Sizes = SMALL, **changes: Any) -> int:
    model = {name: value for name, value in changes.items() if name in ModelSettings.model_fields}
    other = {name: value for name, value in changes.items() if name in TrainSettings.model_fields}
    return predict(ModelSettings(**model), TrainSettings(**other), sizes).peak


def test_what_makes_a_training_larger() -> None:
    for name, values in {
        "batch_size": (64, 128, 256),
        "max_length": (50, 100, 200),
        "dimensions": (64, 128, 256),
        "blocks": (1, 2, 4),
        "precision": ("bf16", "fp32"),
        "average_decay": (0.0, 0.9),
        "mask_probability": (0.2, 0.5),
        "next_item_share": (0.0, 0.5),  # every event asks, then
    }.items():
        peaks = [peak(**{"next_item_share": 0.0, name: value}) for value in values]
        assert sorted(set(peaks)) == peaks, name


def test_histories_of_many_lengths_take_more() -> None:
    assert peak(replace(SMALL, mixed=True)) > peak(SMALL)


def test_the_batch_and_the_catalogue_do_not_multiply() -> None:
    """Eight times the batch costs the same whether there are three thousand items or a million."""
    million = Sizes(items=10**6, rows=2 * 10**6, attributes=0, text=0, windows=10_000, length=200)
    added = [peak(sizes, batch_size=512) - peak(sizes, batch_size=64) for sizes in (SMALL, million)]
    assert abs(added[1] - added[0]) < 0.05 * added[0]


def test_a_short_log_takes_no_more_than_it_has() -> None:
    short = Sizes(items=3000, rows=6000, attributes=0, text=0, windows=5, length=7)
    assert peak(short, batch_size=4096) == peak(short, batch_size=5)
    assert peak(short, max_length=200) < peak(SMALL, max_length=200, batch_size=5)


def refused(sizes: Sizes, free: float, model: dict[str, Any], other: dict[str, Any]) -> str:
    with pytest.raises(InputError) as caught:
        check_memory(ModelSettings(**model), TrainSettings(**other), sizes, int(free * GIB))
    return str(caught.value)


def test_what_does_not_fit_says_what_to_change() -> None:
    told = refused(SMALL, 1, {"max_length": 200}, {"batch_size": 4096})
    assert "GiB of memory at its peak, and 1.0 GiB are free" in told
    assert "lower train.batch_size = 4096" in told and "model.max_length = 200" in told
    assert "sampled" not in told and "\n" not in told
    million = Sizes(items=10**6, rows=2 * 10**6, attributes=3, text=256, windows=10**6, length=20)
    told = refused(million, 2, {"dimensions": 64}, {"batch_size": 16, "loss": "full"})
    assert 'set train.loss = "sampled"' in told and "lower model.dimensions = 64" in told
    assert "batch_size" not in told
    told = refused(SMALL, 0.01, {"dimensions": 8, "max_length": 2, "heads": 1}, {"batch_size": 1})
    assert told.endswith("use a machine with more memory.")


def test_what_fits_or_cannot_be_known_passes() -> None:
    expected = check_memory(ModelSettings(), TrainSettings(), SMALL, 2 * GIB)
    assert expected == check_memory(ModelSettings(), TrainSettings(), SMALL, None)
    with pytest.raises(InputError):
        check_memory(ModelSettings(), TrainSettings(), SMALL, expected.peak - 1)
    check_memory(ModelSettings(), TrainSettings(), SMALL, expected.peak)


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))  # noqa: T201
