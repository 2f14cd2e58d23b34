"""Values that several steps of a night share: made once, kept in memory while a block of work lasts.

Outside of a `keeping` block nothing is kept, and what a block kept goes with it: no configuration and no test sees
another one's. Of each kind one value is kept, the last, so that memory does not grow with the number of steps.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Hashable, Iterator
from contextvars import ContextVar
from typing import Any, TypeVar

Value = TypeVar("Value")

_KEPT: ContextVar[dict[str, tuple[Hashable, Any]] | None] = ContextVar("kept", default=None)


@contextlib.contextmanager
def keeping() -> Iterator[None]:
    """Keep what `once` makes until the block ends; an inner block keeps for itself."""
    token = _KEPT.set({})
    try:
        yield
    finally:
        _KEPT.reset(token)


def once(kind: str, key: Hashable, make: Callable[[], Value]) -> Value:
    """Make a value, or return the kept one of this kind where its key is the same.

    Parameters
    ----------
    key
        All that the value depends on.
    """
    kept = _KEPT.get()
    if kept is None:
        return make()
    if kind not in kept or kept[kind][0] != key:
        kept.pop(kind, None)  # freed before another is made
        kept[kind] = (key, make())
    value: Value = kept[kind][1]
    return value


def let_go(kind: str) -> None:
    """Free what is kept of a kind: no step needs it any more."""
    kept = _KEPT.get()
    if kept is not None:
        kept.pop(kind, None)
