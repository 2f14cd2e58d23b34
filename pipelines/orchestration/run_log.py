"""A night's lines in Prefect: what the watch hears goes to the log of the flow run or of the task run, too."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Iterator
from typing import Final

from prefect.exceptions import MissingContextError
from prefect.logging import get_run_logger

from recsys.pipelines.watch import Watch, watch, watching
from recsys.storage.addresses import masked

TOLD: Final = "recsys_told"  # marks a record that somebody else shows at the terminal
_QUIET_SECONDS: Final = 60.0  # between two lines of one step's progress
_LOGGERS: Final = ("prefect.flow_runs", "prefect.task_runs")


class RunLog(Watch):
    """Passes on to another watch what it hears, and writes it into the run's log."""

    def __init__(self, other: Watch) -> None:
        super().__init__()
        self._other = other
        self._step, self._told = "", 0.0

    def enter(self) -> None:
        self._other.enter()

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        self._step, self._told = name, time.monotonic()
        with self._other.step(name):
            yield

    def advance(self, done: int, total: int | None, text: str = "") -> None:
        self._other.advance(done, total, text)
        if time.monotonic() - self._told >= _QUIET_SECONDS:
            self._told = time.monotonic()
            _log(logging.INFO, f"{self._step}: {done}{f' of {total}' if total else ''} {text}".rstrip())

    def say(self, text: str) -> None:
        self._other.say(text)
        _log(logging.INFO, text)

    def warn(self, text: str) -> None:
        self._other.warn(text)
        _log(logging.WARNING, text)


@contextlib.contextmanager
def recorded() -> Iterator[Watch]:
    """Let Prefect's run hear what happens in the block, beside who looks on already; yields that watch."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:  # the program quietens Prefect as a whole
        logger.setLevel(min(logger.getEffectiveLevel(), logging.INFO))
    try:
        with watching(RunLog(watch())) as both:
            yield both
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _log(level: int, text: str) -> None:
    with contextlib.suppress(MissingContextError):  # of a thread that the work has started
        get_run_logger().log(level, masked(text), extra={TOLD: True})
