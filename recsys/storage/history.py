"""Commits of a Delta table's history: which of them changed rows, and which only tidied up."""

from __future__ import annotations

from typing import Any, Final

from deltalake import DeltaTable

TIDYINGS: Final = frozenset({"VACUUM START", "VACUUM END", "OPTIMIZE"})  # operations that change no row
SEEN: Final = 20  # commits looked back


def changes(opened: DeltaTable) -> list[dict[str, Any]]:
    """Return the last commits that changed rows, newest first; a clean-up commits, too, and changes none."""
    return [commit for commit in opened.history(SEEN) if commit.get("operation") not in TIDYINGS]
