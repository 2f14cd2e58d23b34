"""One step of the optimizer changes the weights as its parts say."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from recsys.training.average import Average
from recsys.training.learner import Learner, cosine_to_a_tenth


def learner(model: torch.nn.Module, **changes: Any) -> Learner:
    plain = {"steps": 10, "learning_rate": 0.1, "weight_decay": 0.0, "warmup_share": 0.0, "clip_norm": 1.0}
    return Learner(model, **(plain | changes))


def momentum(of: Learner) -> torch.Tensor:
    """The mean of gradients that AdamW keeps; after the first step a tenth of what it was given."""
    return torch.cat([of.optimizer.state[parameter]["exp_avg"].flatten() for parameter in of.parameters])


def rates(of: Learner, steps: int) -> list[float]:
    """The optimizer's rate in each of its steps."""
    found = []
    for _ in range(steps):
        found.append(of.optimizer.param_groups[0]["lr"])
        assert found[-1] == of.learning_rate
        of.add([of.model(torch.ones(1, 1)).sum()])
    return found


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_no_gradient_is_longer_than_the_clip(size: float) -> None:
    """One outlier of a batch must not throw the weights away; a short gradient stays as it is."""
    model = torch.nn.Linear(4, 3)
    steps = learner(model, clip_norm=0.5)
    steps.add([size * 1e-3 * model(torch.ones(1, 4)).sum()])
    wanted = size * 1e-3 * 15**0.5  # twelve weights and three biases
    assert float(10 * momentum(steps).norm()) == pytest.approx(min(wanted, 0.5), rel=1e-4)


def test_the_rate_rises_and_falls_to_nothing() -> None:
    steps = learner(torch.nn.Linear(1, 1), steps=20, warmup_share=0.25)
    found = rates(steps, 20)
    assert np.allclose(found[:5], 0.1 * np.arange(1, 6) / 5)
    assert np.allclose(found[5:], 0.1 * np.arange(15, 0, -1) / 15)
    assert steps.learning_rate == 0


def test_the_rate_rises_and_falls_to_a_tenth() -> None:
    steps = learner(torch.nn.Linear(1, 1), steps=100, warmup_share=0.1, schedule=cosine_to_a_tenth)
    found = rates(steps, 100)
    assert np.allclose(found[:10], 0.1 * np.arange(1, 11) / 10)
    assert max(found) == found[9] and (np.diff(found[10:]) < 0).all()
    assert found[55] == pytest.approx(0.1 * (0.1 + 0.9 / 2), rel=0.01)  # half of the way down
    assert steps.learning_rate == pytest.approx(0.01, rel=1e-3)


def test_batches_that_come_together_are_averaged_and_then_forgotten() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    steps = learner(model, accumulate=2, clip_norm=100.0)
    losses = [model(torch.tensor([row])).sum() for row in ([1.0, 0.0], [0.0, 3.0])]
    assert [steps.add([loss]) for loss in losses] == [False, True]
    torch.testing.assert_close(momentum(steps), 0.1 * torch.tensor([0.5, 1.5]))
    assert model.weight.grad is None
    before = model.weight.detach().clone()
    steps.step()  # nothing has come since
    assert torch.equal(model.weight.detach(), before)


def test_losses_of_one_batch_add_up() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    steps = learner(model, clip_norm=100.0)
    assert steps.add([model(torch.tensor([row])).sum() for row in ([1.0, 0.0], [0.0, 3.0])])
    torch.testing.assert_close(momentum(steps), 0.1 * torch.tensor([1.0, 3.0]))


def test_matrices_alone_decay() -> None:
    """With a loss that moves nothing, the decay is all that does."""
    model = torch.nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learner(model, weight_decay=0.5).add([0.0 * model(torch.ones(1, 3)).sum()])
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(model.bias.detach(), before[1])


def test_frozen_parameters_stay() -> None:
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    before = model.bias.detach().clone()
    steps = learner(model, weight_decay=0.5, average_decay=0.9)
    steps.add([model(torch.ones(1, 3)).sum()])
    with steps.average.applied():
        assert torch.equal(model.bias.detach(), before)
    assert torch.equal(model.bias.detach(), before)


def test_the_average_reaches_back_a_tenth_of_the_steps_at_first_and_no_further_than_its_decay() -> None:
    model = torch.nn.Linear(1, 1, bias=False)

    def lag(decay: float, steps: int) -> float:
        """Steps between the newest weights, which are the step's number, and the average."""
        torch.nn.init.zeros_(model.weight)
        average = Average(list(model.parameters()), decay)
        for step in range(1, steps + 1):
            torch.nn.init.constant_(model.weight, float(step))
            average.update(step)
        with average.applied():
            found = model.weight.detach().item()
        assert model.weight.detach().item() == steps
        return steps - found

    for steps in (50, 200, 800):
        assert steps / 20 < lag(0.9999, steps) < steps / 5
    assert lag(0.9, 800) == pytest.approx(9, rel=0.01)  # decay / (1 - decay)
    assert lag(0.0, 50) == 0  # none


def test_the_average_is_the_sum_worked_out_by_hand() -> None:
    weight = torch.nn.Parameter(torch.tensor([8.0]))
    average = Average([weight], 0.15)
    for step, value in ((1, 18.0), (2, 7.0), (3, 27.0)):
        weight.data.fill_(value)
        average.update(step)
    # decays: 1/10, then 0.15, for 2/11 is more
    first = 0.1 * 8 + 0.9 * 18
    expected = 0.15 * (0.15 * first + 0.85 * 7) + 0.85 * 27
    with average.applied():
        assert weight.item() == pytest.approx(expected, rel=1e-6)
    assert weight.item() == 27


def test_a_learner_that_was_saved_takes_the_same_next_step() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 2)
    first = learner(model, average_decay=0.9, warmup_share=0.5)

    def step(of: Learner) -> None:
        of.add([of.model(torch.tensor([[1.0, -2.0, 3.0]])).square().sum()])

    step(first)
    other = copy.deepcopy(model)
    torch.nn.init.zeros_(other.weight)
    second = learner(other, average_decay=0.9, warmup_share=0.5)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for one in (first, second):
        step(one)
    with first.average.applied(), second.average.applied():
        assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)
    assert torch.equal(model.weight, other.weight)
    assert first.learning_rate == second.learning_rate
