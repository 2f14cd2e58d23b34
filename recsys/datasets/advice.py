"""Name the command that brings a file that a configuration of a public data set, or of the demo, lacks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from recsys.datasets.fetch import DATA_SETS, RemoteFile


def how_to_get(table: str, path: Path) -> str | None:
    """A sentence on how a table's missing file is brought into its folder; None where we do not know the folder.

    >>> how_to_get("interactions", Path("data/movielens-1m/ml-1m.txt"))
    '`recsys fetch movielens-1m` downloads it.'
    """
    folder, name = path.parent, path.parent.name
    if folder.parts[-2:] == ("demo", "data"):
        return "`recsys demo` generates it."
    if name not in DATA_SETS:
        return None
    short = _short(folder)
    fetch = f"`recsys fetch {name}{'' if short == f'data/{name}' else f' --folder {short}'}`"
    if path.name in _names(DATA_SETS[name].files):
        return f"{fetch} downloads it."
    without = "" if table == "interactions" else f", or run without it: --set {table}=none"
    return f"{fetch} does not bring this file; make it as the head of the configuration says{without}."


def _names(files: Sequence[RemoteFile]) -> Iterator[str]:
    """The files that lie in the folder in the end."""
    for file in files:
        yield from _names(list(file.members.values())) if file.members else [file.name]


def _short(folder: Path) -> str:
    """A folder below this one without the path to here."""
    here = Path.cwd()
    return (folder.relative_to(here) if folder.is_relative_to(here) else folder).as_posix()
