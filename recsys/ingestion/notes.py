"""Sentences on what a reading of the log brought besides new events: late ones, corrections, repeats, less."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from recsys.ingestion.change import Change
from recsys.settings import InteractionSettings

_FEW = 3  # files that a sentence names


def notes_of(
    change: Change,
    repeated: Mapping[str, int],
    settings: InteractionSettings,
    gone: Sequence[str] = (),
    shorter: Sequence[str] = (),
) -> list[str]:
    """One sentence for each kind of row that the reading has.

    Parameters
    ----------
    repeated
        By file that is new by its name: rows that say what the table says.
    gone, shorter
        Files that the reading before was of and that are not there, and those that held more rows then.
    """
    notes = []
    if change.late:
        done = "were left out" if "late events" in change.left_out else "were added"
        notes.append(
            f"New events that are late by more than {settings.late_hours:g} hours (interactions.late_hours): "
            f"{change.late:,}; they {done}."
        )
    if change.corrected:
        rows = "1 row" if change.corrected == 1 else f"{change.corrected:,} rows"
        notes.append(f"{rows} corrected the weight of events in the log.")
    if ignored := change.left_out.get("corrections"):
        notes.append(
            f"Rows that say another weight of an event of the log, which stays as it was: {ignored:,} "
            '(interactions.corrections = "leave-out").'
        )
    if repeated:
        files = sorted(repeated, key=lambda name: -repeated[name])
        notes.append(
            f"Rows of {_some(files)} that repeat events of the log and change nothing: "
            f"{sum(repeated.values()):,}; an event counts once."
        )
    if gone:
        notes.append(f"Files of the reading before that are no longer there: {_some(gone)}; their events stay.")
    if shorter:
        notes.append(
            f"Files with fewer rows than at the reading before: {_some(shorter)}; events that were read stay, and rows "
            "that were removed before a reading are lost."
        )
    return notes


def _some(files: Sequence[str]) -> str:
    more = f" and {len(files) - _FEW} more" if len(files) > _FEW else ""
    return f"{', '.join(files[:_FEW])}{more}"
