"""Each user's last event is taken out of a log's file, and the scores are those worked out by hand."""

from __future__ import annotations

import ast
import importlib
import json
import math
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"
LOGS = {
    "pairs.txt": ("1 a\n1 b\n2 c\n1 d\n2 e\n", "1 a\n1 b\n2 c\n"),
    "rows.txt": ("1 a b d\n2 c e\n", "1 a b\n2 c\n"),
    # by time, and of equal times the later line
    "table.csv": (
        "userId,movieId,rating,timestamp\n1,d,5,9\n1,a,3,1\n1,b,4,2\n2,c,1,7\n2,e,2,7\n",
        "userId,movieId,rating,timestamp\n1,a,3,1\n1,b,4,2\n2,c,1,7\n",
    ),
}


@pytest.fixture
def withheld(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(FOLDER)
    return importlib.import_module("withheld")


def test_it_imports_nothing_of_the_program() -> None:
    tree = ast.parse((FOLDER / "withheld.py").read_text())
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported == {"__future__", "shutil", "collections.abc", "pathlib", "numpy", "polars"}


@pytest.mark.parametrize("log", LOGS)
def test_each_users_last_event_is_taken(withheld: ModuleType, tmp_path: Path, log: str) -> None:
    whole, rest = LOGS[log]
    source = tmp_path / "source"
    source.mkdir()
    (source / log).write_text(whole)
    (source / "items.csv").write_text("as it is")
    taken = withheld.take_last(source, log, tmp_path / "target")
    assert sorted(taken.iter_rows()) == [("1", "d"), ("2", "e")]
    assert (tmp_path / "target" / log).read_text() == rest
    assert (tmp_path / "target" / "items.csv").read_text() == "as it is"


def test_scores_are_those_of_the_ranks(withheld: ModuleType) -> None:
    """Found first, found third, found behind k, not in the list, without a list."""
    lists = {1: "abc", 2: "abc", 3: "xyzw", 4: "abc"}
    rows = [(user, item, rank) for user, items in lists.items() for rank, item in enumerate(items, start=1)]
    table = pl.DataFrame(rows, schema=["user_id", "item_id", "rank"], orient="row").sample(fraction=1, shuffle=True)
    wanted = {"1": "a", "2": "c", "3": "w", "4": "q", "5": "a"}
    taken = pl.DataFrame(list(wanted.items()), schema=["user_id", "item_id"], orient="row")
    hit, gain = withheld.scored(table, taken, k=3)
    assert hit == pytest.approx(2 / 5)
    assert gain == pytest.approx((1 + 1 / math.log2(4)) / 5)


@pytest.mark.slow
def test_the_blind_check_scores_every_way_to_refit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whole nights on a ring: what comes next is always the next item, also for those whose last event was taken."""
    monkeypatch.syspath_prepend(FOLDER)
    folder = tmp_path / "data" / "ml-latest-small"
    folder.mkdir(parents=True)
    rows = [
        f"{user},{(user + step) % 30},4,{1000 * user + step}" for user in range(1, 121) for step in range(8 + user % 4)
    ]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *rows]) + "\n")
    blind = importlib.import_module("blind")
    call = ["--data", str(tmp_path / "data"), "--folder", str(tmp_path / "kept"), "--quick", "--json"]
    answers = []
    for _ in range(2):  # the second time from what was kept
        blind.main(call)
        answers.append(json.loads(capsys.readouterr().out)["configurations"])
    assert answers[0] == answers[1]
    (run,) = answers[0]["ml-latest-small"]
    assert [run["modes"][mode]["kind"] for mode in ("none", "counts", "all")] == ["none", "counts", "all"]
    assert len({one["bundle"] for one in run["modes"].values()}) == 3
    assert all(one["hr"] > 0.9 for one in run["modes"].values())  # by the transitions at least
