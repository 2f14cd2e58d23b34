"""gc: what [retention] does not keep goes, at the end of each night and by `recsys gc`."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape

from recsys import runs
from recsys.errors import RecsysError
from recsys.pipelines.steps import plain, tracked
from recsys.pipelines.terminal.console import facts
from recsys.pipelines.watch import watch
from recsys.releases.switch import settle
from recsys.retention.collect import collect
from recsys.retention.removal import RetentionReport
from recsys.settings import Settings
from recsys.storage.intact import naming_damage
from recsys.tracking.store import Store

MIB = 2**20


def keep_less(settings: Settings, store: Store) -> dict[str, Any] | None:
    """Clean up after a night, which holds the lock; None where that is off, or failed.

    The night is published or kept back already: an error is a warning, and the next night goes on.
    """
    if not settings.retention.enabled:
        return None
    display = watch()
    try:
        with display.step("retention"):
            report = collect(settings, store)
    except RecsysError as error:
        display.warn(
            f"Old nights were not all removed: {str(error).rstrip('.')}. The next night, or `recsys gc`, will."
        )
        return None
    if report.removed:
        display.say(sentence(report))
    return _counts(report)


def gc(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove what [retention] does not keep, or say what would go.

    Raises
    ------
    RecsysError
        Another process writes to the warehouse, or a part cannot be removed; the same command goes on there.
    """
    runs.need_warehouse(settings.warehouse)
    with naming_damage(settings.warehouse), tracked(settings) as store, runs.locked(settings.warehouse):
        if not dry_run:
            settle(settings)
        report = collect(settings, store, dry_run=dry_run)
    return {**_counts(report), "names": report.names, "sentence": sentence(report)}


def _counts(report: RetentionReport) -> dict[str, Any]:
    told: dict[str, Any] = plain(report)
    return {key: told[key] for key in ("removed", "freed", "since", "dry_run")}


def sentence(report: RetentionReport) -> str:
    """Tell what went in one sentence.

    >>> sentence(RetentionReport(removed={"bundle": 2}, freed={"bundle": 2**21}, names={}, since="", dry_run=False))
    'Removed by [retention]: 2 bundles (2.0 MiB in all).'
    """
    if not report.removed:
        return "Nothing is older than [retention] says."
    words = ", ".join(_many(kind, count) for kind, count in report.removed.items())
    begun = "Would be removed" if report.dry_run else "Removed"
    return f"{begun} by [retention]: {words} ({report.total / MIB:.1f} MiB in all)."


def _many(kind: str, count: int) -> str:
    """A number of things of a kind.

    >>> _many("bundle", 2), _many("small files", 1), _many("values per user", 3)
    ('2 bundles', 'small files of 1 table', 'values per user of 3 bundles')
    >>> _many("prepared data", 1), _many("prepared data", 3)
    ('1 prepared data set', '3 prepared data sets')
    """
    if kind == "prepared data":
        kind = "prepared data set"
    if kind == "deleted MLflow run":
        which = f"{count} MLflow run{'' if count == 1 else 's'}"
        return f"{which}, which the server marks as deleted (`mlflow gc` beside it frees their space)"
    several = {
        "small files": "table",
        "stray files": "table",
        "rejected rows": "table",
        "release entries": "list",
        "values per user": "bundle",
        "MLflow run's files": "MLflow run",
    }
    if kind in several:
        noun = several[kind]
        first = kind.removeprefix("MLflow run's ")
        return f"{first} of {count} {noun}{'' if count == 1 else 's'}"
    if kind == "table":
        return f"older versions of {count} table{'' if count == 1 else 's'}"
    return f"{count} {kind}{'' if count == 1 else 's'}"


def show_gc(console: Console, report: dict[str, Any]) -> None:
    """List what went, or would go."""
    for kind, names in report["names"].items():
        for name in names:
            console.print(f"{escape(kind)}  {escape(name)}", soft_wrap=True)
    console.print(escape(report["sentence"]))
    facts(console, {"younger than this stays": report["since"]})
