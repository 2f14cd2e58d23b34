"""The list of what was served to readers, and the switch that is under way: one small file for a configuration.

`<state folder>/releases/<name>.json` holds `releases`, oldest first, and `switching`, what a switch that was stopped
has still to do (see `recsys.releases.switch`). It is replaced in one step. Where there is none, but a warehouse of an
earlier version serves a candidate table, that table is the first release.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl

from recsys import runs
from recsys.bundles.manifest import read_manifest
from recsys.bundles.mirror import bundles_folder, is_there
from recsys.bundles.store import latest_bundle
from recsys.columns import RUN
from recsys.errors import InputError, RecsysError
from recsys.settings import Settings
from recsys.storage.files import file_aside, write_json, writing
from recsys.storage.warehouse import commit_metadata, latest_version, scan, table_path
from recsys.table.naming import candidates_table

FOLDER: Final = "releases"
ADOPTED: Final = "an earlier version"  # `by` of what was served before there was a list


@dataclass(frozen=True, kw_only=True)
class Release:
    """The release that readers were served from a moment on; JSON-friendly.

    Attributes
    ----------
    run
        The MLflow run that the rows name.
    at
        When it was switched in, ISO 8601 with a zone.
    table, version
        Path of the candidate table, and the version whose rows are served.
    bundle
        Folder of the bundle that made the rows.
    measured
        Folder of the bundle that the figures belong to; the same one where nothing was trained again.
    metrics
        Figures on test, such as `test/ndcg_at_10`.
    verdict
        Sentence of the gate.
    why
        A person's reason for a switch by hand.
    by
        "night", "promote", "rollback", "retrieve", or "an earlier version".
    of
        The run that it brings back, if it was served before.
    who
        Who switched by hand, as the operating system calls them.
    """

    run: str
    at: str
    table: str
    version: int
    bundle: str
    measured: str
    metrics: dict[str, float]
    verdict: str | None = None
    why: str | None = None
    by: str = "night"
    of: str | None = None
    who: str | None = None

    @classmethod
    def read(cls, entry: Mapping[str, Any]) -> Release:
        """Return what an entry of the file tells; what a later version has added is left out."""
        return cls(**{field.name: entry[field.name] for field in fields(cls) if field.name in entry})

    @property
    def table_name(self) -> str:
        """Name of the candidate table in the warehouse."""
        return self.table.rstrip("/").rpartition("/")[2]

    @property
    def served(self) -> tuple[str, str, int]:
        """Key that tells two releases apart."""
        return self.run, self.table, self.version


@dataclass(frozen=True, kw_only=True)
class Record:
    """All that the file holds.

    Attributes
    ----------
    switching
        The switch that has begun and has not ended, see `recsys.releases.switch`.
    untold
        How many of the last releases MLflow has not been told of.
    deferred
        Whether that is because MLflow did not answer; otherwise it is still to be done.
    """

    releases: tuple[Release, ...] = ()
    switching: dict[str, Any] | None = None
    untold: int = 0
    deferred: bool = False


def champion(settings: Settings) -> Release | None:
    """The release that is served now; None before the first one."""
    listed = releases(settings)
    return listed[-1] if listed else None


def releases(settings: Settings) -> tuple[Release, ...]:
    """All releases of a configuration, oldest first.

    Raises
    ------
    RecsysError
        The list cannot be read.
    """
    return read(settings).releases


def add(settings: Settings, release: Release) -> None:
    """Put a release at the end of the list; the one that is there already, by run and version, is not added again."""
    record = read(settings)
    listed = record.releases
    if not path_of(settings).exists():  # what is adopted may be this very table
        listed = tuple(one for one in listed if one.served != release.served)
    if listed and listed[-1].served == release.served:
        return
    write(settings, replace(record, releases=(*listed, release)))


def path_of(settings: Settings) -> Path:
    """The file of a configuration."""
    return runs.state_folder(settings.warehouse) / FOLDER / f"{settings.name}.json"


def read(settings: Settings) -> Record:
    """Read the file, or adopt what is served where there is none.

    Raises
    ------
    RecsysError
        It is damaged.
    """
    path = path_of(settings)
    try:
        held = json.loads(path.read_text(encoding="utf-8"))
        return Record(
            releases=tuple(map(Release.read, held["releases"])),
            switching=held.get("switching"),
            untold=int(held.get("untold", 0)),
            deferred=bool(held.get("deferred", False)),
        )
    except FileNotFoundError:
        adopted = served_now(settings)
        return Record(releases=() if adopted is None else (adopted,))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RecsysError(
            f"The list of releases {path} is damaged; restore it from a backup, or remove it: then what is served now "
            "counts as the first release."
        ) from None
    except OSError as error:
        raise RecsysError(f"The list of releases {path} cannot be read: {error.strerror}.") from None


def write(settings: Settings, record: Record) -> None:
    """Replace the file in one step."""
    path = path_of(settings)
    with writing(f"The list of releases {path}"):
        path.parent.mkdir(parents=True, exist_ok=True)
        with file_aside(path) as aside:
            write_json(aside, asdict(record))


def bundle_folder(settings: Settings, bundle: str) -> Path:
    """Return the folder of a bundle now: warehouses are moved with what they hold.

    Parameters
    ----------
    bundle
        Its folder as it was written down, or its label.
    """
    here = bundles_folder(settings.warehouse) / Path(bundle).name
    return here if is_there(here) else Path(bundle)


def measured_of(settings: Settings, bundle: str | Path) -> Path:
    """The bundle that a bundle's figures were measured with: itself, unless it was trained again on all events."""
    try:
        refit = read_manifest(Path(bundle))["lineage"].get("refit") or {}
    except InputError:
        return Path(bundle)
    measured = refit.get("measured")
    return bundle_folder(settings, measured) if measured else Path(bundle)


def served_now(settings: Settings) -> Release | None:
    """Return the release that the newest candidate table and its bundle describe; None where one of them is missing."""
    root, table = settings.warehouse, candidates_table(settings.warehouse, settings.name)
    version = latest_version(root, table)
    if version is None:
        return None
    said = commit_metadata(root, table)
    bundle = bundle_folder(settings, str(said.get("bundle", "")))
    try:
        bundle = bundle if said.get("bundle") and bundle.is_dir() else latest_bundle(root, settings.name)
    except InputError:
        return None
    run = said.get("run") or _run_of_rows(root, table)
    if run is None:
        return None
    state = runs.state_of(runs.state_folder(root), run)
    figures = {} if state is None else state.steps.get("evaluate", {}).get("report", {}).get("metrics", {})
    return Release(
        run=run,
        at=said.get("as_of") or datetime.fromtimestamp(bundle.stat().st_mtime, UTC).isoformat(timespec="seconds"),
        table=table_path(root, table),
        version=version,
        bundle=str(bundle),
        measured=str(measured_of(settings, bundle)),
        metrics={name: value for name, value in figures.items() if isinstance(value, (int, float))},
        by=ADOPTED,
    )


def _run_of_rows(root: str, table: str) -> str | None:
    first = scan(root, table).select(pl.col(RUN).first()).collect()
    return None if first.is_empty() else first.item()
