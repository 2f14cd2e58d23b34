"""The served bundle knows every event, the measured one none that is held out, and nothing mixes them up."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from recsys import api
from recsys.bundles.bundle import read_bundle
from recsys.bundles.store import latest_bundle, measured_bundle, publish_bundle
from recsys.candidates.popularity import Popularity
from recsys.candidates.transitions import Transitions
from recsys.data.consumed import Consumed
from recsys.data.prepare import prepare
from recsys.data.sequences import Sequences
from recsys.errors import InputError, RecsysError
from recsys.evaluation.evaluate import check_same_data, evaluate
from recsys.ingestion.ingest import ingest
from recsys.models.base import Counted, Estimator, Fitted, Job, Parts
from recsys.models.history_mean import HistoryMean
from recsys.models.sequential.warm_start import earlier_bundle
from recsys.night import refit as refitting
from recsys.night.fit import fit
from recsys.night.refit import RefitReport, refit
from recsys.serving.recommender import open_bundle
from recsys.settings import Settings, kinds
from recsys.settings.kinds import register
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from recsys.text.represent import represent
from recsys.training import checkpoint
from recsys.training.origin import known_before
from tests.recsys.night.killed import Killed, fragile

RING, PAIRS, USERS = 20, 8, 240
BLEND = {"kind": "always", "text": False, "candidates": 10}
MODEL = {"dimensions": 16, "max_length": 8, "blocks": 1, "text": False}
RECFORMER = {"dimensions": 16, "heads": 2, "layers": 1, "vocabulary": 300, "second_stage_epochs": 1}
RECFORMER |= {"pooling": "items", "max_items": 4, "max_tokens": 30}
Shop = tuple[Path, TableVersions]


def settings(folder: Path, refit: str = "all", **sections: Any) -> Settings:
    train = {"epochs": 8, "batch_size": 16, "evaluate_every": 2, "learning_rate": 0.01, "next_item_share": 0}
    return parse_settings(
        {
            "name": "shop",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "model": MODEL,
            "evaluate": {"cutoffs": [10], "baselines": ["popularity"]},
            "blend": BLEND,
        }
        | sections
        | {"train": train | {"refit": refit} | sections.get("train", {})}
    )


def write_log(folder: Path) -> None:
    """Users walk a ring. In the events that are held out every second one comes to a door "p" and its room "q"."""
    rng = np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(USERS):
        start, steps, pair = rng.integers(RING), rng.integers(3, 6), rng.integers(PAIRS)
        walked = [f"i{(start + n) % RING}" for n in range(steps + 2)]
        if user % 2:
            walked[-2:] = [f"p{pair}", f"q{pair}"]
        lines += [f"{user},{item},{1_600_000_000 + 100 * n}" for n, item in enumerate(walked)]
    (folder / "log.csv").write_text("\n".join(lines) + "\n")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    folder = tmp_path_factory.mktemp("shop")
    write_log(folder)
    return folder, ingest(settings(folder)).versions


@pytest.fixture(scope="module")
def measured(shop: Shop) -> str:
    return fit(settings(shop[0]), shop[1]).bundle


@pytest.fixture(scope="module", params=["counts", "all"])
def refitted(request: pytest.FixtureRequest, shop: Shop, measured: str) -> RefitReport:
    return refit(settings(shop[0], request.param), shop[1], measured)


@pytest.fixture(scope="module")
def retrained(shop: Shop, measured: str) -> RefitReport:
    return refit(settings(shop[0]), shop[1], measured)


def rooms_found(bundle: str, *, blended: bool) -> float:
    """Share of the doors after which the room is among the first three, by the blend or by the model's vectors."""
    served = open_bundle(bundle)
    known = served.bundle.vocabulary
    found = []
    for pair in range(PAIRS):
        try:
            door, room = known.encode_text([f"p{pair}", f"q{pair}"])
            ring = known.encode_text([f"i{2 * pair}", f"i{2 * pair + 1}"])
        except InputError:  # the bundle has never seen either
            found.append(False)
            continue
        if blended:
            rows = served.recommend([f"i{2 * pair}", f"i{2 * pair + 1}", f"p{pair}"], 3)
            found.append(f"q{pair}" in [row["item_id"] for row in rows])
            continue
        history = Sequences.nameless(np.array([*ring, door], dtype=np.int32), np.array([0, 3]))
        scores = (served.encode(history) @ served.model.vectors.T)[0]
        scores[[0, *ring, door]] = -np.inf
        found.append(int(room) in np.argsort(-scores)[:3])
    return float(np.mean(found))


def test_what_only_held_out_events_tell_is_learnt_and_can_be_recommended(measured: str, retrained: RefitReport) -> None:
    assert retrained.kind == "all" and retrained.report["new_items"] == 2 * PAIRS
    for blended in (True, False):  # the counts, and the model's own weights
        assert rooms_found(measured, blended=blended) == 0
        assert rooms_found(retrained.bundle, blended=blended) >= 0.75
    assert open_bundle(retrained.bundle).bundle.allowed[1:].all()


def test_counts_are_of_all_events_and_the_ranker_is_the_one_that_validation_chose(
    shop: Shop, measured: str, refitted: RefitReport
) -> None:
    before, after = open_bundle(measured), open_bundle(refitted.bundle)
    assert before.blended is not None and after.blended is not None
    assert after.blended.names == before.blended.names
    for name, array in before.blended.ranker.to_tensors().items():
        assert np.array_equal(array, after.blended.ranker.to_tensors()[name])
    vocabulary = after.bundle.vocabulary
    events = [line.split(",") for line in (shop[0] / "log.csv").read_text().splitlines()[1:]]
    codes = vocabulary.encode(pl.Series([item for _, item, _ in events]))
    counted, narrower = after.blended.source(Popularity), before.blended.source(Popularity)
    assert counted is not None and narrower is not None
    expected = np.bincount(codes, minlength=vocabulary.size + 1).astype(np.float32)
    expected[0] = 0
    assert np.array_equal(counted.popular, expected)
    unknown = 0 if refitted.kind == "all" else USERS  # events of items that the measured bundle has no codes for
    assert counted.popular.sum() == len(events) - unknown > narrower.popular.sum()
    follows = after.blended.source(Transitions)
    old = before.blended.source(Transitions)
    assert follows is not None and old is not None
    assert _total(follows) > _total(old)


def _total(source: Transitions) -> float:
    return float(sum(abs(array).sum() for name, array in source.to_tensors().items() if name.endswith(".values")))


def test_lineage_keeps_both_and_equal_refits_are_equal(shop: Shop, measured: str, refitted: RefitReport) -> None:
    manifest = read_bundle(refitted.bundle).manifest
    assert manifest["lineage"]["refit"] == {"kind": refitted.kind, "measured": Path(measured).name}
    assert refitted.measured == measured and refitted.bundle != measured
    serving = prepare(settings(shop[0]), shop[1]).split.serving
    newest = manifest["lineage"]["trained_until"]
    assert serving.times is not None and newest == serving.times.max()
    assert read_bundle(measured).manifest["lineage"]["trained_until"] < newest
    own = read_bundle(measured).manifest["lineage"]["consumed"]
    for name in ("validated", "weighed"):
        assert refitted.consumed[name] == own[name]
    assert refitted.consumed["counted"] != own["counted"]
    assert (refitted.consumed["trained"] == own["trained"]) == (refitted.kind == "counts")
    again = refit(settings(shop[0], refitted.kind), shop[1], refitted.bundle)  # made of the same measured one
    assert again.bundle == refitted.bundle


def test_figures_are_those_of_the_measured_bundle(shop: Shop, measured: str, refitted: RefitReport) -> None:
    configured = settings(shop[0], refitted.kind)
    honest, passed = evaluate(configured, shop[1], measured), evaluate(configured, shop[1], refitted.bundle)
    assert passed.metrics == honest.metrics and passed.baselines == honest.baselines
    assert "measured" not in honest.report["protocol"]
    said = f"{Path(refitted.bundle).name} was fitted on all events; the figures are of {Path(measured).name}, which"
    assert passed.report["protocol"]["measured"].startswith(said)


def test_a_refitted_bundle_is_never_measured(shop: Shop, refitted: RefitReport, tmp_path: Path) -> None:
    """Neither by name, nor where nobody says any more that it was refitted."""
    configured = settings(shop[0], refitted.kind)
    dataset = prepare(configured, shop[1])
    with pytest.raises(RecsysError, match="fitted on all events"):
        check_same_data(read_bundle(refitted.bundle), dataset)
    copy = shutil.copytree(refitted.bundle, tmp_path / "copy")
    manifest = json.loads((copy / "manifest.json").read_text())
    del manifest["lineage"]["refit"]
    for data in (manifest["lineage"]["data"], dataset.digest):  # even where the digest is planted
        manifest["lineage"]["data"] = data
        (copy / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(RecsysError, match=r"Leak|trained on other data"):
            evaluate(configured, shop[1], copy)


def test_without_the_measured_bundle_there_are_no_figures(shop: Shop, refitted: RefitReport, tmp_path: Path) -> None:
    alone = shutil.copytree(refitted.bundle, tmp_path / Path(refitted.bundle).name)
    with pytest.raises(InputError, match=r"nothing can be measured with it.* is gone: train again"):
        evaluate(settings(shop[0]), shop[1], alone)
    with pytest.raises(InputError, match="is gone"):
        refit(settings(shop[0]), shop[1], alone)
    assert open_bundle(alone).recommend(["i1", "i2"], 3)  # it serves


def test_a_warm_start_begins_with_the_measured_bundle(shop: Shop, measured: str, refitted: RefitReport) -> None:
    configured = settings(shop[0], refitted.kind, train={"warm_start": "previous"})
    publish_bundle(configured.warehouse, refitted.bundle)
    assert measured_bundle(latest_bundle(configured.warehouse, "shop")) == Path(measured)
    begins = earlier_bundle(configured).bundle
    assert begins is not None and begins.path == Path(measured)
    named = settings(shop[0], train={"warm_start": refitted.bundle})
    assert (origin := earlier_bundle(named).bundle) is not None and origin.path == Path(measured)
    assert known_before(begins, configured, prepare(configured, shop[1]).split) is None


def test_a_warm_night_is_refitted_from_its_own_bundle(shop: Shop, measured: str) -> None:
    publish_bundle(str(shop[0] / "warehouse"), measured)
    configured = settings(shop[0], train={"warm_start": "previous", "warm_epochs": 2})
    warm = fit(configured, shop[1])
    assert warm.epochs == 2
    served = refit(configured, shop[1], warm.bundle)
    assert served.epochs == 1  # a sixth of two, rounded up
    assert read_bundle(served.bundle).manifest["lineage"]["warm_start"] == warm.bundle_id


def test_weights_that_no_event_has_taught_stay_as_they_are(shop: Shop, measured: str) -> None:
    """Zero-shot: trained again from nothing they would be lost."""
    configured = settings(shop[0], train={"epochs": 0, "warm_start": measured})
    zero = fit(configured, shop[1])
    report = refit(configured, shop[1], zero.bundle)
    assert zero.consumed["trained"] is None and report.kind == "counts"
    assert report.reason.startswith("The model has learnt from no event. The served bundle counts all")
    before, after = read_bundle(zero.bundle), read_bundle(report.bundle)
    assert np.array_equal(before.vectors, after.vectors)
    assert all(torch.equal(weight, after.weights()[name]) for name, weight in before.weights().items())


def test_a_refit_that_was_killed_ends_as_one_that_was_not(
    shop: Shop, measured: str, retrained: RefitReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = shop[0] / "warehouse" / "runs" / "training"

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "Checkpoints", fragile(20))
        with pytest.raises(Killed):
            refit(settings(shop[0]), shop[1], measured)
    assert len(list(folder.iterdir())) == 1
    assert fit(settings(shop[0]), shop[1]).resumed is None  # the measured training is another one
    said: list[str] = []
    again = refit(settings(shop[0]), shop[1], measured, say=said.append)
    assert again.resumed == {"epoch": 2, "step": 5}  # fifteen steps an epoch
    assert said[-2] == "Training on all events resumed at epoch 2, step 5."
    assert again.bundle_id == retrained.bundle_id
    assert not list(folder.iterdir())


def test_training_again_begins_with_the_measured_weights_and_asks_nobody(
    shop: Shop, measured: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs: list[Job] = []
    estimator = refitting.estimator_for(settings(shop[0]))
    real = type(estimator).fit
    monkeypatch.setattr(type(estimator), "fit", lambda self, job: jobs.append(job) or real(self, job))
    entries: list[dict[str, float]] = []
    report = refit(settings(shop[0]), shop[1], measured, entries.append)
    best = read_bundle(measured).manifest["lineage"]["best_epoch"]
    assert jobs[0].epochs == report.epochs == len(entries) == -(-best // 6) < best
    assert jobs[0].start is not None and jobs[0].start.path == Path(measured)
    assert not any(name.startswith("val/") for entry in entries for name in entry)
    assert not len(jobs[0].dataset.split.validation) and not len(jobs[0].dataset.split.test)


def test_with_none_what_was_measured_is_served(shop: Shop, measured: str) -> None:
    report = refit(settings(shop[0], "none"), shop[1], measured)
    assert (report.bundle, report.kind, report.measured) == (measured, "none", measured)


def test_counts_of_a_bundle_without_a_blend_change_nothing(tmp_path: Path) -> None:
    write_log(tmp_path)
    configured = settings(tmp_path, "counts", blend={"kind": "never"}, train={"epochs": 1})
    versions = ingest(configured).versions
    bundle, said = fit(configured, versions).bundle, list[str]()
    report = refit(configured, versions, bundle, say=said.append)
    assert (report.bundle, report.kind) == (bundle, "none")
    assert said == ["What was measured is served: it has no blend whose counts could be of all events."]


def test_other_settings_than_those_measured_are_refused(shop: Shop, measured: str) -> None:
    for changed in ({"model": MODEL | {"dropout": 0.3}}, {"train": {"learning_rate": 0.02}}):
        with pytest.raises(InputError, match="which nobody has measured"):
            refit(settings(shop[0], **changed), shop[1], measured)
    refit(settings(shop[0], "counts", train={"learning_rate": 0.02}), shop[1], measured)  # nothing is trained


def test_a_bundle_that_does_not_say_its_best_epoch_is_not_trained_again(
    shop: Shop, measured: str, tmp_path: Path
) -> None:
    old = shutil.copytree(measured, tmp_path / Path(measured).name)
    manifest = json.loads((old / "manifest.json").read_text())
    del manifest["lineage"]["best_epoch"]
    (old / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=r'set train\.refit = "counts"'):
        refit(settings(shop[0]), shop[1], old)
    assert refit(settings(shop[0], "counts"), shop[1], old).kind == "counts"


class Averaged(Estimator):
    """A kind of an earlier time: it knows of no fixed epochs, and says that it trained for some."""

    kind = "averaged"
    recommender = HistoryMean

    def fit(self, job: Job) -> Fitted:
        train = job.dataset.split.train
        vectors = np.random.default_rng(0).standard_normal((job.dataset.vocabulary.size + 1, 8)).astype(np.float32)
        vectors[0] = 0
        trained = Consumed.of(train.items, train.offsets)
        outcome = Counted(trained=trained, epochs=self.settings.train.epochs, best_epoch=self.settings.train.epochs)
        return Fitted(parts=Parts(vectors=vectors, allowed=vectors.any(axis=1)), outcome=outcome)


@pytest.fixture
def averaged() -> Iterator[None]:
    register("averaged", f"{__name__}:Averaged")
    yield
    kinds.KINDS.pop("averaged", None)


@pytest.mark.parametrize("epochs", [0, 3])
def test_every_kind_is_refitted_as_far_as_it_can(tmp_path: Path, averaged: None, epochs: int) -> None:
    """One without epochs learns from all events; one whose epochs cannot be fixed keeps its model and counts anew."""
    write_log(tmp_path)
    configured = settings(tmp_path, model={"kind": "averaged"}, train={"epochs": epochs})
    versions = ingest(configured).versions
    report = refit(configured, versions, fit(configured, versions).bundle)
    assert report.kind == ("counts" if epochs else "all")
    if epochs:
        assert report.reason.startswith('model.kind = "averaged" cannot be trained for a number of epochs')
        return
    serving = prepare(configured, versions).split.serving
    assert report.consumed["trained"]["events"] == len(serving.items) + USERS  # and of items that had no code


@pytest.mark.parametrize("kind", ["recformer", "text"])
def test_kinds_that_read_text_know_all_events(tmp_path: Path, kind: str) -> None:
    write_log(tmp_path)
    items = [f"i{n}" for n in range(RING)] + [f"{side}{n}" for side in "pq" for n in range(PAIRS)]
    titles = [{"item_id": item, "title": f"thing {item}"} for item in items]
    (tmp_path / "items.jsonl").write_text("\n".join(map(json.dumps, titles)))
    read = {"items": {"source": "items.jsonl", "text": ["title"]}, "model": {"kind": kind}, "recformer": RECFORMER}
    configured = settings(tmp_path, train={"epochs": 1}, **read)
    versions = ingest(configured).versions
    represent(configured, versions)
    bundle = fit(configured, versions).bundle
    report = refit(configured, versions, bundle)
    events = len((tmp_path / "log.csv").read_text().splitlines()) - 1
    assert report.consumed["counted"]["events"] == events
    assert report.kind == ("all" if kind == "recformer" else "counts")  # nothing was learnt that could be learnt again
    if kind == "recformer":
        assert report.consumed["trained"]["events"] == events
        assert report.epochs == sum(read_bundle(bundle).manifest["lineage"]["stages"])
    assert evaluate(configured, versions, report.bundle).metrics == evaluate(configured, versions, bundle).metrics


def test_fit_of_the_library_gives_what_is_served(tmp_path: Path) -> None:
    write_log(tmp_path)
    configured = settings(tmp_path, train={"epochs": 1})
    model = api.fit(configured)
    lineage = read_bundle(model.path).manifest["lineage"]
    assert lineage["refit"]["kind"] == "all"
    assert latest_bundle(configured.warehouse, "shop") == model.path
    said = api.evaluate(configured, model).report["protocol"]["measured"]
    assert lineage["refit"]["measured"] in said
