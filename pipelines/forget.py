"""Forget: users, items and old events out of every place, with a proof. No flow and no MLflow run keeps their ids."""

from __future__ import annotations

from collections.abc import Iterable, Sequence, Set
from contextlib import ExitStack
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from recsys import runs
from recsys.audit.forgetting import Asked, bundles_naming, idle_bundles, places
from recsys.audit.places import Emptied, empty, look
from recsys.audit.proof import write_proof
from recsys.errors import InputError, RecsysError
from recsys.exports.base import Candidates
from recsys.forgetting.forget import candidate_tables, own_tables, unknown
from recsys.forgetting.forgotten import add_forgotten
from recsys.forgetting.sought import Sought
from recsys.ingestion.provenance import check_filled
from recsys.pipelines.steps import newest_candidates, tracked
from recsys.pipelines.terminal.console import facts
from recsys.report.files import pseudonyms
from recsys.settings import Settings
from recsys.storage.intact import naming_damage
from recsys.storage.warehouse import table_path
from recsys.table.naming import candidates_table
from recsys.tracking.store import Store


def forget(
    settings: Settings, users: Sequence[str] = (), *, items: Sequence[str] = (), before: str | None = None,
    listed: Sequence[str] = (), dry_run: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Remove users, items and old events from all places of a configuration, and keep them out.

    Parameters
    ----------
    users, items
        Ids as text.
    before
        ISO 8601, a day or a moment: no event before it stays, or is read again.
    listed
        Users of a list, of whom some may be unknown.
    dry_run
        Only say where how much would go.

    Raises
    ------
    InputError
        An id is in no table, or the warehouse is another configuration's; nothing is removed then.
    RecsysError
        Another process writes to the warehouse.
    """
    sought = Sought(
        users=frozenset([*users, *listed]),
        items=frozenset(items),
        before=None if before is None else _moment(before, settings.interactions.timezone),
    )
    if not (sought.users or sought.items or sought.before):
        raise InputError("Nothing is to be forgotten; give --user, --users, --item, --items or --before.")
    runs.need_warehouse(settings.warehouse)
    with naming_damage(settings.warehouse), ExitStack() as stack:
        states = stack.enter_context(runs.locked(settings.warehouse))  # first: a night may hold MLflow's database
        store = _store(settings, stack)
        check_filled(settings, rules=False)
        missing = unknown(settings.warehouse, sought)
        _need_known(settings, "user", users, {one for what, one in missing if what == "User"} - set(listed))
        _need_known(settings, "item", items, {one for what, one in missing if what == "Item"})
        asked = Asked(
            settings=settings,
            sought=sought,
            called=cache(pseudonyms(states)),
            store=store,
            candidates=lambda: Candidates(**newest_candidates(settings)),
        )
        found = places(asked)
        if dry_run:
            return _report(settings, sought, look(found), len(missing), dry_run=True)
        add_forgotten(settings.warehouse, sought, datetime.now(UTC))
        begun = write_proof(states, settings.warehouse, sought, {"clean": False, "sentence": "It has only begun."})
        report = _report(settings, sought, empty(found), len(missing), dry_run=False)
        return {**report, "proof": str(write_proof(states, settings.warehouse, sought, report, begun))}


def ids_of(path: str) -> list[str]:
    """Ids of a file, one a line.

    Raises
    ------
    InputError
        It cannot be read, or is empty.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InputError(f"The list {path} cannot be read: {reason}; give a text file with an id a line.") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise InputError(f"The list {path} has no id; give a text file with an id a line.")
    return found


def _need_known(settings: Settings, what: str, given: Sequence[str], missing: Set[str]) -> None:
    """Refuse ids that no table has, by their place in the command: a log keeps the sentence."""
    places = [place for place, one in enumerate(given, 1) if one in missing]
    if places:
        one, more = len(given) == 1, f", and {len(places) - 1} more of them," if len(places) > 1 else ""
        which = "that was given" if one else f"{places[0]} of the {len(given)} that were given{more}"
        raise InputError(
            f"The {what} {which} is in no table of {settings.warehouse}; check the id. Nothing was removed."
        )


def _store(settings: Settings, stack: ExitStack) -> Store | RecsysError:
    try:
        return stack.enter_context(tracked(settings))
    except RecsysError as error:  # the other places can be emptied
        return error


def _moment(text: str, timezone: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--before {text} is no date; write it as 2024-01-31 or 2024-01-31T12:00:00+00:00.") from None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=ZoneInfo(timezone) if timezone else UTC)
    if moment > datetime.now(UTC):
        raise InputError(f"--before {text} is in the future, so no event would be left; give a date that has passed.")
    try:
        return moment.astimezone(UTC)
    except OverflowError:
        raise InputError(f"--before {text} is before all events; give a later date.") from None


def _report(
    settings: Settings, sought: Sought, done: Sequence[Emptied], unknown_ids: int, *, dry_run: bool
) -> dict[str, Any]:
    root = settings.warehouse
    tables = {table_path(root, name): name for name in (*candidate_tables(root), *own_tables(root))}
    unclean = [one for one in done if not one.is_clean]
    return {
        "users": len(sought.users),
        "items": len(sought.items),
        "before": None if sought.before is None else sought.before.isoformat(),
        "unknown": unknown_ids,
        "dry_run": dry_run,
        "clean": not unclean and not dry_run,
        "removed": {tables[one.name]: one.removed or 0 for one in done if one.name in tables},
        "places": [asdict(one) for one in done],
        "sentence": _sentence(done, dry_run=dry_run),
        "notes": list(_notes(settings, sought)),
    }


def _sentence(done: Sequence[Emptied], *, dry_run: bool) -> str:
    if dry_run:
        return f"Nothing was removed: of {len(done)} places {sum(bool(one.found) for one in done)} would be changed."
    unclean = [one for one in done if not one.is_clean]
    if not unclean:
        return f"All {len(done)} places were searched afterwards, and nothing was found."
    first = unclean[0]
    reason = first.error or f"{first.left:,} {first.what} are left."
    others = len(unclean) - 1
    more = f" So may {others} more {'place' if others == 1 else 'places'}." if others else ""
    return f"{first.name} may still hold it: {reason}{more} Run the same command again."


def _notes(settings: Settings, sought: Sought) -> Iterable[str]:
    yield "The sources are not changed; every reading leaves out what was forgotten."
    yield (
        "Weights of models that learned from it keep that, and cannot be evaluated on what is left; the next night, or "
        "`recsys train`, makes new ones."
    )
    if sought.items:
        kept = [path for path in bundles_naming(settings, sought) if path not in idle_bundles(settings, sought)]
        if kept:
            yield (
                f"What is served needs bundles that list an item ({', '.join(path.name for path in kept)}); nobody is "
                "recommended it. Repeat the command after the next night, and they go, too."
            )
    if sought.before is not None:
        yield "Candidates of users with later events stay until the next night makes them anew."
    own = candidates_table(settings.warehouse, settings.name)
    if others := [table for table in candidate_tables(settings.warehouse) if table != own]:
        yield (
            f"Exports and MLflow runs of {', '.join(others)} still hold it: run `recsys forget` for each configuration."
        )


def show_forgotten(console: Console, report: dict[str, Any]) -> None:
    """Show a line a place, then what is left to say."""
    table = Table(title="places", title_justify="left")
    table.add_column("place", overflow="fold")
    table.add_column("what")
    for column in ("would go",) if report["dry_run"] else ("removed", "found afterwards"):
        table.add_column(column, justify="right")
    for one in report["places"]:
        keys = ("found",) if report["dry_run"] else ("removed", "left")
        numbers = ("–" if one[key] is None else f"{one[key]:,}" for key in keys)
        table.add_row(escape(one["name"]), one["what"], *numbers)
    console.print(table)
    for one in report["places"]:
        if one["error"]:
            console.print(f"[bold]{escape(one['name'])}[/]: {escape(one['error'])}", soft_wrap=True)
    console.print(escape(report["sentence"]), soft_wrap=True)
    lines = {"ids that no table has": report["unknown"] or None, "account": report.get("proof")}
    facts(console, lines | {f"note {number}": note for number, note in enumerate(report["notes"], 1)})
