"""One step of a Recformer's optimizer changes the weights as its parts say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from recsys.models.recformer.steps import Learner


def learner(model: torch.nn.Module, **changes: Any) -> Learner:
    plain = {"steps": 10, "learning_rate": 0.1, "weight_decay": 0.0, "warmup_share": 0.0, "clip_norm": 1.0}
    return Learner(model, **(plain | changes))


def momentum(of: Learner) -> torch.Tensor:
    """The mean of gradients that AdamW keeps; after the first step a tenth of what it was given."""
    return torch.cat([of.optimizer.state[parameter]["exp_avg"].flatten() for parameter in of.parameters])


@pytest.mark.parametrize("size", [1.0, 1e6])
def test_no_gradient_is_longer_than_the_clip(size: float) -> None:
    model = torch.nn.Linear(4, 3)
    steps = learner(model, clip_norm=0.5)
    steps.add(size * 1e-3 * model(torch.ones(1, 4)).sum())
    wanted = size * 1e-3 * 15**0.5  # twelve weights and three biases
    assert float(10 * momentum(steps).norm()) == pytest.approx(min(wanted, 0.5), rel=1e-4)


def test_the_rate_rises_and_falls_to_nothing() -> None:
    model = torch.nn.Linear(1, 1)
    steps = learner(model, steps=20, warmup_share=0.25)
    rates = []
    for _ in range(20):
        rates.append(steps.optimizer.param_groups[0]["lr"])
        steps.add(model(torch.ones(1, 1)).sum())
    assert np.allclose(rates[:5], 0.1 * np.arange(1, 6) / 5)
    assert np.allclose(rates[5:], 0.1 * np.arange(15, 0, -1) / 15)
    assert steps.learning_rate == 0


def test_batches_that_come_together_are_averaged_and_then_forgotten() -> None:
    model = torch.nn.Linear(2, 1, bias=False)
    steps = learner(model, accumulate=2, clip_norm=100.0)
    losses = [model(torch.tensor([row])).sum() for row in ([1.0, 0.0], [0.0, 3.0])]
    assert [steps.add(loss) for loss in losses] == [False, True]
    torch.testing.assert_close(momentum(steps), 0.1 * torch.tensor([0.5, 1.5]))
    assert model.weight.grad is None
    before = model.weight.detach().clone()
    steps.step()  # nothing has come since
    assert torch.equal(model.weight.detach(), before)


def test_matrices_alone_decay() -> None:
    model = torch.nn.Linear(3, 2)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    learner(model, weight_decay=0.5).add(0.0 * model(torch.ones(1, 3)).sum())
    torch.testing.assert_close(model.weight.detach(), before[0] * (1 - 0.1 * 0.5))
    torch.testing.assert_close(model.bias.detach(), before[1])


def test_frozen_parameters_stay() -> None:
    model = torch.nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    before = model.bias.detach().clone()
    learner(model, weight_decay=0.5).add(model(torch.ones(1, 3)).sum())
    assert torch.equal(model.bias.detach(), before)
