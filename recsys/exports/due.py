"""Targets whose export is due: what is served is not in them yet, as the export failed or a kill came before it.

A file a target, `<state folder>/due/<configuration>/<target>`, says so. Noting it and striking it off are one act each,
so they need no lock. A target that somebody takes back is struck off: nothing exports to it until it is asked to.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from recsys import runs
from recsys.settings import Settings, targets_of
from recsys.storage.files import synchronise, writing

FOLDER: Final = "due"


def due(settings: Settings) -> frozenset[str]:
    """Names of the configuration's targets whose export is due."""
    return frozenset(target for target in targets_of(settings.export) if _path(settings, target).exists())


def note(settings: Settings, targets: Iterable[str]) -> None:
    """Note that the export to these targets is due.

    Raises
    ------
    RecsysError
        The disk does not take the note.
    """
    for target in targets:
        path = _path(settings, target)
        with writing(f"The note {path} of an export that is due"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            synchronise(path.parent)


def strike_off(settings: Settings, target: str) -> None:
    """Note that the export to a target is not due any more."""
    path = _path(settings, target)
    if path.exists():
        path.unlink(missing_ok=True)


def _path(settings: Settings, target: str) -> Path:
    return runs.state_folder(settings.warehouse) / FOLDER / settings.name / target
