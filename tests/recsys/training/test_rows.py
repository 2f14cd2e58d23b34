"""Rows that learn alone end where they would if each step touched all of them."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from recsys.features.rows import SparseRead
from recsys.training import rows as module
from recsys.training.learner import Learner, cosine_to_a_tenth
from recsys.training.rows import Factors, RowLearner

ROWS, WIDTH, STEPS = 7, 3, 12
GENERATOR = torch.Generator().manual_seed(0)
READ = [torch.randint(0, ROWS - 1, (3,), generator=GENERATOR) for _ in range(STEPS)]  # with repeats; the last row never
GRADIENTS = [torch.randn(3, WIDTH, generator=GENERATOR) for _ in range(STEPS)]
RATES = [0.1 / (1 + step) for step in range(STEPS)]
KEPT = [min(0.9, step / (step + 9)) for step in range(1, STEPS + 1)]


def give(weight: nn.Parameter, step: int) -> None:
    weight.grad = torch.sparse_coo_tensor(READ[step][None], GRADIENTS[step], weight.shape, check_invariants=False)


def start() -> nn.Parameter:
    return nn.Parameter(torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(1)))


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_rows_learn_as_if_every_step_touched_all(decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_AT_ONCE", 3)
    weight = start()
    learner = RowLearner(weight, rate=2.0, decayed=decay > 0, averaged=True)
    values, sums = start().detach().double(), torch.zeros(ROWS, dtype=torch.float64)
    average = values.clone()
    for step in range(STEPS):
        give(weight, step)
        learner.gradient()
        learner.step(RATES[step], decay, KEPT[step])
        gradient = torch.zeros(ROWS, WIDTH, dtype=torch.float64).index_add_(0, READ[step], GRADIENTS[step].double())
        values *= 1 - RATES[step] * decay
        sums += gradient.square().mean(1)
        values -= 2 * RATES[step] * gradient / (sums.sqrt()[:, None] + 1e-12)
        average = KEPT[step] * average + (1 - KEPT[step]) * values
    learner.settle()
    torch.testing.assert_close(weight.detach().double(), values, atol=1e-6, rtol=1e-5)
    if not decay:  # with it, a row's average counts what was made up for at once
        assert learner.shadow is not None
        torch.testing.assert_close(learner.shadow.double(), average, atol=1e-6, rtol=1e-5)
        learner.exchange()
        torch.testing.assert_close(weight.detach().double(), average, atol=1e-6, rtol=1e-5)


def test_a_step_leaves_what_it_does_not_read() -> None:
    weight, before = start(), start().detach()
    learner = RowLearner(weight, rate=1.0, decayed=True, averaged=True)
    for step in range(STEPS):
        give(weight, step)
        learner.gradient()
        learner.step(0.1, 0.5, 0.9)
    assert torch.equal(weight.detach()[-1], before[-1])  # to the bit: it has not been written
    learner.settle()
    assert torch.allclose(weight.detach()[-1], before[-1] * 0.95**STEPS)


def test_factors_of_many_steps_are_products() -> None:
    factors, given = Factors(), np.random.default_rng(0).uniform(0.5, 1, 3000)
    for factor in given:
        factors.append(factor)
    found = factors.between(torch.tensor([0, 2990, 3000]), 3000)[:, 0]
    assert found.tolist() == pytest.approx([given.prod(), given[2990:].prod(), 1.0], rel=1e-5)
    again = Factors()
    again.restore(factors.state())
    again.append(0.5)
    assert float(again.between(torch.tensor([3000]), 3001)) == pytest.approx(0.5)


class Numbers(nn.Module):
    """A table, biases and a dense map that is added to what is read."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.bias, self.shift = start(), nn.Parameter(torch.zeros(ROWS)), nn.Parameter(torch.ones(WIDTH))

    def forward(self, step: int) -> torch.Tensor:
        rows = READ[step]
        read: torch.Tensor = SparseRead.apply(self.table, rows) + SparseRead.apply(self.bias, rows)[:, None]
        return ((read + self.shift) * GRADIENTS[step]).sum()


def learner(model: Numbers, **changes: float) -> Learner:
    options = {"learning_rate": 0.1, "weight_decay": 0.1, "warmup_share": 0.0, "clip_norm": 1.0, "average_decay": 0.9}
    return Learner(
        model,
        steps=STEPS,
        schedule=cosine_to_a_tenth,
        by_row=[model.table, model.bias],
        **(options | changes),  # type: ignore[arg-type]
    )


def test_the_clip_counts_rows_and_the_rest_together() -> None:
    model = Numbers()
    steps = learner(model, clip_norm=1e-3)
    given: list[torch.Tensor] = []
    for of in steps.rows:
        step = of.step
        of.step = lambda *a, of=of, step=step: (given.append(of._gradient.clone()), step(*a))[1]  # type: ignore
    steps.add([model(0)])
    total = sum(float(gradient.square().sum()) for gradient in given)
    total += float((10 * steps.optimizer.state[model.shift]["exp_avg"]).square().sum())
    assert total**0.5 == pytest.approx(1e-3, rel=1e-3)


def test_a_learner_that_was_saved_goes_on_to_the_bit() -> None:
    whole, first, second = Numbers(), Numbers(), Numbers()
    straight, before = learner(whole), learner(first)
    for step in range(STEPS):
        straight.add([whole(step)])
    for step in range(5):
        before.add([first(step)])
    after = learner(second)
    after.load_state_dict(copy.deepcopy(before.state_dict()))
    for step in range(5, STEPS):
        after.add([second(step)])
    for a, b in zip(whole.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)
    with straight.averaged(), after.averaged():
        for a, b in zip(whole.parameters(), second.parameters(), strict=True):
            assert torch.equal(a, b)
    seen = whole.table.detach().clone()
    straight.take_average()
    assert not torch.equal(whole.table, seen)
