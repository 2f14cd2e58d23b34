"""A bundle of an earlier night on today's test part: recoded histories, unknown targets, refused comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.columns import USER_ID
from recsys.data.prepare import Dataset, prepare
from recsys.errors import InputError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.former import former_ranks
from recsys.evaluation.metrics import MISS, per_user
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.settings import Settings
from recsys.settings.read import parse_settings

DAY = 86_400


def settings_of(folder: Path, **changes: Any) -> Settings:
    tree: dict[str, Any] = {
        "name": "former",
        "data_root": str(folder),
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": "log.csv"},
        "evaluate": {"cutoffs": [10], "baselines": ["popularity"]},
        "model": {"dimensions": 16, "max_length": 8},
        "train": {"epochs": 1, "evaluate_every": 1},
        "blend": {"candidates": 20, "text": False},
    }
    return parse_settings(tree | changes)


def write(folder: Path, histories: list[list[int]]) -> None:
    """One event of each user a day, so that a cut by time leaves every user with events on both sides."""
    lines = ["user_id,item_id,timestamp"]
    for user, history in enumerate(histories):
        lines += [f"{user},{item},{1_700_000_000 + DAY * n + user}" for n, item in enumerate(history)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")


def nights(folder: Path, **changes: Any) -> tuple[Settings, str, Dataset]:
    """A bundle of a log, and the data set of the same log when every third user has one more event, of a new item."""
    rng = np.random.default_rng(0)
    histories = [rng.permutation(30)[:6].tolist() for _ in range(90)]
    write(folder, histories)
    settings = settings_of(folder, **changes)
    bundle = fit(settings, ingest(settings).versions).bundle
    write(folder, [[*history, *([99] if user % 3 == 0 else [])] for user, history in enumerate(histories)])
    return settings, bundle, prepare(settings, ingest(settings).versions)


def test_a_former_bundle_ranks_todays_targets_and_misses_what_it_does_not_know(tmp_path: Path) -> None:
    settings, bundle, dataset = nights(tmp_path)
    ranks = former_ranks(settings, dataset, bundle)
    users = dataset.split.test.histories.users.to_numpy()
    assert (ranks[users % 3 == 0] == MISS).all()  # item 99 is new
    assert (ranks[users % 3 != 0] != MISS).all()


def test_on_its_own_night_a_bundle_has_the_figures_of_its_evaluation(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    write(tmp_path, [rng.permutation(30)[:6].tolist() for _ in range(90)])
    settings = settings_of(tmp_path)
    versions = ingest(settings).versions
    bundle = fit(settings, versions).bundle
    frames: list[Any] = []
    report = evaluate(settings, versions, bundle, users_to=frames.append)
    ranks = former_ranks(settings, prepare(settings, versions), bundle)
    assert per_user(ranks, "ndcg", 10).mean() == pytest.approx(report.metrics["test/ndcg_at_10"])
    assert "rank of popularity" in frames[0].columns and len(frames[0]) == frames[0][USER_ID].n_unique()


def test_a_bundle_that_may_know_todays_test_events_is_refused(tmp_path: Path) -> None:
    _, bundle, dataset = nights(tmp_path)
    other = settings_of(tmp_path, filter={"min_user_interactions": 2})
    with pytest.raises(InputError, match="may know events that are held out now"):
        former_ranks(other, dataset, bundle)


def test_by_time_a_former_bundle_is_measured_after_the_cut_and_refused_before_it(tmp_path: Path) -> None:
    settings, bundle, dataset = nights(tmp_path, split={"strategy": "time"})
    assert len(former_ranks(settings, dataset, bundle)) == len(dataset.split.test)
    earlier = settings_of(tmp_path, split={"strategy": "time", "test_fraction": 0.45})
    with pytest.raises(InputError, match="may know events that are held out now"):
        former_ranks(earlier, prepare(earlier, ingest(earlier).versions), bundle)
