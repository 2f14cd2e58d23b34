"""A place that may hold ids: counted, emptied, and searched again, which is the proof that nothing is left.

A place that cannot be reached keeps no other from being emptied. What is not done, the same command does later.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from recsys.storage.failures import is_failure, sentence


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """A place that may hold what is to be forgotten.

    Attributes
    ----------
    name
        Such as a path, without a secret and without an id.
    what
        What is counted, such as "rows".
    count
        How much goes.
    remove
        Empties it; returns how much went. Done twice it ends as if it had been done once.
    search
        How much is left, old versions and unfinished files included; None: it cannot be searched.
    """

    name: str
    what: str
    count: Callable[[], int]
    remove: Callable[[], int]
    search: Callable[[], int | None]


@dataclass(frozen=True, kw_only=True, slots=True)
class Emptied:
    """The result for a place; JSON-friendly.

    Attributes
    ----------
    found
        How much goes, in a dry run.
    removed
        How much went.
    left
        How much the search found afterwards; None: the place was not searched.
    error
        Why the place could not be emptied or searched.
    """

    name: str
    what: str
    found: int | None = None
    removed: int | None = None
    left: int | None = None
    error: str | None = None

    @property
    def is_clean(self) -> bool:
        """Return whether the place was searched and nothing was found."""
        return self.error is None and not self.left


def look(places: Iterable[Place]) -> list[Emptied]:
    """Count what would go; nothing is changed."""
    found = []
    for place in places:
        number, error = _tried(place.count)
        found.append(Emptied(name=place.name, what=place.what, found=number, error=error))
    return found


def empty(places: Iterable[Place]) -> list[Emptied]:
    """Empty places in their order; then search them all."""
    emptied = [(place, *_tried(place.remove)) for place in places]
    proof = []
    for place, removed, failed in emptied:
        left, error = _tried(place.search)
        proof.append(Emptied(name=place.name, what=place.what, removed=removed, left=left, error=failed or error))
    return proof


def _tried(act: Callable[[], Any]) -> tuple[Any, str | None]:
    """Return the result of an act, or the sentence of its error."""
    try:
        return act(), None
    except BaseException as error:
        if not is_failure(error):
            raise
        return None, f"{sentence(error)}."
