"""Nights that a limit of time, a full disk or another night ends: one sentence, and the next one goes on."""

from __future__ import annotations

import contextlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from recsys import runs
from recsys.pipelines import cli
from recsys.releases.record import releases
from recsys.settings.read import load_settings
from tests.recsys.gate import shop

pytestmark = [pytest.mark.slow, pytest.mark.integration]
SOON = 0.0002  # (minutes)
COMMAND = [sys.executable, "-m", "recsys", "run", "--no-prefect", "--json", "--log-format", "text"]


@pytest.fixture(autouse=True)
def no_other_alarm() -> Iterator[None]:
    """The alarm of the test runner's own time-out is put aside."""
    outer = signal.setitimer(signal.ITIMER_REAL, 0.0)
    yield
    signal.setitimer(signal.ITIMER_REAL, *outer)


@pytest.fixture
def config(tmp_path: Path) -> str:
    tree = shop.tree(tmp_path) | {"gate": {"baselines": False}, "tracking": {"uri": f"sqlite:///{tmp_path}/mlflow.db"}}
    tree["export"] = {"path": str(tmp_path / "export")}
    shop.write_log(tmp_path, 10)
    path = tmp_path / "recsys.toml"
    path.write_text(tomlkit.dumps(tree))
    return str(path)


def run(config: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """A night in this process: exit code, answer and what it says."""
    answer, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.redirect_stderr(said):
        command = ["run", config, "--no-prefect", "--json", "--log-format", "text", *options]
        code = cli.execute(command)
    return code, json.loads(answer.getvalue()), said.getvalue()


def test_a_night_goes_on_after_each_step_that_overran(config: str) -> None:
    """Training of a million epochs, then the table, then the export, each with a limit of 12 ms."""
    settings = load_settings(config)
    for step, done in (("train", "represent"), ("retrieve", "refit"), ("export", "publish")):
        more = ["--set", "train.epochs=1000000"] if step == "train" else []
        code, answer, said = run(config, "--set", f"limits.timeout_minutes.{step}={SOON}", *more)
        assert code == 1 and "Traceback" not in said
        assert answer["error"].startswith(
            f"The step {step} was ended after {SOON:g} min, its limit; what is done stays "
        )
        with runs.locked(settings.warehouse) as folder:
            state = next(runs.states(folder))
        assert state.status == "failed" and list(state.steps)[-1] == done
        assert state.error == f"StepOverran: {answer['error']}"
    assert len(releases(settings)) == 1 and not (Path(config).parent / "export").exists()
    code, summary, said = run(config)
    assert code == 0 and summary["published"] and summary["resumed"] and len(releases(settings)) == 1
    assert "represent, train, evaluate, refit, retrieve, judge, publish" in said


@pytest.mark.parametrize("small_disk", [16], indirect=True)
def test_a_disk_that_fills_in_the_middle_of_training_loses_nothing(config: str, small_disk: Path) -> None:
    places = ["--set", f"warehouse={small_disk}/warehouse"]
    night = subprocess.Popen([*COMMAND, config, *places], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert night.stderr is not None
    said = ""
    while "train ...\n" not in said:
        said += night.stderr.readline()
    ballast = small_disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    answer, rest = night.communicate()
    error = json.loads(answer)["error"]
    assert night.returncode == 1 and "Traceback" not in said + rest, said + rest
    assert "No space left on device" in error and str(small_disk) in error and "\n" not in error
    settings = load_settings(config, places[1:])
    assert not releases(settings) and not list(Path(settings.warehouse).glob("bundles/*/manifest.json"))
    ballast.unlink()
    code, summary, told = run(config, *places)
    assert code == 0 and summary["published"] and "represent" in told
    assert not [path for path in small_disk.rglob("*") if path.name.endswith((".new", ".part", ".tmp"))]


def test_two_nights_at_once_are_one(config: str) -> None:
    both = [
        subprocess.Popen([*COMMAND, config], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)
        for folder in (Path(config).parent, "/")
    ]
    ended = sorted(((night.communicate(), night.returncode) for night in both), key=lambda one: one[1])
    (first, code), (second, other) = ended
    assert (code, other) == (0, 1) and json.loads(first[0])["published"], ended
    assert "is writing to the warehouse" in json.loads(second[0])["error"]
    assert len(releases(load_settings(config))) == 1
    assert [state.status for state in runs.states(runs.state_folder(load_settings(config).warehouse))] == ["finished"]
