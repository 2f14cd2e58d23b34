"""Answers from a bundle alone: order, titles, what is left out, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys.bundles.store import write_bundle
from recsys.data.sequences import Sequences
from recsys.data.vocabulary import Vocabulary
from recsys.errors import InputError
from recsys.models.sequential.bert4rec import SequenceEncoder
from recsys.serving.recommender import BundleRecommender, open_bundle
from recsys.settings.read import parse_settings

IDS = [70, 10, 30, 20, 50]
#        width 8 and the bias; the direction is the meaning, the bias the popularity
DIRECTIONS = {70: (1, 0), 10: (0.9, 0.1), 30: (0, 1), 20: (-1, 0), 50: (0, 0)}
BIAS = {70: 0.0, 10: -5.0, 30: 9.0, 20: 1.0, 50: 3.0}


@pytest.fixture
def served(tmp_path: Path) -> BundleRecommender:
    settings = parse_settings(
        {
            "name": "tiny",
            "interactions": {"source": "log.csv"},
            "model": {"dimensions": 8, "blocks": 1, "max_length": 6},
        }
    )
    vectors = np.zeros((6, 9), dtype=np.float32)
    for code, item in enumerate(IDS, start=1):
        vectors[code, :2], vectors[code, -1] = DIRECTIONS[item], BIAS[item]
    torch.manual_seed(0)
    encoder = SequenceEncoder(settings.model)
    items = pl.Series("item_id", IDS)
    path = write_bundle(
        tmp_path,
        settings=settings,
        vocabulary=Vocabulary(items),
        catalogue=pl.DataFrame({"item_id": items, "title": ["seventy", "ten", None, "twenty", "fifty"]}),
        features={},
        weights={f"encoder.{name}": value for name, value in encoder.state_dict().items()},
        vectors=vectors,
        allowed=np.array([False, True, True, True, False, True]),
        lineage={},
        bias_dims=1,
    )
    return open_bundle(path)


@pytest.mark.parametrize("history", [[70, 10], ["70", "10"]])
def test_recommend_gives_unseen_allowed_items_best_first(served: BundleRecommender, history: list[Any]) -> None:
    rows = served.recommend(history, k=10)
    query = served.encode(Sequences.nameless(np.array([1, 2], dtype=np.int32), np.array([0, 2])))[0].astype(float)
    scores = {item: float(query @ served.model.vectors[IDS.index(item) + 1]) for item in (30, 50)}  # 20: not allowed
    expected = sorted(scores, key=lambda item: -scores[item])
    assert [row["item_id"] for row in rows] == expected
    assert [row["rank"] for row in rows] == [1, 2]
    assert [row["score"] for row in rows] == pytest.approx([scores[item] for item in expected], rel=1e-6)
    assert {row["item_id"]: row["title"] for row in rows} == {30: None, 50: "fifty"}
    assert len(served.recommend(history, k=10, exclude_seen=False)) == 4
    assert len(served.recommend(history, k=1)) == 1
    assert served.recommend(history, k=10**15) == rows  # no room is made for what the catalogue has not


def test_similar_ignores_the_bias_the_item_itself_and_items_without_a_vector(served: BundleRecommender) -> None:
    rows = served.similar("70", k=10)
    assert [row["item_id"] for row in rows] == [10, 30]  # 30 has the largest bias
    assert rows[0]["score"] == pytest.approx(0.9 / np.hypot(0.9, 0.1), abs=1e-6)
    assert rows[1]["score"] == pytest.approx(0, abs=1e-6)
    assert rows[0]["title"] == "ten"
    assert served.similar("70", k=10**15) == rows


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda b: b.recommend([], 3), "no item that the bundle knows, and tiny-.* has counted nothing"),
        (lambda b: b.recommend(["x"], 3), "give items such as 70"),
        (lambda b: b.recommend([70], 0), "k = 0"),
        (lambda b: b.similar(999, 3), "'999'"),
        (lambda b: b.similar(50, 3), "no vector"),
    ],
)
def test_one_sentence_for_what_cannot_be_answered(served: BundleRecommender, call: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        call(served)


def test_unknown_items_are_left_out_and_named(served: BundleRecommender) -> None:
    found = served.answer(["999", 70, "x", 10], 10)
    assert (found.unknown, found.by_fallback) == (["999", "x"], False)
    assert found.items == served.recommend([70, 10], 10)
    assert {row["source"] for row in found.items} == {"vector"}
