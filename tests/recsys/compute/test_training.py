"""Training in several processes of a cluster: the night's model, whatever becomes of a machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.bundles.bundle import read_bundle
from recsys.errors import InputError
from recsys.ingestion.ingest import ingest
from recsys.night import together
from recsys.night.fit import FitReport, fit
from recsys.night.refit import refit
from recsys.night.together import check_together
from recsys.pipelines.sound import check_step, check_whole
from recsys.settings import Settings
from recsys.settings.read import parse_settings
from recsys.storage.warehouse import TableVersions
from tests.recsys.compute.clusters import Machines
from tests.recsys.compute.ring import Ring

TOGETHER = 2


def on(machines: Machines, ring: Ring, **train: Any) -> Settings:
    settings = ring.with_compute(engine="ray", address=machines.address, training_processes=TOGETHER)
    return settings.model_copy(update={"train": settings.train.model_copy(update=train)})


@pytest.mark.slow
def test_a_cluster_trains_what_this_process_trains(ring: Ring, machines: Machines) -> None:
    prepared = {path.name for path in Path(ring.settings.warehouse).rglob("dataset-*")}
    settings, told = on(machines, ring, refit="all", checkpoint_minutes=0, precision="fp32"), []
    alone = settings.model_copy(update={"compute": ring.settings.compute})
    report = fit(settings, ring.versions, told.append)
    assert prepared and prepared == {path.name for path in Path(ring.settings.warehouse).rglob("dataset-*")}
    here, there = read_bundle(fit(alone, ring.versions).bundle), read_bundle(report.bundle)
    np.testing.assert_allclose(there.vectors, here.vectors, rtol=1e-3, atol=1e-4)
    assert here.manifest["lineage"]["chosen"] == there.manifest["lineage"]["chosen"]
    assert [entry["epoch"] for entry in told] == [entry["epoch"] for entry in report.history] == [1]
    assert report.resumed is None and not list((Path(ring.settings.warehouse) / "runs" / "training").iterdir())
    served = [refit(of, ring.versions, report.bundle) for of in (settings, alone)]
    assert [one.kind for one in served] == ["all", "all"]
    vectors = [read_bundle(one.bundle).vectors for one in served]
    np.testing.assert_allclose(*vectors, rtol=1e-3, atol=1e-4)


def sided_shop(folder: Path) -> tuple[Settings, TableVersions]:
    """Attributes of items and of users, of one value, of several and numeric; and every context of an event."""
    rng, items, users = np.random.default_rng(0), 40, 90
    lines = ["user_id,item_id,timestamp,event,weight"]
    for user in range(users):
        start, time = rng.integers(items), 1_600_000_000
        for n in range(rng.integers(4, 9)):
            time += int(rng.integers(1, 200_000))
            lines.append(f"{user},{(start + n) % items},{time},{['view', 'buy'][n % 2]},{1 + n % 5}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    rows = [f"{n},{'abc'[n % 3]},{'x|y' if n % 2 else 'y'},{n * 1.5}" for n in range(items)]
    (folder / "items.csv").write_text("\n".join(["item_id,brand,tags,price", *rows]) + "\n")
    rows = [f"{user},{'mf'[user % 2]},{18 + user % 50}" for user in range(users)]
    (folder / "users.csv").write_text("\n".join(["user_id,gender,age", *rows]) + "\n")
    tags = {"separator": "|"}
    settings = parse_settings(
        {
            "name": "sided",
            "data_root": str(folder),
            "warehouse": str(folder / "warehouse"),
            "interactions": {"source": "log.csv"},
            "items": {"source": "items.csv", "categorical": {"brand": {}, "tags": tags}, "numeric": {"price": {}}},
            "users": {"source": "users.csv", "categorical": {"gender": {}}, "numeric": {"age": {}}},
            "model": {
                "dimensions": 16,
                "max_length": 8,
                "blocks": 1,
                "context": ["event", "hour", "weekday", "gap", "weight"],
            },
            "train": {"epochs": 2, "batch_size": 16, "precision": "fp32", "refit": "none"},
            "blend": {"kind": "never"},
        }
    )
    return settings, ingest(settings).versions


@pytest.mark.slow
def test_attributes_and_context_are_trained_as_by_one_process_and_repeat_every_bit(
    tmp_path: Path, machines: Machines
) -> None:
    alone, versions = sided_shop(tmp_path)
    compute = {"engine": "ray", "address": machines.address, "training_processes": TOGETHER}
    settings = alone.model_copy(update={"compute": alone.compute.model_validate(compute)})
    told: list[Any] = []
    first, again = (fit(settings, versions, told.append).bundle for _ in range(2))
    assert len(told) == 4 and first == again  # trained twice; a bundle is named by what is in it
    there, here = read_bundle(first).weights(), read_bundle(fit(alone, versions).bundle).weights()
    sided = [name for name in here if ".side." in name]
    assert {"encoder.side.users.project.weight", "encoder.side.context.project.weight"} <= set(sided)
    assert set(there) == set(here)
    for name in here:
        torch.testing.assert_close(there[name], here[name], rtol=2e-3, atol=1e-4, msg=name)
    untrained = alone.model_copy(update={"train": alone.train.model_copy(update={"epochs": 0})})
    begun = read_bundle(fit(untrained, versions).bundle).weights()
    assert all((here[name] - begun[name]).abs().max() > 1e-3 for name in sided)  # they have learnt


@pytest.mark.slow
def test_a_lost_machine_changes_no_bit(ring: Ring, machines: Machines) -> None:
    settings = on(machines, ring, epochs=8, batch_size=4, checkpoint_minutes=1e-3)
    expected = fit(settings, ring.versions)
    told: list[float] = []
    said: list[str] = []

    def killing(entry: dict[str, float]) -> None:
        told.append(entry["epoch"])
        if len(told) == 1:
            machines.kill_a_member()

    report: FitReport = fit(settings, ring.versions, killing, said.append)
    assert any("was lost; all begin again from the last checkpoint" in sentence for sentence in said)
    assert report.bundle_id == expected.bundle_id
    assert told == [entry["epoch"] for entry in report.history] and machines.count == 2
    clocks = ("seconds", "tokens_per_second")
    first, second = ([{k: v for k, v in e.items() if k not in clocks} for e in r.history] for r in (expected, report))
    assert first == second


@pytest.mark.slow
def test_an_error_of_the_training_is_not_tried_again(ring: Ring, machines: Machines) -> None:
    said: list[str] = []
    with pytest.raises(FloatingPointError, match=r"the loss stopped being a number in epoch"):
        fit(on(machines, ring, epochs=3, learning_rate=1e30, clip_norm=1e30), ring.versions, say=said.append)
    assert not any("lost" in sentence for sentence in said)


@pytest.mark.slow
def test_more_processes_than_the_cluster_has_room_for(ring: Ring, machines: Machines) -> None:
    settings = ring.with_compute(engine="ray", address=machines.address, training_processes=4)
    with pytest.raises(InputError, match=r"training_processes = 4 .* more than the Ray cluster has room for, which is"):
        check_together(settings)


@pytest.mark.parametrize("kind", ["night", "train", "refit", "backtest"])
def test_a_mistake_of_the_settings_is_told_before_the_cluster_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    def asked(*_: Any) -> None:
        pytest.fail("the cluster was asked")

    monkeypatch.setattr(together, "check_compute", asked)
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\n1,2,3\n")
    tree = {"name": "shop", "warehouse": str(tmp_path / "w"), "interactions": {"source": str(log)}}
    compute = {"engine": "ray", "address": "nobody:1", "training_processes": 2}
    settings = parse_settings({**tree, "compute": compute, "train": {"batch_size": 1}})
    with pytest.raises(InputError, match=r"would divide a batch"):
        check_whole(settings) if kind == "night" else check_step(kind, settings)
    with pytest.raises(InputError, match=r"would divide a batch"):
        check_together(settings)
    assert not (tmp_path / "w").exists()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"compute": {"training_processes": 2}}, r'training_processes = 2 needs engine = "ray"'),
        ({"model": {"kind": "text"}, "items": {"source": "i.csv", "text": ["title"]}}, r'"text" trains in one process'),
        ({"train": {"batch_size": 1}}, r"would divide a batch of train\.batch_size = 1 histories"),
        ({"warehouse": "s3://bucket/shop"}, r"needs a warehouse on a file system .* s3://bucket/shop is an object"),
    ],
)
def test_what_cannot_be_divided_is_said_before(tmp_path: Path, changes: dict[str, Any], sentence: str) -> None:
    plain = {"name": "shop", "warehouse": str(tmp_path), "interactions": {"source": "log.csv"}}
    compute = {"engine": "ray", "training_processes": 2}
    with pytest.raises(InputError, match=sentence):
        check_together(parse_settings({**plain, "compute": compute, **changes}))
