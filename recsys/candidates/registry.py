"""The candidate sources that this program knows: a line each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, TypeVar

from recsys.candidates.base import Feature, Source
from recsys.candidates.co_occurrence import CoOccurrence
from recsys.candidates.history import History
from recsys.candidates.linear import Linear
from recsys.candidates.popularity import Popularity
from recsys.candidates.text import Text
from recsys.candidates.transitions import Transitions
from recsys.candidates.vector import Vector

MOST: Final = 64  # sources that a bit each of uint64 can tell apart
RESERVED: Final = frozenset({"blend"})  # beside the features, the report has a line of this name

SOURCES: Final[dict[str, type[Source]]] = {}
"""By name, in the order in which the column `source` names them."""

S = TypeVar("S", bound=type[Source])


def register(source: S) -> S:
    """Make a source known, so that every later fit asks it and bundles that hold it can be read; also a decorator.

    Raises
    ------
    ValueError
        A name is taken or is no identifier, the source has no feature, or there are too many sources.
    """
    if not source.FEATURES:
        raise ValueError(f"the source {source.name!r} has no feature: no ranker could weigh what it proposes")
    others = [other for other in SOURCES.values() if other is not source]
    features = [feature.name for feature in source.FEATURES]
    for kind, ours, taken in (
        ("source", [source.name], {other.name for other in others}),
        ("feature", features, {feature.name for feature in features_of(others)} | RESERVED),
        ("context value", list(source.CONTEXT), set(context_of(others))),
    ):
        for name in ours:
            if name in taken or ours.count(name) > 1:
                raise ValueError(f"there is a {kind} {name!r} already")
            if not name.isidentifier():  # names stand in figures' names, and joined by "+" in a column
                raise ValueError(f"the {kind} {name!r} needs a name of letters, digits and underscores")
    if len(others) == MOST:
        raise ValueError(f"there are {MOST} sources already, as many as the column `source` can tell apart")
    SOURCES[source.name] = source
    return source


def features_of(sources: Iterable[Source | type[Source]]) -> tuple[Feature, ...]:
    """All features in the order in which a ranker is fitted: those of sources that read the catalogue last."""
    ordered = sorted(sources, key=lambda source: source.READS_CATALOGUE)
    return tuple(feature for source in ordered for feature in source.FEATURES)


def context_of(sources: Iterable[Source | type[Source]]) -> tuple[str, ...]:
    """All context values, in the order of the sources."""
    return tuple(name for source in sources for name in source.CONTEXT)


def sources_of(features: Sequence[str]) -> tuple[str, ...]:
    """Names of the registered sources that compute any of these features, in the registered order."""
    return tuple(
        name for name, source in SOURCES.items() if {feature.name for feature in source.FEATURES} & set(features)
    )


for _source in (Vector, Transitions, CoOccurrence, Linear, Text, Popularity, History):
    register(_source)
