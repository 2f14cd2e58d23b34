"""A name for the rows of a table's version, which no other rows have, whoever removes and remakes the folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from deltalake import DeltaTable

from recsys.storage.warehouse import table_path


def identity(root: str | Path, table: str, version: int | None) -> str | None:
    """sha256 (hex) of the names of a version's data files, which are never written twice; None for no version."""
    if version is None:
        return None
    opened = DeltaTable(table_path(root, table), version=version)
    files = sorted(str(uri).rpartition("/")[2] for uri in opened.file_uris())
    return hashlib.sha256(json.dumps([str(opened.metadata().id), version, files]).encode()).hexdigest()
