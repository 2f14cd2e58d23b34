"""A finding of `recsys check`: what is wrong, where, what to do, and how it is mended where nothing can be lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from recsys.storage.failures import is_failure, sentence


@dataclass(frozen=True, kw_only=True, eq=False)
class Finding:
    """Something that does not fit.

    Attributes
    ----------
    part
        Such as "table" or "pointer".
    where
        A path or a name, without a secret.
    what
        The fault, as a sentence without its full stop.
    advice
        What a person can do, as a sentence without its full stop.
    repair
        Mends it and loses nothing; None: only a person can.
    passing
        Whether a night that is publishing shows the same for a while.
    """

    part: str
    where: str
    what: str
    advice: str
    repair: Callable[[], Any] | None = None
    passing: bool = False

    def told(self) -> dict[str, Any]:
        """JSON-friendly."""
        known = {"part": self.part, "where": self.where, "what": self.what, "advice": self.advice}
        return {**known, "can_repair": self.repair is not None}


Checks = Iterable[tuple[str, Callable[[], Iterable[Finding]]]]


def carried_out(checks: Checks) -> Iterator[Finding]:
    """Findings of all checks; one that fails is a finding itself.

    Parameters
    ----------
    checks
        Each with the part that it looks at.
    """
    for part, look in checks:
        try:
            yield from look()
        except BaseException as error:
            if not is_failure(error):
                raise
            yield Finding(part=part, where=part, what=sentence(error), advice="see to this first, then check again")


def mend(found: Iterable[Finding]) -> list[dict[str, Any]]:
    """Repair what can be repaired; returns what was done, with the sentence of a repair that failed."""
    done = []
    for one in found:
        if one.repair is None:
            continue
        try:
            one.repair()
            done.append({**one.told(), "error": None})
        except BaseException as error:
            if not is_failure(error):
                raise
            done.append({**one.told(), "error": sentence(error)})
    return done
