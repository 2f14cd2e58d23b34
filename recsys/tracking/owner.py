"""Ids of warehouses, by which runs of one and of another are told apart where both write to one MLflow store.

A test shop and the real one may have the same name and the same store. So each warehouse draws an id, which lies in its
folder of run states and is a tag of its runs. A warehouse that is moved keeps its id; a copy of one draws another.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from pathlib import Path
from typing import Final

from recsys.storage.files import file_aside, write_json

WAREHOUSE_TAG: Final = "recsys.warehouse"
FILE: Final = "warehouse.id"  # in the folder of run states


def warehouse_id(states: Path) -> str | None:
    """Return the id of the warehouse with this folder of run states; None where there is no such folder, or no room."""
    path = states / FILE
    held, here = _read(path), str(path.resolve())
    known = None if held is None or _is_copy(path, *held) else held[0]
    if held == (known, here):
        return known
    drawn = known or uuid.uuid4().hex
    with contextlib.suppress(OSError):
        with file_aside(path) as aside:
            write_json(aside, {"id": drawn, "path": here})
        return drawn
    return known


def _read(path: Path) -> tuple[str, str] | None:
    """Id, and the place of the file when it was written."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        return str(told["id"]), str(told["path"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _is_copy(path: Path, drawn: str, written: str) -> bool:
    original = Path(written)
    with contextlib.suppress(OSError):
        told = _read(original)
        return told is not None and told[0] == drawn and not original.samefile(path)
    return False
