"""The candidate table of a configuration: `candidates`, or `candidates-NAME` where another one's are there."""

from __future__ import annotations

import re
from typing import Any, Final

from recsys.columns import CANDIDATES
from recsys.storage.warehouse import commit_metadata, latest_version

NAME: Final = "name"  # keys of a commit's metadata
BUNDLE: Final = "bundle"
LOG: Final = "log"  # the id of the log's table, and the version that the rows were made of


def candidates_table(root: str, name: str) -> str:
    """Name of the table that holds, or will hold, the candidates of the configuration `name`.

    Configurations of several names may share a warehouse, for they may share a log. None replaces the candidates of
    another one: the first takes `candidates`, the others have a table of their own.
    """
    own = f"{CANDIDATES}-{name}"
    if latest_version(root, own) is not None:
        return own
    owner = _owner(commit_metadata(root, CANDIDATES))
    return CANDIDATES if owner in (None, name) else own


def _owner(metadata: dict[str, Any]) -> str | None:
    """Return whose candidates a commit holds; older ones name only the bundle, `<name>-<12 digits>`."""
    bundle = re.fullmatch(r"(.+)-[0-9a-f]{12}", str(metadata.get(BUNDLE, "")))
    return metadata.get(NAME) or (bundle.group(1) if bundle else None)
