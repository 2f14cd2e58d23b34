"""All that goes, in the order in which it may go: what names things first, then the things."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import partial

from recsys import runs
from recsys.releases.record import releases
from recsys.retention import folders, tables
from recsys.retention.kept import Kept, kept
from recsys.retention.removal import Removal, RetentionReport, carry_out
from recsys.settings import Settings
from recsys.tracking import records
from recsys.tracking import retention as tracked
from recsys.tracking.store import Store


def collect(
    settings: Settings, store: Store | None, *, dry_run: bool = False, now: datetime | None = None
) -> RetentionReport:
    """Remove what `[retention]` does not keep; inside of the warehouse's lock, with no switch under way.

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
    stays = kept(settings, releases(settings), states, now)
    return carry_out(_removals(settings, stays, store), stays.since.isoformat(timespec="seconds"), dry_run=dry_run)


def _removals(settings: Settings, stays: Kept, store: Store | None) -> Iterator[Removal]:
    yield from folders.records(settings, stays)
    if store is not None:
        for run, size in tracked.old_runs(store, settings.name, stays.runs, stays.since):
            act = partial(tracked.remove_files, store, run)
            yield Removal(kind="MLflow run's files", what=run, size=size, act=act)
        kind = "MLflow run" if records.can_delete(store) else "deleted MLflow run"
        for run, size in records.old_records(store, settings.name, stays.runs, stays.records_since):
            yield Removal(kind=kind, what=run, size=size, act=partial(records.delete, store, run))
    yield from folders.release_list(settings, stays)
    yield from folders.report_pages(settings, stays)
    yield from folders.values_per_user(settings, stays)
    yield from folders.bundles(settings, stays)
    yield from folders.prepared_data(settings, stays)
    yield from tables.rejected_rows(settings, stays)
    yield from tables.small_files(settings)
    yield from tables.older_versions(settings, stays)
    yield from tables.stray_files(settings, stays)
