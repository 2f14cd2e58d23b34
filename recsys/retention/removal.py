"""One thing that goes, and the list of all: said before it is done, done one by one, so that a kill leaves the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class Removal:
    """A thing that goes.

    Attributes
    ----------
    kind
        Such as "bundle" or "page"; the report counts by it.
    what
        Its path or id.
    size
        Bytes on disk that it frees.
    act
        Removes it. Done twice it ends as if it had been done once.
    """

    kind: str
    what: str
    size: int
    act: Callable[[], Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class RetentionReport:
    """Summary of what went, or would go; JSON-friendly.

    Attributes
    ----------
    removed
        Number of things by kind.
    freed
        Bytes by kind.
    names
        Paths and ids by kind.
    since
        Whatever is younger stays, ISO 8601.
    dry_run
        Whether nothing was removed.
    """

    removed: dict[str, int]
    freed: dict[str, int]
    names: dict[str, list[str]]
    since: str
    dry_run: bool

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.freed.values())


def carry_out(removals: Iterable[Removal], since: str, *, dry_run: bool) -> RetentionReport:
    """Remove one by one, or only count."""
    removed: dict[str, int] = {}
    freed: dict[str, int] = {}
    names: dict[str, list[str]] = {}
    for one in removals:
        if not dry_run:
            one.act()
        removed[one.kind] = removed.get(one.kind, 0) + 1
        freed[one.kind] = freed.get(one.kind, 0) + one.size
        names.setdefault(one.kind, []).append(one.what)
    return RetentionReport(removed=removed, freed=freed, names=names, since=since, dry_run=dry_run)
