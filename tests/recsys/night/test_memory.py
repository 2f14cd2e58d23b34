"""The night's memory is predicted from its tables, is near what the night takes, and is refused before the work."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from recsys.data.prepare import few_users, prepare
from recsys.data.whole import whole_dataset
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.machine import GIB
from recsys.models.demand import TEXT_WIDTH, NightSizes
from recsys.models.sequential.batches import windows
from recsys.models.sequential.estimator import training_sizes
from recsys.night import memory as night_memory
from recsys.night.memory import NightMemory, check_night, night_sizes, predict_night
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import current_versions

WITHIN = 1.25  # factor between the announced and the measured peak of the process, either way
BENCHMARK = Path(__file__).parents[3] / "benchmarks" / "memory.py"
SMALL = NightSizes(lengths=np.full(2000, 20), learnt=np.full(2000, 20), items=5000, touched=4000)


def settings_of(folder: Path, **changed: Any) -> Settings:
    tree: dict[str, Any] = {
        "name": "shop",
        "warehouse": str(folder / "warehouse"),
        "interactions": {"source": str(folder / "log.csv"), "columns": {"user_id": "user", "item_id": "item"}},
        "items": {
            "source": str(folder / "items.csv"),
            "columns": {"item_id": "id"},
            "text": ["title"],
            "categorical": {"kind": {}},
        },
        "filter": {"min_item_interactions": 2},
    }
    return parse_settings(tree | changed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A log of 40 users, and a catalogue with items that nobody touched; some items are too rare for the filter."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 30, 40)
    items = np.minimum(rng.geometric(0.03, lengths.sum()), 150)
    log = {"user": np.repeat(np.arange(40), lengths), "item": items, "timestamp": np.arange(len(items)) + 10**9}
    pl.DataFrame(log).write_csv(tmp_path / "log.csv")
    catalogue = {"id": np.arange(200), "title": "a thing", "kind": np.arange(200) % 7}
    pl.DataFrame(catalogue).write_csv(tmp_path / "items.csv")
    return tmp_path


def test_sizes_are_those_of_the_prepared_data(folder: Path) -> None:
    settings = settings_of(folder)
    ingest(settings)
    versions = current_versions(settings.warehouse)
    sizes, dataset = night_sizes(settings, versions), prepare(settings, versions)
    assert sizes.items == dataset.vocabulary.size and sizes.rare == 0
    assert sizes.touched == len(np.unique(dataset.split.serving.items)) < sizes.items
    by_content = settings_of(folder, filter={"min_item_interactions": 2, "rare_items": "by-content"})
    rare = night_sizes(by_content, versions).rare
    assert sizes.items + rare == whole_dataset(by_content, versions, dataset.vocabulary).vocabulary.size and rare > 0
    assert int(sizes.lengths.sum()) == dataset.report["interactions"]
    assert (sizes.values, sizes.attributes, sizes.text) == (7, 1, TEXT_WIDTH)
    trained = training_sizes(settings, sizes)
    starts, ends = windows(dataset.split.train.offsets, settings.model.max_length)
    assert (trained.windows, trained.length) == (len(starts), int((ends - starts).max()))
    assert trained.mixed


def test_sizes_are_of_the_users_that_are_learnt_from(folder: Path) -> None:
    settings = settings_of(folder, train={"users": 0.2})
    ingest(settings)
    versions = current_versions(settings.warehouse)
    sizes, dataset = night_sizes(settings, versions), prepare(settings, versions)
    known = few_users(dataset, 0.2, settings.seed).split.train.users
    learnt = dataset.split.serving.select(dataset.split.serving.users.is_in(known.implode()).to_numpy())
    assert sizes.learnt.tolist() == learnt.lengths.tolist() and len(sizes.learnt) == 8
    assert sizes.touched == len(np.unique(learnt.items)) < sizes.items
    assert int(sizes.lengths.sum()) == dataset.report["interactions"]


def peaks(sizes: NightSizes = SMALL, **tree: Any) -> NightMemory:
    plain: dict[str, Any] = {"name": "shop", "interactions": {"source": "log.csv"}}
    return predict_night(parse_settings(plain | tree), sizes, held=GIB)


def test_what_makes_a_night_larger() -> None:
    million = replace(SMALL, items=10**6, touched=10**5)
    assert peaks(million).peak[1] > peaks().peak[1]
    once: dict[str, Any] = {"train": {"refit": "none"}}
    assert peaks(**once).peak[0] == "blend"
    assert peaks(million, train={"refit": "none", "loss": "full"}).peak[0] == "train"
    assert peaks(million).refit > peaks(million).train  # what was measured is held beside
    assert peaks(million).refit > peaks(million, train={"refit": "counts"}).refit > peaks(million, **once).refit == 0
    assert peaks(million, model={"dimensions": 256}).train > peaks(million).train
    assert peaks(million).train < peaks(million, train={"loss": "full"}).train
    assert peaks(replace(SMALL, text=384)).represent > peaks().represent == GIB
    assert peaks(million, blend={"kind": "never"}).blend == 0 < peaks(million).blend
    rare = peaks(replace(million, rare=10**6))
    assert rare.train == peaks(million).train and rare.evaluate == peaks(million).evaluate
    assert rare.refit > peaks(million).refit and rare.retrieve > peaks(million).retrieve
    assert peaks(replace(million, rare=10**6), **once) == peaks(million, **once)
    described = {"source": "items.csv", "text": ["title"]}
    assert peaks(million, model={"kind": "text"}, items=described).train < peaks(million).train
    longer = replace(SMALL, lengths=np.full(200_000, 50), learnt=np.full(200_000, 50))
    assert peaks(longer).blend > peaks().blend
    huge = replace(SMALL, lengths=np.full(1_000_000, 100), learnt=np.full(10_000, 100))
    assert peaks(huge).train > GIB + 40 * 10**8  # while the data are made
    few = replace(longer, learnt=longer.learnt[:2000])  # counts of few users, and the questions of all
    assert peaks(few).blend < peaks(longer).blend and peaks(few).evaluate < peaks(longer).evaluate
    assert peaks(few, evaluate={"users": 2000}).evaluate < peaks(few).evaluate
    assert peaks(few, train={"validation_users": 2000}).train < peaks(few).train


def test_many_questions_may_be_what_does_not_fit(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(folder, blend={"kind": "never"}, train={"refit": "none", "epochs": 0})
    ingest(settings)
    versions = current_versions(settings.warehouse)
    many = np.full(1_000_000, 3)
    monkeypatch.setattr(night_memory, "night_sizes", lambda *_: replace(SMALL, lengths=many, learnt=many[:9]))
    monkeypatch.setattr(night_memory, "free_on_processor", lambda: 2**20)
    with pytest.raises(InputError, match=r"at its peak \(evaluate\), .*; set evaluate.users = 10000\.$"):
        check_night(settings, versions)


def test_a_night_that_would_not_fit_says_what_to_set(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(folder)
    ingest(settings)
    versions = current_versions(settings.warehouse)
    memory = check_night(settings, versions)
    step, peak = memory.peak
    assert str(memory) == f"The night takes about {peak / GIB:.1f} GiB of memory at its peak ({step})."
    monkeypatch.setattr(night_memory, "free_on_processor", lambda: 2**20)
    wide = settings_of(folder, model={"dimensions": 1024})
    once = settings_of(folder, train={"refit": "none"})
    for of, advice in ((once, 'set blend.kind = "never".'), (wide, 'set train.refit = "counts".')):
        with pytest.raises(InputError) as caught:
            check_night(of, versions)
        told = str(caught.value)
        assert "GiB of memory at its peak" in told and "\n" not in told
        assert told.endswith(advice)
    monkeypatch.setattr(night_memory, "free_on_processor", lambda: None)
    check_night(settings, versions)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="only Linux says what a process held at most")
@pytest.mark.parametrize(
    "row",
    [
        {"items": 2000, "users": 2000, "text": True},
        {"items": 20_000, "users": 4000},
        {"items": 150_000, "users": 2000, "dimensions": 64, "loss": "sampled"},
        {"items": 50_000, "users": 100_000, "events": 1_000_000, "dimensions": 64, "asked": 5_000, "share": 0.02},
    ],
    ids=str,
)
def test_what_is_announced_is_what_the_night_takes(row: dict[str, Any]) -> None:
    command = [sys.executable, str(BENCHMARK), "--data", ".", "--row", json.dumps(row)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found = json.loads(done.stdout.splitlines()[-1])
    announced, measured = (max(found[kind].values()) for kind in ("announced", "measured"))
    assert 1 / WITHIN < announced / measured < WITHIN, found
