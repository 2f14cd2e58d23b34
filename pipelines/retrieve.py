"""Retrieve: the candidate table, each user's top k from a bundle; in a night, `publish` makes it the newest one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from recsys import runs
from recsys.compute.choice import check_compute
from recsys.pipelines.steps import (
    Run,
    as_function,
    chosen_bundle,
    compute_task,
    newest_versions,
    numbers,
    step_run,
)
from recsys.pipelines.watch import watch
from recsys.releases.switch import BY_RETRIEVE, described, serve, settle
from recsys.settings import Settings
from recsys.storage.warehouse import TableVersions
from recsys.table import build as retrieval
from recsys.tracking import log as tracking

COUNTS = ("rows", "users", "k", "short_lists", "empty_lists", "unlisted", "by_fallback", "filled_lists", "kept")


def retrieve(
    settings: Settings,
    versions: TableVersions,
    bundle: str,
    parent: str | None = None,
    as_of: datetime | None = None,
) -> dict[str, Any]:
    """Search for every user and write the rows beside the `candidates` table; alone, publish them at once."""
    display = watch()
    with step_run(settings, "retrieve", parent, versions) as step:
        moment, users = as_of or datetime.now(UTC), 0

        def progress(batch: int) -> None:
            nonlocal users
            users += batch
            display.advance(users, None, f"{users:,} users")

        built = retrieval.build(settings, versions, bundle, parent or step.run_id, moment, progress)
        report = step.done(built if parent else _served(settings, built, bundle))
        if report["kept"]:
            display.say(
                f"The rows of {report['kept']:,} users stay as they are: nothing that decides on them has changed."
            )
        if not report["rows"]:
            display.warn(f"No user of {report['users']:,} has a candidate: the table is empty.")
        if report["unlisted"]:
            display.say(
                f"{report['unlisted']:,} items that the bundle knows are not in the newest catalogue and are not "
                'recommended; retrieve.items = "all" recommends them.'
            )
        if report["rules"]:
            display.say(
                f"The lists obey {', '.join(report['rules'])}: {report['denied']:,} items are recommended to nobody, "
                f"and {report['short_lists']:,} lists are shorter than k = {report['k']:,} and the items left allow."
            )
        metrics = numbers(report, COUNTS)
        tracking.log_metrics(step.store, step.run_id, {f"retrieve/{name}": n for name, n in metrics.items()})
    return report


def _served(settings: Settings, built: retrieval.BuiltCandidates, bundle: str) -> retrieval.CandidatesReport:
    """Serve what was built by hand; the export follows with `recsys export`."""
    settle(settings, lacking=watch().warn)
    retrieval.check_not_empty(settings, built)
    release = described(settings, built.run, bundle, BY_RETRIEVE)
    serve(settings, release, lambda said: retrieval.publish(settings, built, said), exporting=False)
    return retrieval.publish(settings, built)


retrieve_task = compute_task(retrieve)


def retrieve_alone(settings: Settings, run: Run = as_function, bundle: str | None = None) -> dict[str, Any]:
    """Make the candidate table with a bundle, by default the newest, from the newest tables."""
    with runs.locked(settings.warehouse):
        check_compute(settings)
        return run(retrieve_task, settings, newest_versions(settings), chosen_bundle(settings, bundle))
