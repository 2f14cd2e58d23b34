"""Packages of a user's own that add a kind of model, a candidate source, a ranker or an export target.

A package names a module in its metadata, under the group `recsys.plugins`:

    [project.entry-points."recsys.plugins"]
    my_shop = "my_shop.recsys_parts"

The module is imported before a configuration or a bundle is read; what it registers is then known to the command, too.
"""

from __future__ import annotations

import functools
from importlib.metadata import entry_points
from typing import Final

from recsys.errors import InputError

GROUP: Final = "recsys.plugins"


@functools.cache
def load() -> tuple[str, ...]:
    """Import the module of every installed plug-in, once a process; returns their names.

    Raises
    ------
    InputError
        One cannot be imported; names it and says why.
    """
    found = sorted(entry_points(group=GROUP), key=lambda point: point.name)
    for point in found:
        try:
            point.load()
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise InputError(
                f"The plug-in {point.name!r} ({point.value}) cannot be imported: {reason}; mend or uninstall it."
            ) from error
    return tuple(point.name for point in found)
