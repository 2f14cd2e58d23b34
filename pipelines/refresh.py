"""Refresh: between nights, the rows of the users with new events, in the candidate table and in every export target.

The sources are read, as `ingest` does; then the bundle that is served makes those users' rows anew. Nothing is trained,
and no release is made: it is the same run's table. Cron or Prefect calls it, every few minutes or every hour.
"""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from typing import Any

import polars as pl

from recsys import runs
from recsys.bundles.bundle import read_bundle
from recsys.errors import InputError, RecsysError
from recsys.exports import several
from recsys.exports.base import Candidates
from recsys.pipelines.ingest import read_task
from recsys.pipelines.steps import (
    Run,
    as_function,
    compute_task,
    io_task,
    numbers,
    plain,
    step_run,
    table_versions,
)
from recsys.pipelines.watch import watch
from recsys.releases.record import Release, bundle_folder, champion, releases
from recsys.releases.switch import settle
from recsys.settings import Settings
from recsys.storage.once import keeping
from recsys.storage.warehouse import TableVersions, table_path
from recsys.table import refresh as table
from recsys.tracking import log as tracking

COUNTS = ("users", "new_users", "gone_users", "rows", "replaced", "by_fallback", "short_lists", "seconds")


def rows(settings: Settings, versions: TableVersions, changed: table.Changed, release: Release) -> dict[str, Any]:
    """Make the rows of users anew and commit them; `users` of the answer is a series."""
    display, done = watch(), 0

    def progress(batch: int) -> None:
        nonlocal done
        done += batch
        display.advance(done, None, f"{done:,} users")

    if changed.users is None:
        display.say(
            f"The version {changed.since} of the log, which the table was made of, is gone (after `recsys forget`, a "
            "clean-up or a new log): the rows of all users are made anew."
        )
    listed = [one.version for one in releases(settings) if one.table_name == release.table_name]
    made = table.refresh(
        settings,
        versions,
        changed,
        bundle_folder(settings, release.bundle),
        release.run,
        datetime.now(UTC),
        listed=listed,
        progress=progress,
    )
    settle(settings, exporting=False)  # the list of releases follows the table
    return {name: getattr(made, name) for name in made.__dataclass_fields__}


rows_task = compute_task(rows, limit="retrieve")


def targets(
    settings: Settings, candidates: dict[str, Any], users: pl.Series | None, before: dict[str, Any]
) -> dict[str, Any]:
    """Bring every target to the newest version of the table."""
    return several.update(settings, Candidates(**candidates), users, Candidates(**before))


targets_task = io_task(targets, limit="export")


def refresh_alone(settings: Settings, run: Run = as_function) -> dict[str, Any]:
    """Refresh the rows of users with new events.

    Raises
    ------
    InputError
        Nothing is served yet, its bundle is gone, or a source or setting is wrong; nothing is changed then.
    RecsysError
        Another run holds the warehouse, the disk does not take the rows, or a target fails after the others are done;
        the next refresh goes on there.
    """
    began = time.perf_counter()
    display = watch()
    with runs.locked(settings.warehouse), keeping():
        settle(settings, exporting=False)
        release = _served(settings)
        path = table_path(settings.warehouse, release.table_name)  # warehouses are moved
        ingested = run(read_task, settings)
        versions = table_versions(ingested)
        changed = table.changed_since(settings, versions)
        made: dict[str, Any] = {"version": release.version, "before": release.version}
        users = None
        if not changed.nothing:
            made = run(rows_task, settings, versions, changed, release)
            users = made.pop("users")
        report = {
            "name": settings.name,
            "run": release.run,
            "bundle": release.bundle,
            "path": path,
            "interactions": {"since": changed.since, "now": changed.now},
            "everyone": changed.users is None,
            "rows_added": ingested["rows_added"],
            "rows_rejected": ingested["rows_rejected"],
            **dict.fromkeys(COUNTS, 0),
            **{name: value for name, value in made.items() if name != "counts"},
            **made.get("counts", {}),
            "users": 0 if users is None else len(users),
        }
        found = {"path": path, "run": release.run}
        after, before = ({**found, "version": made[name]} for name in ("version", "before"))
        try:
            copies = run(targets_task, settings, after, users, before) if settings.export.wanted else {"targets": {}}
        except several.SomeFailed as failed:
            _record(settings, versions, {**report, "targets": failed.report["targets"]})
            raise
        report["targets"] = copies["targets"]
        for name, of in copies["targets"].items():
            if several.LEFT in of:
                display.warn(
                    f"The export target {name} holds the copy of the run {of['run']} and is left as it is; "
                    "`recsys export CONFIG` writes the newest table."
                )
        report["seconds"] = round(time.perf_counter() - began, 3)
        if not changed.nothing:
            _record(settings, versions, report)
    return dict(plain(report))


def _served(settings: Settings) -> Release:
    """The release that is served, whose bundle is there."""
    release = champion(settings)
    if release is None:
        raise InputError(
            f"Nothing of {settings.name!r} is served yet, so there is nothing to refresh; `recsys run CONFIG` makes "
            "the first table."
        )
    try:
        read_bundle(bundle_folder(settings, release.bundle), verify=False)
    except InputError as error:
        raise InputError(
            f"The table of the run {release.run} cannot be refreshed, as its bundle is not whole "
            f"({str(error).rstrip('.')}); restore it, or `recsys run CONFIG` makes a new one."
        ) from None
    return release


def _record(settings: Settings, versions: TableVersions, report: dict[str, Any]) -> None:
    """Tell MLflow; a refresh does not fail because it does not answer."""
    try:
        with step_run(settings, "refresh", None, versions) as step:
            metrics = numbers(report, COUNTS)
            tracking.log_metrics(step.store, step.run_id, {f"refresh/{name}": n for name, n in metrics.items()})
            tracking.log_text(step.store, step.run_id, "refresh.json", json.dumps(plain(report), indent=1))
    except InputError:
        raise
    except RecsysError as error:
        watch().warn(f"{str(error).rstrip('.')}: the refresh is done, and not in MLflow.")


def sentence(report: dict[str, Any]) -> str:
    """The refresh in one line.

    >>> sentence({"users": 37, "new_users": 2, "rows": 3700, "seconds": 2.14, "everyone": False,
    ...           "rows_rejected": {}, "version": 9, "targets": {"db": {"updated": 37}, "cache": {"held": True}}})
    '37 users with new events (2 new), 3,700 rows rewritten, 1 target updated, 2.1 s'
    """
    copies = report["targets"].values()
    updated = sum(several.HELD not in of and several.LEFT not in of for of in copies)
    left = sum(several.LEFT in of for of in copies)
    told = [f"{updated} target{'' if updated == 1 else 's'} updated"] if copies else []
    told += [f"{left} left as {'it is' if left == 1 else 'they are'}"] if left else []
    if rejected := sum(report["rows_rejected"].values()):
        told.append(f"{rejected:,} row{'' if rejected == 1 else 's'} of the sources rejected")
    seconds = f"{report['seconds']:.1f} s"
    if not report["users"]:
        begin = f"Nothing new in the log, the table stays at version {report['version']}"
        return ", ".join([begin, *(told if updated or left or rejected else []), seconds])
    one = report["users"] == 1
    who = f"{report['users']:,} user{'' if one else 's'} with new events"
    if report["everyone"]:
        who = f"all {report['users']:,} users"
    new = f" ({report['new_users']:,} new)" if report["new_users"] else ""
    return ", ".join([f"{who}{new}", f"{report['rows']:,} rows rewritten", *told, seconds])
