"""A finding of `recsys check`: what is wrong, where, what to do, and how it is mended where nothing can be lost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import polars as pl
from deltalake.exceptions import DeltaError
from pyarrow import ArrowException

from recsys.errors import RecsysError, first_line
from recsys.storage.addresses import masked


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
    """

    part: str
    where: str
    what: str
    advice: str
    repair: Callable[[], Any] | None = None

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
        except (RecsysError, OSError, DeltaError, ArrowException, pl.exceptions.PolarsError) as error:
            what = masked(str(error) if isinstance(error, RecsysError) else first_line(error)).rstrip(".")
            yield Finding(part=part, where=part, what=what, advice="see to this first, then check again")


def mend(found: Iterable[Finding]) -> list[dict[str, Any]]:
    """Repair what can be repaired; returns what was done, with the sentence of a repair that failed."""
    done = []
    for one in found:
        if one.repair is None:
            continue
        try:
            one.repair()
            done.append({**one.told(), "error": None})
        except (RecsysError, OSError) as error:
            done.append({**one.told(), "error": masked(str(error))})
    return done
