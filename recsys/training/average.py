"""The moving average of a model's weights.

torch's kernel does the averaging. Its `AveragedModel` around it does not serve here: it asks a tensor how many steps
were averaged, for which an accelerator is waited for at every step, and it copies a model's buffers, a catalogue's text
vectors among them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Average:
    """Moving average of weights; with decay 0 the weights themselves.

    At first it reaches back about a tenth of the steps, so that a short training does not end near the weights that it
    began with.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], decay: float) -> None:
        self.parameters, self.decay = parameters, decay
        self.shadow: list[Any] = [p.detach().clone() for p in parameters] if decay else []

    def keep(self, step: int) -> float:
        """Share of the average that stays when the weights after a step, counted from 1, are taken in."""
        return min(self.decay, step / (step + 9))

    def update(self, step: int) -> None:
        """Take in the weights after a step, counted from 1."""
        if self.shadow:
            get_ema_multi_avg_fn(self.keep(step))(self.shadow, list(self.parameters), step)

    @torch.no_grad()
    def take(self) -> None:
        """Give the model the averaged weights for good."""
        for parameter, value in zip(self.parameters, self.shadow, strict=False):
            parameter.copy_(value)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the model the averaged weights for the length of a `with` block."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def _exchange(self) -> None:
        for parameter, value in zip(self.parameters, self.shadow, strict=False):
            kept = parameter.data.clone()
            parameter.data.copy_(value)
            value.copy_(kept)
