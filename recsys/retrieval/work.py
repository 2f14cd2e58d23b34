"""Costs of a search, estimated from counted work: the same on every machine and in every run.

A choice by a stopwatch is not repeatable. So indexes are compared by what a search does, which is a matter of the
vectors alone: items compared, cells looked at, scores computed again. The constants turn counts into microseconds of
one core of the machine that they were calibrated on: an AMD EPYC with AVX-512 that multiplies int8. On another one with
int8 the ratios between them differ little; on one without, the exact search takes twice as long. A sweep reports
measured seconds beside the estimates.

Shapes: V items, D width, n fetched for each user.
"""

from __future__ import annotations

import re
from typing import Final

WIDTH: Final = 128  # that the constants per item are of
EXACT: Final = (120.0, 0.8e-5)  # microseconds a user, and for each item and column
USER: Final = 20.0  # of a user's search by an index: masking, sorting
CELL: Final = 0.014  # of each cell: its score, and finding the nearest
AGAIN: Final = 0.15  # of each item that is scored again by exact products
FETCHED: Final = 0.15  # of each item that is fetched
COMPARED: Final = (("HNSW", 0.06), ("fs", 0.006), ("RaBitQ", 0.013), ("SQ", 0.018), ("PQ", 0.025), ("", 0.026))  # each
FLOPS: Final = 60_000.0  # multiplications and additions of a large product in a microsecond
ROUNDS: Final = 10  # of training cells
LINK: Final = 90.0  # of an item that joins a graph


def exact_work(items: int, width: int) -> float:
    """Microseconds of a user's comparison with all of V items."""
    return EXACT[0] + EXACT[1] * items * width


def search_work(factory: str, width: int, *, cells: int, compared: float, fetched: float, again: float) -> float:
    """Microseconds of a user's search by an index.

    Parameters
    ----------
    cells
        Whose scores are computed; 0 in an index without.
    compared
        Items whose codes are compared with the query.
    fetched, again
        Items that the index returns, and those that are scored again.
    """
    each = next(cost for kind, cost in COMPARED if kind in factory)
    wide = width / WIDTH
    return USER + CELL * wide * cells + each * wide * compared + FETCHED * fetched + AGAIN * wide * again


def cells_of(factory: str) -> int:
    """Return how many cells the items are divided among; 0: none.

    >>> cells_of("IVF1024,SQ8"), cells_of("HNSW32")
    (1024, 0)
    """
    return max((int(count) for count in re.findall(r"IVF(\d{1,18})", factory)), default=0)


def build_work(factory: str, items: int, width: int, trained: int) -> float:
    """Microseconds of building an index; `trained` is how many vectors its cells are trained on."""
    cells = cells_of(factory)
    product = 2.0 * cells * width / FLOPS
    links = LINK * width / WIDTH if "HNSW" in factory and not cells else 0.0
    return (ROUNDS * min(trained, items) + items) * product + items * (links + 2.0 * width / WIDTH)
