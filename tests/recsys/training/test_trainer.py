"""The loop itself, on a task so small that each step can be followed: one weight that is pulled to a number."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from recsys.training import task as task_module
from recsys.training.checkpoint import Checkpoints
from recsys.training.learner import Learner
from recsys.training.task import Loss, Place, Task
from recsys.training.trainer import Stage, run


class Pull(Task[int]):
    """Batches `0 .. size - 1`, each of which pulls the weight to a number that is drawn; with dropout."""

    primary = "score"

    def __init__(self, size: int = 3, scores: Callable[[Pull, Place], float | None] | None = None) -> None:
        self.model = torch.nn.Linear(4, 1)
        torch.nn.init.ones_(self.model.weight)
        torch.nn.init.zeros_(self.model.bias)
        self.size, self.seed, self.scores = size, 7, scores
        self.seen: list[tuple[int, int, int]] = []  # stage, epoch, batch
        self.mark = torch.zeros(1)  # what goes with the weights: the epoch that set it
        self.broken: tuple[int, int] | None = None  # epoch and batch whose loss is no number

    @property
    def weight(self) -> list[float]:
        return self.model.weight.detach().flatten().tolist()

    def batches(self, at: Place) -> Iterator[int]:
        self.at = at
        self.mark = torch.tensor([float(at.epoch)])
        order = np.random.default_rng((self.seed, at.epoch, 0)).permutation(self.size)
        return iter(order.tolist())

    def loss(self, batch: int, rng: np.random.Generator) -> Loss:
        self.seen.append((self.at.stage, self.at.epoch, batch))
        target, inputs = float(rng.random()), torch.nn.functional.dropout(torch.ones(2, 4), 0.5)
        loss = (self.model(inputs) - target - batch).square().mean()
        if self.broken == (self.at.epoch, batch):
            loss = loss * math.nan
        return Loss.of(loss, count=2, tokens=8)

    def metrics(self, at: Place) -> dict[str, float] | None:
        self.model.eval()
        value = math.sin(100 * sum(self.weight)) if self.scores is None else self.scores(self, at)
        return None if value is None else {"score": value}

    def state(self) -> dict[str, Tensor]:
        return {"mark": self.mark}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.mark = state["mark"]


def stage(task: Pull, epochs: int = 4, accumulate: int = 1, **options: Any) -> Stage:
    learner = partial(
        Learner,
        task.model,
        steps=epochs * -(-task.size // accumulate),
        learning_rate=0.1,
        weight_decay=0.1,
        warmup_share=0.1,
        clip_norm=1.0,
        accumulate=accumulate,
        average_decay=options.pop("average_decay", 0.0),
    )
    return Stage(epochs=epochs, learner=learner, **options)


def scripted(*values: float | None) -> Callable[[Pull, Place], float | None]:
    left = iter(values)
    return lambda task, at: next(left)


def timeless(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{k: v for k, v in entry.items() if k not in ("seconds", "tokens_per_second")} for entry in history]


def test_the_example_of_the_documentation_runs() -> None:
    result = doctest.testmod(task_module)
    assert result.attempted and not result.failed


def test_patience_counts_validations_and_the_best_weights_win_with_what_belongs_to_them() -> None:
    weights = []
    values = iter([0.1, 0.5, 0.4, 0.3, 0.9])

    def score(task: Pull, at: Place) -> float:
        weights.append(task.weight)
        return next(values)

    task = Pull(scores=score)
    done = run(task, [stage(task, epochs=10, patience=2)])
    assert (done.best_epoch, done.epoch, done.best_value) == (2, 4, 0.5)
    assert task.weight == weights[1] and task.mark == 2
    assert [entry["score"] for entry in done.history] == [0.1, 0.5, 0.4, 0.3]


def test_validation_comes_every_so_often_and_after_the_last_epoch() -> None:
    task = Pull(scores=scripted(*[0.0] * 9))
    done = run(task, [stage(task, epochs=5, evaluate_every=3)])
    assert [entry["epoch"] for entry in done.history if "score" in entry] == [3, 5]


def test_an_epoch_that_cannot_be_measured_costs_no_patience() -> None:
    task = Pull(scores=scripted(None, None, None, 0.2, 0.1))
    done = run(task, [stage(task, epochs=9, patience=1)])
    assert (done.epoch, done.best_epoch) == (5, 4)


def test_without_a_measure_the_last_weights_stay() -> None:
    last = []
    task = Pull(scores=lambda task, at: last.append(task.weight))  # type: ignore[func-returns-value]
    done = run(task, [stage(task, epochs=3, patience=1)])
    assert (done.epoch, done.best_epoch) == (3, 3)
    assert task.weight == last[-1] and task.mark == 3


def test_the_mean_of_an_epoch_weighs_batches_by_their_counts() -> None:
    class Counted(Pull):
        def loss(self, batch: int, rng: np.random.Generator) -> Loss:
            value = 0 * self.model.weight.sum() + (10.0, 1.0, 4.0)[batch]
            told = {"loss": value, "twice": 2 * value}
            return Loss(learnt=[value], told=told, count=(1, 3, 2)[batch], tokens=5)

    task = Counted(scores=scripted(None))
    (entry,) = run(task, [stage(task, epochs=1)]).history
    assert entry["loss"] == pytest.approx(21 / 6) and entry["twice"] == pytest.approx(42 / 6)
    assert entry["tokens_per_second"] == pytest.approx(15 / entry["seconds"])


def test_batches_left_over_at_the_end_of_an_epoch_make_a_step() -> None:
    task = Pull(size=5)
    made = []
    whole = stage(task, epochs=2, accumulate=2)

    def learner() -> Learner:
        made.append(whole.learner())
        return made[0]

    run(task, [Stage(epochs=2, learner=learner)])
    assert made[0].schedule.last_epoch == 6  # two of two batches and one of one, twice
    assert made[0].pending == 0 and made[0].learning_rate == 0


def test_what_is_done_before_the_first_step_is_validated_and_may_be_the_best() -> None:
    class Early(Pull):
        def beginning(self) -> Iterator[dict[str, Any]]:
            yield {"epoch": 0, "note": "as it came"}
            torch.nn.init.constant_(self.model.weight, 5.0)
            yield {"epoch": 1, "note": "set"}

    task = Early(scores=scripted(0.3, 0.8, 0.7, 0.2))
    told: list[dict[str, Any]] = []
    done = run(task, [stage(task, epochs=2)], on_entry=told.append)
    assert [entry["epoch"] for entry in told] == [0, 1, 2, 3] and told == done.history
    assert told[0] == {"epoch": 0, "note": "as it came", "score": 0.3}
    assert done.best_epoch == 1 and task.weight == [5.0] * 4


def test_a_stage_begins_with_the_best_weights_of_the_one_before_and_its_own_patience() -> None:
    weights: dict[int, list[float]] = {}
    begun = []

    class Watched(Pull):
        def batches(self, at: Place) -> Iterator[int]:
            if at.stage == 2 and at.stage_epoch == 1:
                begun.append((self.weight, float(self.mark)))
            return super().batches(at)

    values = iter([0.5, 0.4, 0.3, 0.2, 0.1, 0.05])

    def score(task: Pull, at: Place) -> float:
        weights[at.epoch] = task.weight
        return next(values)

    task = Watched(scores=score)
    done = run(task, [stage(task, epochs=9, patience=2), stage(task, epochs=9, patience=3)])
    assert [(s, e) for s, e, _ in task.seen[::3]] == [(1, 1), (1, 2), (1, 3), (2, 4), (2, 5), (2, 6)]
    assert begun == [(weights[1], 1.0)]
    assert done.best_epoch == 1 and task.weight == weights[1]


def test_the_average_is_validated_and_training_goes_on_from_the_weights_themselves() -> None:
    seen = []

    def score(task: Pull, at: Place) -> float:
        seen.append(task.weight)
        return float(at.epoch)

    plain, averaged, measured = Pull(), Pull(scores=score), Pull(scores=lambda task, at: None)
    run(plain, [stage(plain, epochs=2)])
    run(averaged, [stage(averaged, epochs=2, average_decay=0.9)])
    run(measured, [stage(measured, epochs=2, average_decay=0.9)])
    assert averaged.weight == seen[-1] == measured.weight != plain.weight  # kept also where nobody measures
    assert averaged.seen == measured.seen == plain.seen


@pytest.mark.parametrize("epoch", [1, 3])
def test_a_loss_that_is_no_number_says_where_and_what_to_do(epoch: int) -> None:
    task = Pull(size=4)
    task.broken = (epoch, 2)
    with pytest.raises(
        FloatingPointError, match=rf"^the loss stopped .* in epoch {epoch}; lower train\.learning_rate = 0\.1 or set"
    ):
        run(task, [stage(task)])
    assert task.seen[-1] == (1, epoch, 2)  # at once where reading it costs nothing


def test_no_checkpoint_holds_a_loss_that_is_no_number(tmp_path: Path) -> None:
    task = Pull(size=4)
    task.broken = (1, int(np.random.default_rng((7, 1, 0)).permutation(4)[2]))
    with pytest.raises(FloatingPointError):
        run(task, [stage(task)], checkpoints=Checkpoints(tmp_path / "c", seconds=0, share=1e9))
    saved = Checkpoints(tmp_path / "c", seconds=0).load()
    assert saved is not None and saved["place"]["step"] == 2


def test_the_random_state_outside_is_left_alone() -> None:
    task = Pull()
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run(task, [stage(task, epochs=1)])
    assert torch.equal(torch.rand(3), expected)


class Killed(BaseException):
    """As a kill: nothing may catch it."""


class Fragile(Checkpoints):
    """Dies after so many checkpoints."""

    left = 0

    def save(self, state: Mapping[str, Any]) -> bool:
        super().save(state)
        self.left -= 1
        if not self.left:
            raise Killed
        return True


def trained(checkpoints: Checkpoints | None, size: int, accumulate: int, **options: Any) -> tuple[Pull, Place]:
    """Two stages with everything on that has a state."""
    task = Pull(size=size)
    stages = [
        stage(task, epochs=3, accumulate=accumulate, average_decay=0.8, patience=2),
        stage(task, epochs=2, accumulate=accumulate, evaluate_every=2),
    ]
    return task, run(task, stages, checkpoints=checkpoints, **options)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 4), accumulate=st.integers(1, 3), kills=st.lists(st.integers(1, 6), max_size=3))
def test_a_training_killed_anywhere_ends_as_one_that_was_not(
    tmp_path_factory: pytest.TempPathFactory, size: int, accumulate: int, kills: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("checkpoints")
    whole, expected = trained(None, size, accumulate)
    for kill in kills:
        fragile = Fragile(folder, seconds=0, share=1e9)
        fragile.left = kill
        try:
            trained(fragile, size, accumulate)
        except Killed:
            continue
        break
    told: list[dict[str, Any]] = []
    resumed: list[tuple[int, int]] = []
    checkpoints = Checkpoints(folder, seconds=1e9)
    saved = checkpoints.load()
    task, done = trained(
        checkpoints, size, accumulate, on_entry=told.append, on_resume=lambda *place: resumed.append(place)
    )
    assert resumed == ([] if saved is None else [(saved["place"]["epoch"], saved["place"]["step"])])
    assert task.weight == whole.weight and task.mark == whole.mark
    assert (done.epoch, done.best_epoch, done.best_value) == (expected.epoch, expected.best_epoch, expected.best_value)
    assert told == done.history and timeless(told) == timeless(expected.history)
    if saved is not None:  # only what was not done is done again
        steps = [entry for entry in whole.seen if entry[1] > saved["place"]["epoch"]]
        assert task.seen[len(task.seen) - len(steps) :] == steps
        assert len(task.seen) == len(steps) + size - saved["place"]["step"]


def test_only_the_first_process_writes_checkpoints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("recsys.training.trainer.processes", lambda: (1, 2))
    run(task := Pull(), [stage(task)], checkpoints=Checkpoints(tmp_path / "c", seconds=0, share=1e9))
    assert not (tmp_path / "c").exists()
