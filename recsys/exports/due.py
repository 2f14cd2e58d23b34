"""Targets whose export is due: what is served is not in them yet, as the export failed or a kill came before it.

A file a target, `<state folder>/due/<configuration>/<target>`, says so, and which version of which run is due. It is
replaced in one step, so it needs no lock. A target that somebody takes back is struck off: nothing exports to it until
it is asked to. A table that was made by hand is exported by hand, so no note of an earlier run brings it anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from recsys import runs
from recsys.exports.base import CandidateTable
from recsys.settings import Settings, targets_of
from recsys.storage.files import file_aside, write_json, writing

FOLDER: Final = "due"


def due(settings: Settings, run: str | None = None) -> frozenset[str]:
    """Names of the configuration's targets whose export is due.

    Parameters
    ----------
    run
        Only those in which this run's table is; None: whichever is.
    """
    noted = {target: _noted(settings, target) for target in targets_of(settings.export)}
    return frozenset(
        target for target, what in noted.items() if what is not None and (run is None or what.get("run") in (None, run))
    )


def note(settings: Settings, targets: Iterable[str], candidates: CandidateTable, *, failed: bool = False) -> None:
    """Note that the export of a version of the candidate table to these targets is due.

    Parameters
    ----------
    failed
        The export has failed: a note of a later version, which was published meanwhile, stays.

    Raises
    ------
    RecsysError
        The disk does not take the note.
    """
    for target in targets:
        if failed and _is_later(_noted(settings, target), candidates):
            continue
        path = _path(settings, target)
        with writing(f"The note {path} of an export that is due"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with file_aside(path) as aside:
                write_json(aside, {"run": candidates.run, "version": candidates.version})


def strike_off(settings: Settings, target: str, written: CandidateTable | None = None) -> None:
    """Note that the export to a target is not due any more.

    Parameters
    ----------
    written
        What readers of the target see now: a note of a later version stays. None: the target is taken back.
    """
    noted = _noted(settings, target)
    if noted is not None and (written is None or not _is_later(noted, written)):
        _path(settings, target).unlink(missing_ok=True)


def _noted(settings: Settings, target: str) -> dict[str, Any] | None:
    """Return what is due in a target; None: nothing is. A note that says nothing else is of whatever is served."""
    try:
        told = json.loads(_path(settings, target).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _is_later(noted: dict[str, Any] | None, candidates: CandidateTable) -> bool:
    return noted is not None and int(noted.get("version", -1)) > candidates.version


def _path(settings: Settings, target: str) -> Path:
    return runs.state_folder(settings.warehouse) / FOLDER / settings.name / target
