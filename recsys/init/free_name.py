"""The name of a new configuration, which its warehouse and its export bear too: no other one beside it has it."""

from __future__ import annotations

import re
import tomllib
from itertools import chain, count
from pathlib import Path
from typing import Final

_LONGEST: Final = 60  # characters: it becomes a part of file names
_DULL: Final = r"(?i)(recsys|config(uration)?|settings)"
_DULL_LOG: Final = r"(?i)(ratings?|interactions?|events?|logs?|data|train|part.*|reviews?|transactions?)"


def free_name(log: str, output: Path) -> str:
    """A name after the configuration's file, or where that says nothing after the log or its folder.

    Parameters
    ----------
    log
        The log's path or pattern.
    output
        The configuration's file; names and warehouses of the configurations beside it are taken.
    """
    wanted = _plain(output.stem)
    if not wanted or re.fullmatch(_DULL, wanted):
        folder, file = (_plain(part) for part in Path(log).absolute().parts[-2:])
        stem = file.split(".")[0]
        wanted = folder if not stem or re.fullmatch(_DULL_LOG, stem) else stem
    wanted = wanted or "recommender"
    wanted = (wanted if re.match(r"[A-Za-z0-9]", wanted) else f"r{wanted}")[:_LONGEST]
    taken = _taken(output)
    return (
        next(name for name in chain([wanted], (f"{wanted}-{n}" for n in count(2))) if name not in taken)
        if taken
        else wanted
    )


def _plain(part: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", part).strip("-.")


def _taken(output: Path) -> set[str]:
    """Names, and last parts of warehouses and exports, of the configurations beside a new one."""
    found: set[str] = set()
    for path in output.absolute().parent.glob("*.toml"):
        try:
            tree = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):  # not ours
            continue
        places = [tree.get("name"), tree.get("warehouse")]
        places.append(export.get("path") if isinstance(export := tree.get("export"), dict) else None)
        found |= {place.rstrip("/").rpartition("/")[2] for place in places if isinstance(place, str)}
    return found
