"""Rollback and promote: a release that was served comes back, or a run that was kept back is served."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from recsys.columns import AS_OF, BUNDLE
from recsys.errors import InputError
from recsys.exports.due import due
from recsys.releases.choice import (
    Built,
    anew,
    built_runs,
    first_row,
    lack,
    lack_of_built,
    lack_of_bundle,
    matching,
    way,
)
from recsys.releases.record import Record, Release, read
from recsys.releases.switch import described, export_due, serve, settle
from recsys.releases.telling import tell
from recsys.settings import Settings
from recsys.storage.stream import is_there
from recsys.storage.warehouse import latest_version, restore
from recsys.table import build
from recsys.table.build import BuiltCandidates
from recsys.table.naming import NAME
from recsys.tracking.store import Store

ROLLBACK: Final = "rollback"
PROMOTE: Final = "promote"


@dataclass(frozen=True, kw_only=True)
class Switched:
    """Result of a switch.

    Attributes
    ----------
    release
        What is served now.
    instead
        What was served before; None: nothing.
    finished
        Whether the command only finished what an earlier one, that was stopped, had begun.
    """

    release: Release
    instead: Release | None
    finished: bool = False


def rollback(settings: Settings, store: Store | None, why: str, to: str | None = None) -> Switched:
    """Serve the release before the present one, or the last one of a run; inside of the warehouse's lock.

    A rollback that was stopped, or whose export is still due, is finished, and nothing else is done.

    Parameters
    ----------
    store
        Is told; None: MLflow does not answer, and is told by a later command.
    why
        A person's reason.
    to
        A run that was served, or the beginning of its id.

    Raises
    ------
    InputError
        There is no reason, nothing was served before, no such run was served, or it cannot come back.
    RecsysError
        A part cannot be written; the same command goes on there. Or a target cannot, when all else is done.
    """
    _need(why)
    if stopped := _stopped(settings, store, ROLLBACK, to):
        return stopped
    listed = read(settings).releases
    if not listed:
        raise InputError(f"Nothing of {settings.name!r} is served yet, so there is nothing to go back to.")
    if to is not None:
        run = matching(to, (one.run for one in reversed(listed)), "was served")
        return _ended(settings, store, _bring_back(settings, _kept(settings, run, listed), ROLLBACK, why))
    back = way(listed)
    if len(back) < 2:
        raise InputError(
            f"Nothing is known that was served before the run {listed[-1].run}, so there is nothing to go back to."
        )
    if reason := lack(settings, back[-2]):
        raise anew(settings, back[-2].run, reason, back[-2].bundle)
    return _ended(settings, store, _bring_back(settings, back[-2], ROLLBACK, why))


def promote(
    settings: Settings,
    store: Store | None,
    asked: str,
    why: str,
    prepare: Callable[[Built], None] = lambda built: None,
    rebuild: Callable[[Built], BuiltCandidates] | None = None,
) -> Switched:
    """Serve a run that was kept back, or one that was served before; inside of the warehouse's lock.

    Parameters
    ----------
    store
        As of `rollback`.
    asked
        The run, or the beginning of its id.
    why
        A person's reason.
    prepare
        Is called with a run that was kept back, before it is served.
    rebuild
        Makes the candidates of such a run anew from its bundle, where a later night has removed them.

    Raises
    ------
    InputError
        There is no reason, no such run, it is served already, or what it built is gone.
    RecsysError
        A part cannot be written; the same command goes on there. Or a target cannot, when all else is done.
    """
    _need(why)
    if stopped := _stopped(settings, store, PROMOTE, asked):
        return stopped
    listed, built = read(settings).releases, {one.run: one for one in reversed(built_runs(settings))}
    known = [one.run for one in reversed(listed)] + list(reversed(built))
    run = matching(asked, known, "was served or built candidates")
    if any(one.run == run for one in listed):
        return _ended(settings, store, _bring_back(settings, _kept(settings, run, listed), PROMOTE, why))
    return _ended(settings, store, _serve_built(settings, _whole(settings, built[run], rebuild), why, prepare))


def _need(why: str) -> None:
    if not why.strip():
        raise InputError("--why is empty; say in a few words why, for those who find another model served.")


def _ended(settings: Settings, store: Store | None, done: Switched) -> Switched:
    """Tell MLflow, then export: a target that is away keeps nobody from knowing what is served."""
    tell(settings, store)
    export_due(settings)
    return done


def _stopped(settings: Settings, store: Store | None, by: str, asked: str | None) -> Switched | None:
    """The release that the same command left unfinished, finished now; None: it was another one, or none."""
    release = settle(settings, exporting=False)
    record = read(settings)
    if release is None and record.releases:
        last = record.releases[-1]
        # all is switched, and MLflow was not told, or a target lacks it
        if (record.untold and not record.deferred) or due(settings, last.run):
            release = last
    if release is None or release.by != by or not release.run.startswith(asked or ""):
        tell(settings, store)
        return None
    return _ended(settings, store, Switched(release=release, instead=_instead(record), finished=True))


def _instead(record: Record) -> Release | None:
    return record.releases[-2] if len(record.releases) > 1 else None


def _kept(settings: Settings, run: str, listed: tuple[Release, ...]) -> Release:
    """The newest release of a run whose rows are still there.

    Raises
    ------
    InputError
        It is served now, or none is left.
    """
    if listed[-1].run == run:
        raise InputError(f"The run {run} is served already, since {listed[-1].at}.")
    reason, newest = "", next(one for one in reversed(listed) if one.run == run)
    for release in (one for one in reversed(listed) if one.run == run):
        found = lack(settings, release)
        if found is None:
            return release
        reason = reason or found
    raise anew(settings, run, reason, newest.bundle)


def _bring_back(settings: Settings, target: Release, by: str, why: str) -> Switched:
    """Serve an older release's rows, which no one copies, with its bundle."""
    instead = read(settings).releases[-1]
    row = first_row(settings, target)
    lineage: dict[str, Any] = {NAME: settings.name, "run": target.run}
    lineage["bundle"] = row.get(BUNDLE, Path(target.bundle).name)
    if AS_OF in row:
        lineage["as_of"] = row[AS_OF].isoformat()
    table = target.table_name

    def commit(metadata: Mapping[str, Any]) -> None:
        expected = latest_version(settings.warehouse, table)
        assert expected is not None  # it has an older version
        restore(settings.warehouse, table, target.version, expected=expected, metadata={**lineage, **metadata})

    told = described(settings, target.run, target.bundle, by, why=why, of=target.run)
    told = replace(told, measured=target.measured, metrics=target.metrics, verdict=target.verdict)
    return Switched(release=serve(settings, told, commit, exporting=False), instead=instead)


def _whole(settings: Settings, built: Built, rebuild: Callable[[Built], BuiltCandidates] | None) -> Built:
    """A run with candidates that can be published: those that it built, or new ones of its bundle.

    Raises
    ------
    InputError
        They are gone, or name users who were forgotten; or its bundle is gone.
    """
    if not is_there(built.candidates.staged) and rebuild is not None and lack_of_bundle(settings, built.bundle) is None:
        return replace(built, candidates=rebuild(built))
    if reason := lack_of_built(settings, built):
        raise anew(settings, built.run, reason, built.bundle)
    return built


def _serve_built(settings: Settings, built: Built, why: str, prepare: Callable[[Built], None]) -> Switched:
    """Publish what a run built beside the table, on top of whatever the table has become."""
    candidates = built.candidates
    expected = latest_version(settings.warehouse, Path(candidates.staged.path).name)
    candidates = replace(candidates, staged=replace(candidates.staged, expected=expected))
    build.check_not_empty(settings, candidates)
    prepare(built)
    record = read(settings)
    release = described(
        settings,
        built.run,
        built.bundle,
        PROMOTE,
        metrics=built.reports.get("evaluate", {}).get("metrics"),
        verdict=built.reports.get("judge", {}).get("sentence"),
        why=why,
    )
    served = serve(settings, release, lambda said: build.publish(settings, candidates, said), exporting=False)
    return Switched(release=served, instead=record.releases[-1] if record.releases else None)
