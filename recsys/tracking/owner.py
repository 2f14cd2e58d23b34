"""Ids of warehouses, by which runs of one and of another are told apart where both write to one MLflow store.

A test shop and the real one may have the same name and the same store. So each warehouse draws an id, which lies in its
folder of run states and is a tag of its runs. A warehouse that is moved keeps its id. A copy draws another, and takes
over the runs of the one that it was copied from when that is gone.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from recsys.storage.files import file_aside, write_json

WAREHOUSE_TAG: Final = "recsys.warehouse"
FILE: Final = "warehouse.id"  # in the folder of run states


def warehouse_ids(states: Path) -> tuple[str, ...]:
    """Ids of the warehouse with this folder of run states: its own, and those that it has taken over.

    Nothing where there is no such folder, or no room.
    """
    path = states / FILE
    told, here = _read(path), str(path.resolve())
    before = [] if told is None else [*_copied_from(told)]
    if told is not None and _is_elsewhere(path, told):
        before, told = [*before, told], None
    own = uuid.uuid4().hex if told is None else str(told["id"])
    if told is None or told["path"] != here:
        try:
            with file_aside(path) as aside:
                write_json(aside, {"id": own, "path": here, "copied_from": before})
        except OSError:
            if told is None:
                return ()
    return own, *(str(one["id"]) for one in before if not _is_elsewhere(path, one))


def _read(path: Path) -> dict[str, Any] | None:
    """Id, the place of the file when it was written, and both of those that it was copied from."""
    with contextlib.suppress(OSError, ValueError):
        told = json.loads(path.read_text(encoding="utf-8"))
        return told if _is_sound(told) else None
    return None


def _copied_from(told: Mapping[str, Any]) -> list[dict[str, Any]]:
    before = told.get("copied_from", [])
    return [{"id": one["id"], "path": one["path"]} for one in before if _is_sound(one)]


def _is_sound(told: Any) -> bool:
    return isinstance(told, dict) and all(isinstance(told.get(name), str) for name in ("id", "path"))


def _is_elsewhere(path: Path, told: Mapping[str, Any]) -> bool:
    """Return whether the warehouse that an id was drawn for is still there, and another one than this."""
    original = Path(told["path"])
    with contextlib.suppress(OSError):
        held = _read(original)
        return held is not None and held["id"] == told["id"] and not original.samefile(path)
    return False
