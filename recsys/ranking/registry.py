"""The rankers that this program knows: a line each."""

from __future__ import annotations

from typing import Final, TypeVar

from recsys.ranking.base import Ranker
from recsys.ranking.loglinear import LogLinear

RANKERS: Final[dict[str, type[Ranker]]] = {}
DEFAULT: Final = LogLinear.name  # also of the bundles that were written before rankers had names

R = TypeVar("R", bound=type[Ranker])


def register(ranker: R) -> R:
    """Make a ranker known, so that bundles that hold it can be read; also a decorator.

    Raises
    ------
    ValueError
        Its name is taken.
    """
    if RANKERS.get(ranker.name, ranker) is not ranker:
        raise ValueError(f"there is a ranker {ranker.name!r} already")
    RANKERS[ranker.name] = ranker
    return ranker


register(LogLinear)
