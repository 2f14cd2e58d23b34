"""Shared by tests of killed trainings: checkpoints after every step, of which one is the last."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys.training.checkpoint import Checkpoints


class Killed(BaseException):
    """Raised as a signal is: no `except Exception` catches it."""


def fragile(last: int) -> type[Checkpoints]:
    """Checkpoints that are written whenever they are asked for, until the one of this number kills the training."""

    class Fragile(Checkpoints):
        saves = 0

        def __init__(self, folder: Path, *, seconds: float) -> None:
            super().__init__(folder, seconds=0, share=1e9)

        def save(self, state: Any) -> bool:
            super().save(state)
            self.saves += 1
            if self.saves == last:
                raise Killed
            return True

    return Fragile
