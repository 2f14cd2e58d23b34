"""A search: the same trials each time, also after stops; validation decides, and test is not there to be read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from recsys.data.prepare import Dataset, prepare
from recsys.errors import InputError, RecsysError
from recsys.ingestion.ingest import ingest
from recsys.night.fit import fit
from recsys.settings import RangeSettings, Settings
from recsys.settings.read import load_settings
from recsys.storage.warehouse import TableVersions
from recsys.tuning import study as searching
from recsys.tuning.space import Space, space_of, with_values
from recsys.tuning.study import Observer, Search, Trial, open_search
from recsys.tuning.trial import measure, without_test
from tests.recsys.tuning.shop import write_shop

pytestmark = pytest.mark.integration
Shop = tuple[Settings, TableVersions, Dataset]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    settings = load_settings(write_shop(tmp_path_factory.mktemp("shop")))
    versions = ingest(settings).versions
    return settings, versions, prepare(settings, versions)


@contextmanager
def opened(shop: Shop, folder: Path, dataset: Dataset | None = None) -> Iterator[Search]:
    settings, versions, whole = shop
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(searching, "folder_of", lambda _: folder / "tuning")
        with open_search(settings, versions, space_of(settings), without_test(dataset or whole)) as search:
            yield search


def rates_alone(settings: Settings) -> Space:
    """A space that breaks no rule."""
    rates = {"train.learning_rate": RangeSettings(low=1e-3, high=1e-1)}
    return space_of(settings.model_copy(update={"tune": rates}))


def trials(search: Search, count: int, observer: Observer | None = None) -> list[tuple[Any, ...]]:
    report = search.go_on(count, observer=observer)
    return [(trial.number, trial.values, trial.state, trial.value, trial.reason) for trial in report.all]


@pytest.fixture(scope="module")
def whole(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Any, ...]]:
    """Six trials of a search that nothing stopped."""
    with opened(shop, tmp_path_factory.mktemp("whole")) as search:
        return trials(search, 6)


def test_the_first_trial_is_the_configuration_and_its_figure_that_of_a_training(
    shop: Shop, whole: list[tuple[Any, ...]]
) -> None:
    settings, versions, _ = shop
    number, values, state, value, _ = whole[0]
    assert (number, state) == (0, "finished")
    assert values == {"train.learning_rate": 0.01, "model.dimensions": 16, "model.heads": 1}
    report = fit(settings, versions)
    assert value == report.history[report.best_epoch - 1]["val/ndcg_at_10"]


def test_values_that_break_a_rule_are_pruned_with_the_reason(whole: list[tuple[Any, ...]]) -> None:
    broken = [trial for trial in whole if trial[1]["model.heads"] == 3]
    assert broken  # the seed draws some
    for _, values, state, value, reason in broken:
        assert state == "pruned" and value is None
        assert f"dimensions = {values['model.dimensions']} must be divisible by heads = 3" in reason


class Stops(Observer):
    """Ctrl-C after an epoch of a trial."""

    def __init__(self, number: int, error: type[BaseException] = KeyboardInterrupt) -> None:
        self.number, self.error = number, error

    def epoch(self, trial: Trial, entry: Mapping[str, Any]) -> None:
        if trial.number == self.number:
            raise self.error


def test_a_search_that_was_stopped_and_killed_ends_as_one_that_was_not(
    shop: Shop, tmp_path: Path, whole: list[tuple[Any, ...]]
) -> None:
    at = next(number for number, *_, state, _, _ in whole[1:] if state == "finished")
    with opened(shop, tmp_path) as search:
        report = search.go_on(6, observer=Stops(at))
        assert report.stopped == "interrupted" and report.trials == at
        assert report.best is not None and report.own == whole[0][3]
    with opened(shop, tmp_path) as search:  # killed: nobody says that the trial has ended
        with pytest.raises(SystemExit):
            search.go_on(6, observer=Stops(at, SystemExit))
        search.study.ask(dict(search.space.distributions))
    with opened(shop, tmp_path) as search:
        assert trials(search, 6) == whole
        assert search.go_on(6).earlier == 6  # nothing is left to do
        states = [trial.state for trial in search.study.get_trials(deepcopy=False)]
        assert states.count(TrialState.FAIL) == 3 and TrialState.RUNNING not in states


def test_the_time_that_is_up_stops_a_trial(shop: Shop, tmp_path: Path) -> None:
    with opened(shop, tmp_path) as search:
        report = search.go_on(3, seconds=1e-9)
        assert (report.stopped, report.trials, report.best) == ("timeout", 0, None)


def poisoned(dataset: Dataset) -> Dataset:
    """Every test target, test history and later event is another one."""
    split, rng = dataset.split, np.random.default_rng(7)

    def other(items: np.ndarray) -> np.ndarray:
        return rng.integers(1, dataset.vocabulary.size + 1, size=len(items), dtype=np.int32)

    test = replace(
        split.test,
        histories=replace(split.test.histories, items=other(split.test.histories.items)),
        targets=other(split.test.targets),
    )
    serving = replace(split.serving, items=other(split.serving.items))
    return replace(dataset, split=replace(split, test=test, serving=serving))


def test_no_test_row_is_read(
    shop: Shop, tmp_path: Path, whole: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wrong test rows change no bit of any trial, and a trial has none at hand."""
    given: list[Dataset] = []

    def looking(settings: Settings, versions: TableVersions, dataset: Dataset, **more: Any) -> Any:
        given.append(dataset)
        return measure(settings, versions, dataset, **more)

    monkeypatch.setattr(searching, "measure", looking)
    with opened(shop, tmp_path, poisoned(shop[2])) as search:
        assert trials(search, 6) == whole
    for dataset in given:
        assert len(dataset.split.test) == 0 and len(dataset.split.test.histories.items) == 0
        assert dataset.split.newcomers is None and dataset.split.serving is dataset.split.train


def test_the_blend_is_the_value_where_it_serves(shop: Shop) -> None:
    settings, versions, dataset = shop
    blended = with_values(settings, {"blend.kind": "always"})
    measured = measure(blended, versions, without_test(dataset))
    report = fit(blended, versions)
    assert report.blend is not None and report.blend.validation is not None
    assert measured.serves == "blend" and measured.value == report.blend.validation["blend"]["val/ndcg_at_10"]
    assert measured.model == report.blend.validation["model"]["val/ndcg_at_10"]


def test_a_worse_trial_is_pruned_and_a_diverging_one_too(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Five trials are whole; then one that starts below their median ends at once, and one whose loss is none."""
    from recsys.tuning.trial import Measured

    levels = [0.5, 0.4, 0.3, 0.2, 0.1, 0.15, 0.6]
    epochs: list[int] = []

    def trained(settings: Settings, *_: Any, on_epoch: Any, **__: Any) -> Measured:
        number = len(epochs)
        epochs.append(0)
        if number == 1:
            raise FloatingPointError("the loss stopped being a number in epoch 1")
        level = levels[number - (number > 1)]
        for epoch in (1, 2, 3):
            epochs[-1] = epoch
            on_epoch({"epoch": epoch, "val/ndcg_at_10": level})
        return Measured(value=level, serves="model", model=level, epochs=3, best_epoch=1, seconds=0.0)

    monkeypatch.setattr(searching, "measure", trained)
    settings, versions, dataset = shop
    space = rates_alone(settings)
    monkeypatch.setattr(searching, "folder_of", lambda _: tmp_path)
    with open_search(settings, versions, space, without_test(dataset)) as search:
        report = search.go_on(8)
    states = [trial.state for trial in report.all]
    assert states == ["finished", "pruned", *["finished"] * 4, "pruned", "finished"]
    assert report.all[1].reason is not None and "stopped being a number" in report.all[1].reason
    assert report.all[6].reason is not None and "after epoch 1 was below the median" in report.all[6].reason
    assert epochs[6] == 1
    assert report.best is not None and report.best.number == 7 and report.pruned == 2


def test_a_configuration_that_cannot_be_trained_is_told(
    shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: Any, **__: Any) -> Any:
        raise InputError("There is no text; run `recsys represent` first.")

    monkeypatch.setattr(searching, "measure", refused)
    with opened(shop, tmp_path) as search, pytest.raises(InputError, match="recsys represent"):
        search.go_on(3)
    settings, versions, dataset = shop
    space = replace(rates_alone(settings), own=None)  # no trial is the configuration's own
    monkeypatch.setattr(searching, "folder_of", lambda _: tmp_path / "other")
    told = "None of 3 trials could be trained; the first one: There is no text"
    with open_search(settings, versions, space, without_test(dataset)) as search, pytest.raises(InputError, match=told):
        search.go_on(3)


def test_other_data_or_another_configuration_begin_another_search(shop: Shop, tmp_path: Path) -> None:
    settings, versions, dataset = shop
    names = set()
    for changed, data in (
        (settings, dataset),
        (with_values(settings, {"train.epochs": 3}), dataset),
        (settings, replace(dataset, digest="other")),
        (settings.model_copy(update={"seed": 4}), dataset),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(searching, "folder_of", lambda _: tmp_path)
            with open_search(changed, versions, space_of(changed), without_test(data)) as search:
                names.add(search.study.study_name)
    assert len(names) == 4


def test_a_damaged_database_is_told(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "tuning").mkdir()
    (tmp_path / "tuning" / "ring.db").write_bytes(b"no database, but long enough to look like one" * 40)
    with pytest.raises(RecsysError, match=r"ring\.db cannot be used .*mend it or move it away"), opened(shop, tmp_path):
        pass
