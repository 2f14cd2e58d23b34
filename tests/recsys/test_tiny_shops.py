"""Shops of a few users or items end with a table of candidates or with one sentence, never with a traceback."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.settings.read import parse_settings
from recsys.table.build import retrieve

AS_OF = datetime(2026, 1, 1, tzinfo=UTC)
RNG = np.random.default_rng(0)
RECFORMER = {"dimensions": 16, "heads": 2, "layers": 1, "vocabulary": 300, "second_stage_epochs": 1}
KEEP = {"evaluate": {"exclude_seen": False, "cutoffs": [10]}, "retrieve": {"exclude_seen": False, "k": 10}}
NEXT = {"model": {"objective": "next-item"}}
Lists = list[list[int]]


def some(users: int, items: int, shortest: int, longest: int) -> Lists:
    return [RNG.integers(items, size=RNG.integers(shortest, longest + 1)).tolist() for _ in range(users)]


def night(folder: Path, histories: Lists, text: bool = False, **changes: Any) -> tuple[list[str], Any, Any]:
    """Ingest, train, evaluate and retrieve; what was said, and both reports."""
    lines = ["user_id,item_id,timestamp"]
    for user, history in enumerate(histories):
        lines += [f"{user},{item},{1_700_000_000 + 1000 * n + user}" for n, item in enumerate(history)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    tree: dict[str, Any] = {
        "name": "tiny",
        "data_root": str(folder),
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "evaluate": {"cutoffs": [10]},
        "retrieve": {"k": 10},
    }
    for section, values in changes.items():
        tree[section] = tree.get(section, {}) | values
    tree["model"] = {"dimensions": 16, "max_length": 8} | tree.get("model", {})
    tree["train"] = {"epochs": 2, "evaluate_every": 1} | tree.get("train", {})
    tree["blend"] = {"candidates": 10, "text": False} | tree.get("blend", {})
    if text:
        titles = [{"item_id": n, "title": f"thing {n}"} for n in sorted({item for one in histories for item in one})]
        (folder / "items.jsonl").write_text("\n".join(map(json.dumps, titles)))
        tree |= {"items": {"source": "items.jsonl", "text": ["title"]}, "recformer": RECFORMER}
    settings, said = parse_settings(tree), list[str]()
    versions = ingest(settings).versions
    bundle = fit(settings, versions, say=said.append).bundle
    return said, evaluate(settings, versions, bundle), retrieve(settings, versions, bundle, "run", AS_OF)


SHOPS: dict[str, tuple[Lists, dict[str, Any]]] = {
    "one user": ([list(range(10))], {}),
    "one user, one item": ([[0] * 6], {}),
    "users of one item": ([[0] * 4] * 70, NEXT),
    "few negatives": ([[0] * 4] * 70, {"train": {"loss": "gbce", "negatives": 9}}),
    "two items": ([[0, 1, 0, 1]] * 70, {}),
    "identical users": ([[0, 1, 2, 3, 4]] * 70, NEXT),
    "short histories": (some(80, 10, 1, 4), {"train": {"loss": "sampled", "negatives": 300}}),
    "one long history": ([[n] for n in range(20)] + [[0, 1, 2, 3]], {}),
    "lists longer than the catalogue": (some(50, 8, 3, 6), {"retrieve": {"k": 500}, "evaluate": {"cutoffs": [1, 500]}}),
    "blend of more than there is": (some(90, 20, 3, 8), {"blend": {"kind": "always", "candidates": 900}}),
    "windows of two": (some(60, 12, 3, 8), {"model": {"max_length": 2}}),
    "one training user": (some(40, 6, 4, 6), {"train": {"users": 0.001}}),
    "time": (some(80, 10, 1, 3), {"split": {"strategy": "time"}}),
    "recformer": ([[0] * 4] * 70, {"model": {"kind": "recformer"}, "text": True}),
}


@pytest.mark.parametrize("name", SHOPS)
def test_a_tiny_shop_has_a_table_and_figures(name: str, tmp_path: Path) -> None:
    histories, changes = SHOPS[name]
    _, report, candidates = night(tmp_path, histories, **changes)
    assert candidates.users == len(histories)
    assert all(np.isfinite(value) for value in report.metrics.values())
    items = len({item for one in histories for item in one})
    if name == "one training user":  # its items are all that training knows
        assert 0 < candidates.rows < 40 * items
        return
    assert candidates.rows == sum(min(candidates.k, items - len(set(one))) for one in histories)


@pytest.mark.parametrize("keep", [False, True])
def test_where_everybody_has_seen_everything_the_model_serves_alone(keep: bool, tmp_path: Path) -> None:
    """Nobody proposes anything new; where what was seen may come back, all sources do."""
    histories = [RNG.permutation(5).tolist() for _ in range(90)]
    histories = [[*history, *history[:2]] for history in histories]
    said, report, candidates = night(tmp_path, histories, **(KEEP if keep else {}))
    assert candidates.rows == (5 * 90 if keep else 0)
    if not keep:
        assert report.served == "model"
        assert said[-1].startswith("The model serves alone: 0 validation users have an item that a source proposed")


@pytest.mark.parametrize(
    ("histories", "changes", "message"),
    [
        ([[0, 1]] * 9, {}, "None of the 9 users has three interactions"),
        ([[0, 1, 2], [2, 1, 0]], {}, "None of the 2 training histories has two events"),
        ([[0, n + 1, n + 80] for n in range(70)], NEXT, "None of the 70 training histories has two events"),
        (
            [[0, 1, 2], [2, 1, 0]],
            {"model": {"kind": "recformer"}, "text": True},
            "None of the 2 training histories has an event after its first one whose item has text",
        ),
        ([[0, 1, 2]], {"filter": {"min_user_interactions": 50}}, "No interaction is left after"),
        ([[0, 1, 2]] * 3, {"split": {"strategy": "time", "test_from": "2030-01-01T00:00:00Z"}}, "no user for test"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_teaches_nothing_is_one_sentence(
    histories: Lists, changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        night(tmp_path, histories, **changes)
