"""A checkpoint is whole or not there, and a training that goes on from one ends as if nothing had happened."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from recsys.features.multiplexed import hash_values
from recsys.models.sequential.bert4rec import Bert4Rec
from recsys.models.sequential.item_tower import ItemFeatures
from recsys.models.sequential.loop import Training, train
from recsys.settings import ModelSettings, TrainSettings
from recsys.storage import files
from recsys.training import checkpoint
from recsys.training.checkpoint import Checkpoints, checkpoints_of, forget_old

ITEMS = 12
STATE = {
    "weights": {"a.b": torch.randn(3, 2), "scalar": torch.tensor(3.0), "bytes": torch.arange(5, dtype=torch.uint8)},
    "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "groups": [{"lr": 0.1 + 0.2, "betas": (0.9, 0.98)}]},
    "best": -math.inf,
    "nothing": None,
    "flag": True,
    "big": 2**127,
    "empty": {},
}


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, Mapping):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return bool(type(a) is type(b) and a == b)


def new(folder: Path, seconds: float = 0, share: float = 1e9) -> Checkpoints:
    """With these defaults there is a checkpoint after every step."""
    return Checkpoints(folder / "training", seconds=seconds, share=share)


def test_a_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    checkpoints = new(tmp_path)
    assert checkpoints.load() is None
    assert checkpoints.save(STATE)
    assert same(new(tmp_path).load(), STATE)
    checkpoints.remove()
    assert checkpoints.load() is None and not list(tmp_path.iterdir())


def test_tied_weights_and_views_are_tensors_like_others(tmp_path: Path) -> None:
    shared = torch.randn(4, 3)
    state = {"a": shared, "b": shared, "row": shared[2], "column": shared[:, 1], "empty": torch.empty(0)}
    new(tmp_path).save(state)
    assert same(new(tmp_path).load(), state)


def test_what_is_in_two_places_is_written_once(tmp_path: Path) -> None:
    table = np.random.default_rng(0).random((50, 40))
    new(tmp_path).save({"now": torch.from_numpy(table), "best": torch.from_numpy(table)})
    assert (tmp_path / "training" / "1.safetensors").stat().st_size < 1.5 * table.nbytes
    found = new(tmp_path).load()
    assert found is not None and all((found[name].numpy() == table).all() for name in ("now", "best"))


def test_two_are_kept_and_the_newest_counts(tmp_path: Path) -> None:
    for number in range(5):
        new(tmp_path).save({"number": number, "tensor": torch.tensor(number)})
    assert new(tmp_path).load() == {"number": 4, "tensor": torch.tensor(4)}
    assert sorted(path.name for path in (tmp_path / "training").iterdir()) == [
        "4.json", "4.safetensors", "5.json", "5.safetensors",
    ]  # fmt: skip


def damage_tensors(path: Path) -> None:
    content = bytearray(path.with_suffix(".safetensors").read_bytes())
    content[-1] ^= 1
    path.with_suffix(".safetensors").write_bytes(content)


def damage_state(path: Path) -> None:
    content = json.loads(path.read_text())
    content["state"]["dict"][0][1] = 99
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    "harm",
    [
        damage_tensors,
        damage_state,
        lambda path: path.write_text(path.read_text()[:20]),
        lambda path: path.write_text(""),
        lambda path: path.write_text("[]"),
        lambda path: path.with_suffix(".safetensors").unlink(),
        lambda path: path.with_suffix(".safetensors").write_bytes(b""),
    ],
    ids=["tensors", "state", "cut", "empty", "other JSON", "no tensors", "empty tensors"],
)
def test_a_damaged_one_is_passed_over(tmp_path: Path, harm: Callable[[Path], Any]) -> None:
    for number in (1, 2):
        new(tmp_path).save({"number": number, "tensor": torch.randn(4)})
    harm(tmp_path / "training" / "2.json")
    found = new(tmp_path).load()
    assert found is not None and found["number"] == 1
    harm(tmp_path / "training" / "1.json")
    assert new(tmp_path).load() is None
    new(tmp_path).save({"number": 3})
    assert new(tmp_path).load() == {"number": 3}


class Killed(BaseException):
    """As a kill: nothing may catch it."""


@pytest.mark.parametrize("act", range(9))
def test_a_kill_at_any_moment_of_writing_leaves_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, act: int
) -> None:
    new(tmp_path).save({"number": 1})
    new(tmp_path).save({"number": 2})
    acts = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            nonlocal acts
            acts += 1
            if acts > act:
                raise Killed
            return function(*arguments, **options)

        return wrapped

    with monkeypatch.context() as patch:
        patch.setattr(files, "synchronise", counted(files.synchronise))
        patch.setattr(checkpoint, "write_json", counted(checkpoint.write_json))
        patch.setattr(Path, "replace", counted(Path.replace))
        patch.setattr(Path, "unlink", counted(Path.unlink))
        with pytest.raises(Killed):
            new(tmp_path).save({"number": 3})
    found = new(tmp_path).load()
    assert found is not None and found["number"] == (3 if act >= 6 else 2)  # the second rename makes it
    new(tmp_path).save({"number": 4})
    assert new(tmp_path).load() == {"number": 4}
    assert len(list((tmp_path / "training").iterdir())) == 4  # and what the kill left is gone


def test_a_full_disk_does_not_end_the_training(tmp_path: Path) -> None:
    (tmp_path / "training").write_text("no folder")
    assert not new(tmp_path).save({"number": 1})


def test_writing_takes_its_share_of_the_time_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(checkpoint.time, "monotonic", lambda: now)

    def slow(*_: Any) -> None:
        nonlocal now
        now += 3

    monkeypatch.setattr(Checkpoints, "_write", slow)
    checkpoints = new(tmp_path, seconds=60, share=0.02)
    assert not checkpoints.due()
    now = 60
    assert checkpoints.due()
    checkpoints.save({})
    now += 149
    assert not checkpoints.due()
    now += 1
    assert checkpoints.due()  # 3 s of every 153


def test_what_nobody_took_up_again_goes_after_a_week(tmp_path: Path) -> None:
    for name, days in (("old", 8), ("young", 6)):
        (tmp_path / name).mkdir()
        os.utime(tmp_path / name, (time.time() - days * 86_400,) * 2)
    forget_old(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["young"]
    forget_old(tmp_path / "nowhere")


def test_a_folder_stands_for_what_decides_the_result(tmp_path: Path) -> None:
    def folder(kind: str, *parts: Any) -> Path:
        found = checkpoints_of(str(tmp_path), kind, parts, minutes=2)
        assert found is not None and found.seconds == 120
        return found.folder

    assert folder("training", "settings", {"items": 3}) == folder("training", "settings", {"items": 3})
    assert folder("training", "settings", {"items": 3}) != folder("training", "settings", {"items": 4})
    assert folder("training", "settings").parent == tmp_path / "runs" / "training"
    assert checkpoints_of(str(tmp_path), "training", ["settings"], minutes=0) is None


def histories() -> tuple[np.ndarray, np.ndarray]:
    """Forty walks along a ring."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 8, 40)
    items = np.concatenate([(rng.integers(ITEMS) + np.arange(n)) % ITEMS + 1 for n in lengths])
    return items.astype(np.int32), np.concatenate([[0], np.cumsum(lengths)])


def training(
    checkpoints: Checkpoints | None, resumed: list[tuple[int, int]] | None = None, epochs: int = 4
) -> tuple[Bert4Rec, Training]:
    """Four epochs of three steps, with everything on that has a state."""
    of = ItemFeatures(
        id_hashes=torch.from_numpy(hash_values(range(ITEMS + 1))),
        trained=torch.ones(ITEMS + 1, dtype=torch.bool),
        text=torch.eye(ITEMS + 1),
    )
    torch.manual_seed(0)
    model = Bert4Rec(of, ModelSettings(dimensions=16, blocks=1, max_length=8, dropout=0.2), table_rows=50)
    outcome = train(
        model,
        *histories(),
        TrainSettings(epochs=epochs, batch_size=16, evaluate_every=1, average_decay=0.9, precision="fp32"),
        seed=3,
        max_length=8,
        validate=lambda model: {"size": float(model.output_bias.detach().abs().sum())},  # changes and is not monotonic
        primary="size",
        checkpoints=checkpoints,
        on_resume=None if resumed is None else lambda *place: resumed.append(place),
    )
    return model, outcome


def without_time(history: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in entry.items() if k not in ("seconds", "tokens_per_second")} for entry in history]


@pytest.mark.parametrize("killed_after", range(1, 13))
def test_a_training_goes_on_as_if_it_had_never_stopped(tmp_path: Path, killed_after: int) -> None:
    class Fragile(Checkpoints):
        saves = 0

        def save(self, state: Mapping[str, Any]) -> bool:
            super().save(state)
            self.saves += 1
            if self.saves == killed_after:
                raise Killed
            return True

    model, outcome = training(None)
    with pytest.raises(Killed):
        training(Fragile(tmp_path / "training", seconds=0, share=1e9))
    resumed: list[tuple[int, int]] = []
    again, after = training(new(tmp_path), resumed)
    assert resumed == [((killed_after - 1) // 3 + 1, (killed_after - 1) % 3 + 1)]
    assert same(again.state_dict(), model.state_dict())
    assert (after.best_epoch, after.epochs) == (outcome.best_epoch, outcome.epochs)
    assert without_time(after.history) == without_time(outcome.history)


def test_epochs_before_the_kill_are_told_again(tmp_path: Path) -> None:
    _, whole = training(new(tmp_path))  # its checkpoints are left there, the newest before the last validation
    told: list[dict[str, float]] = []
    outcome = train(
        training(None, epochs=1)[0],
        *histories(),
        TrainSettings(epochs=4, batch_size=16, evaluate_every=1, average_decay=0.9, precision="fp32"),
        seed=3,
        max_length=8,
        validate=lambda model: {"size": float(model.output_bias.detach().abs().sum())},
        primary="size",
        checkpoints=new(tmp_path),
        on_epoch=told.append,
    )
    assert told == outcome.history
    assert without_time(told) == without_time(whole.history)


RUN = """
import hashlib, importlib.util, sys
from pathlib import Path
import torch
torch.set_num_threads(int(sys.argv[3]))
spec = importlib.util.spec_from_file_location("steps", sys.argv[1])
steps = importlib.util.module_from_spec(spec)
spec.loader.exec_module(steps)
class Told(steps.Checkpoints):
    def save(self, state):
        print("step", flush=True)  # before it is written: a kill may hit the writing
        return super().save(state)
model, _ = steps.training(Told(Path(sys.argv[2]), seconds=0, share=1e9), epochs=12)
digest = hashlib.sha256()
for name, tensor in model.state_dict().items():
    digest.update(name.encode() + tensor.numpy().tobytes())
print(digest.hexdigest(), flush=True)
"""


@pytest.mark.integration
@pytest.mark.parametrize("threads", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_process_ends_with_the_weights_of_one_that_was_not(tmp_path: Path, threads: int) -> None:
    """Twice by SIGKILL, after a random step, 36 steps in all."""

    def start(folder: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", RUN, __file__, str(tmp_path / folder), str(threads)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(process: subprocess.Popen[str]) -> list[str]:
        lines, _ = process.communicate()
        assert process.returncode == 0
        return lines.split()

    whole = start("whole")
    done = 0
    for _ in range(2):
        steps = random.SystemRandom().randrange(2, 16)
        with start("killed") as process:
            assert process.stdout is not None
            for _ in range(steps):
                assert process.stdout.readline() == "step\n"
            os.kill(process.pid, signal.SIGKILL)
        done += steps
    *steps_left, weights = finish(start("killed"))
    assert len(steps_left) <= 36 - done + 2  # it did go on: at most one step a kill was lost
    assert weights == finish(whole)[-1]
