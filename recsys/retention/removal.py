"""One thing that goes, and the list of all: said before it is done, done one by one, so that a kill leaves the rest.

A thing that cannot be removed holds up no other: a full disk is freed by those that can.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from recsys.storage.failures import is_failure, sentence


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


Kind = Callable[[], Iterable[Removal]]  # looks for what goes; a second call finds what is left


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
    failed
        Sentences, each of a thing that could not be removed, or of a place that could not be looked at.
    """

    removed: dict[str, int] = field(default_factory=dict)
    freed: dict[str, int] = field(default_factory=dict)
    names: dict[str, list[str]] = field(default_factory=dict)
    since: str
    dry_run: bool
    failed: list[str] = field(default_factory=list)

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.freed.values())

    def count(self, one: Removal) -> None:
        """Add a thing that went."""
        self.removed[one.kind] = self.removed.get(one.kind, 0) + 1
        self.freed[one.kind] = self.freed.get(one.kind, 0) + one.size
        self.names.setdefault(one.kind, []).append(one.what)


def carry_out(kinds: Iterable[Kind], since: str, *, dry_run: bool) -> RetentionReport:
    """Remove one by one, or only count; kinds of which something fails are tried again when the others are done."""
    report = RetentionReport(since=since, dry_run=dry_run)
    for kind, failed in [(kind, _carry_out(kind, report)) for kind in kinds]:
        # on a full disk, the others have made room meanwhile
        report.failed.extend(_carry_out(kind, report) if failed and not dry_run else failed)
    return report


def _carry_out(kind: Kind, report: RetentionReport) -> list[str]:
    """Remove what is of a kind; returns a sentence for each failure."""
    failed = []
    try:
        for one in kind():
            try:
                if not report.dry_run:
                    one.act()
                report.count(one)
            except BaseException as error:
                if not is_failure(error):
                    raise
                failed.append(sentence(error))
    except BaseException as error:
        if not is_failure(error):
            raise
        failed.append(sentence(error))
    return failed
