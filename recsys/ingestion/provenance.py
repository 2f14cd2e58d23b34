"""Provenance of a table, kept in each of its commits: owner, sources and reading rules.

Two rules follow:

- A table belongs to the configuration whose `name` filled it. Another name may use it when it declares the same
  sources; otherwise it would train on rows that are not its own.
- How a log is read decides what its rows are: in another time zone each event is another row. When these rules change
  for a log that has been read, the log must be read anew.

Tables that older versions filled say nothing about themselves. They belong to a name whose bundle or candidates lie
beside them; where there are none, the first configuration that reads into them adopts them.
"""

from __future__ import annotations

import codecs
import contextlib
import re
from pathlib import Path
from typing import Any, Final

from recsys.columns import BUNDLE, CANDIDATES, INTERACTIONS, ITEMS, USERS
from recsys.errors import InputError, RecsysError
from recsys.reading.sources import origins
from recsys.settings import Settings, SourceSettings
from recsys.storage import warehouse

FILLED: Final = "filled"  # key in a commit's metadata: name, sources, rules
_NO_RULES: Final = frozenset(
    {
        *("source", "format", "separator", "max_rejected_share", "query", "table", "watermark"),
        *("watermark_overlap_hours", "late_hours", "late", "corrections"),
    }
)  # no row becomes another by these
_ADDABLE: Final = frozenset({"timezone"})  # without it, times that lack a zone were rejected
_POINTER: Final = ".latest.json"  # end of the file in bundles/ that names a configuration's newest bundle
_MOST_SOURCES: Final = 100  # that a record holds, the newest


def declared(settings: Settings) -> dict[str, SourceSettings]:
    """The sections of the tables that a configuration reads sources into."""
    sections = {INTERACTIONS: settings.interactions, ITEMS: settings.items, USERS: settings.users}
    return {table: section for table, section in sections.items() if section is not None}


def check_filled(settings: Settings, *, rules: bool = True) -> None:
    """Refuse tables that another configuration filled from other sources, or that were read by other rules.

    Parameters
    ----------
    rules
        Compare the reading rules, too.

    Raises
    ------
    InputError
        Names the table, who filled it, and what to set.
    """
    for table, section in declared(settings).items():
        filled = warehouse.commit_metadata(settings.warehouse, table).get(FILLED)
        path = warehouse.table_path(settings.warehouse, table)
        if not filled:
            _check_owners(settings, table, path)
            continue
        ours = _sources(section, settings.data_root)
        if filled["name"] != settings.name and set(filled["sources"]) != set(ours):
            raise InputError(
                f"The table {path} was filled by the configuration {filled['name']!r} from "
                f"{_short(filled['sources'])}, and {settings.name!r} reads {_short(ours)}: {_own_warehouse(settings)}."
            )
    if rules:
        check_rules(settings)


def next_record(settings: Settings, table: str) -> dict[str, Any]:
    """Return the provenance for the next commit of a table."""
    section = declared(settings)[table]
    ours = _sources(section, settings.data_root)
    filled = warehouse.commit_metadata(settings.warehouse, table).get(FILLED) or {}
    sources = list(dict.fromkeys([*filled.get("sources", []), *ours]))[-_MOST_SOURCES:]
    return {"name": filled.get("name", settings.name), "sources": sources, "rules": reading_rules(section)}


def reading_rules(section: SourceSettings) -> dict[str, Any]:
    """The settings of a log that decide what its rows are, as JSON has them; defaults are left out."""
    rules = section.model_dump(mode="json", exclude_defaults=True, exclude=set(_NO_RULES))
    if "encoding" in rules:
        rules["encoding"] = _codec(rules["encoding"])
    if "columns" in rules:
        rules["columns"] = {ours: theirs for ours, theirs in rules["columns"].items() if ours != theirs}
    return {key: value for key, value in rules.items() if value not in ({}, [], "utf-8")}


def _check_owners(settings: Settings, table: str, path: str) -> None:
    """Refuse a table that does not say who filled it, where only others have worked with it."""
    if warehouse.latest_version(settings.warehouse, table) is None:
        return
    owners = _owners(settings.warehouse)
    if owners and settings.name not in owners:
        raise InputError(
            f"The table {path} is older than the records of who filled it, and what lies beside it is of "
            f"{' and '.join(map(repr, owners))}, not of {settings.name!r}: {_own_warehouse(settings)}, or, if both "
            f"read the same sources, run `recsys ingest` with the configuration {owners[0]!r} first."
        )


def _owners(root: str) -> list[str]:
    """The names, ascending, whose bundles lie in a warehouse; without bundles the one whose candidates do."""
    if "://" not in root:
        pointers = sorted((Path(root) / "bundles").glob(f"*{_POINTER}"))
        if pointers:
            return [pointer.name.removesuffix(_POINTER) for pointer in pointers]
    with contextlib.suppress(RecsysError):  # no candidates, or damaged ones: they are made anew
        rows = warehouse.scan(root, CANDIDATES)
        if BUNDLE in rows.collect_schema():
            labels = rows.select(BUNDLE).head(1).collect()[BUNDLE]
            return [label[1] for label in (re.fullmatch(r"(.+)-[0-9a-f]{12}", str(label)) for label in labels) if label]
    return []


def _own_warehouse(settings: Settings) -> str:
    return (
        "give it a warehouse of its own, for example "
        f"warehouse = {settings.warehouse.rstrip('/') + '-' + settings.name!r}"
    )


def check_rules(settings: Settings) -> None:
    """Refuse a log that was read into its table by other rules; a table that does not say its rules passes.

    Raises
    ------
    InputError
        Names what changed, its old and its new value, and what to do.
    """
    filled = warehouse.commit_metadata(settings.warehouse, INTERACTIONS).get(FILLED)
    if not filled:
        return
    before, now = filled["rules"], reading_rules(settings.interactions)
    changed = [
        change
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key) and not (key in _ADDABLE and key not in before)
        for change in _changes(f"interactions.{key}", before.get(key), now.get(key), "its default")
    ]
    if changed:
        have, it = ("has", "it") if len(changed) == 1 else ("have", "them")
        path = warehouse.table_path(settings.warehouse, INTERACTIONS)
        raise InputError(
            f"{' and '.join(changed)} {have} changed since the log was read into {path}, which would make other rows "
            f"of the same events: set {it} back, read the log anew with `recsys ingest CONFIG --rebuild`, or choose a "
            "new warehouse."
        )


def _changes(key: str, before: Any, now: Any, nothing: str) -> list[str]:
    """The entries that differ, `key (old -> new)`; an entry that is not there is `nothing`."""
    if isinstance(before or now, dict):
        before, now = before or {}, now or {}
        inner = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
        return [
            text for name in inner for text in _changes(f"{key}.{name}", before.get(name), now.get(name), "not set")
        ]
    if isinstance(before or now, list):
        gone = [entry for entry in before or [] if entry not in (now or [])]
        new = [entry for entry in now or [] if entry not in (before or [])]
        before, now = (_entries(gone), _entries(new)) if gone or new else (_entries(before), _entries(now))
        return [f"{key} ({before or nothing} -> {now or nothing})"]
    return [f"{key} ({nothing if before is None else repr(before)} -> {nothing if now is None else repr(now)})"]


def _entries(values: list[Any]) -> str:
    """Entries of a list; of an object what is set."""
    said = [
        {name: value for name, value in entry.items() if value is not None} if isinstance(entry, dict) else entry
        for entry in values
    ]
    return ", ".join(map(repr, said))


def _sources(section: SourceSettings, data_root: str) -> list[str]:
    return origins(section, data_root)


def _short(sources: list[str]) -> str:
    return sources[-1] if len(sources) == 1 else f"{sources[-1]} and {len(sources) - 1} more"


def _codec(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError:  # said when the file is read
        return encoding
