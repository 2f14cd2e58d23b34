"""gc: what [retention] does not keep goes, at the end of each night and by `recsys gc`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, TypeVar

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
from recsys.storage.failures import is_failure
from recsys.storage.failures import sentence as failure
from recsys.storage.intact import naming_damage
from recsys.tracking.store import Store

MIB = 2**20
Value = TypeVar("Value")


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
        display.warn(_left([str(error)]))
        return None
    if report.removed:
        display.say(sentence(report))
    if report.failed:
        display.warn(_left(report.failed))
    return _counts(report)


def _left(failed: list[str]) -> str:
    return f"Old nights were not all removed: {failed[0].rstrip('.')}. The next night, or `recsys gc`, will."


def gc(settings: Settings, *, dry_run: bool) -> dict[str, Any]:
    """Remove what [retention] does not keep as far as disks and stores let it, or say what would go.

    It is the command for a full disk: a stopped switch that cannot be finished, and an MLflow that does not answer,
    keep nothing else from going.

    Raises
    ------
    RecsysError
        Another process writes to the warehouse.
    """
    runs.need_warehouse(settings.warehouse)
    with naming_damage(settings.warehouse), runs.locked(settings.warehouse), ExitStack() as stack:
        store = _tried(lambda: stack.enter_context(tracked(settings)))
        settled = None if dry_run else _tried(lambda: settle(settings))
        report = collect(settings, None if isinstance(store, str) else store, dry_run=dry_run)
        if isinstance(settled, str):  # there is more room now
            settled = _tried(lambda: settle(settings, lacking=watch().warn))
    failed = [*(one for one in (settled, store) if isinstance(one, str)), *report.failed]
    return {**_counts(report), "names": report.names, "failed": failed, "sentence": sentence(report, failed)}


def _tried(act: Callable[[], Value]) -> Value | str:
    """Return the result of an act, or the sentence of its failure."""
    try:
        return act()
    except BaseException as error:
        if not is_failure(error):
            raise
        return failure(error)


def _counts(report: RetentionReport) -> dict[str, Any]:
    told: dict[str, Any] = plain(report)
    return {key: told[key] for key in ("removed", "freed", "since", "dry_run")}


def sentence(report: RetentionReport, failed: Sequence[str] = ()) -> str:
    """Tell what went in one sentence.

    Parameters
    ----------
    failed
        Sentences without their full stops: why something could not be removed.

    >>> gone = RetentionReport(removed={"bundle": 2}, freed={"bundle": 2**21}, since="", dry_run=False)
    >>> sentence(gone)
    'Removed by [retention]: 2 bundles (2.0 MiB in all).'
    >>> sentence(gone, ["a.json: Input/output error", "b.json: Input/output error"])
    'Removed by [retention]: 2 bundles (2.0 MiB in all), but not all: a.json: Input/output error, and 1 more failed.'
    """
    words = ", ".join(_many(kind, count) for kind, count in report.removed.items())
    begun = "Would be removed" if report.dry_run else "Removed"
    done = f"{begun} by [retention]: {words} ({report.total / MIB:.1f} MiB in all)"
    if not failed:
        return f"{done}." if words else "Nothing is older than [retention] says."
    more = f", and {len(failed) - 1} more failed" if len(failed) > 1 else ""
    return f"{f'{done}, but not all' if words else 'Nothing was removed'}: {failed[0]}{more}."


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
        "single commits": "table",
        "old commits": "table",
        "stray files": "table",
        "rejected rows": "table",
        "text vectors": "table",
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
