"""Files of a table's log that no version which stays is opened by.

A version is opened by the checkpoint before it and the commits between the two. Delta's own writer deletes commits by
their age alone, and with them the way back to a version that was published long ago, so it is told not to (`KEEP_LOG`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import partial

from pyarrow import fs

from recsys.retention.kept import Kept
from recsys.retention.removal import Removal
from recsys.retention.tables import delete, present
from recsys.settings import Settings
from recsys.storage.purge import COMMIT
from recsys.storage.remote import filesystem
from recsys.storage.warehouse import table_path


def old_commits(settings: Settings, kept: Kept) -> Iterator[Removal]:
    """Commits and checkpoints before the oldest version that somebody may ask for, a removal a table."""
    for table in present(settings):
        path = table_path(settings.warehouse, table)
        files = _before(path, {*kept.versions.get(table, ()), *kept.read.get(table, ())}, kept.since)
        if files:
            yield Removal(
                kind="old commits",
                what=f"{path}: {len(files)} files of its log",
                size=sum(files.values()),
                act=partial(delete, f"{path}/_delta_log", sorted(files)),
            )


def _before(path: str, named: Iterable[int], since: datetime) -> dict[str, int]:
    """Bytes of a log's files before the checkpoint from which the oldest version that stays is opened, by their names.

    Parameters
    ----------
    named
        Versions that stay; one that cannot be opened any more, as after `recsys forget`, holds up nothing.
    since
        What was the newest version then stays, and all that came after.
    """
    store, folder = filesystem(f"{path}/_delta_log")
    inside = store.get_file_info(fs.FileSelector(folder))
    found = [(int(match[1]), info) for info in inside if (match := COMMIT.match(info.base_name))]
    commits = {version: info.mtime_ns for version, info in found if info.base_name == f"{version:020}.json"}
    old = [version for version, moment in commits.items() if moment < since.timestamp() * 1e9]
    if not old:
        return {}
    starts = {version for version, info in found if info.base_name == f"{version:020}.checkpoint.parquet"}
    starts |= {0} & set(commits)  # the first commit needs none
    opened_from = (max((start for start in starts if start <= one), default=None) for one in {max(old), *named})
    needed = [start for start in opened_from if start is not None]
    return {info.base_name: info.size for version, info in found if version < min(needed)} if needed else {}
