"""One check of a night: a value, the limit that it must keep, and a sentence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, Literal

Status = Literal["passed", "failed", "skipped"]
OFF: Final = "Switched off."


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """The outcome of a check; JSON-friendly."""

    name: str
    status: Status
    value: float | None = None
    limit: float | None = None
    sentence: str = ""
    unusual: bool = False  # passed, and people should still hear of it

    @property
    def failed(self) -> bool:
        """Return whether it keeps the night back."""
        return self.status == "failed"


def at_most(name: str, value: float, limit: float | None, sentence: str) -> Check:
    """Return a check that fails above its limit; a limit of None switches it off."""
    return _check(name, value, limit, sentence, limit is not None and value <= limit)


def at_least(name: str, value: float, limit: float | None, sentence: str) -> Check:
    """Return a check that fails below its limit; a limit of None switches it off."""
    return _check(name, value, limit, sentence, limit is not None and value >= limit)


def unless_chance(check: Check, beyond: bool) -> Check:
    """Return a check whose failure needs evidence: passed, and within chance, unless the value is beyond chance."""
    if not check.failed or beyond:
        return check
    return replace(check, status="passed", sentence=f"{check.sentence.rstrip('.')}; within chance.")


def skipped(name: str, reason: str, limit: float | None = None) -> Check:
    """Return a check that cannot be made, with the reason."""
    return Check(name=name, status="skipped", limit=limit, sentence=reason)


def unless_off(name: str, limit: float | None, make: Callable[[float], Check]) -> Check:
    """Return the check that `make` computes for its limit, or that it is switched off, without computing it."""
    return skipped(name, OFF) if limit is None else make(limit)


def _check(name: str, value: float, limit: float | None, sentence: str, passed: bool) -> Check:
    if limit is None:
        return skipped(name, OFF)
    return Check(
        name=name,
        status="passed" if passed else "failed",  # a value that is not a number passes nothing
        value=float(value),
        limit=float(limit),
        sentence=sentence,
    )
