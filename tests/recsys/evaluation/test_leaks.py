"""A planted leak fails the run, whichever model or consumer it reaches; an old bundle is said to be silent."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.bundles.bundle import Bundle, read_bundle
from recsys.data.consumed import Consumed
from recsys.data.prepare import Dataset, few_users, prepare
from recsys.errors import InputError, RecsysError
from recsys.evaluation.evaluate import evaluate
from recsys.evaluation.leaks import NOT_RECORDED, check_consumed
from recsys.ingestion.ingest import ingest
from recsys.night import fit as fitting
from recsys.night import together
from recsys.night.fit import FitReport, fit
from recsys.serving.recommender import recommender_of
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.text.represent import represent

ITEMS, USERS = 24, 80
KINDS: dict[str, dict[str, Any]] = {
    "cloze": {"model": {"dimensions": 16, "max_length": 6, "text": False}},
    "next-item": {"model": {"dimensions": 16, "max_length": 6, "text": False, "objective": "next-item"}},
    "recformer": {
        "model": {"kind": "recformer"},
        "recformer": {"dimensions": 16, "heads": 2, "layers": 1, "vocabulary": 300, "second_stage_epochs": 0}
        | {"pooling": "items", "max_items": 4, "max_tokens": 30},
    },
    "text": {"model": {"kind": "text"}},
}
BLEND = {"kind": "always", "text": False, "candidates": 10}
Leak = Callable[[Dataset], Dataset]


def settings(folder: Path, kind: str = "cloze", **sections: Any) -> Settings:
    return parse_settings(
        {
            "name": "shop",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.jsonl", "text": ["title"]},
            "train": {"epochs": 1, "batch_size": 32, "evaluate_every": 1},
            "evaluate": {"cutoffs": [10], "baselines": ["popularity"]},
            "blend": BLEND,
        }
        | KINDS[kind]
        | sections
    )


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TableVersions]:
    """Whatever users buy next is random; so no honest model can be good."""
    folder = tmp_path_factory.mktemp("shop")
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(USERS):
        bought = rng.permutation(ITEMS)[: rng.integers(4, 8)]
        lines += [f"{user},i{item},{1_600_000_000 + 1000 * user + n}" for n, item in enumerate(bought)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    titles = [{"item_id": f"i{n}", "title": f"thing number {n}"} for n in range(ITEMS)]
    (folder / "items.jsonl").write_text("\n".join(map(json.dumps, titles)))
    versions = ingest(settings(folder)).versions
    represent(settings(folder, "text"), versions)
    return folder, versions


def trains_on_everything(dataset: Dataset) -> Dataset:
    return replace(dataset, split=replace(dataset.split, train=dataset.split.serving))


def asks_test(dataset: Dataset) -> Dataset:
    return replace(dataset, split=replace(dataset.split, validation=dataset.split.test))


def fit_with(
    patch: pytest.MonkeyPatch, configured: Settings, versions: TableVersions, leak: Leak, only_blend: bool = False
) -> FitReport:
    """A training whose parts, or whose blend alone, are handed other parts than the split's."""
    with patch.context() as planted:
        if only_blend:
            blend = fitting.fit_blend
            planted.setattr(
                fitting, "fit_blend", lambda s, dataset, *rest, **more: blend(s, leak(dataset), *rest, **more)
            )
        else:
            planted.setattr(together, "prepare", lambda *arguments: leak(prepare(*arguments)))
        return fit(configured, versions)


@pytest.mark.parametrize("kind", KINDS)
def test_an_honest_bundle_says_what_it_learnt_from(shop: tuple[Path, TableVersions], kind: str) -> None:
    folder, versions = shop
    configured = settings(folder, kind)
    report = fit(configured, versions)
    split = prepare(configured, versions).split
    train, asked = Consumed.of(split.train.items, split.train.offsets), Consumed.asked(split.validation)
    expected = {"trained": train, "validated": asked, "counted": train, "weighed": asked}
    if kind == "text":
        expected |= {"trained": None, "validated": None}
    assert report.consumed == {name: one and one.to_dict() for name, one in expected.items()}
    assert read_bundle(report.bundle).manifest["lineage"]["consumed"] == report.consumed
    stated = evaluate(configured, versions, report.bundle).report["protocol"]
    assert stated["counted_on"] == f"{len(split.train.items)} events of {USERS} histories, as the split allows"
    assert ("trained_on" in stated) == (kind != "text")


@pytest.mark.parametrize("kind", ["cloze", "next-item", "recformer"])
def test_a_model_that_saw_held_out_events_is_not_measured(
    shop: tuple[Path, TableVersions], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, versions = shop
    configured = settings(folder, kind, blend={"kind": "never"})
    events = len(prepare(configured, versions).split.train.items)
    report = fit_with(monkeypatch, configured, versions, trains_on_everything)
    with pytest.raises(RecsysError, match=rf"^Leak: the model was trained on {events + 2 * USERS} events.* {events} "):
        evaluate(configured, versions, report.bundle)


@pytest.mark.parametrize("kind", ["cloze", "recformer"])
def test_early_stopping_that_looked_at_test_is_found(
    shop: tuple[Path, TableVersions], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, versions = shop
    configured = settings(folder, kind, blend={"kind": "never"})
    report = fit_with(monkeypatch, configured, versions, asks_test)
    with pytest.raises(RecsysError, match=r"^Leak: the best epoch was chosen by "):
        evaluate(configured, versions, report.bundle)


@pytest.mark.parametrize("kind", ["cloze", "text"])
@pytest.mark.parametrize(
    ("leak", "message"),
    [(trains_on_everything, "counted"), (asks_test, "the blend's weights were fitted on")],
    ids=["counts", "fold"],
)
def test_a_blend_that_saw_held_out_events_is_not_measured(
    shop: tuple[Path, TableVersions], kind: str, leak: Leak, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted on all events, or fitted on the questions that it is to be measured on."""
    folder, versions = shop
    configured = settings(folder, kind)
    report = fit_with(monkeypatch, configured, versions, leak, only_blend=True)
    with pytest.raises(RecsysError, match=f"^Leak: .*{message}"):
        evaluate(configured, versions, report.bundle)


def test_events_that_went_to_the_wrong_user_are_found(
    shop: tuple[Path, TableVersions], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As many events of as many histories, and every item as often: only the company differs."""
    folder, versions = shop
    configured = settings(folder, blend={"kind": "never"})

    def swapped(dataset: Dataset) -> Dataset:
        train = dataset.split.train
        items = train.items.copy()
        items[[0, train.offsets[1]]] = items[[train.offsets[1], 0]]
        return replace(dataset, split=replace(dataset.split, train=replace(train, items=items)))

    report = fit_with(monkeypatch, configured, versions, swapped)
    with pytest.raises(RecsysError, match=r"^Leak: the model was trained on"):
        evaluate(configured, versions, report.bundle)


def without_record(bundle: Bundle) -> Bundle:
    lineage = {name: value for name, value in bundle.manifest["lineage"].items() if name != "consumed"}
    return replace(bundle, manifest={**bundle.manifest, "lineage": lineage})


def test_an_old_bundle_without_a_record_is_said_to_have_none(
    shop: tuple[Path, TableVersions], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, versions = shop
    configured = settings(folder)
    dataset = prepare(configured, versions)
    honest = without_record(read_bundle(fit(configured, versions).bundle))
    assert check_consumed(recommender_of(honest), dataset) == {"consumed": NOT_RECORDED}
    whole = read_bundle(fit(configured, versions).bundle)
    assert whole.has("blend")
    consumed = {**whole.manifest["lineage"]["consumed"], "counted": None}
    silent = {**whole.manifest, "lineage": {**whole.manifest["lineage"], "consumed": consumed}}
    with pytest.raises(RecsysError, match="does not say what the blend's tables were counted on"):
        check_consumed(recommender_of(replace(whole, manifest=silent)), dataset)
    # the tables of its blend can be counted again all the same
    report = fit_with(monkeypatch, configured, versions, trains_on_everything, only_blend=True)
    with pytest.raises(RecsysError, match=r"^Leak: the blend of the bundle .* counted"):
        check_consumed(recommender_of(without_record(read_bundle(report.bundle))), dataset)


def test_a_bundle_that_learns_from_no_event_serves_the_next_day_as_it_is(tmp_path: Path) -> None:
    """Items keep their codes, so its content is the same, and its folder and manifest are yesterday's."""
    configured = settings(tmp_path, "text", blend={"kind": "never"})
    titles = [{"item_id": f"i{n}", "title": f"thing number {n}"} for n in range(ITEMS)]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, titles)))

    def day(events: int) -> TableVersions:
        lines = [f"{user},i{(user + n) % ITEMS},{1_600_000_000 + n}" for user in range(USERS) for n in range(events)]
        (tmp_path / "log.csv").write_text("\n".join(["user_id,item_id,timestamp", *lines]) + "\n")
        return ingest(configured).versions

    first = day(4)
    represent(configured, first)
    bundle = fit(configured, first).bundle
    second = day(5)
    assert fit(configured, second).bundle == bundle
    assert evaluate(configured, second, bundle).report["protocol"]["users"] == USERS
    # what learnt from events is refused, as its test items may be among them
    learnt = settings(tmp_path, "cloze", blend={"kind": "never"})
    with pytest.raises(InputError, match="trained on other data"):
        evaluate(learnt, second, fit(learnt, first).bundle)


def test_shares_of_users_and_draws_are_what_the_bundle_was_asked_for(shop: tuple[Path, TableVersions]) -> None:
    folder, versions = shop
    part = KINDS["recformer"]["recformer"] | {"validation_users": 20}
    configured = settings(
        folder,
        "recformer",
        recformer=part,
        train={"epochs": 1, "batch_size": 32, "users": 0.5},
        blend={"kind": "never"},
    )
    report = fit(configured, versions)
    few = few_users(prepare(configured, versions), 0.5, configured.seed).split.train
    assert report.consumed["trained"] == Consumed.of(few.items, few.offsets).to_dict()
    assert report.consumed["validated"]["histories"] == 20
    stated = evaluate(configured, versions, report.bundle).report["protocol"]
    assert stated["trained_on"].endswith("events of 40 histories, as the split allows")


TIMED: dict[str, dict[str, Any]] = {
    "by time": {"validation": "time"},
    "last event": {"validation": "last-event", "validation_users": 0.8},
    "users": {"validation": "users", "validation_users": 0.5},
}


@pytest.mark.parametrize("keys", TIMED.values(), ids=TIMED)
def test_a_time_split_is_guarded_from_training_to_evaluation(
    shop: tuple[Path, TableVersions], keys: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One honest bundle is measured on all targets; what saw events after its cut is not measured on any."""
    folder, versions = shop
    configured = settings(folder, split={"strategy": "time", "test_fraction": 0.3, **keys})
    honest = fit(configured, versions).bundle
    for target in ("first", "last", "random", "successive"):
        asked = settings(folder, split={"strategy": "time", "test_fraction": 0.3, "target": target, **keys})
        stated = evaluate(asked, versions, honest).report["protocol"]
        assert stated["target"] == target
        assert stated["trained_on"].endswith("as the split allows")
    for leak, message in ((trains_on_everything, "the model was trained on"), (asks_test, "the best epoch was chosen")):
        report = fit_with(
            monkeypatch, settings(folder, split=configured.split, blend={"kind": "never"}), versions, leak
        )
        with pytest.raises(RecsysError, match=f"^Leak: {message}"):
            evaluate(configured, versions, report.bundle)
