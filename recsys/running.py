"""The run, the night's name and the step of this process. Log lines, commits and MLflow's runs carry them.

A night has one id, that of its MLflow run. Its first eight digits are enough wherever a run is named.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

SHORT: Final = 8  # digits of an id that people read
LOCAL: Final = "local-"  # before the id of a run that MLflow did not know when it began


@dataclass(frozen=True)
class Running:
    """A run at work.

    Attributes
    ----------
    run
        The whole id.
    name
        Of the configuration.
    """

    run: str | None = None
    name: str | None = None
    step: str | None = None


_at = Running()  # one run a process: threads of libraries, which inherit no context, tell it as well
_failed = Running()
_last = Running()  # what has begun last in the step


def current() -> Running:
    """The run, name and step of now; each None where there is none."""
    return _at


def failed() -> Running:
    """Return what an error ended last, for those who tell of the error afterwards."""
    return _failed


def last() -> Running:
    """Return the run at work, or the last one that the step began, for those who tell of its end afterwards."""
    return _last if _at.run is None else _at


def switch(run: str) -> None:
    """Go on as another run, which was stopped before, until the block of `running` ends."""
    global _at
    _at = replace(_at, run=run)


@contextlib.contextmanager
def running(*, run: str | None = None, name: str | None = None, step: str | None = None) -> Iterator[None]:
    """Set what is given for the length of the block."""
    global _at, _failed, _last
    before = _at
    if before.run is None:
        _failed = Running()
    given = {"run": run, "name": name, "step": step}
    _at = replace(before, **{key: value for key, value in given.items() if value is not None})
    if run is not None:
        _last = _at
    try:
        yield
    except BaseException:
        if _failed.run is None or _at.run not in (None, _failed.run):  # else a step of it has said so
            _failed = _at
        raise
    finally:
        _at = before


@contextlib.contextmanager
def in_step(step: str) -> Iterator[None]:
    """Set the step for the length of the block; the run may change meanwhile, and stays changed."""
    global _at, _failed, _last
    before = _at.step
    if _at.run is None:
        _failed = Running()
    _at, _last = replace(_at, step=step), Running()
    try:
        yield
    except BaseException:
        if _failed.run is None or _at.run is not None:  # else the run of a step alone has said so, and ended
            _failed = _at
        raise
    finally:
        _at = replace(_at, step=before)


def short(run: str) -> str:
    """The digits of a run's id that people read.

    >>> short("3f9a01c2" + 24 * "0"), short("local-3f9a01c2" + 24 * "0")
    ('3f9a01c2', '3f9a01c2')
    """
    return run.removeprefix(LOCAL)[:SHORT]


def named(asked: str, known: Iterable[str]) -> list[str]:
    """The ids among `known` that a text names: the one that it is, else those that it begins.

    >>> named("3f", ["3f9a", "local-3f07", "a2c1"])
    ['3f9a', 'local-3f07']
    """
    ids = list(dict.fromkeys(known))
    return [run for run in ids if run == asked] or [
        run for run in ids if asked and (run.startswith(asked) or run.removeprefix(LOCAL).startswith(asked))
    ]
