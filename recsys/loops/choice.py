"""The inner loops of the blend: compiled code for many users, numpy for a few.

Both give the same results to the last bit, so nobody's list depends on who shares the block. To load the compiled code
takes longer than numpy takes for one user; who answers many single users, as the service does, loads it at once.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Final

from recsys.loops import plain

MANY: Final = 32  # users of a block from which on the compiled code is loaded
_COMPILED: Final = "recsys.loops.compiled"


def loops(users: int) -> ModuleType:
    """The module with the inner loops for a block of so many users."""
    return load() if is_compiled(users) else plain


def is_compiled(users: int) -> bool:
    """Return whether `loops` of so many users are compiled."""
    return users >= MANY or _COMPILED in sys.modules


def in_registers() -> bool:
    """Return whether products of int8 can be compared in registers (`int8.py`): numba compiles for AVX-512 VNNI."""
    from numba.core.registry import cpu_target  # its import takes a while

    return "+avx512vnni" in cpu_target.target_context.codegen().magic_tuple()[2].split(",")


def load() -> ModuleType:
    """Load the compiled code; all that follows takes it."""
    from recsys.loops import collected, compiled  # noqa: F401  # their import takes a while

    return compiled
