"""Steps that take more time or memory than they usually do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Final, Literal

from recsys.settings import BudgetSettings

What = Literal["seconds", "peak_bytes"]
GIB: Final = 2**30
_FEWEST: Final = 3  # nights


@dataclass(frozen=True, kw_only=True)
class Over:
    """A step over its budget.

    Attributes
    ----------
    what
        "seconds", or "peak_bytes": the most memory that the process held meanwhile.
    usual
        Median of the nights before.
    """

    step: str
    what: What
    value: float
    usual: float
    nights: int

    def __str__(self) -> str:
        many = self.value / self.usual if self.usual else float("inf")
        if self.what == "seconds":
            took, usual = f"took {_time(self.value)}", _time(self.usual)
        else:
            took, usual = f"held {self.value / GIB:.1f} GiB", f"{self.usual / GIB:.1f} GiB"
        times = f"{many:.1f} times" if self.usual else "more than"
        return f"The step {self.step} {took}, {times} the median of the last {self.nights} nights ({usual})."


def over(budget: BudgetSettings, step: str, done: Mapping[str, Any], before: Sequence[Mapping[str, Any]]) -> list[Over]:
    """Find what a step took over its budget; nothing where too few nights before have done it.

    Parameters
    ----------
    done
        The step's record, with `seconds` and perhaps `peak_bytes`.
    before
        Its records of earlier nights, the newest first.
    """
    if not budget.enabled:
        return []
    floors: dict[What, float] = {"seconds": budget.min_seconds, "peak_bytes": budget.min_gib * GIB}
    found = []
    for what, floor in floors.items():
        known = [float(one[what]) for one in before if one.get(what) is not None][: budget.nights]
        value = done.get(what)
        if value is None or len(known) < _FEWEST:
            continue
        usual = median(known)
        if value > budget.factor * usual and value > floor:
            found.append(Over(step=step, what=what, value=float(value), usual=usual, nights=len(known)))
    return found


def _time(seconds: float) -> str:
    """A length of time.

    >>> _time(4.25), _time(90), _time(7200)
    ('4.2 s', '1.5 min', '2.0 h')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"
