"""Processes that train a sequence model together make the updates of one process."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recsys.errors import RecsysError
from recsys.features.multiplexed import hash_values
from recsys.models.sequential import loop
from recsys.models.sequential.batches import batches
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import train
from recsys.models.sequential.losses import task_loss
from recsys.models.sequential.objectives import make_task
from recsys.settings import ModelSettings, TrainSettings
from recsys.training.checkpoint import Checkpoints
from recsys.training.distributed import Part, average_rows, check_alike

ITEMS, USERS, TOGETHER = 60, 45, 2
MODEL = ModelSettings(dimensions=16, blocks=1, max_length=8, dropout=0.2, id_dropout=0.3)


@dataclass(frozen=True)
class Case:
    """Settings that differ between trainings; `by_row` makes the table learn as that of a large catalogue does."""

    name: str
    train: dict[str, Any]
    by_row: bool = False


CASES = (
    Case("full", {"loss": "full"}),
    Case("sampled", {"loss": "sampled", "negatives": 12, "last_weight": 3.0}),
    Case("by row", {"loss": "sampled", "negatives": 12}, by_row=True),
    Case("binary", {"loss": "gbce", "negatives": 5}),
)


def histories() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, 9, USERS)  # with a batch of 11, the last one has a single history
    return rng.integers(1, ITEMS + 1, lengths.sum()).astype(np.int32), np.concatenate([[0], np.cumsum(lengths)])


def new_model(case: Case) -> Bert4Rec:
    """Dropout of every kind, ids and text."""
    rng = np.random.default_rng(1)
    features = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))),
        trained=torch.ones(ITEMS + 1, dtype=torch.bool),
        text=torch.from_numpy(rng.normal(size=(ITEMS + 1, 6)).astype(np.float32)),
    )
    torch.manual_seed(0)
    model = Bert4Rec(features, MODEL, table_rows=100)
    if case.by_row:
        model.tower.learn_by_row()
    return model


def settings_of(case: Case) -> TrainSettings:
    return TrainSettings(epochs=2, batch_size=11, precision="fp32", learning_rate=0.01, **case.train)


def trained(case: Case, folder: Path) -> tuple[dict[str, torch.Tensor], list[dict[str, Any]]]:
    """Weights and history of a training of two epochs, one of each objective."""
    model = new_model(case)
    loop.learns_by_row = lambda settings, items: case.by_row
    measured: list[int] = []

    def validate(model: Bert4Rec) -> dict[str, float]:
        measured.append(len(measured))
        return {"score": 1.0}

    done = train(
        model,
        *histories(),
        settings_of(case),
        seed=3,
        max_length=MODEL.max_length,
        validate=validate,
        primary="score",
        checkpoints=Checkpoints(folder, seconds=0, share=1e9),
    )
    history = [{key: of for key, of in entry.items() if "second" not in key} for entry in done.history]
    assert len(measured) == (1 if not dist.is_initialized() or dist.get_rank() == 0 else 0)
    return dict(model.state_dict()), history


def one_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=TOGETHER)
    found = [[trained(case, Path(folder) / f"{case.name} {time}") for time in range(2)] for case in CASES]
    torch.save(found, f"{folder}/{rank}.pt")
    # rows that only one has read, and one that both have; then a process that has read none
    rows, values = average_rows(torch.tensor([[1, 4], [2, 4]][rank]), torch.full((2, 3), 2.0 * (1 + rank)))
    assert rows.tolist() == [1, 2, 4] and values.tolist() == [[1.0] * 3, [2.0] * 3, [3.0] * 3]
    rows, values = average_rows(torch.arange(rank), torch.full((rank, 3), 4.0))
    assert rows.tolist() == [0] and values.tolist() == [[2.0] * 3]
    check_alike({"weight": torch.ones(2)}, (1, 2, 3))
    for weight, step in ((rank, 3), (1, 3 + rank)):
        with pytest.raises(RecsysError, match=r"number 1 \(from 0\) does not begin with the weights and features"):
            check_alike({"weight": torch.full((), float(weight))}, (1, 2, step))
    dist.destroy_process_group()


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_parts_of_a_batch_add_up_to_it(case: Case, count: int) -> None:
    model, settings = new_model(case), settings_of(case)
    items, offsets = histories()
    (batch, *_) = batches(items, offsets[:-1], offsets[1:], 11, np.random.default_rng(0))
    shares = np.bincount(items, minlength=ITEMS + 1) / len(items)

    def learnt(part: Part | None) -> tuple[float, list[torch.Tensor]]:
        rng = np.random.default_rng(5)
        torch.manual_seed(6)
        task = make_task(batch, rng, settings, "cloze")
        loss = task_loss(model, task, settings, rng, None, shares, part)
        loss.backward()
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad.to_dense() for p in model.parameters()]
        model.zero_grad(set_to_none=True)
        return loss.item(), gradients

    whole, expected = learnt(None)
    parts = [learnt(Part(rank, count)) for rank in range(count)]
    assert sum(loss for loss, _ in parts) == pytest.approx(whole, rel=1e-5)
    for value, *summands in zip(expected, *(gradients for _, gradients in parts), strict=True):
        torch.testing.assert_close(torch.stack(summands).sum(0), value, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_two_processes_make_the_updates_of_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mp.start_processes(one_process, args=(str(tmp_path),), nprocs=TOGETHER, start_method="spawn")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(TOGETHER))
    monkeypatch.setattr(loop, "learns_by_row", loop.learns_by_row)  # set back afterwards
    for case, ((weights, history), (again, _)), ((others, _), _) in zip(CASES, first, second, strict=True):
        expected, alone = trained(case, tmp_path / f"{case.name} alone")
        for name, value in expected.items():
            torch.testing.assert_close(weights[name], value, rtol=2e-3, atol=2e-5)
            assert torch.equal(weights[name], again[name]) and torch.equal(weights[name], others[name])
        for entry, of in zip(history, alone, strict=True):
            assert entry.pop("objective") == of.pop("objective")
            assert entry == pytest.approx(of, rel=1e-5), case.name
        saved = Checkpoints(tmp_path / f"{case.name} 0", seconds=0).load()
        assert saved is not None and saved["place"]["epoch"] == 2
