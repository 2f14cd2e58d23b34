"""Writing and taking back all targets of a configuration: one that fails does not keep the others from it.

An export that fails is due from then on (see `recsys.exports.due`), until one succeeds or the target is taken back.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Sequence
from typing import Any

import polars as pl

from recsys.errors import InputError, RecsysError, first_line
from recsys.exports.base import CandidateTable, Sink
from recsys.exports.due import due, note, strike_off
from recsys.exports.registry import sink_of, sinks_of
from recsys.settings import ExportSettings, Settings
from recsys.settings.export import UNNAMED
from recsys.storage.addresses import masked

HELD = "held"  # in a target's entry: readers had this version already, so that nothing was written
LEFT = "left"  # readers see another run's copy, which stays


class SomeFailed(RecsysError):
    """Some targets failed; `report` says what became of each."""

    def __init__(self, message: str, report: dict[str, Any]) -> None:
        super().__init__(message)
        self.report = report


def export(
    settings: Settings, candidates: CandidateTable, *, resumed: bool = False, only: Collection[str] | None = None
) -> dict[str, Any]:
    """Write a version of the candidate table to every target of a configuration.

    Parameters
    ----------
    resumed
        Leave targets alone whose readers see this version already.
    only
        Names of the targets to write; None: all.

    Returns
    -------
    dict
        `targets`, a report by name (see `ExportReport`); where `[export]` is the only target, its report's keys, too.

    Raises
    ------
    RecsysError
        The error of the only target, or `SomeFailed`, after all were tried; its cause is an error that may pass, where
        there is one.
    """
    sinks = _asked(settings)

    def bring(sink: Sink) -> dict[str, Any]:
        if resumed and sink.holds(candidates):
            return {HELD: True, "kind": sink.kind, "version": candidates.version}
        return dataclasses.asdict(sink.write(candidates))

    def write(sink: Sink) -> dict[str, Any]:
        try:
            report = bring(sink)
        except Exception:
            with contextlib.suppress(RecsysError):  # of a full disk; the export's own error is the one to show
                note(settings, [sink.target], candidates, failed=True)
            raise
        strike_off(settings, sink.target, candidates)
        return report

    return _each([sink for sink in sinks if only is None or sink.target in only], write, "written")


def update(
    settings: Settings, candidates: CandidateTable, users: pl.Series | None, since: CandidateTable
) -> dict[str, Any]:
    """Bring every target to a version that differs from another one in the rows of some users alone.

    A target whose readers see the copy of another run is left as it is, as somebody has taken it back, unless its
    export is due: then it is written whole.

    Parameters
    ----------
    users, since
        See `Sink.update`; None: the version before is not known, and what is not at the newest one is written whole.

    Returns
    -------
    dict
        As `export`; an entry with HELD had nothing to do, one with LEFT was left.

    Raises
    ------
    RecsysError
        As `export`.
    """

    owed = due(settings, candidates.run)

    def bring(sink: Sink) -> dict[str, Any]:
        if sink.holds(candidates):
            strike_off(settings, sink.target, candidates)
            return {HELD: True, "kind": sink.kind, "version": candidates.version}
        held = sink.held()
        if held is not None and held.run not in (None, candidates.run) and sink.target not in owed:
            return {LEFT: True, "kind": sink.kind, "version": held.version, "run": held.run}
        report = sink.write(candidates) if users is None else sink.update(candidates, users, since)
        strike_off(settings, sink.target, candidates)
        return dataclasses.asdict(report)

    return _each(sinks_of(settings), bring, "updated")


def rollback(settings: Settings, target: str | None = None) -> dict[str, Any]:
    """Bring the former copy back, in every target or in the one of a name; reports as `export` does.

    Raises
    ------
    InputError
        There is no target of this name.
    RecsysError
        As `export`.
    """

    def take_back(sink: Sink) -> dict[str, Any]:
        strike_off(settings, sink.target)  # also where it is away: nobody wants the newer copy there
        return dataclasses.asdict(sink.rollback())

    return _each(_asked(settings, target), take_back, "taken back")


def check(settings: Settings, passing: Callable[[Exception], bool] = lambda _: False) -> list[str]:
    """Find all that can be wrong with the targets before there is a table; see `Sink.check`.

    Parameters
    ----------
    passing
        Whether an error may pass until the export.

    Returns
    -------
    list of str
        A sentence for each target whose error may pass.
    """
    later = []
    for sink in _asked(settings):
        try:
            sink.check()
        except RecsysError as error:
            if not passing(error):
                raise
            later.append(f"{str(error).rstrip('.')}; the export is tried all the same.")
    return later


def _asked(settings: Settings, target: str | None = None) -> tuple[Sink, ...]:
    """The targets that are asked for, at least one; one that lacks a path says so itself."""
    sinks = sinks_of(settings, target)
    if sinks:
        return sinks
    if isinstance(settings.export, ExportSettings):
        return (sink_of(settings),)
    raise InputError(f"The configuration {settings.name!r} has no export target that is wanted; give one a path.")


def _each(sinks: Sequence[Sink], act: Callable[[Sink], dict[str, Any]], done: str) -> dict[str, Any]:
    """Do something with every target, whatever becomes of the others."""
    reports: dict[str, Any] = {}
    errors: dict[str, Exception] = {}
    for sink in sinks:
        try:
            reports[sink.target] = act(sink)
        except Exception as error:
            reports[sink.target] = {"kind": sink.kind, "error": _sentence(sink, error)}
            errors[sink.target] = error
    report = {**(reports[UNNAMED] if list(reports) == [UNNAMED] else {}), "targets": reports}
    if not errors:
        return report
    (name, first), *further = errors.items()
    if list(reports) == [UNNAMED]:
        if isinstance(first, RecsysError | OSError):
            raise first
        raise RecsysError(f"The export target {sinks[0].kind!r} failed: {_sentence(sinks[0], first)}") from first
    said = " ".join(f"{of}: {reports[of]['error']}" for of in errors)
    rest = len(reports) - len(errors)
    whole = f"{rest} of {len(reports)} are {done}" if rest else f"none is {done}"
    which = f"The export target {name} failed" if not further else f"{len(errors)} export targets failed"
    passing = [error for error in errors.values() if isinstance(error.__cause__ or error, OSError)]
    raise SomeFailed(f"{which}, {whole}; {said}", report) from (passing or list(errors.values()))[0]


def _sentence(sink: Sink, error: Exception) -> str:
    """Words of an error; one that a foreign sink lets through gets its kind."""
    if isinstance(error, RecsysError):
        return masked(str(error))
    if isinstance(error, OSError) and error.strerror:
        return f"{f'{error.filename}: ' if error.filename else ''}{error.strerror}."
    return masked(f"{type(error).__name__}: {first_line(error)}.")
