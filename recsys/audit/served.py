"""Check what is served: pointer, releases, candidate table, exports and MLflow must name one and the same run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from deltalake import DeltaTable

from recsys.audit.findings import Finding
from recsys.bundles import mirror
from recsys.bundles.bundle import read_bundle
from recsys.bundles.manifest import read_manifest
from recsys.bundles.mirror import POINTER, address, bundles_folder, read_pointer
from recsys.bundles.store import publish_bundle
from recsys.errors import InputError, RecsysError
from recsys.exports import several
from recsys.exports.base import CandidateTable, Sink
from recsys.exports.due import due
from recsys.exports.registry import sinks_of
from recsys.releases.choice import lack_of_bundle
from recsys.releases.record import Release, bundle_folder, champion, path_of, read
from recsys.releases.switch import settle
from recsys.retention.kept import releases_kept
from recsys.settings import Settings
from recsys.storage.addresses import masked
from recsys.storage.history import SEEN, changes
from recsys.storage.intact import is_kept
from recsys.storage.warehouse import commit_metadata, latest_version, table_path
from recsys.tracking.lookup import lacking_runs
from recsys.tracking.store import Store


def pointer(settings: Settings) -> Iterator[Finding]:
    """The pointer to the newest bundle of the configuration's name."""
    parent = bundles_folder(settings.warehouse)
    where, served = address(parent / f"{settings.name}{POINTER}"), champion(settings)
    good = _last_good(settings)
    mended = None if good is None else partial(_turn, settings)
    advice = "train again" if good is None else f"point it to {good.name} with `recsys check --repair`"
    content = read_pointer(parent, settings.name)
    if content is None:
        if served is not None and _is_own(settings, served):
            what = "it is missing, and a release is served"
            yield Finding(part="pointer", where=where, what=what, advice=advice, repair=mended)
        return
    try:
        named = parent / json.loads(content)["path"]
    except (ValueError, KeyError, TypeError):
        yield Finding(part="pointer", where=where, what="it is damaged", advice=advice, repair=mended)
        return
    if not mirror.is_there(named):
        what = f"it points to {address(named)}, which is gone"
        yield Finding(part="pointer", where=where, what=what, advice=advice, repair=mended)


def releases(settings: Settings) -> Iterator[Finding]:
    """The list of releases, and what the served one names."""
    where = str(path_of(settings))
    record = read(settings)
    if record.switching is not None:
        run = Release.read(record.switching["release"]).run
        yield Finding(
            part="release",
            where=where,
            what=f"the switch to run {run} was stopped",
            advice="finish it with `recsys check --repair`, or the next night does",
            repair=partial(settle, settings),
            passing=True,
        )
        return
    served = champion(settings)
    if served is None:
        return
    if lack := lack_of_bundle(settings, served.bundle):
        yield Finding(
            part="release",
            where=where,
            what=f"run {served.run} is served, and {lack}",
            advice="serve another with `recsys rollback`, or do a night with `recsys run`",
        )
    table = table_path(settings.warehouse, served.table_name)
    version = latest_version(settings.warehouse, served.table_name)
    if version is None or not is_kept(table, version):
        what, advice = f"run {served.run} is served, and its candidate table is gone", "do a night with `recsys run`"
        yield Finding(part="release", where=where, what=what, advice=advice)
    elif (named := commit_metadata(settings.warehouse, served.table_name).get("run")) not in (None, served.run):
        yield Finding(
            part="release",
            where=where,
            what=f"it says that run {served.run} is served, and the candidate table is of run {named}",
            advice="list it with `recsys check --repair`, or the next night does",
            repair=partial(settle, settings),
            passing=True,
        )


def exports(settings: Settings, candidates: Callable[[], CandidateTable]) -> Iterator[Finding]:
    """Every target: whether readers see the run that is served."""
    served = champion(settings)
    if served is None:
        return
    for sink in sinks_of(settings):
        where = f"{sink.section} ({sink.kind})"
        try:
            yield from _target(settings, sink, served, where, candidates)
        except RecsysError as error:
            what = masked(str(error)).rstrip(".")
            yield Finding(part="export", where=where, what=what, advice="see that it answers, then check again")


def tracked(settings: Settings, store: Store) -> Iterator[Finding]:
    """The MLflow runs that kept releases name, and their files."""
    kept = releases_kept(read(settings).releases, settings.retention, datetime.now(UTC))
    wanted = list(dict.fromkeys(one.run for one in kept))
    for run, what in lacking_runs(store, wanted):
        advice = "restore MLflow's database or files from a backup; what is served does not need them"
        yield Finding(part="MLflow", where=f"run {run}", what=what, advice=advice)


def _target(
    settings: Settings, sink: Sink, served: Release, where: str, candidates: Callable[[], CandidateTable]
) -> Iterator[Finding]:
    sink.check()
    anew = partial(_export, settings, sink.target, candidates)
    if not sink.present():
        advice = "export anew with `recsys check --repair` or `recsys export`"
        what = "readers find no copy"
        yield Finding(part="export", where=where, what=what, advice=advice, repair=anew, passing=True)
        return
    held = sink.held()
    if held is None:  # a copy of an earlier version of the program does not say
        return
    if held.run not in (None, served.run):
        is_due = sink.target in due(settings, served.run)
        again = "export anew with `recsys check --repair` or `recsys export`, or the next night does"
        yield Finding(
            part="export",
            where=where,
            what=f"readers see run {held.run}, and run {served.run} is served",
            advice=again if is_due else "export with `recsys export`, unless somebody has taken it back",
            repair=anew if is_due else None,
            passing=True,
        )
    elif held.version < _data_version(settings, served):
        yield Finding(
            part="export",
            where=where,
            what=f"readers see version {held.version} of the candidate table, whose rows have changed since",
            advice="export anew with `recsys check --repair` or `recsys export`",
            repair=anew,
            passing=True,
        )


def _turn(settings: Settings) -> None:
    """Turn the pointer to the last good bundle, unless what it points to has been brought back meanwhile."""
    parent = bundles_folder(settings.warehouse)
    try:
        content = read_pointer(parent, settings.name)
        if content is not None and mirror.is_there(parent / json.loads(content)["path"]):
            return
    except (ValueError, KeyError, TypeError):
        pass
    if (good := _last_good(settings)) is not None:
        publish_bundle(settings.warehouse, good)


def _export(settings: Settings, target: str, candidates: Callable[[], CandidateTable]) -> Any:
    return several.export(settings, candidates(), only={target})


def _data_version(settings: Settings, served: Release) -> int:
    """The newest version of the candidate table that changed rows; cleaning up makes versions, too.

    Where `forget` has taken the commits before, the oldest that is left.
    """
    opened = DeltaTable(table_path(settings.warehouse, served.table_name))
    commits = changes(opened)[:1] or opened.history(SEEN)[-1:]
    return next((int(commit["version"]) for commit in commits), 0)


def _is_own(settings: Settings, release: Release) -> bool:
    return Path(release.bundle).name.rpartition("-")[0] == settings.name


def _last_good(settings: Settings) -> Path | None:
    """The bundle of the newest release of this name that can be served."""
    for release in reversed(read(settings).releases):
        folder = bundle_folder(settings, release.bundle)
        try:
            if mirror.is_there(folder) and read_manifest(folder)["name"] == settings.name:
                return read_bundle(folder, verify=False).path
        except InputError:
            continue
    return None
