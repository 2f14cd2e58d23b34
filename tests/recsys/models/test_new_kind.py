"""A new kind of model: one class, the keys of its own, and one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import polars as pl
import pytest
from pydantic import Field

from recsys.bundles.bundle import read_bundle
from recsys.candidates.transitions import transitions
from recsys.data.consumed import Consumed
from recsys.data.prepare import prepare
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.ingestion.ingest import ingest
from recsys.models.base import Counted, Estimator, Fitted, Job, Parts
from recsys.models.history_mean import HistoryMean
from recsys.models.registry import estimator_of, register
from recsys.night.fit import fit
from recsys.night.memory import check_night
from recsys.serving.histories import history_of
from recsys.serving.recommender import open_bundle
from recsys.settings import KindSettings, Settings, kinds
from recsys.settings.read import parse_settings
from recsys.table.build import read_candidates, retrieve

ITEMS = 24


class SuccessorSettings(KindSettings):
    """Of `kind = "successors"`."""

    kind: Literal["successors"] = "successors"
    dimensions: int = Field(default=64, ge=1)  # of a random projection
    smoothing: float = Field(default=0.1, ge=0)


class Successors(Estimator):
    """An item's vector is a random projection of what came after it, and of itself."""

    kind = "successors"
    recommender = HistoryMean

    def fit(self, job: Job) -> Fitted:
        model, train, size = self.settings.model, job.dataset.split.train, job.dataset.vocabulary.size
        assert isinstance(model, SuccessorSettings)
        counts = transitions(train.items, train.offsets, size, smoothing=model.smoothing).toarray()
        projection = np.random.default_rng(self.settings.seed).normal(size=(size + 1, model.dimensions))
        vectors = ((counts + counts.T) @ projection / np.sqrt(model.dimensions)).astype(np.float32)
        vectors[0] = 0
        learnt = Counted(trained=Consumed.of(train.items, train.offsets))
        return Fitted(parts=Parts(vectors=vectors, allowed=vectors.any(axis=1)), outcome=learnt)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register("successors", f"{__name__}:Successors", f"{__name__}:SuccessorSettings")
    yield
    del kinds.KINDS["successors"]


def tree(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "name": "ring",
        "data_root": str(folder),
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "model": {"kind": "successors", "dimensions": 512},
        "retrieve": {"k": 5},
    } | changes


@pytest.fixture
def shop(tmp_path: Path) -> Settings:
    """Users walk a ring of items, one step at a time."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(90):
        start, length = rng.integers(ITEMS), rng.integers(5, 9)
        lines += [f"{user},i{(start + n) % ITEMS},{1_600_000_000 + 100 * n}" for n in range(length)]
    (tmp_path / "log.csv").write_text("\n".join(lines) + "\n")
    return parse_settings(tree(tmp_path))


@pytest.mark.parametrize("blend", ["never", "always"])
def test_a_whole_night_with_it(shop: Settings, blend: str) -> None:
    settings = parse_settings(tree(Path(shop.data_root), blend={"kind": blend}))
    versions = ingest(settings).versions
    announced = check_night(settings, versions)
    assert announced.train - announced.represent < 1_000_000  # nobody predicts training: it reads its events, no more
    report = fit(settings, versions)
    assert fit(settings, versions).bundle_id == report.bundle_id
    bundle = read_bundle(report.bundle)
    assert (bundle.kind, bundle.bias_dims, bundle.has("blend")) == ("successors", 0, blend == "always")
    assert bundle.settings.model == settings.model

    measured = evaluate(settings, versions, report.bundle)
    train = prepare(settings, versions).split.train
    assert measured.report["protocol"]["trained_on"].startswith(str(Consumed.of(train.items, train.offsets)))
    assert measured.metrics["test/hr_at_10"] > 0.9  # what comes next is among the 10 of 24 around

    published = retrieve(settings, versions, report.bundle, "run", datetime(2026, 1, 1, tzinfo=UTC))
    table = read_candidates(settings.warehouse).collect()
    assert (published.users, published.short_lists, len(table)) == (90, 0, 90 * 5)
    served = open_bundle(report.bundle)
    assert isinstance(served.model, HistoryMean)
    rows = served.answer_user("7", 5).items
    assert [row["item_id"] for row in rows] == table.filter(pl.col("user_id") == 7)["item_id"].to_list()
    own = bundle.vocabulary.decode(history_of(bundle, "7").items).to_list()
    assert served.recommend(own, 5) == rows
    assert len(served.similar("i3", 4)) == 4
    with pytest.raises(InputError, match="There is no user 'x' in the log"):
        served.answer_user("x", 5)


def test_what_it_learnt_from_is_checked(shop: Settings) -> None:
    """A model of other events than the split allows is refused, as any kind's."""
    versions = ingest(shop).versions
    report = fit(shop, versions)
    moved = shop.model_copy(update={"split": shop.split.model_copy(update={"strategy": "time", "test_share": 0.3})})
    with pytest.raises(InputError, match="was trained on other data"):
        evaluate(moved, versions, report.bundle)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"kind": "successors", "dimension": 9}, r"no setting model\.dimension; did you mean model\.dimensions\?"),
        ({"kind": "successors", "heads": 2}, r"there is no setting model\.heads"),
        ({"kind": "successors", "dimensions": 0}, r"model\.dimensions = 0: input should be greater than"),
        ({"kind": "succesors"}, r"model\.kind = 'succesors': there is no such kind of model; .*successors, text"),
    ],
)
def test_its_own_keys_are_checked(tmp_path: Path, model: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_settings(tree(tmp_path, model=model))


def test_a_kind_may_do_without_keys_of_its_own(tmp_path: Path) -> None:
    register("plain", f"{__name__}:Successors")
    try:
        assert parse_settings(tree(tmp_path, model={"kind": "plain"})).model.kind == "plain"
        with pytest.raises(InputError, match=r"no setting model\.dimensions; did you mean model\.kind\?"):
            parse_settings(tree(tmp_path, model={"kind": "plain", "dimensions": 9}))
    finally:
        del kinds.KINDS["plain"]


def test_a_kind_without_a_table_has_no_feature_report(shop: Settings) -> None:
    with pytest.raises(InputError, match=r'model\.kind = "successors" has no multiplexed table to report on'):
        estimator_of("successors")(shop).feature_report(ingest(shop).versions)


def test_a_bundle_of_a_kind_that_is_not_registered_says_so(shop: Settings) -> None:
    bundle = Path(fit(shop, ingest(shop).versions).bundle)
    line = kinds.KINDS.pop("successors")
    try:
        with pytest.raises(InputError, match=r"config\.json: model\.kind = 'successors': there is no such kind"):
            open_bundle(bundle)
    finally:
        kinds.KINDS["successors"] = line
    assert json.loads((bundle / "config.json").read_text())["model"]["kind"] == "successors"
