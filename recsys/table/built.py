"""Knowledge of candidates that were built: counts, and where the rows lie."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from recsys.storage import stream


@dataclass(frozen=True, kw_only=True)
class Counted:
    """Counts of a retrieval."""

    run: str  # that its rows name
    rows: int
    users: int  # who were to be served, also those without a candidate
    k: int
    short_lists: int  # users with fewer candidates than k and the items that are left for them allow
    empty_lists: int  # users with none; they have no row
    without_signal: int  # users whose query vector is zero: the model's items come in the order of their codes
    unknown_events: int  # of the histories: items that the bundle does not know
    unlisted: int  # items of the bundle that the newest catalogue does not list; they are not recommended
    bundle: str
    index: str
    seconds: float
    by_fallback: int = 0  # users whose list is by text or by popularity, as the model knows nothing of them
    filled_lists: int = 0  # users whose list the fallback makes full
    log_users: int = 0  # of the log, whether they are served or not
    rules: list[str] = field(default_factory=list)  # that made the lists, by name
    rules_digest: str | None = None  # of their settings, and of the items that they allow
    denied: int = 0  # items that rules recommend to nobody
    kept: int = 0  # users whose rows are those of the table before: nothing that decides on them has changed


@dataclass(frozen=True, kw_only=True)
class BuiltCandidates(Counted):
    """Candidates that are written and not published; JSON-friendly."""

    staged: stream.Staged

    @classmethod
    def of(cls, report: Mapping[str, Any]) -> BuiltCandidates:
        """Return what a JSON-friendly report tells; other entries of it are left out."""
        known = {of.name: report[of.name] for of in fields(cls) if of.name in report}
        return cls(**{**known, "staged": stream.Staged(**report["staged"])})


@dataclass(frozen=True, kw_only=True)
class CandidatesReport(Counted):
    """Report of a published candidate table; JSON-friendly."""

    path: str  # of the Delta table
    version: int
