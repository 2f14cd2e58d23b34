"""Progress of steps: nobody on a worker, a progress bar at a terminal."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextvars import ContextVar
from typing import Any


class Watch:
    """Hears of progress and keeps it to itself; `console.Show` shows it.

    `entered` and `summary` tell the caller of a flow how far the flow's own body came, whatever Prefect did.
    """

    def __init__(self) -> None:
        self.entered = False
        self.summary: dict[str, Any] | None = None

    def enter(self) -> None:
        """The flow's own body has begun."""
        self.entered = True

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """A step begins and ends."""
        yield

    def advance(self, done: int, total: int | None, text: str = "") -> None:
        """The step has done so much of so much; None where nobody knows the total."""

    def figures(self, values: Mapping[str, Any]) -> None:
        """Figures of the step that is at work, such as its rows."""

    def say(self, text: str) -> None:
        """A sentence worth a line."""

    def warn(self, text: str) -> None:
        """A sentence that must be seen."""


WATCH: ContextVar[Watch | None] = ContextVar("watch", default=None)


def watch() -> Watch:
    """The watch of this context; a deaf one where nobody looks on."""
    return WATCH.get() or Watch()


@contextlib.contextmanager
def watching(display: Watch) -> Iterator[Watch]:
    """Let somebody look on while a block works; yields who."""
    token = WATCH.set(display)
    try:
        yield display
    finally:
        WATCH.reset(token)
