"""Cost to open a Delta table, by the commits since its last checkpoint.

    .venv/bin/python benchmarks/commits.py --data .

Each step of a night opens several tables, some of them several times, so `[retention]` makes a checkpoint of ten
commits. Here a table gets a row a commit. The figures are milliseconds of CPU time for an opening, all threads of the
process together, as the median of 40. Nothing is read from `--data`.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any, Final

import common
import polars as pl
from deltalake import DeltaTable, write_deltalake

COUNTS: Final = (1, 10, 40, 80)
OPENINGS: Final = 40


def opened(path: str) -> float:
    """Median CPU time of an opening, in ms."""
    spent = []
    for _ in range(OPENINGS):
        began = time.process_time()
        DeltaTable(path)
        spent.append(1000 * (time.process_time() - began))
    return median(spent)


def figures(counts: tuple[int, ...]) -> dict[str, Any]:
    """An opening for each number of commits, and of the longest log once it has a checkpoint."""
    rows = pl.DataFrame({"n": [0]}).to_arrow()
    told: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="recsys-commits-") as scratch:
        path = str(Path(scratch, "table"))
        for number in range(1, counts[-1] + 1):
            write_deltalake(path, rows, mode="append")
            if number in counts:
                told.append({"commits": number, "checkpoint": "no", "ms": opened(path)})
        DeltaTable(path).create_checkpoint()
        told.append({"commits": counts[-1], "checkpoint": "yes", "ms": opened(path)})
    return {"openings": told}


def show(of: dict[str, Any]) -> None:
    """Print the table."""
    print(common.table([{**one, "ms": f"{one['ms']:.1f}"} for one in of["openings"]]))


def main() -> None:
    """Run from the shell."""
    given = common.options(__doc__).parse_args()
    common.answer(given, figures(COUNTS[:2] if given.quick else COUNTS), show)


if __name__ == "__main__":
    common.from_shell(main)
