"""Find the release that a command means: the one before, one that was served once, or a run that was kept back.

What comes back must be whole: its rows, its bundle, and nobody among its users who was forgotten since.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys import runs
from recsys.bundles.bundle import read_bundle
from recsys.bundles.mirror import address
from recsys.columns import AS_OF, BUNDLE, ITEM_ID, RUN, USER_ID
from recsys.errors import InputError, RecsysError
from recsys.forgetting.forgotten import read_forgotten
from recsys.releases.record import Release, bundle_folder
from recsys.running import named
from recsys.settings import Settings
from recsys.storage import stream
from recsys.storage.intact import is_kept
from recsys.storage.warehouse import scan, table_path
from recsys.table.built import BuiltCandidates
from recsys.table.naming import NAME

_NEAR: Final = 3  # run ids that a wrong one is answered with


@dataclass(frozen=True, kw_only=True)
class Built:
    """A night that has built candidates, whether they were published or not.

    Attributes
    ----------
    reports
        Of its steps, by name.
    bundle
        Folder of the bundle that made the candidates.
    """

    run: str
    candidates: BuiltCandidates
    reports: Mapping[str, Mapping[str, Any]]
    bundle: Path


def way(listed: Sequence[Release]) -> tuple[Release, ...]:
    """The releases that a rollback goes back along, oldest first; the last one is served.

    A rollback takes away what came after the release that it brings back; whatever else is served comes on top.
    """
    found: list[Release] = []
    for release in listed:
        if release.by == "rollback":
            places = [place for place, one in enumerate(found[:-1]) if one.run == release.run]
            found = found[: places[-1]] if places else found
        found.append(release)
    return tuple(found)


def matching(asked: str, known: Iterable[str], what: str) -> str:
    """The run that a text names, by its whole id or an unambiguous beginning of it.

    Parameters
    ----------
    known
        Run ids, the newest first.
    what
        Said of these runs, as in "was served".

    Raises
    ------
    InputError
        None or several; names near ones.
    """
    ids = list(dict.fromkeys(known))
    found = named(asked, ids)
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(f"{asked} is the beginning of {len(found)} runs: {_listed(found)}; give more of its digits.")
    near = difflib.get_close_matches(asked, ids, n=_NEAR, cutoff=0.6) or ids[:_NEAR]
    raise InputError(f"No run {asked!r} {what}; {f'did you mean {_listed(near)}?' if near else 'there is none yet.'}")


def _listed(ids: Sequence[str]) -> str:
    return ", ".join(ids[:_NEAR]) + (", ..." if len(ids) > _NEAR else "")


def built_runs(settings: Settings) -> tuple[Built, ...]:
    """The nights of a configuration that have built candidates, newest first."""
    found = []
    for state in runs.states(runs.state_folder(settings.warehouse)):
        reports = {name: done["report"] for name, done in state.steps.items()}
        try:
            built = BuiltCandidates.of(reports["retrieve"])
            bundles = [report["bundle"] for report in reports.values() if isinstance(report.get("bundle"), str)]
            folder = next(bundle for bundle in bundles if Path(bundle).name == built.bundle)
        except (KeyError, TypeError, StopIteration):  # it has not come so far, or is of an earlier version
            continue
        if built.staged.metadata.get(NAME) == settings.name:
            bundle = bundle_folder(settings, folder)
            found.append(Built(run=state.run_id, candidates=built, reports=reports, bundle=bundle))
    return tuple(found)


def lack(settings: Settings, release: Release) -> str | None:
    """Why a release cannot come back, as the end of a sentence; None: it can."""
    if not is_kept(table_path(settings.warehouse, release.table_name), release.version):
        return f"version {release.version} of its table is gone (`recsys forget` and clean-ups remove older versions)"
    first = first_row(settings, release)
    if first and first[RUN] != release.run:
        return f"version {release.version} of its table now holds rows of another run"
    return lack_of_bundle(settings, release.bundle) or _lack_of_forgotten(
        settings, scan(settings.warehouse, release.table_name, release.version)
    )


def lack_of_built(settings: Settings, built: Built) -> str | None:
    """Why built candidates cannot be published, as the end of a sentence; None: they can."""
    if not stream.is_there(built.candidates.staged):
        return "the candidates that it built are gone (`recsys forget` and clean-ups remove them)"
    paths = stream.paths(built.candidates.staged)
    rows = pl.scan_parquet(paths, glob=False) if paths else None
    return lack_of_bundle(settings, built.bundle) or (None if rows is None else _lack_of_forgotten(settings, rows))


def first_row(settings: Settings, release: Release) -> dict[str, Any]:
    """Lineage that a release's rows carry: run, bundle, as_of; empty where it has no rows."""
    rows = scan(settings.warehouse, release.table_name, release.version)
    return next(iter(rows.select(RUN, BUNDLE, AS_OF).head(1).collect().to_dicts()), {})


def lack_of_bundle(settings: Settings, bundle: str | Path) -> str | None:
    """Why a bundle cannot be served, as the end of a sentence; None: it can."""
    try:
        read_bundle(bundle_folder(settings, str(bundle)))
    except InputError as error:
        return f"its bundle cannot be served ({str(error).rstrip('.')})"
    return None


def _lack_of_forgotten(settings: Settings, rows: pl.LazyFrame) -> str | None:
    forgotten = read_forgotten(settings.warehouse)
    if forgotten is None or forgotten.gone(rows.select(USER_ID, ITEM_ID)) is None:
        return None
    return "its rows name users or items that were forgotten (a `recsys forget` was stopped: run it again)"


def anew(settings: Settings, run: str, reason: str, bundle: str | Path) -> RecsysError:
    """The error that a run cannot be served, with what to do."""
    folder = bundle_folder(settings, str(bundle))
    makes = f"`recsys retrieve CONFIG --bundle {address(folder)}` makes its candidates anew and serves them"
    return InputError(
        f"The run {run} cannot be served: {reason}; {makes if folder.is_dir() else 'choose another run'}."
    )
