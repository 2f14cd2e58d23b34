"""Rules of how often Python looks for cycles of objects that nothing refers to any more."""

from __future__ import annotations

import gc
from typing import Final

# objects, and generations, between two searches: Python's own 700 cost a fifth of the imports' time, whose objects all
# stay, and 50,000 a fifteenth
_RARELY: Final = (2_000_000, 10, 10)
_SELDOM: Final = (50_000, 20, 50)
_USUALLY: Final = (700, 10, 10)


def rarely() -> None:
    """Look so rarely that imports are spared; a process that works or lives on after them calls another of these."""
    gc.set_threshold(*_RARELY)


def seldom() -> None:
    """Look as a service does, whose answers leave few cycles and should not wait."""
    gc.set_threshold(*_SELDOM)


def as_usual() -> None:
    """Look as often as Python does by itself, though not again through what is there: that was imported and stays."""
    gc.freeze()
    gc.set_threshold(*_USUALLY)
