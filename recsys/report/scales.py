"""Axes of charts: numbers to places, and the round numbers that are written beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Maps numbers from `low` to `high` onto places from `start` to `stop`; numbers outside keep to the ends.

    >>> Scale(0.0, 10.0, 100.0, 0.0).place(2.5)
    75.0
    >>> round(Scale(1.0, 100.0, 0.0, 200.0, log=True).place(10.0), 6)
    100.0
    """

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def place(self, value: float) -> float:
        """Return the place of a number."""
        transform: Callable[[float], float] = math.log if self.log else float
        low, high = transform(self.low), transform(self.high)
        share = (transform(min(max(value, self.low), self.high)) - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Return at most `most` + 1 round numbers from `low` to `high`, steps of 1, 2 or 5 times a power of ten.

    >>> ticks(0.0, 0.36)
    [0.0, 0.1, 0.2, 0.3]
    >>> ticks(3.7, 6.1, 4)
    [4.0, 5.0, 6.0]
    """
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / most))
    step = next(times * power for times in (1, 2, 5, 10) if times * power * most >= (high - low) * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{number * step:.12g}") for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Return 1, 2 and 5 times powers of ten from `low` to `high`, both above 0.

    >>> log_ticks(1, 100)
    [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]
    """
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    found = [times * 10.0**power for power in powers for times in (1, 2, 5)]
    return [tick for tick in found if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def finite(values: Iterable[float | None]) -> list[float]:
    """Return the numbers among some values: neither None nor NaN nor infinite."""
    return [float(value) for value in values if value is not None and math.isfinite(value)]
