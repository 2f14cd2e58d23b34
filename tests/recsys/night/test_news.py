"""A training begins with yesterday's weights only as long as these know most of the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import publish_bundle
from recsys.data.prepare import prepare
from recsys.ingestion.ingest import ingest
from recsys.models.base import Origin
from recsys.night import fit as night_fit
from recsys.night.fit import FitReport, fit
from recsys.night.news import begun, new_share
from recsys.settings import Settings
from recsys.settings.read import parse_settings

USERS, EVENTS = 40, 10


def settings(folder: Path, **train: Any) -> Settings:
    return parse_settings(
        {
            "name": "shop",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log/*.csv"},
            "model": {"dimensions": 8, "blocks": 1, "max_length": 8, "text": False},
            "blend": {"kind": "never"},
            "train": {"epochs": 3, "batch_size": 16, "evaluate_every": 3, "warm_start": "previous"} | train,
        }
    )


def day(folder: Path, number: int, events: int) -> None:
    """So many events of each user, after those of the days before."""
    (folder / "log").mkdir(exist_ok=True)
    rng = np.random.default_rng(number)
    users = np.repeat(np.arange(USERS), events)
    rows = {"user_id": users, "item_id": rng.integers(0, 12, len(users)), "timestamp": 10**9 + number * 10**5}
    frame = pl.DataFrame(rows).with_columns(pl.col("timestamp") + pl.int_range(pl.len()))
    frame.write_csv(folder / "log" / f"{number}.csv")


def trained(configured: Settings, said: list[str] | None = None) -> FitReport:
    report = fit(configured, ingest(configured).versions, say=lambda text: None if said is None else said.append(text))
    publish_bundle(configured.warehouse, report.bundle)
    return report


def test_a_day_that_doubles_the_log_begins_with_nothing_and_a_small_one_with_yesterdays_weights(tmp_path: Path) -> None:
    configured, said = settings(tmp_path), list[str]()
    day(tmp_path, 0, EVENTS)
    first = trained(configured)
    day(tmp_path, 1, 1)  # training events of a user: 8, then 9
    small = trained(configured, said)
    assert small.warm_start is not None and small.warm_start["bundle"] == Path(first.bundle).name
    assert small.epochs == 1 and not any("Training starts from nothing" in text for text in said)
    day(tmp_path, 2, EVENTS)  # now 19
    doubled = trained(configured, said)
    reason = (
        f"53% of the 760 training events are new since {Path(small.bundle).name}, more than train.warm_share = 0.4."
    )
    assert doubled.warm_start == {"bundle": None, "reason": reason}
    assert doubled.epochs == 3 and f"Training starts from nothing: {reason}" in said
    lineage = read_bundle(doubled.bundle).manifest["lineage"]
    assert lineage["warm_start"] is None and lineage["known_before"] is None


@pytest.mark.parametrize(("share", "begins"), [(0.5, True), (0.52, True), (0.4, False)])
def test_the_share_is_of_the_training_events(tmp_path: Path, share: float, begins: bool) -> None:
    configured = settings(tmp_path)
    day(tmp_path, 0, EVENTS)
    bundle = read_bundle(trained(configured).bundle)
    day(tmp_path, 1, 8)  # from 8 to 16 of a user
    dataset = prepare(configured, ingest(configured).versions)
    assert new_share(bundle, dataset) == 0.5
    found = begun(settings(tmp_path, warm_share=share), dataset, Origin(bundle=bundle))
    assert (found.bundle is bundle, found.reason is None) == (begins, begins)
    named = settings(tmp_path, warm_share=share, warm_start=str(bundle.path))
    assert begun(named, dataset, Origin(bundle=bundle)).bundle is bundle


def test_questions_that_a_warm_start_learned_from_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(night_fit, "said_learned", lambda bundle, *_: f"{bundle.label} learned from some.")
    configured, said = settings(tmp_path), list[str]()
    day(tmp_path, 0, EVENTS)
    first = trained(configured, said)
    assert not any("learned from some" in text for text in said)
    day(tmp_path, 1, 1)
    trained(configured, said)
    assert f"{Path(first.bundle).name} learned from some." in said
