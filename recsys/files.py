"""Small acts on files that must not be half done: hashes, waiting for the disk, JSON, left-overs of kills."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

WRITING: Final = ".writing-"  # part of the name of every folder that is not finished
ABANDONED_AFTER: Final = 86_400  # seconds; older unfinished folders were left by a killed process


def sha256(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def synchronise(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: Mapping[str, Any], *, sort: bool = False) -> None:
    """Write indented JSON; equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=sort, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def remove_abandoned(parent: Path) -> None:
    """Delete unfinished folders that a killed process left in `parent` more than a day ago."""
    for folder in parent.glob(f".*{WRITING}*"):
        if time.time() - folder.stat().st_mtime > ABANDONED_AFTER:
            shutil.rmtree(folder, ignore_errors=True)
