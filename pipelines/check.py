"""check: whether tables, bundles, pointers, exports, MLflow and records fit together, and mending what can be."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape

from recsys import runs
from recsys.audit import leftovers, served, stored
from recsys.audit.findings import Checks, Finding, carried_out, mend
from recsys.errors import RecsysError
from recsys.exports.base import Candidates
from recsys.pipelines.steps import newest_candidates
from recsys.settings import Settings
from recsys.tracking.log import open_store
from recsys.tracking.store import Store


def check(settings: Settings, *, deep: bool = False, repair: bool = False) -> dict[str, Any]:
    """Look for what does not fit, and with `repair` mend what can be mended without loss.

    Differences that a night makes while it publishes are left out as long as one holds the warehouse.

    Parameters
    ----------
    deep
        Read all rows and compare all hashes, which takes as long as reading the files.

    Raises
    ------
    RecsysError
        With `repair`: another process writes to the warehouse.
    """
    with ExitStack() as stack:
        mended: list[dict[str, Any]] = []
        busy = not repair and runs.is_busy(settings.warehouse)
        if repair:
            stack.enter_context(runs.locked(settings.warehouse))
        store = _store(settings)
        stack.callback(lambda: None if isinstance(store, RecsysError) else store.close())
        found = list(carried_out(_checks(settings, store, deep=deep)))
        if repair and any(one.repair for one in found):
            mended = mend(found)
            found = list(carried_out(_checks(settings, store, deep=deep)))
        busy = busy or (not repair and runs.is_busy(settings.warehouse))  # it may have begun meanwhile
        if busy:
            found = [one for one in found if not one.passing]
    return {
        "sound": not found,
        "deep": deep,
        "busy": busy,
        "findings": [one.told() for one in found],
        "mended": mended,
        "sentence": _sentence(found, mended, deep=deep, busy=busy),
    }


def _checks(settings: Settings, store: Store | RecsysError, *, deep: bool) -> Checks:
    candidates = lambda: Candidates(**newest_candidates(settings))  # noqa: E731 - asked where a target lacks its copy
    yield "table", partial(stored.tables, settings, deep=deep)
    yield "bundle", partial(stored.bundles, settings, None if isinstance(store, RecsysError) else store, deep=deep)
    if deep:
        yield "prepared data", partial(stored.prepared, settings)
    yield "release", partial(served.releases, settings)
    yield "pointer", partial(served.pointer, settings)
    yield "export", partial(served.exports, settings, candidates)
    yield "MLflow", partial(_tracked, settings, store)
    yield "record", partial(leftovers.records, settings)
    yield "forgotten", partial(leftovers.proofs, settings)
    yield "scratch", partial(leftovers.unfinished, settings)
    yield "retention", partial(leftovers.overdue, settings)


def _tracked(settings: Settings, store: Store | RecsysError) -> list[Finding]:
    if isinstance(store, RecsysError):
        raise store
    return list(served.tracked(settings, store))


def _store(settings: Settings) -> Store | RecsysError:
    """MLflow's store, or the error of one that does not answer."""
    try:
        return open_store(settings)
    except RecsysError as error:
        return error


def _sentence(found: list[Finding], mended: list[dict[str, Any]], *, deep: bool, busy: bool) -> str:
    done = sum(one["error"] is None for one in mended)
    before = f"{done} of {len(mended)} findings were mended. " if mended else ""
    if busy:
        before = "A run is writing to the warehouse, so what it publishes was left out. "
    if found:
        able = sum(one.repair is not None for one in found)
        more = f" `recsys check --repair` mends {able} of them." if able and not mended else ""
        return f"{before}{len(found)} {'finding' if len(found) == 1 else 'findings'}.{more}"
    how = "all rows and hashes were read" if deep else "sizes and names were compared; --deep reads all bytes"
    return f"{before}All is sound: {how}."


def show_check(console: Console, report: dict[str, Any]) -> None:
    """Show a line a finding."""
    for one in report["mended"]:
        end = "mended" if one["error"] is None else f"not mended: {one['error']}"
        console.print(escape(f"{one['part']}  {one['where']}: {one['what']}; {end}."), soft_wrap=True)
    for one in report["findings"]:
        console.print(escape(f"{one['part']}  {one['where']}: {one['what']}; {one['advice']}."), soft_wrap=True)
    console.print(escape(report["sentence"]))
