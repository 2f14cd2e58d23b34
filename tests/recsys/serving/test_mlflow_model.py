"""MLflow's model answers what the service answers, query by query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys.service.following import BundleSource
from tests.recsys.service.conftest import serving
from tests.recsys.service.shops import AnsweringShop

QUERIES: list[dict[str, Any]] = [
    {"history": ["1", "2"], "k": 3},
    {"history": [1, 2]},
    {"history": ["1", "what", "2"], "k": 2, "exclude": ["3"]},
    {"history": [1], "k": 3, "exclude_seen": False},
    {"history": []},
    {"events": [{"item": "4", "time": "2026-05-01T10:00:00Z"}, {"item": "1", "time": "2026-01-01T00:00:00Z"}], "k": 3},
]


def test_the_model_answers_as_the_service_does(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from recsys.tracking.registry import Model, _save, mlflow  # it silences MLflow's import

    bundle = AnsweringShop(tmp_path).bundle("one")
    _save(tmp_path / "model", bundle, ["1", "2"], Model())
    model = mlflow.pyfunc.load_model(str(tmp_path / "model"))
    wrong = [
        {"history": ["1"], "k": 0},
        {"history": ["1"], "attributes": {"age": 3}},
        {"events": [{"item": "1", "time": "no"}]},
    ]
    said = model.predict([*QUERIES, *wrong])
    service = serving(BundleSource(bundle))
    with service.client:
        for query, answer in zip(QUERIES, said, strict=False):
            asked = {"history": query.get("events", query.get("history")), **query}
            asked.pop("events", None)
            theirs = service.post("/recommend", **asked)
            assert answer.items == [str(item["item_id"]) for item in theirs["items"]]
            assert answer.scores == [item["score"] for item in theirs["items"]]
            assert answer.titles == [item["title"] for item in theirs["items"]]
            assert answer.sources == [item["source"] for item in theirs["items"]]
            assert (answer.unknown, answer.by_fallback, answer.error) == (theirs["unknown"], theirs["by_fallback"], "")
    assert [bool(answer.items) for answer in said] == [True] * len(QUERIES) + [False] * 3
    assert [answer.error.partition(":")[0] for answer in said[len(QUERIES) :]] == [
        "k = 0 must be at least 1.",
        "There is no attribute 'age' of users; the bundle's configuration declares none in [users].",
        "time = 'no' is not ISO 8601, such as 2026-05-01T12",
    ]
