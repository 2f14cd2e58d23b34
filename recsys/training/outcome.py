"""The outcome of a training, and the calls that follow it meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from recsys.data.consumed import Consumed
from recsys.training.task import Place

OnEpoch = Callable[[dict[str, float]], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Training:
    """Outcome of a training: how the best weights, which the model ends with, were reached, and by which events."""

    best_epoch: int
    epochs: int
    history: list[dict[str, Any]]  # one entry an epoch: epoch, loss, seconds, tokens_per_second, the validation's
    trained: Consumed  # the histories that it was given
    stages: Sequence[int] = ()  # epochs of each stage that the best weights went through
    validated: Consumed | None = None  # the questions that decided which epoch is best; None: nobody said
    chosen: Mapping[str, str] = field(default_factory=dict)  # by name, what the configuration left to the program

    @classmethod
    def of(cls, done: Place, trained: Consumed, chosen: Mapping[str, str] | None = None) -> Training:
        """State of a training at its end."""
        return cls(
            best_epoch=done.best_epoch,
            epochs=done.epoch,
            stages=tuple(done.best_stages),
            history=done.history,
            trained=trained,
            chosen=chosen or {},
        )
