"""Each user's last event, taken away from a log's file, and candidate tables scored against what was taken.

Nothing of the program is imported here, so that an error of its own measuring cannot repeat itself.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars as pl

USER, ITEM = "user_id", "item_id"


def take_last(source: Path, log: str, target: Path) -> pl.DataFrame:
    """Copy a data folder without the last event of each user.

    Parameters
    ----------
    source, target
        Folders; the second is made.
    log
        The log's file: of lines "user item" or "user item item ...", oldest first (.txt), or of comma-separated columns
        with a head, whose first is the user, whose second the item, and one of which is `timestamp` (.csv). Of equal
        times the last in the file is the last event.

    Returns
    -------
    DataFrame
        `user_id` and `item_id` of what was taken, as text; a row a user.
    """
    target.mkdir(parents=True)
    for path in source.iterdir():
        if path.is_file() and path.name != log:
            shutil.copyfile(path, target / path.name)
    lines = (source / log).read_text().splitlines()
    if log.endswith(".csv"):
        head, *lines = lines
        time = head.split(",").index("timestamp")
        newest: dict[str, tuple[float, int]] = {}
        for number, line in enumerate(lines):
            cells = line.split(",")
            newest[cells[0]] = max(newest.get(cells[0], (-np.inf, -1)), (float(cells[time]), number))
        last = {number for _, number in newest.values()}
        kept = [head, *(line for number, line in enumerate(lines) if number not in last)]
        taken = [lines[number].split(",")[:2] for number in sorted(last)]
    elif len(lines[0].split()) > 2:  # a user a line
        parts = [line.split() for line in lines]
        kept, taken = [" ".join(part[:-1]) for part in parts], [[part[0], part[-1]] for part in parts]
    else:
        ends = {line.split()[0]: number for number, line in enumerate(lines)}
        last = set(ends.values())
        kept = [line for number, line in enumerate(lines) if number not in last]
        taken = [lines[number].split() for number in sorted(last)]
    (target / log).write_text("\n".join(kept) + "\n")
    return pl.DataFrame(taken, schema={USER: pl.String, ITEM: pl.String}, orient="row")


def scored(table: pl.DataFrame, taken: pl.DataFrame, k: int = 10) -> tuple[float, float]:
    """HR@k and NDCG@k of candidates against the one event that was taken of each user.

    Parameters
    ----------
    table
        `user_id`, `item_id`, `rank` from 1; users without a row miss.
    taken
        As `take_last` returns it.
    """
    lists: dict[str, Sequence[str]] = {}
    best = table.filter(pl.col("rank") <= k).sort("rank")
    for user, items in best.group_by(USER, maintain_order=True).agg(pl.col(ITEM)).iter_rows():
        lists[str(user)] = [str(item) for item in items]
    gains = np.zeros((len(taken), 2))
    for row, (user, item) in enumerate(taken.iter_rows()):
        listed = lists.get(user, [])
        if item in listed:
            gains[row] = 1.0, 1.0 / np.log2(listed.index(item) + 2)
    hit, gain = gains.mean(axis=0)
    return float(hit), float(gain)
