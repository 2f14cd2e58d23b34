"""Overrides with secrets: Prefect stores a flow's parameters, so it is given them masked; here are the real ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar

from recsys.storage.addresses import masked

_REAL: ContextVar[Mapping[str, str] | None] = ContextVar("overrides", default=None)


@contextlib.contextmanager
def of(overrides: Sequence[str]) -> Iterator[list[str]]:
    """Yield the overrides masked; inside, `real` gives them back as they are."""
    shown = [masked(override) for override in overrides]
    token = _REAL.set(dict(zip(shown, overrides, strict=True)))
    try:
        yield shown
    finally:
        _REAL.reset(token)


def real(overrides: Sequence[str] | None) -> list[str]:
    """A flow's overrides as they were given to the command; as they are where Prefect started the flow."""
    known = _REAL.get() or {}
    return [known.get(override, override) for override in overrides or ()]
