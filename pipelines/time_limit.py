"""A limit of a step's time: a connection that hangs must not hold the warehouse for the nights after it."""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from recsys.errors import RecsysError
from recsys.pipelines.watch import watch

GRACE: Final = 60.0  # (seconds) until a step that does not come back to Python is ended with its process
_OWN = threading.Event()  # set where the process is there for the run alone, so that it may be ended


class StepOverran(RecsysError):
    """A step took longer than its limit."""


class _Alarm(BaseException):
    """Ends the work of a step wherever it is; not an Exception, which the work could take for one of its own."""


def may_end_process() -> None:
    """Allow the process to be ended if a step stays in a library that hears no alarm; notebooks do not allow it."""
    _OWN.set()


@contextlib.contextmanager
def within(step: str, minutes: float | None) -> Iterator[None]:
    """Limit the time of a block, in the main thread of a system that has alarms; elsewhere there is no limit.

    Raises
    ------
    StepOverran
        The block took longer than so many minutes; the sentence names the step and the setting.
    """
    seconds = 60.0 * (minutes or 0.0)
    due = signal.getitimer(signal.ITIMER_REAL)[0] if _has_alarms() else 0.0
    if minutes is None or not _has_alarms() or 0.0 < due <= seconds:  # somebody else's alarm comes first
        yield
        return
    sentence = (
        f"The step {step} was ended after {minutes:g} min, its limit; what is done stays done, and the next start "
        f"goes on from there. If the step needs longer, raise limits.timeout_minutes.{step}."
    )
    began = time.monotonic()
    before = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    guard = threading.Timer(seconds + GRACE, contextvars.copy_context().run, [_end_process, sentence])
    guard.daemon = True
    guard.start()
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
    except _Alarm:
        raise StepOverran(sentence) from None
    finally:
        signal.signal(signal.SIGALRM, before)
        guard.cancel()
        if due:
            signal.setitimer(signal.ITIMER_REAL, max(due - (time.monotonic() - began), 1e-3))


def _has_alarms() -> bool:
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


def _raise(*_: Any) -> None:
    raise _Alarm


def _end_process(sentence: str) -> None:
    """End the process: its step has not come back to Python since the alarm."""
    if not _OWN.is_set():
        return
    watch().warn(sentence)
    flush = threading.Thread(target=logging.shutdown, daemon=True)  # Prefect's handler sends what it holds
    flush.start()
    flush.join(10.0)
    os._exit(1)
