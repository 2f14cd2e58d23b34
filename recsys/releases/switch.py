"""Switching what is served: candidate table, bundle pointer, list and export as one, through any kill.

What is to be served is written down first, with a token. The commit of the table carries the token, so whoever comes
next sees whether the switch has begun for readers. If it has, `settle` does the rest; if not, nothing has changed, and
the note is dropped. Each part is replaced in one step, so readers see the old one or the new one.

The export comes last, and a target that is away holds up nothing: before the list is written, the export to every
target is noted as due (see `recsys.exports.due`). `settle` tries again what is still due.

Every command that changes what is served, and the night, calls `settle` first, inside of the warehouse's lock.
"""

from __future__ import annotations

import contextlib
import getpass
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

from recsys.bundles.manifest import read_manifest
from recsys.bundles.store import publish_bundle
from recsys.errors import RecsysError
from recsys.exports.base import Candidates
from recsys.exports.due import due, note
from recsys.exports.several import export
from recsys.releases.record import Release, bundle_folder, measured_of, path_of, read, served_now, write
from recsys.settings import Settings, targets_of
from recsys.settings.export import UNNAMED
from recsys.storage.addresses import masked
from recsys.storage.failures import sentence
from recsys.storage.warehouse import commit_metadata, latest_version, table_path
from recsys.table.naming import candidates_table

SWITCH: Final = "switch"  # key of a commit's metadata: the token
BY_RETRIEVE: Final = "retrieve"  # `by` of a release whose export is asked for by hand
_UNKNOWN: Final = -1  # version of a table before its commit


def settle(
    settings: Settings, *, exporting: bool = True, lacking: Callable[[str], None] | None = None
) -> Release | None:
    """Finish the switch that was stopped, list what others have published, and make up for exports that are due.

    Parameters
    ----------
    exporting
        Whether exports that are due are tried; a refresh does so in a step of its own.
    lacking
        Is told, in a sentence, of targets that cannot be written; None: that is an error.

    Returns
    -------
    Release or None
        The release that is finished.

    Raises
    ------
    RecsysError
        A part cannot be written; the next call goes on there.
    """
    finished = _finish(settings)
    record, served = read(settings), served_now(settings)
    listed = record.releases
    if served is not None:
        if not listed or listed[-1].run != served.run:  # published by an earlier version, or through the library
            listed = (*listed, served)
        elif listed[-1].version != served.version:  # a clean-up makes versions, too
            listed = (*listed[:-1], replace(listed[-1], version=served.version))
    if listed != record.releases or (listed and not path_of(settings).exists()):
        write(settings, replace(record, releases=listed))
    if exporting:
        try:
            export_due(settings)
        except _Lacking as error:
            if lacking is None:
                raise
            lacking(str(error))
    return finished


def serve(
    settings: Settings, release: Release, commit: Callable[[Mapping[str, Any]], Any], *, exporting: bool = True
) -> Release:
    """Make a release what readers are served; after `settle`, inside of the warehouse's lock.

    Parameters
    ----------
    release
        Its version is that of the commit.
    commit
        Makes its rows the newest version of the candidate table, in one commit with the metadata that it is given.
    exporting
        Whether the export follows at once. A night exports in a step of its own, a command after MLflow is told; it is
        due until then.

    Raises
    ------
    RecsysError
        The table cannot be written, and nothing has changed; or another part or target cannot, and the next `settle`
        goes on.
    """
    record = read(settings)
    switching = {"token": uuid.uuid4().hex, "release": asdict(release)}
    write(settings, replace(record, switching=switching))
    try:
        commit({SWITCH: switching["token"]})
    except Exception:
        if not _has_begun(settings, switching):
            write(settings, record)
        raise
    done = _finish(settings)
    assert done is not None  # the commit carries the token
    if exporting:
        export_due(settings)
    return done


def described(
    settings: Settings,
    run: str,
    bundle: str | Path,
    by: str,
    *,
    metrics: Mapping[str, Any] | None = None,
    verdict: str | None = None,
    why: str | None = None,
    of: str | None = None,
) -> Release:
    """A release that is to be served from now on.

    Parameters
    ----------
    metrics
        Figures on test; what is no number is left out.
    why
        Given by a person, whose name in the operating system is taken along; secrets in it are masked.
    """
    return Release(
        run=run,
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        table=table_path(settings.warehouse, candidates_table(settings.warehouse, settings.name)),
        version=_UNKNOWN,
        bundle=str(bundle),
        measured=str(measured_of(settings, bundle)),
        metrics={name: float(value) for name, value in (metrics or {}).items() if isinstance(value, (int, float))},
        verdict=verdict,
        why=None if why is None else masked(why.strip()),
        by=by,
        of=of,
        who=None if why is None else _user(),
    )


class _Lacking(RecsysError):
    """Targets could not be written, which stay due."""


def export_due(settings: Settings) -> None:
    """Export what is served to the targets in which this run's table is due; see `recsys.exports.due`.

    Raises
    ------
    RecsysError
        Targets cannot be written; they stay due.
    """
    listed = read(settings).releases
    if not listed or not (targets := due(settings, listed[-1].run)):
        return
    served = listed[-1]
    version = latest_version(settings.warehouse, served.table_name)
    if version is None:
        return
    path = table_path(settings.warehouse, served.table_name)
    try:
        export(settings, Candidates(path=path, version=version, run=served.run), only=targets)
    except (RecsysError, OSError) as error:
        names = sorted(due(settings, served.run))
        left = ", ".join(f"[{UNNAMED if name == UNNAMED else f'{UNNAMED}.{name}'}]" for name in names)
        raise _Lacking(
            f"The run {served.run} is served and not yet in {left}: {sentence(error)}; the next night or refresh tries "
            "again."
        ) from error


def _finish(settings: Settings) -> Release | None:
    """Do what is left of a switch that has begun, but for the export; drop one that has not."""
    record = read(settings)
    switching = record.switching
    if switching is None:
        return None
    if not _has_begun(settings, switching):
        write(settings, replace(record, switching=None))
        return None
    release = Release.read(switching["release"])
    version = latest_version(settings.warehouse, release.table_name)
    assert version is not None  # its newest commit was just read
    release = replace(release, version=version)
    bundle = bundle_folder(settings, release.bundle)
    if read_manifest(bundle)["name"] == settings.name:  # one of another name has a pointer of its own
        publish_bundle(settings.warehouse, bundle)
    if release.by != BY_RETRIEVE:
        path = table_path(settings.warehouse, release.table_name)
        note(settings, targets_of(settings.export), Candidates(path=path, version=version, run=release.run))
    listed = (*record.releases, release)
    write(settings, replace(record, releases=listed, switching=None, untold=record.untold + 1, deferred=False))
    return release


def _has_begun(settings: Settings, switching: Mapping[str, Any]) -> bool:
    table = Release.read(switching["release"]).table_name
    return bool(commit_metadata(settings.warehouse, table).get(SWITCH) == switching["token"])


def _user() -> str:
    """Name of the user in the operating system; containers often have none."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        return getpass.getuser()
    return "unknown"
