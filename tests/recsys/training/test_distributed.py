"""Processes that train together take the steps that one process takes with the batches of all."""

from __future__ import annotations

import itertools
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from recsys.training.checkpoint import Checkpoints
from recsys.training.distributed import processes
from recsys.training.learner import Learner
from recsys.training.task import Loss, Place, Task
from recsys.training.trainer import Stage, run

STEPS, TOGETHER = 6, 2


class Share(Task[int]):
    """A process's share of the batches; the second process measures otherwise than the first."""

    seed, primary = 0, "score"

    def __init__(self) -> None:
        self.rank, self.count = processes()
        self.model = torch.nn.ModuleDict({"even": torch.nn.Linear(3, 2), "odd": torch.nn.Linear(3, 2)})
        for parameter in self.model.parameters():
            torch.nn.init.constant_(parameter, 0.1)

    def batches(self, at: Place) -> range:
        return range(self.rank, STEPS * TOGETHER, self.count)

    def loss(self, batch: int, rng: np.random.Generator) -> Loss:
        part = self.model["odd" if batch % 2 else "even"]  # no batch uses all of the weights
        inputs = torch.randn(5, 3, generator=torch.Generator().manual_seed(batch))
        return Loss.of((part(inputs) - 1).square().mean())

    def metrics(self, at: Place) -> dict[str, float]:
        return {"score": [0.1, 0.3, 0.2][at.epoch - 1] if self.rank == 0 else [0.9, 0.1, 0.2][at.epoch - 1]}


def trained(folder: str) -> tuple[dict[str, torch.Tensor], Place]:
    task = Share()
    learner = partial(
        Learner,
        task.model,
        steps=3 * STEPS,
        learning_rate=0.1,
        weight_decay=0.0,
        warmup_share=0.0,
        clip_norm=0.3,
        accumulate=TOGETHER // task.count,
    )
    done = run(task, [Stage(3, learner)], checkpoints=Checkpoints(Path(folder) / "c", seconds=0, share=1e9))
    return task.model.state_dict(), done


def one_process(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=TOGETHER)
    weights, done = trained(folder)
    torch.save({"weights": weights, "best": done.best_epoch}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.mark.integration
def test_two_processes_learn_as_one_that_accumulates(tmp_path: Path) -> None:
    # no fork: autograd refuses to work in the fork of a process that has used its threads
    mp.start_processes(one_process, args=(str(tmp_path),), nprocs=TOGETHER, start_method="spawn")
    found = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(TOGETHER)]
    expected, done = trained(str(tmp_path / "alone"))
    assert [one["best"] for one in found] == [done.best_epoch] * TOGETHER == [2, 2]  # as the first process measured
    for one, name in itertools.product(found, expected):
        torch.testing.assert_close(one["weights"][name], expected[name], rtol=1e-5, atol=1e-6)
        assert torch.equal(one["weights"][name], found[0]["weights"][name])
    saved = Checkpoints(tmp_path / "c", seconds=0).load()
    assert saved is not None and saved["place"]["step"] == STEPS  # written by one of them alone
