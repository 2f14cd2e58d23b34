"""Bundles that a configuration needs: the one that is served, the one it points to, and the one a rollback serves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal

from recsys.bundles.mirror import bundles_folder, read_pointer
from recsys.errors import RecsysError
from recsys.releases.choice import way
from recsys.releases.record import releases
from recsys.settings import Settings
from recsys.storage.intact import is_kept
from recsys.storage.warehouse import table_path

Need = Literal["served", "pointed to", "rollback"]


def needed(settings: Settings) -> dict[str, Need]:
    """Return labels of bundles of the warehouse that must be there, with their use.

    A release whose rows are gone cannot come back, so nothing needs its bundle. A bundle that lies elsewhere is none of
    the warehouse's.
    """
    try:
        listed = way(releases(settings))[-2:]
    except RecsysError:  # a damaged list is told of by itself
        listed = ()
    uses: dict[str, Need] = {} if (label := _pointed_to(settings)) is None else {label: "pointed to"}
    for one in listed:
        label = Path(one.bundle).name
        if Path(one.bundle).is_dir() and not (bundles_folder(settings.warehouse) / label).is_dir():
            uses.pop(label, None)
        elif one is listed[-1]:
            uses[label] = "served"
        elif is_kept(table_path(settings.warehouse, one.table_name), one.version):
            uses.setdefault(label, "rollback")
    return uses


def _pointed_to(settings: Settings) -> str | None:
    content = read_pointer(bundles_folder(settings.warehouse), settings.name)
    try:
        return None if content is None else Path(json.loads(content)["path"]).name
    except (ValueError, KeyError, TypeError):  # a damaged pointer is told of by itself
        return None
