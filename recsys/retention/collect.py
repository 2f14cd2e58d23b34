"""All that goes, in the order in which it may go: what names things first, then the things."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any

from recsys import runs
from recsys.releases import record
from recsys.releases.record import Release
from recsys.retention import commits, folders, tables, vectors
from recsys.retention.kept import Kept, kept
from recsys.retention.removal import Kind, Removal, RetentionReport, carry_out
from recsys.settings import Settings
from recsys.storage.intact import naming_damage
from recsys.tracking import records
from recsys.tracking import retention as tracked
from recsys.tracking.store import Store


def collect(
    settings: Settings, store: Store | None, *, dry_run: bool = False, now: datetime | None = None
) -> RetentionReport:
    """Remove what `[retention]` does not keep, as far as disks and stores let it; inside of the warehouse's lock.

    Parameters
    ----------
    store
        MLflow's; None: what it holds stays, and goes with a later call.
    dry_run
        Only say what would go.
    now
        By default the present moment.
    """
    now = now or datetime.now(UTC)
    states = list(runs.states(runs.state_folder(settings.warehouse)))
    held = record.read(settings)
    coming = None if held.switching is None else Release.read(held.switching["release"])
    stays = kept(settings, held.releases, states, now, coming)
    kinds = (partial(_named, settings.warehouse, kind) for kind in _kinds(settings, stays, store))
    return carry_out(kinds, stays.since.isoformat(timespec="seconds"), dry_run=dry_run)


def _kinds(settings: Settings, stays: Kept, store: Store | None) -> Iterator[Kind]:
    yield partial(folders.records, settings, stays)
    if store is not None:
        yield partial(_files_of_runs, settings, stays, store)
        yield partial(_runs, settings, stays, store)
    of_nights = (folders.release_list, folders.report_pages, folders.values_per_user, folders.bundles)
    for kind in (*of_nights, folders.prepared_data, tables.rejected_rows):
        yield partial(kind, settings, stays)
    yield partial(tables.half_written_files, settings)
    yield partial(vectors.unused_vectors, settings, stays)
    yield partial(tables.small_files, settings)
    yield partial(tables.older_versions, settings, stays)
    yield partial(tables.stray_files, settings, stays)
    yield partial(tables.single_commits, settings)
    yield partial(commits.old_commits, settings, stays)


def _files_of_runs(settings: Settings, stays: Kept, store: Store) -> Iterator[Removal]:
    for run, size in tracked.old_runs(store, settings.name, stays.runs, stays.since):
        act = partial(tracked.remove_files, store, run)
        yield Removal(kind="MLflow run's files", what=run, size=size, act=act)


def _runs(settings: Settings, stays: Kept, store: Store) -> Iterator[Removal]:
    kind = "MLflow run" if records.can_delete(store) else "deleted MLflow run"
    for run, size in records.old_records(store, settings.name, stays.runs, stays.records_since):
        yield Removal(kind=kind, what=run, size=size, act=partial(records.delete, store, run))


def _named(root: str, kind: Kind) -> Iterator[Removal]:
    """Things of a kind; where a library fails at a damaged table, the error names the file."""
    with naming_damage(root):
        for one in kind():
            yield replace(one, act=partial(_act, root, one))


def _act(root: str, one: Removal) -> Any:
    with naming_damage(root):
        return one.act()
