"""Take every version of a Delta table before the newest away: its data files, its commits and its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from deltalake import DeltaTable
from pyarrow import fs

from recsys.storage.remote import filesystem
from recsys.storage.warehouse import commit_properties

_COMMIT: Final = re.compile(r"(\d{20})\.")  # how a commit's and a checkpoint's file begin


def purge(path: str, metadata: Mapping[str, Any]) -> None:
    """Remove what older versions hold; commits do, too, as they name the first and the last value of a column.

    Parameters
    ----------
    metadata
        Of the newest commit.
    """
    table = DeltaTable(path)
    table.vacuum(
        retention_hours=0,
        enforce_retention_duration=False,
        dry_run=False,
        full=True,
        commit_properties=commit_properties(metadata),
    )
    table = DeltaTable(path)  # cleaning up is a commit, too
    table.create_checkpoint()
    store, folder = filesystem(f"{path}/_delta_log")
    for info in store.get_file_info(fs.FileSelector(folder)):
        commit = _COMMIT.match(info.base_name)
        if commit and int(commit.group(1)) < table.version():
            store.delete_file(info.path)
