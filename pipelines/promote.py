"""Promote and rollback: what is served by a person's decision; the list of what was is in `pipelines.releases`.

Neither needs Prefect, and a rollback does not wait for MLflow: where it does not answer, it is told later.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.markup import escape

from recsys import runs
from recsys.bundles.mirror import address
from recsys.errors import InputError, RecsysError
from recsys.pipelines.export import check_targets
from recsys.pipelines.publish import log_run
from recsys.pipelines.steps import newest_versions, tracked
from recsys.pipelines.watch import watch
from recsys.processes import registered
from recsys.releases import commands
from recsys.releases.choice import Built
from recsys.settings import Settings, targets_of
from recsys.storage.intact import naming_damage
from recsys.table import build as retrieval
from recsys.table.build import BuiltCandidates
from recsys.tracking.store import Store


def promote(settings: Settings, run: str, why: str) -> dict[str, Any]:
    """Serve a run that the gate kept back, or one that was served before; see `releases.commands.promote`."""

    def switch(store: Store | None) -> commands.Switched:
        def prepare(built: Built) -> None:
            reports = built.reports
            if store is not None and "evaluate" in reports:
                log_run(settings, store, built.run, reports["evaluate"], str(built.bundle))

        return commands.promote(settings, store, run, why, prepare, lambda built: _rebuilt(settings, built))

    return _switched(settings, switch)


def _rebuilt(settings: Settings, built: Built) -> BuiltCandidates:
    """Candidates of a run's bundle for the newest histories."""
    watch().say(f"The candidates of the run {built.run} are gone; its bundle makes new ones of the newest tables.")
    versions = newest_versions(settings)
    return retrieval.build(settings, versions, built.bundle, built.run, datetime.now(UTC))


def rollback(settings: Settings, why: str, to: str | None = None) -> dict[str, Any]:
    """Serve the release before the present one, or the last one of a run; see `releases.commands.rollback`."""
    return _switched(settings, lambda store: commands.rollback(settings, store, why, to))


def _switched(settings: Settings, switch: Callable[[Store | None], commands.Switched]) -> dict[str, Any]:
    """Switch inside of the warehouse's lock; a target that is away holds up nothing else, and its export stays due."""
    runs.need_warehouse(settings.warehouse)
    if settings.export.wanted:
        check_targets(settings)
    with (
        registered(settings.warehouse),
        naming_damage(settings.warehouse),
        _told(settings) as store,
        runs.locked(settings.warehouse),
    ):
        done = switch(store)
    return {
        "name": settings.name,
        "served": asdict(done.release),
        "instead": None if done.instead is None else asdict(done.instead),
        "finished": done.finished,
        "export": list(targets_of(settings.export)) or None,
    }


@contextlib.contextmanager
def _told(settings: Settings) -> Iterator[Store | None]:
    """The MLflow store; None where it does not answer, for what is served must not wait for it."""
    with contextlib.ExitStack() as stack:
        store = None
        try:
            store = stack.enter_context(tracked(settings))
        except InputError:
            raise
        except RecsysError as error:
            watch().warn(f"{str(error).rstrip('.')}: MLflow is told by the next night or the next of these commands.")
        yield store


def show_switched(console: Console, report: dict[str, Any]) -> None:
    """Show the release that is served now, the one before it, by whom and why."""
    served, instead = report["served"], report["instead"]
    what = "Finished what was stopped: the run" if report["finished"] else "The run"
    before = "" if instead is None else f" instead of {instead['run']}"
    console.print(
        f"{what} [bold]{escape(served['run'])}[/] is served now{escape(before)} "
        f"({served['by']} by {escape(str(served['who']))}: {escape(str(served['why']))})."
    )
    console.print(f"table   {escape(served['table'])}, version {served['version']}", soft_wrap=True)
    console.print(f"bundle  {escape(address(served['bundle']))}", soft_wrap=True)
    if report["export"]:
        console.print("export  follows it")
