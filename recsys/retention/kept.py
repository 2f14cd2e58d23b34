"""The rules of what stays: new nights, what is served, what a rollback serves, and whatever these need.

Only the small files beside the tables are looked at here, so that the rules can be read, and tested, by themselves.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from typing import Any

from recsys import runs
from recsys.bundles.manifest import read_manifest
from recsys.bundles.mirror import bundles_folder, read_pointer
from recsys.columns import ITEMS
from recsys.errors import RecsysError
from recsys.releases.choice import way
from recsys.releases.record import FOLDER, Release, champion, path_of
from recsys.runs import RunState
from recsys.settings import RetentionSettings, Settings


@dataclass(frozen=True, kw_only=True)
class Kept:
    """The things of a configuration that stay.

    Attributes
    ----------
    since
        Whatever is younger stays.
    first
        When the oldest night that stays began, of whatever configuration that had a night lately; `since` where it
        began later. What nights share is kept from then on.
    records_since
        Runs of MLflow and entries of the list of releases that are younger stay.
    runs
        MLflow runs of nights.
    states
        Keys of the nights' records.
    bundles
        Labels, the names of the bundles' folders.
    versions
        Versions of candidate tables, by the table's name; and of the catalogue that their nights read, and the nights
        that other configurations serve, which the gate compares with.
    read
        Versions of the tables that the nights before have read, and those of what is served, by the table's name: the
        gate counts their rows, for which the table's log is enough. A configuration without a night lately has none.
    """

    since: datetime
    first: datetime
    records_since: datetime
    runs: frozenset[str]
    states: frozenset[str]
    bundles: frozenset[str]
    versions: dict[str, tuple[int, ...]]
    read: dict[str, tuple[int, ...]]


def kept(
    settings: Settings,
    listed: Sequence[Release],
    states: Sequence[RunState],
    now: datetime,
    coming: Release | None = None,
) -> Kept:
    """Decide what stays.

    Parameters
    ----------
    listed
        Releases, oldest first.
    states
        Records of all nights in the warehouse, newest first.
    now
        The present moment, with a zone.
    coming
        Release of a switch that was stopped and cannot be finished yet, as on a full disk.
    """
    rules, since = settings.retention, now - timedelta(days=settings.retention.days)
    releases = releases_kept(listed, rules, now)
    own = [state for state in states if (name_of(state) or settings.name) == settings.name]
    # a start that failed before its first step is no night: it stays with those around it, and takes nobody's place
    newer = accumulate((bool(state.steps) for state in own), initial=0)
    nights = [
        state
        for state, many in zip(own, newer, strict=False)
        if many < rules.nights or moment_of(state.started) >= since
    ]
    others = [state for state in states if state not in own]
    needed = releases if coming is None else (*releases, coming)
    served = {release.run for release in needed}
    nights += [state for state in own if state.run_id in served and state not in nights]
    records_since = now - timedelta(days=rules.records_days)
    in_use = {name_of(state) for state in states if moment_of(state.started) >= records_since}
    alive = [state for state in (*nights, *others) if name_of(state) in in_use]  # of configurations that still run
    bundles = {Path(path).name for release in needed for path in (release.bundle, release.measured)}
    bundles |= {Path(path).name for state in (*nights, *others) for path in _bundles_of(state)}
    bundles |= set(named_elsewhere(settings))
    anywhere = served | {str(entry.get("run")) for entry in _listed_elsewhere(settings)}
    catalogues = _read_by(state for state in (*nights, *alive) if state.run_id in anywhere).get(ITEMS, ())
    return Kept(
        since=since,
        first=min([since, *(moment_of(state.started) for state in alive)]),
        records_since=records_since,
        runs=frozenset(served | {state.run_id for state in (*nights, *others)}),
        states=frozenset(state.key for state in (*nights, *others)),
        bundles=frozenset(bundles | {made_of for label in bundles for made_of in _made_of(settings, label)}),
        versions={
            ITEMS: catalogues,
            **{
                table: tuple(sorted(one.version for one in releases if one.table_name == table))
                for table in {one.table_name for one in releases}
            },
        },
        read=_read_by((*nights, *alive)),
    )


def releases_kept(listed: Sequence[Release], rules: RetentionSettings, now: datetime) -> tuple[Release, ...]:
    """The releases that can come back: the newest, the young, what is served, and what a rollback would serve."""
    since, back = now - timedelta(days=rules.days), {one.served for one in way(listed)[-2:]}
    first = len(listed) - rules.nights
    return tuple(
        one
        for place, one in enumerate(listed)
        if place >= first or moment_of(one.at) >= since or one.served in back or one is listed[-1]
    )


def name_of(state: RunState) -> str | None:
    """The configuration's name of a night; an older record tells it by a bundle. None: it has made none."""
    return state.name or next((Path(path).name.rpartition("-")[0] for path in _bundles_of(state)), None)


def is_own(settings: Settings, label: str) -> bool:
    """Return whether a bundle of this label is the configuration's, and not that of another name in the warehouse."""
    return label.rpartition("-")[0] == settings.name


def moment_of(text: str) -> datetime:
    """A moment of ISO 8601, in UTC where it names no zone."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _bundles_of(state: RunState) -> Iterator[str]:
    for name in ("train", "refit"):
        bundle = state.steps.get(name, {}).get("report", {}).get("bundle")
        if isinstance(bundle, str):
            yield bundle


def _read_by(states: Iterable[RunState]) -> dict[str, tuple[int, ...]]:
    found: dict[str, set[int]] = {}
    for state in states:
        for table, version in (state.steps.get("ingest", {}).get("report", {}).get("versions") or {}).items():
            if isinstance(version, int):
                found.setdefault(table, set()).add(version)
    return {table: tuple(sorted(versions)) for table, versions in found.items()}


def named_anywhere(settings: Settings) -> frozenset[str]:
    """Labels of bundles that are served, by whatever configuration, with those that their figures belong to."""
    found = set(named_elsewhere(settings))
    if (served := champion(settings)) is not None:
        found |= {Path(path).name for path in (served.bundle, served.measured)}
    return frozenset(found | {made_of for label in found for made_of in _made_of(settings, label)})


def named_elsewhere(settings: Settings) -> Iterator[str]:
    """Labels of bundles that something besides this configuration's nights names."""
    pointer = read_pointer(bundles_folder(settings.warehouse), settings.name)
    if pointer is not None:
        yield Path(str(_json(pointer).get("path", ""))).name
    if settings.train.warm_start not in (None, "previous"):
        yield Path(str(settings.train.warm_start)).name
    for entry in _listed_elsewhere(settings):  # another configuration may serve a bundle of this name
        yield from (Path(str(entry.get(key, ""))).name for key in ("bundle", "measured"))


def _listed_elsewhere(settings: Settings) -> Iterator[dict[str, Any]]:
    """Releases of the warehouse's other configurations, as their lists have them."""
    own = path_of(settings)
    for path in sorted((runs.state_folder(settings.warehouse) / FOLDER).glob("*.json")):
        if path != own:
            yield from _json(path.read_bytes()).get("releases", ())


def _made_of(settings: Settings, label: str) -> Iterator[str]:
    """Label of the bundle that a refitted one was made of; its figures are that one's."""
    try:
        refit = read_manifest(bundles_folder(settings.warehouse) / label)["lineage"].get("refit") or {}
    except (RecsysError, KeyError):
        return
    if refit.get("measured"):
        yield str(refit["measured"])


def _json(content: bytes) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}
