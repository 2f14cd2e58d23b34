"""Bundles, pages, prepared data, values per user and records of nights that are no longer needed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from recsys import runs
from recsys.bundles import mirror
from recsys.bundles.manifest import read_manifest
from recsys.bundles.mirror import address, bundles_folder
from recsys.data.log import home_of
from recsys.errors import RecsysError
from recsys.evaluation import users
from recsys.releases import record as releases
from recsys.report.files import FOLDER as REPORTS
from recsys.report.files import pages
from recsys.retention.kept import Kept, is_own, moment_of
from recsys.retention.removal import Removal
from recsys.runs import local_folder, state_folder
from recsys.settings import Settings
from recsys.storage import artefacts


def bundles(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Bundles of the configuration that nothing needs."""
    parent = bundles_folder(settings.warehouse)
    for label in mirror.labels(parent):
        path = parent / label
        if is_own(settings, label) and label not in kept.bundles and _made_before(path, kept.since):
            act = partial(mirror.remove, path)
            yield Removal(kind="bundle", what=address(path), size=size_of(path), act=act)


def values_per_user(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Values per user of evaluations whose bundle goes or is gone."""
    for path in sorted((local_folder(settings.warehouse) / users.FOLDER).glob("*.parquet")):
        if is_own(settings, path.stem) and path.stem not in kept.bundles and _written_before(path, kept.since):
            yield _file("values per user", path)


def report_pages(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Pages of nights that go; that of the newest night stays."""
    found = pages(local_folder(settings.warehouse) / REPORTS / settings.name)
    for path in found[:-1]:
        if path.stem.partition("-")[2] not in kept.runs and _written_before(path, kept.since):
            yield _file("page", path)


def prepared_data(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Prepared data that nobody has read for long, or that are more than the few that stay; they can be made again."""
    home = home_of(settings.warehouse)
    more = artefacts.older(home)
    for path in sorted(home.glob("[!.]*-*")):
        if path in more or _written_before(path, kept.since):
            yield Removal(kind="prepared data", what=str(path), size=size_of(path), act=partial(artefacts.remove, path))


def records(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Records of nights that go."""
    folder = state_folder(settings.warehouse)
    for state in runs.states(folder):
        if state.key not in kept.states:
            yield _file("record", folder / f"{state.key}.json")


def release_list(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """The oldest entries of the list of releases, up to the first one that can come back."""
    record = releases.read(settings)
    may_go = [
        moment_of(one.at) < kept.records_since and one.version not in kept.versions.get(one.table_name, ())
        for one in record.releases
    ]
    old = may_go.index(False) if False in may_go else 0
    if (old := min(old, len(record.releases) - record.untold)) > 0:  # MLflow is told of the last ones
        path, left = releases.path_of(settings), replace(record, releases=record.releases[old:])
        yield Removal(
            kind="release entries",
            what=f"{path}: {old} entries",
            size=0,
            act=partial(releases.write, settings, left),
        )


def size_of(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _file(kind: str, path: Path) -> Removal:
    return Removal(kind=kind, what=str(path), size=size_of(path), act=lambda: path.unlink(missing_ok=True))


def _written_before(path: Path, moment: datetime) -> bool:
    return datetime.fromtimestamp(path.stat().st_mtime, UTC) < moment


def _made_before(path: Path, moment: datetime) -> bool:
    """Return whether a bundle was made before a moment; one without a sound manifest tells by its folder."""
    try:
        return datetime.fromisoformat(str(read_manifest(path)["created_at"])) < moment
    except (RecsysError, ValueError):
        return path.is_dir() and _written_before(path, moment)
